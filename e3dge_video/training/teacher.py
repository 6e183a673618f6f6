"""A frozen generator as a teacher: heads drawn on the fly, with everything that is true of them (§4.1).

A training sample is {S, ξ, I}: code, camera and picture, whatever the generator. What its shape S is, and how a student
is compared with it, depends on the generator: `shape_teaching.py`. Letters: B heads, V views of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.trajectories import stylesdf_viewpoints
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.training.geometry_supervision import camera_range


@dataclass(frozen=True)
class TeacherConfig:
    """From where and what a teacher draws. Defaults are E3DGE's for faces."""

    truncation: float = 0.55  # of w towards its mean
    spread: tuple[float, float] = (0.3, 0.15)  # of azimuth and elevation, radians
    distribution: Literal["gaussian", "uniform"] = "gaussian"  # standard deviations or half widths
    #: Frontal views alone at first, a growing share of the range later, see `camera_range`.
    curriculum: bool = True
    image_size: int = 256  # what the encoders see, pixels
    resolution: int | None = None  # of the volume rendering, pixels; None: the generator's own

    def __post_init__(self) -> None:
        object.__setattr__(self, "spread", tuple(float(value) for value in self.spread))
        if len(self.spread) != 2 or min(self.spread) < 0:
            raise ConfigError(f"teacher.spread must be two numbers of at least 0, got {self.spread}")
        if not 0 <= self.truncation <= 1:
            raise ConfigError(f"teacher.truncation must lie between 0 and 1, got {self.truncation}")


@dataclass(frozen=True)
class TeacherView:
    """One view of each head of a batch.

    Attributes:
        image: I, the final picture, reduced to what encoders see; in [-1, 1]. [B, 3, S, S]
        camera: ξ. B cameras
        viewpoint: Its azimuth and elevation, radians. [B, 2]
        rendered: The volume rendering that the picture was made from, Î0 of the exact code.
        whole: The final picture as it was drawn. [B, 3, H, H]
    """

    image: Tensor
    camera: Camera
    viewpoint: Tensor
    rendered: RenderOutput
    whole: Tensor


@dataclass(frozen=True)
class TeacherBatch:
    """Random heads. Nothing in it carries a gradient.

    Attributes:
        latents: w, truncated, as W+ codes. [B, L, W]
        planes: The heads of these codes.
        views: V views of each. In two-view training (§4.3) `views[::-1]` are the same heads with the views swapped.
    """

    latents: Tensor
    planes: Planes
    views: tuple[TeacherView, ...]


class Teacher:
    """Draws heads and pictures of them from a frozen generator; the same generator state, the same draws, always.

    Args:
        generator: Set to evaluation mode and frozen here.
        config: What to draw.
    """

    def __init__(self, generator: Generator, config: TeacherConfig) -> None:
        if isinstance(generator, nn.Module):
            generator.eval().requires_grad_(False)
        self.generator, self.config = generator, config

    @torch.no_grad()
    def draw(self, count: int, rng: np.random.Generator, *, views: int = 1, share: float = 1.0) -> TeacherBatch:
        """Draw heads.

        Args:
            count: B
            rng: Source of every draw.
            views: V
            share: Of the cameras' full range.
        """
        z = self._normal(rng, count, self.generator.z_dim)
        viewpoints = [self._viewpoints(count, rng, share) for _ in range(views)]
        with torch.autocast(z.device.type, enabled=False):  # what is taught is exact, however the student computes
            latents = self.generator.map(z, truncation=self.config.truncation)
            planes = self.generator.planes(latents)
            return TeacherBatch(latents, planes, tuple(self._view(latents, planes, v) for v in viewpoints))

    def share(self, step: int) -> float:
        """Of the cameras' full range, at a step of training."""
        return camera_range(step) if self.config.curriculum else 1.0

    @torch.no_grad()
    def mean_latents(self, samples: int = 10_000) -> Tensor:
        """Mean of W+ over fixed random codes, seen from the front: what E0's offsets are added to. [L, W]"""
        z = self._normal(np.random.default_rng(0), samples, self.generator.z_dim)
        return torch.stack([self.generator.map(part).sum(dim=0) for part in z.split(256)]).sum(dim=0) / samples

    def render(self, planes: Planes, camera: Camera) -> RenderOutput:
        """Volume rendering G0 at the teacher's resolution."""
        return self.generator.render(planes, camera, resolution=self.config.resolution)

    def picture(self, rendered: RenderOutput, latents: Tensor) -> Tensor:
        """The final image G1 of a rendering, at the size that encoders see. [B, 3, S, S]"""
        return fitted(self.generator.upsample(rendered, latents), self.config.image_size)

    def _view(self, latents: Tensor, planes: Planes, viewpoint: Tensor) -> TeacherView:
        camera = self.generator.camera_at(viewpoint)
        rendered = self.render(planes, camera)
        whole = self.generator.upsample(rendered, latents)
        return TeacherView(fitted(whole, self.config.image_size), camera, viewpoint, rendered, whole)

    def _viewpoints(self, count: int, rng: np.random.Generator, share: float) -> Tensor:
        config = self.config
        draws = rng.standard_normal((count, 2)) if config.distribution == "gaussian" else rng.random((count, 2))
        spread = (share * config.spread[0], share * config.spread[1])
        return stylesdf_viewpoints(self._placed(draws), spread, distribution=config.distribution)

    def _normal(self, rng: np.random.Generator, *shape: int) -> Tensor:
        return self._placed(rng.standard_normal(shape))

    def _placed(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.generator.mean_latents.device)


def fitted(image: Tensor, size: int) -> Tensor:
    """Images at another size, averaged over whole pixels where possible. [B, C, H, H] → [B, C, S, S]"""
    if image.shape[-1] % size == 0:
        return F.adaptive_avg_pool2d(image, size)
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
