"""Rays through pixels and the box they meet."""

from __future__ import annotations

import math

import pytest
import torch

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, box_limits, camera_rays, pixel_centres, rays_through


def cameras() -> Camera:
    camera = Camera.orbit(torch.tensor([0.3, -0.6, 0.0]), torch.tensor([0.2, -0.1, 0.0]))
    intrinsics = camera.intrinsics.clone()
    intrinsics[1, 0, 1] = 0.3  # skew
    intrinsics[2, 0, 2] = 0.45
    return Camera(camera.cam2world, intrinsics)


def test_points_on_a_ray_project_to_its_pixel() -> None:
    camera, size = cameras(), 5
    rays = camera_rays(camera, size)
    assert rays.directions.shape == (3, 25, 3)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(3, 25))
    points = rays.origins + 2.4 * rays.directions
    seen = (points - camera.position[:, None]) @ camera.cam2world[:, :3, :3]
    pixels = seen @ camera.intrinsics.transpose(1, 2)
    expected = pixel_centres(size).expand(3, -1, -1)
    torch.testing.assert_close(pixels[..., :2] / pixels[..., 2:], expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_row_major_with_centres_half_a_pixel_in() -> None:
    centres = pixel_centres(4)
    assert centres[0].tolist() == [0.125, 0.125]
    assert centres[1].tolist() == [0.375, 0.125]
    assert centres[4].tolist() == [0.125, 0.375]


def test_positions_may_differ_between_cameras() -> None:
    camera, positions = cameras(), torch.rand(3, 7, 2)
    together = rays_through(camera, positions)
    for i in range(3):
        alone = rays_through(camera[i : i + 1], positions[i])
        torch.testing.assert_close(alone.directions, together.directions[i : i + 1])


def test_gradients_reach_the_camera() -> None:
    label = cameras().to_eg3d().double().requires_grad_()
    directions = rays_through(Camera.from_eg3d(label), torch.rand(2, 2).double()).directions
    directions[..., 0].sum().backward()
    assert float(label.grad[:, 16:].abs().sum()) > 0


def test_box_limits_are_where_a_walk_enters_and_leaves() -> None:
    random = torch.Generator().manual_seed(2)
    origins = torch.randn(1, 60, 3, generator=random)
    directions = torch.nn.functional.normalize(torch.randn(1, 60, 3, generator=random), dim=-1)
    near, far = box_limits(Rays(origins, directions), 1.0)
    steps = torch.linspace(-6, 6, 12_001)
    walk = origins[..., None, :] + steps[:, None] * directions[..., None, :]
    inside = (walk.abs() <= 0.5).all(dim=-1)
    for ray in range(60):
        found = steps[inside[0, ray]]
        if len(found) == 0:
            assert (near[0, ray], far[0, ray]) == (-1, -2) or float(far[0, ray] - near[0, ray]) < 2e-3
        else:
            assert float(near[0, ray]) == pytest.approx(float(found[0]), abs=2e-3)
            assert float(far[0, ray]) == pytest.approx(float(found[-1]), abs=2e-3)


@pytest.mark.parametrize(
    ("origin", "direction", "limits"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (-0.5, 0.5)),  # from inside
        ((0.5, 0.0, 2.0), (0.0, 0.0, -1.0), (1.5, 2.5)),  # within a face
        ((0.6, 0.0, 2.0), (0.0, 0.0, -1.0), (-1.0, -2.0)),  # parallel, beside
        ((2.0, 2.0, 0.0), (-math.sqrt(0.5), -math.sqrt(0.5), 0.0), (1.5 * math.sqrt(2), 2.5 * math.sqrt(2))),
    ],
)
def test_box_limits_of_special_rays(
    origin: tuple[float, ...], direction: tuple[float, ...], limits: tuple[float, float]
) -> None:
    near, far = box_limits(Rays(torch.tensor([[origin]]), torch.tensor([[direction]])), 1.0)
    assert (float(near), float(far)) == pytest.approx(limits, abs=1e-6)


def test_box_limits_have_a_gradient_along_an_axis() -> None:
    """A ray that does not move along an axis, as in the middle of a straight picture, can be moved all the same."""
    origin = torch.tensor([[[0.0, 0.1, 2.0]]], requires_grad=True)
    direction = torch.tensor([[[0.0, 0.0, -1.0]]], requires_grad=True)
    near, far = box_limits(Rays(origin, direction), 1.0)
    (near + far).sum().backward()
    assert origin.grad is not None and origin.grad.tolist() == [[[0.0, 0.0, 2.0]]]
    assert direction.grad is not None and bool(direction.grad.isfinite().all())
