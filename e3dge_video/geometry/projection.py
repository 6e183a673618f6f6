"""Points to pixels, pixels to points, and maps read at projected points (Eq. 7's pixel-aligned sampling)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.precision import full_precision


@full_precision
def project(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Project world points.

    Args:
        points: World coordinates. [B, N, 3]
        camera: One camera per batch element.

    Returns:
        Image coordinates, 0..1 from edge to edge, y down [B, N, 2], and distance from the camera centre along the ray
        (negative behind the camera) [B, N].
    """
    world2cam = camera.world2cam
    local = points @ world2cam[:, :3, :3].transpose(1, 2) + world2cam[:, None, :3, 3]
    homogeneous = local @ camera.intrinsics.transpose(1, 2)
    # A point on the camera plane has no image; the sign of its depth is kept so that it lands far outside.
    depth = homogeneous[..., 2:]
    depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    return homogeneous[..., :2] / depth, local.norm(dim=-1) * local[..., 2].sign()


@full_precision
def axial_depth(points: Tensor, camera: Camera) -> Tensor:
    """Depth of world points along their camera's optical axis, negative behind it. [B, N, 3] → [B, N]"""
    return ((points - camera.position[:, None]) @ camera.cam2world[:, :3, 2:3])[..., 0]


@full_precision
def pixel_directions(camera: Camera, size: int) -> Tensor:
    """Unit viewing directions through the pixel centres of a square image, world axes. [B, size·size, 3]"""
    grid = (torch.arange(size, device=camera.cam2world.device, dtype=camera.cam2world.dtype) + 0.5) / size
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(1, -1, 3)
    local = pixels @ torch.linalg.inv(camera.intrinsics).transpose(1, 2)
    return F.normalize(local @ camera.cam2world[:, :3, :3].transpose(1, 2), dim=-1)


def unproject(depth: Tensor, camera: Camera) -> Tensor:
    """World points of a depth map of ray lengths. [B, 1, S, S] → [B, S·S, 3]"""
    directions = pixel_directions(camera, depth.shape[-1])
    return camera.position[:, None] + directions * depth.flatten(1)[..., None]


def sample_map(values: Tensor, uv: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Read a map at image coordinates 0..1; outside reads zero.

    Args:
        values: Map. [B, C, H, W]
        uv: Where to read. [B, N, 2]
        mode: "bilinear" or "nearest".

    Returns:
        [B, C, N]
    """
    grid = (2 * uv - 1)[:, None].clamp(-1e4, 1e4)
    return F.grid_sample(values, grid, mode=mode, padding_mode="zeros", align_corners=False)[:, :, 0]


def nearest_in_image(uv: Tensor, size: int) -> Tensor:
    """The middle of that pixel of a map of side `size` which is nearest to image coordinates. [B, N, 2]"""
    edge = 0.5 / size
    return uv.clamp(edge, 1 - edge)


def in_image(uv: Tensor) -> Tensor:
    """Whether image coordinates lie inside the image, its edges included. [B, N, 2] → [B, N]"""
    return ((uv >= 0) & (uv <= 1)).all(dim=-1)
