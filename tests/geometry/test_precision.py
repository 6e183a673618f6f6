"""Networks may compute in half precision; where things are may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.precision import full_precision
from e3dge_video.geometry.projection import axial_depth, pixel_directions, project, unproject
from e3dge_video.geometry.rays import camera_rays
from e3dge_video.models.rendering.compositing import composite

POSE = torch.tensor([[0.3, -0.2, 0.1, 0.02, -0.01, 0.03], [-0.5, 0.1, 0.0, 0.0, 0.0, 0.0]])
CAMERA = Camera.from_pose(POSE)
POINTS = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0)) * 0.2
WEIGHTS = torch.rand(2, 50, 48, generator=torch.Generator().manual_seed(1)) / 48
PLACES: dict[str, Callable[[], Tensor]] = {
    "camera of a pose": lambda: Camera.from_pose(POSE).cam2world,
    "pose of a camera": lambda: CAMERA.pose(),
    "world to camera": lambda: CAMERA.world2cam,
    "pixel of a point": lambda: project(POINTS, CAMERA)[0],
    "distance of a point": lambda: project(POINTS, CAMERA)[1],
    "depth of a point": lambda: axial_depth(POINTS, CAMERA),
    "direction of a pixel": lambda: pixel_directions(CAMERA, 16),
    "point of a pixel": lambda: unproject(torch.full((2, 1, 16, 16), 2.7), CAMERA),
    "ray of a pixel": lambda: camera_rays(CAMERA, 16).directions,
    "point that a ray sees": lambda: composite(POINTS[:, :, None].expand(-1, -1, 48, -1), WEIGHTS),
}


@pytest.mark.parametrize("place", PLACES)
def test_geometry_is_the_same_among_networks_in_half_precision(place: str) -> None:
    exact = PLACES[place]()
    with torch.autocast("cpu", torch.bfloat16):
        assert (POINTS @ CAMERA.cam2world[:, :3, :3]).dtype == torch.bfloat16
        found = PLACES[place]()
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_half_precision_goes_on_behind_it() -> None:
    @full_precision
    def product(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    a = torch.ones(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(a, a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16
        assert product(a.bfloat16(), a).dtype == torch.float32
        assert Camera.from_pose(POSE.bfloat16()).cam2world.dtype == torch.float32
    assert product(a.double(), a.double()).dtype == torch.float64
