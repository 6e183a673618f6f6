"""Batches of cameras: the pose distributions of EG3D and StyleSDF.

StyleSDF's viewpoints are (azimuth, elevation) as `Camera.from_stylesdf` takes them. EG3D measures angles differently
from `Camera.orbit`: azimuth is π/2 in front of the face and grows towards the image's left, the polar angle is π/2 at
eye height and 0 above; the camera moves on a sphere around the WORLD ORIGIN while it looks at another point.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import EG3D_FOCAL, EG3D_PIVOT, EG3D_RADIUS, Camera, pinhole_intrinsics

FRONT = math.pi / 2  # azimuth and polar angle of the camera on the +z axis


def look_at(position: Tensor, target: Tensor, *, focal: float = EG3D_FOCAL) -> Camera:
    """Cameras at `position` with `target` in the middle of the image and the head upright. [B, 3], [B or 1, 3]"""
    return looking_along(position, target - position, focal=focal)


def looking_along(position: Tensor, direction: Tensor, *, focal: float = EG3D_FOCAL) -> Camera:
    """Cameras at `position` that look in a direction of any length, upright. [B, 3], [B or 1, 3]"""
    forward = F.normalize(direction, dim=-1).expand_as(position)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=forward.dtype, device=forward.device).expand_as(forward)
    right = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = F.normalize(torch.linalg.cross(forward, right), dim=-1)
    rotation = torch.stack([right, down, forward], dim=-1)
    top = torch.cat([rotation, position[:, :, None]], dim=2)
    bottom = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]], dtype=top.dtype, device=top.device).expand(len(top), 1, 4)
    intrinsics = pinhole_intrinsics(focal).to(top).repeat(len(top), 1, 1)
    return Camera(torch.cat([top, bottom], dim=1), intrinsics)


def eg3d_orbit(
    azimuth: Tensor | float,
    polar: Tensor | float,
    *,
    target: tuple[float, float, float] = EG3D_PIVOT,
    radius: float = EG3D_RADIUS,
    focal: float = EG3D_FOCAL,
) -> Camera:
    """Cameras on the sphere of that radius around the world origin, looking at `target`.

    Equal steps of the polar angle cover equal areas of the sphere, as EG3D has it: it is first mapped through
    arccos(1 − 2 polar / π), which leaves 0, π/2 and π where they are.

    Args:
        azimuth: Radians. [B] or a number
        polar: Radians in [0, π]; the poles themselves are moved by 1e-5. [B] or a number
    """
    theta, v = torch.broadcast_tensors(
        torch.as_tensor(azimuth, dtype=torch.float32).reshape(-1),
        torch.as_tensor(polar, dtype=torch.float32).reshape(-1),
    )
    phi = torch.arccos(1 - 2 * (v.clamp(1e-5, math.pi - 1e-5) / math.pi))
    x = radius * phi.sin() * torch.cos(math.pi - theta)
    z = radius * phi.sin() * torch.sin(math.pi - theta)
    position = torch.stack([x, radius * phi.cos(), z], dim=-1)
    return look_at(position, position.new_tensor(target)[None], focal=focal)


def draw_eg3d_angles(
    count: int,
    spread: tuple[float, float],
    *,
    centre: tuple[float, float] = (FRONT, FRONT),
    distribution: Literal["gaussian", "uniform"] = "gaussian",
    random: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Random azimuths and polar angles for `eg3d_orbit`.

    Args:
        spread: Standard deviations ("gaussian") or half widths ("uniform") of azimuth and polar angle, radians.

    Returns:
        Azimuths and polar angles, radians. [count], [count]
    """
    draws = []
    for middle, width in zip(centre, spread, strict=True):  # azimuth first: EG3D's order of draws
        if distribution == "gaussian":
            unit = torch.randn(count, generator=random)
        else:
            unit = torch.rand(count, generator=random) * 2 - 1
        draws.append(unit * width + middle)
    return draws[0], draws[1]


def eg3d_focal(fov_deg: float) -> float:
    """Focal length divided by the image size, as EG3D's scripts derive it (with their short √2 and π).

    18.837° gives 4.2634 here, while the data set's own cameras have 4.2647 (`EG3D_FOCAL`).
    """
    return 1 / (math.tan(fov_deg * 3.14159 / 360) * 1.414)


def stylesdf_viewpoints(
    draws: Tensor,
    spread: tuple[float, float] = (0.3, 0.15),
    *,
    distribution: Literal["gaussian", "uniform"] = "gaussian",
) -> Tensor:
    """Random viewpoints around the frontal one, from given draws.

    Args:
        draws: Standard normal numbers ("gaussian") or uniform ones in [0, 1] ("uniform"). [B, 2]
        spread: Standard deviations or half widths of azimuth and elevation, radians.

    Returns:
        Azimuths and elevations, radians. [B, 2]
    """
    unit = draws if distribution == "gaussian" else 2 * draws - 1
    return unit * draws.new_tensor(spread)


def stylesdf_sweep(draws: Tensor, spread: tuple[float, float] = (0.3, 0.15), *, views: int = 8) -> Tensor:
    """Evenly spaced azimuths at one random elevation per head.

    Args:
        draws: Uniform numbers in [0, 1], one of each head. [P]
        spread: Largest azimuth and elevation, radians.

    Returns:
        Viewpoints, the views of a head one after the other. [P * views, 2]
    """
    azimuth = torch.linspace(-spread[0], spread[0], views, dtype=draws.dtype, device=draws.device)
    elevation = (2 * draws - 1) * spread[1]
    return torch.stack([azimuth.repeat(len(draws)), elevation.repeat_interleave(views)], dim=1)


def stylesdf_ellipse(views: int, reach: tuple[float, float] = (0.45, 0.225)) -> Tensor:
    """Viewpoints once around an ellipse, the path of the novel-view evaluation; the last is the first again.

    Args:
        reach: Largest azimuth and elevation, radians.

    Returns:
        Azimuths and elevations, radians. [views, 2]
    """
    angle = 2 * math.pi * torch.linspace(0, 1, views)
    return torch.stack([reach[0] * angle.cos(), reach[1] * angle.sin()], dim=1)


def stylesdf_pan(views: int, reach: float = 0.45) -> Tensor:
    """Viewpoints from one side to the other at eye height, slow at both ends. [views, 2]"""
    azimuth = reach * (math.pi * torch.linspace(0, 1, views)).cos()
    return torch.stack([azimuth, torch.zeros_like(azimuth)], dim=1)
