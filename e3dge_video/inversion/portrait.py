"""What a model that turns pictures into portraits is to the video pipeline, and the values it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.views import Orbit


@dataclass(frozen=True)
class Observation:
    """What the encoders alone say of a batch of face crops.

    Attributes:
        latents: W+ codes, E0(I). [B, L, W]
        camera: Cameras, E_ξ(I).
    """

    latents: Tensor
    camera: Camera


@dataclass(frozen=True)
class Picture:
    """A rendered batch.

    Attributes:
        image: RGB in [-1, 1]. [B, 3, S, S]
        depth: Distance along the ray, world units; meaningful where alpha is large. [B, 1, S, S]
        alpha: Opacity of the head. [B, 1, S, S]
    """

    image: Tensor
    depth: Tensor
    alpha: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What the global codes alone show of pictures.

    Attributes:
        image: RGB in [-1, 1]. [B, 3, S, S]
        weight: Where it is to be compared with the picture, 0..1. [B, 1, S, S]
        lifted: Share of the picture's own detail that was lifted onto the head, 0..1; None: nothing is lifted.
            [B, 1, S, S]
    """

    image: Tensor
    weight: Tensor
    lifted: Tensor | None


class DirectedModel(nn.Module):
    """A model that knows editing directions.

    Args:
        directions: One direction per attribute. [L, W] each
    """

    def __init__(self, directions: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._edits = tuple(directions)
        for edit, direction in directions.items():
            self.register_buffer(f"direction_{edit}", direction)

    @property
    def directions(self) -> dict[str, Tensor]:
        """One direction per attribute. [L, W] each"""
        return {edit: self.get_buffer(f"direction_{edit}") for edit in self._edits}


Inverted = TypeVar("Inverted")
Edited = TypeVar("Edited")


class PortraitModel(Protocol[Inverted, Edited]):
    """An inverter as the video pipeline uses it. Results of a batch do not depend on what else is in it."""

    @property
    def device(self) -> torch.device:
        """Where its networks are."""

    @property
    def directions(self) -> Mapping[str, Tensor]:
        """One direction per attribute. [L, W] each"""

    @property
    def orbit(self) -> Orbit:
        """The sphere that its cameras stand on."""

    def observe(self, image: Tensor, landmarks: Tensor) -> Observation:
        """Codes and cameras of face crops [B, 3, S, S] with 68 points in crop coordinates 0..1 [B, 68, 2]."""

    def invert(self, image: Tensor, camera: Camera, *, landmarks: Tensor, latents: Tensor) -> Inverted:
        """Reconstruct crops from settled codes and cameras, and keep what is missing."""

    def edit(self, inversion: Inverted, latents: Tensor) -> Edited:
        """The same pictures with other codes."""

    def toonify(self, inversion: Inverted, latents: Tensor) -> Edited:
        """The same codes, or moved ones, drawn as a cartoon."""

    def synthesize(self, inversion: Inverted, camera: Camera, edited: Edited | None = None) -> Picture:
        """Pictures from any camera; `inversion.camera` itself costs less than one that is equal."""

    def reconstruction(self, inversion: Inverted) -> Reconstruction:
        """What the global codes alone show."""
