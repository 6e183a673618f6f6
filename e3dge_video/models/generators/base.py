"""What a 3D generator is to the rest of the library, and the values it passes around.

Letters: B batch, P heads, R pixels of the volume-rendered image, C features, L rows and W width of W+.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from e3dge_video.config.generators import NoiseMode
from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.rendering.sampling import RayDraws
from e3dge_video.models.rendering.volume import PointSamples

__all__ = ["FeatureModulation", "Generator", "Planes", "PointModulation", "PointSamples", "RenderOutput", "Shading"]


@dataclass(frozen=True)
class FeatureModulation:
    """FiLM of a generator's features f_G at points: local detail for colours, none for geometry (E3DGE, Eq. 9).

    Attributes:
        scale: γ. [B, M, C]
        shift: β. [B, M, C]
    """

    scale: Tensor
    shift: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(1 + γ) · f_G + β. [B, M, C]"""
        return (1 + self.scale) * features + self.shift


class PointModulation(Protocol):
    """What local detail makes of the features at a point; a function of the point, so that blocks may be any size."""

    def __call__(self, points: Tensor) -> FeatureModulation:
        """World points of every view's rays [B, M, 3] → their modulation."""


@dataclass(frozen=True)
class Planes:
    """P heads, computed once; they can be kept and rendered from any number of views by the generator they are of.

    Attributes:
        values: EG3D: three feature planes of each head [P, 3, C, H, W]. StyleSDF, whose field is a network: one code
            for each of its layers [P, F, W].
    """

    values: Tensor

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Planes:
        return Planes(self.values[index])

    def detach(self) -> Planes:
        """The same planes, cut from the gradient."""
        return Planes(self.values.detach())


@dataclass(frozen=True)
class RenderOutput:
    """A volume rendering.

    Attributes:
        rgb: Image before super-resolution, nominally in [-1, 1], not clamped. [B, 3, R, R]
        features: Input of the super-resolution; of EG3D the first three are the image. [B, C, R, R]
        depth: Distance along the ray, world units. [B, 1, R, R]
        alpha: 0 empty, 1 opaque. [B, 1, R, R]
    """

    rgb: Tensor
    features: Tensor
    depth: Tensor
    alpha: Tensor

    def __getitem__(self, index: slice | Tensor) -> RenderOutput:
        return replace(self, **{name: value[index] for name, value in vars(self).items()})

    def float(self) -> Self:
        """The same in full precision: half precision cannot be resized with antialiasing."""
        return replace(self, **{name: value.float() for name, value in vars(self).items()})


@dataclass(frozen=True)
class Shading:
    """What points look like to a ray that ends there, in the ranges of a `RenderOutput`.

    Attributes:
        rgb: Nominally in [-1, 1]. [P, M, 3]
        features: Input of the super-resolution. [P, M, C]
        density: Raw, as in `PointSamples`. [P, M, 1]
    """

    rgb: Tensor
    features: Tensor
    density: Tensor


class Generator(Protocol):
    """z → latents → planes → rendering → image. Gradients reach latents, planes and camera.

    Every generator is a torch module besides.
    """

    @property
    def z_dim(self) -> int:
        """Numbers Z of a random input."""

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, W) of a W+ code."""

    @property
    def feature_width(self) -> int:
        """Channels of the features f_G that local detail modulates."""

    @property
    def mean_latents(self) -> Tensor:
        """Mean of w, the target of truncation. [W], or [L, W] where a code's rows have means of their own"""

    def frontal_camera(self) -> Camera:
        """The camera in front of the face at the training distance. One camera"""

    def camera_at(self, viewpoint: Tensor) -> Camera:
        """Cameras at the training distance, azimuth and elevation (radians) away from the frontal one. [B, 2]"""

    def map(
        self,
        z: Tensor,
        camera: Camera | None = None,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """z [B, Z] → latents [B, L, W]."""

    def planes(self, latents: Tensor, *, noise: NoiseMode = "const", random: torch.Generator | None = None) -> Planes:
        """Latents [B, L, W] → their heads."""

    def sample(self, planes: Planes, points: Tensor) -> PointSamples:
        """Density and features at world points [P, M, 3]."""

    def shade(self, planes: Planes, points: Tensor) -> Shading:
        """What an opaque surface at world points [P, M, 3] would add to a rendering; for learning at known surfaces."""

    def render(
        self,
        planes: Planes,
        camera: Camera,
        *,
        resolution: int | None = None,
        modulation: PointModulation | None = None,
        draws: RayDraws | None = None,
        random: torch.Generator | None = None,
        block: int = 512,
    ) -> RenderOutput:
        """Volume rendering (G0) of each head by its camera, or of one head by all cameras.

        `modulation` is local detail of the colours and features (E3DGE, Eq. 9); geometry and alpha do not change.
        """

    def upsample(self, rendered: RenderOutput, latents: Tensor) -> Tensor:
        """Super-resolution (G1): the final image. [B, 3, H, H]"""

    def synthesize(self, latents: Tensor, camera: Camera) -> Tensor:
        """Latents and cameras → final images. [B, 3, H, H]"""

    def to(self, device: str | torch.device) -> Self:
        """Move it to a device; it returns itself."""
