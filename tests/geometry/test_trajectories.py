"""EG3D's cameras around a head."""

from __future__ import annotations

import math

import pytest
import torch

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.trajectories import FRONT, draw_eg3d_angles, eg3d_orbit, look_at


def test_front_is_on_the_z_axis_at_the_radius_from_the_world_origin() -> None:
    camera = eg3d_orbit(FRONT, FRONT)
    torch.testing.assert_close(camera.position, torch.tensor([[0.0, 0.0, 2.7]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(camera.cam2world[0, :3, :3], torch.diag(torch.tensor([1.0, -1, -1])), atol=1e-5, rtol=0)


def test_it_looks_at_the_target_with_a_proper_rotation() -> None:
    camera = eg3d_orbit(torch.linspace(1, 2, 5), torch.linspace(2, 1, 5), target=(0.1, -0.2, 0.3))
    rotation = camera.cam2world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(5))
    seen = (torch.tensor([0.1, -0.2, 0.3]) - camera.position)[:, None] @ rotation
    torch.testing.assert_close(seen[:, 0, :2], torch.zeros(5, 2), atol=1e-5, rtol=0)
    assert bool((seen[:, 0, 2] > 0).all())


def test_angles_mean_what_the_docstring_says() -> None:
    left_of_image = eg3d_orbit(FRONT + 0.3, FRONT).position[0]
    above = eg3d_orbit(FRONT, FRONT - 0.3).position[0]
    assert float(left_of_image[0]) > 0 and float(above[1]) > 0


def test_same_camera_as_our_own_orbit_around_the_origin() -> None:
    ours = Camera.orbit(0.4, 0.0, pivot=(0.0, 0.0, 0.0))
    theirs = eg3d_orbit(FRONT + 0.4, FRONT, target=(0.0, 0.0, 0.0))
    torch.testing.assert_close(theirs.cam2world, ours.cam2world, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs.intrinsics, ours.intrinsics)


@pytest.mark.parametrize(("distribution", "ratio"), [("gaussian", 1.0), ("uniform", 1 / math.sqrt(3))])
def test_random_angles(distribution: str, ratio: float) -> None:
    random = torch.Generator().manual_seed(0)
    azimuth, polar = draw_eg3d_angles(20_000, (0.3, 0.155), distribution=distribution, random=random)
    assert float(azimuth.mean()) == pytest.approx(FRONT, abs=0.01)
    assert float(azimuth.std()) == pytest.approx(0.3 * ratio, rel=0.03)
    assert float(polar.std()) == pytest.approx(0.155 * ratio, rel=0.03)


def test_look_at_is_differentiable() -> None:
    position = torch.tensor([[0.3, 0.2, 2.0]], requires_grad=True)
    look_at(position, torch.zeros(1, 3)).cam2world[:, :3, :3].square()[:, 0].sum().backward()
    assert float(position.grad.abs().sum()) > 0
