"""Rays through pixels, and where they meet a box. Letters: B batch, N rays. Pixels are row-major."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.precision import full_precision


@dataclass(frozen=True)
class Rays:
    """Half lines from camera centres.

    Attributes:
        origins: World coordinates. [B, N, 3]
        directions: Unit length, so that "depth" is the distance along the ray, not z. [B, N, 3]
    """

    origins: Tensor
    directions: Tensor


def pixel_centres(resolution: int, *, device: torch.device | None = None) -> Tensor:
    """Image coordinates (u right, v down, in [0, 1]) of a square image's pixel centres. [R * R, 2]"""
    line = torch.arange(resolution, dtype=torch.float32, device=device) * (1 / resolution) + 0.5 / resolution
    v, u = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([u, v], dim=-1).reshape(-1, 2)


@full_precision
def rays_through(camera: Camera, positions: Tensor) -> Rays:
    """Rays through image positions.

    Args:
        camera: B cameras; their intrinsics may have skew.
        positions: (u, v), the image spanning [0, 1]. [N, 2] or [B, N, 2]
    """
    x, y = image_plane(camera, positions)
    one = torch.ones_like(x)
    # EG3D's arithmetic to the last bit, the centre added and taken away again: its renderings are compared with ours,
    # and 1e-7 of a direction is 1e-3 of the density in a steep field.
    world = (camera.cam2world @ torch.stack([x, y, one, one], dim=1))[:, :3].transpose(1, 2)
    centre = camera.position[:, None]
    return Rays(centre.expand_as(world), F.normalize(world - centre, dim=-1))


def image_plane(camera: Camera, positions: Tensor) -> tuple[Tensor, Tensor]:
    """x and y [B, N] where the rays through image positions [N, 2] or [B, N, 2] meet the camera's plane z = 1."""
    K = camera.intrinsics[:, :, :, None]  # [B, 3, 3, 1]
    u, v = positions.to(K.dtype).unbind(dim=-1)
    y = (v - K[:, 1, 2]) / K[:, 1, 1]
    x = (u - K[:, 0, 2] + K[:, 1, 2] * K[:, 0, 1] / K[:, 1, 1] - K[:, 0, 1] * v / K[:, 1, 1]) / K[:, 0, 0]
    return x, y


def camera_rays(camera: Camera, resolution: int) -> Rays:
    """Rays through every pixel of a square image. N = resolution²"""
    return rays_through(camera, pixel_centres(resolution, device=camera.intrinsics.device))


def box_limits(rays: Rays, side: float) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the cube of that side around the world origin (slab method).

    Returns:
        Entry and exit as distances along the ray, negative behind its origin; −1 and −2 for a miss. [B, N], [B, N]
    """
    half = side / 2
    # An axis that a ray does not move along bounds it not at all, or it misses. Dividing by zero would give the same
    # limits, but a gradient that is no number.
    along = rays.directions.abs() < 1e-12
    inverse = 1 / torch.where(along, 1.0, rays.directions)
    first = (-half - rays.origins) * inverse
    second = (half - rays.origins) * inverse
    lower = torch.where(along, -torch.inf, torch.minimum(first, second))
    beside = torch.where(rays.origins.abs() <= half, torch.inf, -torch.inf)
    upper = torch.where(along, beside, torch.maximum(first, second))
    near, far = lower.amax(dim=-1), upper.amin(dim=-1)
    hit = near <= far
    return torch.where(hit, near, -1.0), torch.where(hit, far, -2.0)
