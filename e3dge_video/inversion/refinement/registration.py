"""A picture read where a known surface lies under a camera that may still move.

Instead of rendering anew for every small move, what was rendered stays and the picture is read elsewhere: a point of
the surface has the colour that the picture shows where the moved camera sees the point. Exact up to what comes into
sight, and differentiable by the camera through the picture's own gradient (Lucas and Kanade, 1981).

Letters: B pictures, R side of the rendering, S of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project, sample_map


def moved(camera: Camera, offset: Tensor) -> Camera:
    """Cameras with `offset` added to their six numbers (radians; world units): `Camera.from_pose`. [B, 6]"""
    return Camera(Camera.from_pose(camera.pose() + offset).cam2world, camera.intrinsics)


def read_at(image: Tensor, matte: Tensor, points: Tensor, camera: Camera, seen_by: Camera) -> tuple[Tensor, Tensor]:
    """A picture as the rendering of a camera beside its own would have it.

    Args:
        image: The picture. [B, 3, S, S]
        matte: What of it may be read: foreground. [B, 1, S, S]
        points: The surface, one point per pixel of its rendering. [B, R², 3]
        camera: What rendered the surface; leads nowhere.
        seen_by: The picture's camera. Gradients lead back to it.

    Returns:
        The picture, read for every pixel of the rendering [B, 3, S, S]; and 1 where it could be read, from foreground
        alone, else 0 [B, 1, S, S].
    """
    size, side = image.shape[-1], int(points.shape[1] ** 0.5)
    shift = project(points, seen_by)[0] - project(points, camera)[0]
    shift = shift.transpose(1, 2).unflatten(2, (side, side))
    shift = F.interpolate(shift, (size, size), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    grid = (torch.arange(size, device=image.device, dtype=image.dtype) + 0.5) / size
    v, u = torch.meshgrid(grid, grid, indexing="ij")
    places = torch.stack([u, v], dim=-1).view(1, -1, 2) + shift
    # Whatever a bilinear reading touches must be foreground: where it reads anything of the matte's inside, it is.
    inside = -F.max_pool2d(F.pad(-(matte > 0).to(image), (1, 1, 1, 1)), 3, 1)
    readable = (sample_map(inside, places.detach()) > 0).to(image)
    return sample_map(image, places).view_as(image), readable.view_as(matte)
