"""Single-image inversion as the paper has it, with either generator: global codes, local detail aligned both ways.

E3DGE, section 4 and Fig. 3. Pictures are whole: there is no matte, and what a model shows is its generator's picture.
Letters: B batch, R pixels of the volume rendering, S of the generator's picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.views import Orbit
from e3dge_video.inversion.branch_views import DETAIL_SIZE, Viewing
from e3dge_video.inversion.detail import (
    LocalDetail,
    SourceDetail,
    View,
    detail_toward,
    edited_source,
    encode_source,
    moved_codes,
)
from e3dge_video.inversion.maps import enlarged_surface
from e3dge_video.inversion.portrait import DirectedModel, Observation, Picture, Reconstruction
from e3dge_video.inversion.toon import ToonGenerator
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.pose_encoder import ViewpointEncoder
from e3dge_video.models.encoders.psp import INPUT_SIZE, HybridPSP, PSPEncoder
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.models.generators.stylesdf.generator import StyleSDF


class Observer(Protocol):
    """E0 and what tells the camera; a torch module besides."""

    def __call__(self, image: Tensor, generator: Generator) -> Observation:
        """Codes and cameras of pictures [B, 3, H, H], in terms of a generator."""


class ReleasedObserver(nn.Module):
    """As E3DGE was released for StyleSDF: its volume discriminator tells the camera.

    Args:
        encoder: E0.
        viewpoints: The discriminator.
    """

    def __init__(self, encoder: HybridPSP, viewpoints: ViewpointDiscriminator) -> None:
        super().__init__()
        self.encoder, self.viewpoints = encoder, viewpoints

    def forward(self, image: Tensor, generator: Generator) -> Observation:
        assert isinstance(generator, StyleSDF)
        _, viewpoint = self.viewpoints(F.adaptive_avg_pool2d(image, self.viewpoints.resolution))
        offsets = generator.pack(*self.encoder(F.adaptive_avg_pool2d(image, INPUT_SIZE)))
        return Observation(generator.mean_latents + offsets, generator.camera_at(viewpoint))


class TaughtObserver(nn.Module):
    """E0 and E_ξ that were taught by the generator itself (§4.1, §4.4)."""

    def __init__(self, encoder: PSPEncoder, pose_encoder: ViewpointEncoder) -> None:
        super().__init__()
        self.encoder, self.pose_encoder = encoder, pose_encoder

    def forward(self, image: Tensor, generator: Generator) -> Observation:
        seen = self.encoder(image)
        return Observation(seen.latents, generator.camera_at(self.pose_encoder.pose(seen.features)))


@dataclass(frozen=True)
class PaperInversion:
    """An inverted batch of pictures, with its own codes or others.

    Attributes:
        latents: W+ codes. [B, L, W]
        camera: Camera of each picture.
        planes: Heads of the codes; computed once, rendered from as many views as wanted.
        coarse: The global reconstruction at that camera, Î0.
        residual: Δ = I − Î0 of the codes that the encoder gave. [B, 3, 256, 256]
        detail: What E1 makes of Δ, for edited codes of Δ realigned to them; None without a local branch.
        cartoon: Whether the toon generator draws these heads.
    """

    latents: Tensor
    camera: Camera
    planes: Planes
    coarse: RenderOutput
    residual: Tensor
    detail: SourceDetail | None
    cartoon: bool = False


class PaperInverter(DirectedModel):
    """Picture → codes, camera and residual → picture from any view, edited or not.

    Args:
        generator: G.
        observer: E0 and what tells the camera.
        viewing: How the local branch sees a reconstruction of this generator.
        orbit: The sphere that the generator's cameras stand on.
        local: E1, E_ADA, fusion and FiLM head; None: the global reconstruction is all.
        directions: One direction per attribute. [L, W] each
        toon: What draws cartoons of a code; None: nothing does.
    """

    def __init__(
        self,
        generator: Generator,
        observer: ReleasedObserver | TaughtObserver,
        viewing: Viewing,
        orbit: Orbit,
        local: LocalBranch | None = None,
        *,
        directions: Mapping[str, Tensor] | None = None,
        toon: ToonGenerator | None = None,
    ) -> None:
        super().__init__(directions or {})
        self.generator, self.observer, self.local, self.toon = generator, observer, local, toon
        self.view, self.orbit = viewing, orbit

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.mean_latents.device

    def observe(self, image: Tensor, landmarks: Tensor | None = None) -> Observation:
        """Run the encoders.

        Args:
            image: Aligned pictures in [-1, 1]. [B, 3, H, H]
            landmarks: Play no part.
        """
        observed: Observation = self.observer(image, self.generator)  # w = E0(I), ξ = E_ξ(I)
        return observed

    def invert(
        self,
        image: Tensor,
        camera: Camera | None = None,
        *,
        latents: Tensor | None = None,
        landmarks: Tensor | None = None,
    ) -> PaperInversion:
        """Reconstruct pictures globally and keep what is missing.

        Args:
            image: Aligned pictures in [-1, 1]. [B, 3, H, H]
            camera: Their cameras, if they are known.
            latents: Their codes, if they are known. [B, L, W]
            landmarks: Play no part.
        """
        if camera is None or latents is None:
            observed = self.observe(image)
            camera, latents = camera or observed.camera, observed.latents if latents is None else latents
        planes = self.generator.planes(latents)
        coarse = self.generator.render(planes, camera)  # Î0 = G0(w, ξ)
        view = self.view(coarse, camera)
        residual = self.residual(image, self.foreground(image), coarse, view)
        detail = None if self.local is None else encode_source(self.local, residual, view)  # F_L = E1(Δ)
        return PaperInversion(latents, camera, planes, coarse, residual, detail)

    def edit(self, inversion: PaperInversion, latents: Tensor) -> PaperInversion:
        """The same pictures with other codes: E_ADA moves the residual along with what the codes change.

        Args:
            latents: Edited W+ codes. [B, L, W]
        """
        planes = self.generator.planes(latents)
        coarse = self.generator.render(planes, inversion.camera)
        detail = None
        if self.local is not None and inversion.detail is not None:
            moved, view = moved_codes(inversion.latents, latents), self.view(coarse, inversion.camera)
            detail = edited_source(self.local, inversion.residual, inversion.detail.view, view, moved)
        return replace(inversion, latents=latents, planes=planes, coarse=coarse, detail=detail)

    def toonify(self, inversion: PaperInversion, latents: Tensor) -> PaperInversion:
        """Draw codes as a cartoon (§7.5): global ones alone, by the generator that was fine-tuned on cartoons."""
        assert self.toon is not None, "load_paper_inverter(…, toon=degree) loads what draws cartoons"
        planes = self.toon.generator.planes(latents)
        coarse = self.toon.generator.render(planes, inversion.camera)
        return replace(inversion, latents=latents, planes=planes, coarse=coarse, detail=None, cartoon=True)

    def detail(self, inversion: PaperInversion, target: RenderOutput, camera: Camera) -> LocalDetail | None:
        """Local detail for a view; None of a model without a local branch.

        Args:
            target: The global reconstruction from there.
            camera: Of the view.
        """
        if self.local is None or inversion.detail is None:
            return None
        return detail_toward(self.local, inversion.residual, inversion.detail, self.view(target, camera))

    def render(self, inversion: PaperInversion, camera: Camera) -> RenderOutput:
        """Volume rendering of the inverted heads with local detail; its geometry is that of the codes alone."""
        generator = self._drawn_by(inversion)
        target = inversion.coarse if camera is inversion.camera else generator.render(inversion.planes, camera)
        detail = self.detail(inversion, target, camera)
        return target if detail is None else generator.render(inversion.planes, camera, modulation=detail)

    def synthesize(self, inversion: PaperInversion, camera: Camera, edited: PaperInversion | None = None) -> Picture:
        """Pictures of the inverted heads from any camera.

        Args:
            inversion: The heads.
            camera: Where to look from; `inversion.camera` itself costs one rendering less.
            edited: The heads with moved codes, to be shown instead.
        """
        head = edited or inversion
        rendered = self.render(head, camera)
        image = self._drawn_by(head).upsample(rendered, head.latents)
        return Picture(image, *enlarged_surface(rendered, image.shape[-1]))

    def reconstruction(self, inversion: PaperInversion) -> Reconstruction:
        """What the global codes alone show."""
        image = self._drawn_by(inversion).upsample(inversion.coarse, inversion.latents)
        return Reconstruction(image, torch.ones_like(image[:, :1]), None)

    def foreground(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """What counts of pictures [B, 3, H, H]: all of them. [B, 1, 1, 1]"""
        return image.new_ones(len(image), 1, 1, 1)

    def residual(self, image: Tensor, foreground: Tensor, rendered: RenderOutput, view: View) -> Tensor:
        """Δ = I − Î0. [B, 3, 256, 256]

        It carries no gradient into the codes: E1 is trained on what E0 leaves.

        Args:
            image: Pictures in [-1, 1]. [B, 3, H, H]
            foreground: What counts of them, 0..1.
            rendered: Their global reconstruction.
            view: The same, as `view` gives it.
        """
        return (foreground * (F.adaptive_avg_pool2d(image, DETAIL_SIZE) - view.picture)).detach()

    def _drawn_by(self, inversion: PaperInversion) -> Generator:
        if not inversion.cartoon:
            return self.generator
        assert self.toon is not None
        return self.toon.generator
