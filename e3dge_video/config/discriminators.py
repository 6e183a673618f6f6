"""Sizes of the discriminator that a generator was trained against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from e3dge_video.errors import ConfigError


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What judges pictures; only adversarial training needs it.

    Attributes:
        kind: "dual": final and volume-rendered picture together, EG3D's; "image": the final picture alone, StyleSDF's.
        channels: Feature channels at 4, 8, 16, … px; their number sets the resolution.
        camera_dim: Numbers of the camera label that a dual one is told; 0: none.
        mapping_layers: Of the camera's embedding.
        group: Pictures whose spread it sees together.
        clamp: Limit of its activations; None: none.
    """

    kind: Literal["dual", "image"]
    channels: tuple[int, ...]
    camera_dim: int = 0
    mapping_layers: int = 8
    group: int = 4
    clamp: float | None = None

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or min(self.channels) < 1 or self.group < 1 or self.mapping_layers < 1:
            raise ConfigError(f"discriminator of {list(self.channels)} channels, groups of {self.group}: cannot be")

    @property
    def resolution(self) -> int:
        """Side of the pictures it judges, pixels."""
        return 2 << len(self.channels)

    def describe(self) -> str:
        """In a few words."""
        seen = "judges final and volume-rendered picture" if self.kind == "dual" else "judges the final picture"
        camera = ", given the camera" if self.camera_dim else ""
        return f"{seen} at {self.resolution} px{camera}; only adversarial training uses it"
