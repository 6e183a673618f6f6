"""How a student's shapes and codes are compared with its teacher's, whatever the generator: L_geo and L_code (§6).

Letters: B heads, N rays, K points anywhere.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from e3dge_video.training.density_supervision import density_losses, density_targets
from e3dge_video.training.geometry_supervision import GeometryWeights, geometry_losses, geometry_targets


class GeometrySupervision(Protocol):
    """How a student's shapes and codes are compared with the teacher's, for one kind of generator."""

    def render(self, planes: Planes, camera: Camera, resolution: int | None) -> tuple[RenderOutput, Tensor | None]:
        """The student's rendering, and the derivative of its field at the samples where that is wanted. [..., 3]"""

    def losses(
        self,
        teacher: Planes,
        camera: Camera,
        rendered: RenderOutput,
        student: Planes,
        student_rendering: tuple[RenderOutput, Tensor | None],
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """L_geo, weighted, by the names of its terms."""

    def code_error(self, latents: Tensor, target: Tensor) -> Tensor:
        """L_code: mean squared difference of W+ codes. [B, L, W] twice → []"""


class DensitySupervision:
    """EG3D: density and depth (Eqs. 2 to 6)."""

    def __init__(self, generator: EG3D, weights: GeometryWeights) -> None:
        self.generator, self.weights = generator, weights

    def render(self, planes: Planes, camera: Camera, resolution: int | None) -> tuple[RenderOutput, None]:
        """The student's rendering; densities need no derivative."""
        return self.generator.render(planes, camera, resolution=resolution), None

    def losses(
        self,
        teacher: Planes,
        camera: Camera,
        rendered: RenderOutput,
        student: Planes,
        student_rendering: tuple[RenderOutput, Tensor | None],
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Eqs. 4 and 5 at new points."""
        draws = _draws(rng, rendered, self.weights.anywhere)
        targets = density_targets(
            self.generator,
            teacher,
            camera,
            rendered,
            neighbours=draws[0],
            anywhere=draws[1],
            near_surface=self.weights.near_surface,
        )
        return density_losses(self.generator, student, targets, student_rendering[0].depth, self.weights)

    def code_error(self, latents: Tensor, target: Tensor) -> Tensor:
        """Mean over all numbers of the codes."""
        return F.mse_loss(latents, target)


class DistanceSupervision:
    """StyleSDF: signed distance, normals and the eikonal equation (Eqs. 12 to 15)."""

    def __init__(self, generator: StyleSDF, weights: GeometryWeights) -> None:
        self.generator, self.weights = generator, weights

    def render(self, planes: Planes, camera: Camera, resolution: int | None) -> tuple[RenderOutput, Tensor | None]:
        """The student's rendering and its field's derivative at the samples."""
        rays = self.generator.renderer.rays(camera, resolution or self.generator.config.resolution)
        sums = self.generator.render_rays(planes, rays, gradient=self.weights.eikonal > 0)
        return sums.images(), sums.gradient

    def losses(
        self,
        teacher: Planes,
        camera: Camera,
        rendered: RenderOutput,
        student: Planes,
        student_rendering: tuple[RenderOutput, Tensor | None],
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Eqs. 13 and 14 at new points."""
        assert isinstance(rendered, SurfaceRender)
        neighbours, anywhere = _draws(rng, rendered, self.weights.anywhere)
        targets = geometry_targets(
            self.generator, teacher, camera, neighbours=neighbours, anywhere=anywhere, rendered=rendered
        )
        return geometry_losses(self.generator, student, targets, student_rendering[1], self.weights)

    def code_error(self, latents: Tensor, target: Tensor) -> Tensor:
        """Mean over the numbers that mean something: narrower rows are filled up with zeros."""
        ours, true = (
            torch.cat([part.flatten() for part in self.generator.unpack(codes)]) for codes in (latents, target)
        )
        return F.mse_loss(ours, true)


def geometry_supervision(generator: Generator, weights: GeometryWeights) -> GeometrySupervision:
    """What a generator can teach of its shapes."""
    if isinstance(generator, StyleSDF):
        return DistanceSupervision(generator, weights)
    assert isinstance(generator, EG3D)
    return DensitySupervision(generator, weights)


def _draws(rng: np.random.Generator, rendered: RenderOutput, anywhere: int) -> tuple[Tensor, Tensor]:
    """Normal numbers for every ray [B, N, 3] and uniform ones [B, K, 3]."""
    heads, rays = len(rendered.depth), rendered.depth[0].numel()
    numbers = rng.standard_normal((heads, rays, 3)), rng.random((heads, anywhere, 3))
    normal, uniform = (torch.from_numpy(x.astype(np.float32)).to(rendered.depth.device) for x in numbers)
    return normal, uniform
