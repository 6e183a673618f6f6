import math

import pytest
import torch

from e3dge_video.geometry.cameras import EG3D_FOCAL, EG3D_PIVOT, EG3D_RADIUS, Camera
from e3dge_video.geometry.projection import pixel_directions, project, sample_map, unproject


def test_frontal_camera_stands_before_the_face_and_is_upright():
    camera = Camera.orbit(0.0, 0.0)
    assert torch.allclose(camera.position[0], torch.tensor([0, 0, EG3D_PIVOT[2] + EG3D_RADIUS]))
    assert torch.allclose(camera.cam2world[0, :3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))


def test_positive_yaw_moves_to_plus_x_and_positive_pitch_up():
    camera = Camera.orbit(torch.tensor([0.3, 0.0]), torch.tensor([0.0, 0.3]))
    assert camera.position[0, 0] > 0.5 and abs(camera.position[0, 1]) < 1e-6
    assert camera.position[1, 1] > 0.5 and abs(camera.position[1, 0]) < 1e-6


def test_pivot_projects_to_the_middle_and_distance_is_the_radius():
    camera = Camera.orbit(torch.linspace(-1, 1, 5), torch.linspace(-0.5, 0.5, 5))
    uv, distance = project(torch.tensor(EG3D_PIVOT).expand(5, 1, 3), camera)
    assert torch.allclose(uv, torch.full_like(uv, 0.5), atol=1e-6)
    assert torch.allclose(distance, torch.full_like(distance, EG3D_RADIUS), atol=1e-5)


def test_world_up_is_image_up_and_world_x_is_image_right():
    uv, _ = project(torch.tensor([[[0.0, 0.1, 0.2], [0.1, 0.0, 0.2]]]), Camera.orbit(0.0, 0.0))
    assert uv[0, 0, 1] < 0.5 and uv[0, 1, 0] > 0.5
    assert uv[0, 1, 0] - 0.5 == pytest.approx(EG3D_FOCAL * 0.1 / EG3D_RADIUS, abs=1e-6)


def test_six_numbers_round_trip():
    pose = torch.randn(64, 6, generator=torch.Generator().manual_seed(3)) * torch.tensor([0.6, 0.4, 0.5, 0.1, 0.1, 0.2])
    camera = Camera.from_pose(pose)
    assert torch.allclose(camera.pose(), pose, atol=1e-5)
    rotation = camera.cam2world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(64, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(64), atol=1e-5)


def test_roll_turns_the_picture_anticlockwise():
    """A point right of the middle moves up when the camera rolls clockwise."""
    camera = Camera.from_pose(torch.tensor([[0.0, 0.0, math.radians(20), 0.0, 0.0, 0.0]]))
    uv, _ = project(torch.tensor([[[0.1, 0.0, 0.2]]]), camera)
    assert uv[0, 0, 0] > 0.5 and uv[0, 0, 1] < 0.5


def test_world2cam_inverts_and_labels_round_trip():
    camera = Camera.from_pose(torch.randn(4, 6) * 0.3)
    assert torch.allclose(camera.world2cam @ camera.cam2world, torch.eye(4).expand(4, 4, 4), atol=1e-5)
    again = Camera.from_eg3d(camera.to_eg3d())
    assert torch.equal(again.cam2world, camera.cam2world) and torch.equal(again.intrinsics, camera.intrinsics)


def test_unproject_then_project_gives_pixel_centres_back():
    camera = Camera.from_pose(torch.tensor([[0.4, -0.2, 0.1, 0.02, -0.01, 0.05]]))
    depth = 2.5 + 0.3 * torch.rand(1, 1, 16, 16)
    uv, distance = project(unproject(depth, camera), camera)
    centres = (torch.arange(16) + 0.5) / 16
    assert torch.allclose(uv.view(16, 16, 2)[..., 0], centres.expand(16, 16), atol=1e-5)
    assert torch.allclose(uv.view(16, 16, 2)[..., 1], centres[:, None].expand(16, 16), atol=1e-5)
    assert torch.allclose(distance.view(1, 1, 16, 16), depth, atol=1e-5)
    assert torch.allclose(pixel_directions(camera, 16).norm(dim=-1), torch.ones(1, 256), atol=1e-6)


def test_sample_map_reads_pixel_centres_exactly_and_zero_outside():
    values = torch.arange(16.0).view(1, 1, 4, 4)
    uv = torch.tensor([[[0.5 / 4, 0.5 / 4], [3.5 / 4, 2.5 / 4], [1.5, 0.5]]])
    assert sample_map(values, uv)[0, 0].tolist() == pytest.approx([0.0, 11.0, 0.0])


def test_points_behind_the_camera_have_negative_distance():
    _, distance = project(torch.tensor([[[0.0, 0.0, 5.0]]]), Camera.orbit(0.0, 0.0))
    assert distance[0, 0] < 0


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="cam2world"):
        Camera(torch.eye(3)[None], torch.eye(3)[None])
    with pytest.raises(ValueError, match="25"):
        Camera.from_eg3d(torch.zeros(1, 24))


def test_stylesdf_cameras_project_as_stylesdf_does():
    """Its camera looks along its own -z with y up; pixels are counted from the upper left corner."""
    viewpoint = torch.tensor([[0.3, -0.2], [-0.5, 0.1], [0.0, 0.0]])
    half_fov = torch.deg2rad(torch.tensor([6.0, 5.0, 7.5]))
    points = torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(0)) * 0.05
    azimuth, elevation = viewpoint.unbind(dim=1)
    backward = torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=1
    )  # from the head to the camera, which stands at distance 1
    right = torch.stack([azimuth.cos(), torch.zeros(3), -azimuth.sin()], dim=1)
    up = torch.linalg.cross(backward, right)
    local = (points - backward[:, None]) @ torch.stack([right, up, backward], dim=2)
    size = 64
    focal_px = (0.5 * size / half_fov.tan())[:, None]
    column = size / 2 + focal_px * local[..., 0] / -local[..., 2]
    row = size / 2 - focal_px * local[..., 1] / -local[..., 2]

    camera = Camera.from_stylesdf(viewpoint, half_fov)
    uv, distance = project(points, camera)
    torch.testing.assert_close(uv * size, torch.stack([column, row], dim=-1), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(distance, (points - backward[:, None]).norm(dim=-1))
    torch.testing.assert_close(camera.position, backward)


def test_stylesdf_cameras_come_back_from_ours():
    angles = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.5, 0.3])
    half_fov = torch.linspace(0.05, 0.3, 64)
    viewpoint, angle = Camera.from_stylesdf(angles, half_fov).to_stylesdf()
    torch.testing.assert_close(viewpoint, angles, rtol=0, atol=1e-6)
    torch.testing.assert_close(angle, half_fov)
    orbit = Camera.orbit(angles[:, 0], angles[:, 1], radius=1.0, pivot=(0.0, 0.0, 0.0))
    torch.testing.assert_close(orbit.cam2world, Camera.from_stylesdf(angles).cam2world)
    shifted = Camera(orbit.cam2world.clone(), orbit.intrinsics)
    shifted.cam2world[:, :3, 3] += 0.1
    torch.testing.assert_close(shifted.to_stylesdf()[0], angles, rtol=0, atol=1e-6)  # only the direction counts
