"""Geometry that an EG3D generator teaches E0: densities at points and depths of rays (E3DGE, section 4.1, Eqs. 2 to 6).

Letters: B heads, N rays, M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import pixel_directions
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.geometry_supervision import GeometryWeights


@dataclass(frozen=True)
class DensityTargets:
    """What an EG3D teacher knows of its heads.

    Attributes:
        surface: Expected surface points of a view's rays, world units. [B, N, 3]
        depth: Their distances along the rays, world units. [B, N]
        foreground: 1 where the ray meets the head. [B, N]
        points: A neighbour of each surface point, then points anywhere in the box, world units. [B, M, 3]
        surface_density: Density at `surface`. [B, N]
        density: Density at `points`. [B, M]
    """

    surface: Tensor
    depth: Tensor
    foreground: Tensor
    points: Tensor
    surface_density: Tensor
    density: Tensor


def density_targets(
    generator: EG3D,
    planes: Planes,
    camera: Camera,
    rendered: RenderOutput,
    *,
    neighbours: Tensor,
    anywhere: Tensor,
    near_surface: float = GeometryWeights.near_surface,
) -> DensityTargets:
    """Look at the fields of the teacher's heads (Eq. 2).

    Args:
        planes: The heads.
        camera: One of each head.
        rendered: What it sees.
        neighbours: Standard normal numbers, for as many points near the surface as rays. [B, N, 3]
        anywhere: Uniform numbers in [0, 1]. [B, K, 3]

    Returns:
        Without gradients; M = N + K.
    """
    half = generator.config.volume.box_warp / 2
    with torch.no_grad():
        depth = rendered.depth.flatten(1)
        surface = camera.position[:, None] + depth[..., None] * pixel_directions(camera, rendered.depth.shape[-1])
        points = torch.cat([surface + near_surface * neighbours, (2 * anywhere - 1) * half], dim=1)
        foreground = (rendered.alpha.flatten(1) > 0.5).to(depth.dtype)
        on_surface, elsewhere = (density_at(generator, planes, x) for x in (surface, points))
    return DensityTargets(surface, depth, foreground, points, on_surface, elsewhere)


def density_losses(
    generator: EG3D, planes: Planes, targets: DensityTargets, depth: Tensor, weights: GeometryWeights | None = None
) -> dict[str, Tensor]:
    """Eqs. 4 and 5: absolute differences, weighted; rays that meet nothing count as zeros.

    Densities are compared in units of the teacher's mean density on its surfaces, which differs from model to model.

    Args:
        planes: The student's heads.
        targets: Of the teacher's.
        depth: Of the student's rendering from the teacher's cameras. [B, 1, R, R], R² = N

    Returns:
        `surface` and `points`: densities; `depth`. [] each
    """
    weights = weights or GeometryWeights()
    seen = targets.foreground
    unit = ((targets.surface_density * seen).sum() / seen.sum().clamp_min(1)).clamp_min(1e-3)
    on_surface, elsewhere = (density_at(generator, planes, x) for x in (targets.surface, targets.points))
    return {
        "surface": weights.surface * ((on_surface - targets.surface_density).abs() * seen).mean() / unit,
        "depth": weights.detail * ((depth.flatten(1) - targets.depth).abs() * seen).mean(),
        "points": weights.points * (elsewhere - targets.density).abs().mean() / unit,
    }


def density_at(generator: Generator, planes: Planes, points: Tensor) -> Tensor:
    """Extinction per world unit at world points. [B, M, 3] → [B, M]"""
    return F.softplus(generator.sample(planes, points).density[..., 0] - 1)
