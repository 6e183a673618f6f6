"""Geometry that a StyleSDF generator teaches E0: points, their signed distances and normals (E3DGE, section 5).

The teacher's heads are random, so all that is known of them is exact; the student's codes are compared with them at
points on the teacher's surface, near it, and anywhere (Eqs. 12 to 15). Letters: B heads, N rays, M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import STYLESDF_RADIUS, Camera
from e3dge_video.geometry.projection import axial_depth
from e3dge_video.models.generators.base import Planes
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from e3dge_video.training.losses import eikonal_loss

#: Standard deviation of the points near the surface, in halves of the rendered depth: 0.03 world units for faces.
NEAR_SURFACE = 0.25
#: Steps from which the cameras' range is this share of the whole; the last step stays as it is.
_CURRICULUM = ((0, 0.0), (10_000, 0.15), (14_000, 0.25), (18_000, 0.5), (22_000, 0.75))


@dataclass(frozen=True)
class GeometryWeights:
    """λ_g1, λ_g2, λ_g3 of Eqs. 4, 5, 13 and 14, and what surrounds them. Defaults are the release's."""

    surface: float = 1.0  # distance or density on the surface
    detail: float = 1.0  # StyleSDF: normals there; EG3D: depth
    points: float = 0.2  # near the surface and anywhere
    eikonal: float = 0.1  # StyleSDF alone
    anywhere: int = 2048  # points of the whole volume, of each head
    near_surface: float = 0.05  # EG3D: standard deviation of the points near the surface, world units


@dataclass(frozen=True)
class GeometryTargets:
    """What the teacher knows of its heads.

    Attributes:
        surface: Expected surface points of a view's rays, world units. [B, N, 3]
        normals: Derivative of the signed distance there, not of unit length. [B, N, 3]
        foreground: 1 where the ray meets the head. [B, N]
        points: A neighbour of each surface point, then points anywhere in the volume, world units. [B, M, 3]
        distances: Signed distances of `points`, in the network's own units. [B, M]
        inside: 1 for points inside the volume, where alone the field means something. [B, M]
    """

    surface: Tensor
    normals: Tensor
    foreground: Tensor
    points: Tensor
    distances: Tensor
    inside: Tensor


def geometry_targets(
    generator: StyleSDF,
    planes: Planes,
    camera: Camera,
    *,
    neighbours: Tensor,
    anywhere: Tensor,
    rendered: SurfaceRender | None = None,
) -> GeometryTargets:
    """Look at the fields of the teacher's heads.

    Args:
        planes: The heads.
        camera: One of each head.
        rendered: What it sees; None: it is rendered here.
        neighbours: Standard normal numbers, for as many points near the surface as rays. [B, N, 3]
        anywhere: Uniform numbers in [0, 1]. [B, K, 3]

    Returns:
        Without gradients; M = N + K.
    """
    half = generator.config.volume.half_depth
    with torch.no_grad():
        rendered = generator.render(planes, camera) if rendered is None else rendered
        surface = rendered.xyz.flatten(2).transpose(1, 2)
        near = surface + NEAR_SURFACE * half * neighbours
        points = torch.cat([near, (2 * anywhere - 1) * half], dim=1)
        inside = torch.cat([(near.abs() < half).all(dim=-1), torch.ones_like(anywhere[..., 0], dtype=torch.bool)], 1)
        normals = generator.signed_distance(planes, surface)[1]
        distances = generator.signed_distance(planes, points)[0][..., 0]
        foreground = axial_depth(surface, camera) < foreground_depth(generator)
    return GeometryTargets(surface, normals, foreground.to(surface.dtype), points, distances, inside.to(surface.dtype))


def geometry_losses(
    generator: StyleSDF,
    planes: Planes,
    targets: GeometryTargets,
    gradient: Tensor | None,
    weights: GeometryWeights | None = None,
) -> dict[str, Tensor]:
    """Distance of a student's heads from the teacher's, weighted; masked entries count as zeros in the means.

    Args:
        planes: The student's heads.
        targets: Of the teacher's.
        gradient: Derivative of the student's field at samples of its own rendering [..., 3]; None: no eikonal term.
        weights: Of the terms; None: the defaults.

    Returns:
        `surface` and `points`: signed distances; `normal`; `eikonal`. [] each
    """
    weights = weights or GeometryWeights()
    distance, normals = generator.signed_distance(planes, targets.surface)
    distances = generator.signed_distance(planes, targets.points)[0][..., 0]
    seen = targets.foreground[..., None]
    on_surface = distance * seen
    losses = {
        "surface": weights.surface * F.smooth_l1_loss(on_surface, torch.zeros_like(on_surface)),
        "normal": weights.detail * F.smooth_l1_loss(normals * seen, targets.normals * seen),
        "points": weights.points * F.smooth_l1_loss(distances * targets.inside, targets.distances * targets.inside),
    }
    if gradient is not None:
        losses["eikonal"] = weights.eikonal * eikonal_loss(gradient)
    return losses


def foreground_depth(generator: StyleSDF) -> float:
    """Depth along the optical axis up to which a ray counts as having met the head: 1.08 world units for faces."""
    return STYLESDF_RADIUS + generator.config.volume.half_depth * 2 / 3


def camera_range(step: int) -> float:
    """Share of the cameras' full range that a step of training draws from: nothing but frontal views at first."""
    return max(share for first, share in _CURRICULUM if step >= first)
