"""Cameras recovered from projected points whose true camera is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_face import face_points, project

from e3dge_video.faces.pose import camera_angles, fit_camera
from e3dge_video.geometry.cameras import EG3D_FOCAL, EG3D_PIVOT, EG3D_RADIUS, Camera
from e3dge_video.geometry.projection import project as project_torch

POINTS = face_points()
COUNT = 200
#: Eye distance of the synthetic face in its crop.
EYES = 0.266


def orbit(yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    return Camera.orbit(torch.from_numpy(yaw), torch.from_numpy(pitch)).cam2world.double().numpy()


@pytest.fixture(scope="module")
def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True cameras [B, 4, 4], their angles [B, 3] and the projected points [B, 68, 2]; heads also lean and move."""
    rng = np.random.default_rng(0)
    cameras = orbit(rng.uniform(-0.8, 0.8, COUNT), rng.uniform(-0.4, 0.4, COUNT))
    roll = rng.uniform(-0.3, 0.3, COUNT)
    turn = np.zeros((COUNT, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(roll)
    turn[:, 0, 1], turn[:, 1, 0], turn[:, 2, 2] = -np.sin(roll), np.sin(roll), 1
    cameras[:, :3, :3] = cameras[:, :3, :3] @ turn
    cameras[:, :3, 3] += rng.normal(size=(COUNT, 3)) * 0.03
    return cameras, camera_angles(cameras), project(POINTS, cameras, EG3D_FOCAL)


def test_angles_are_those_of_the_orbit() -> None:
    rng = np.random.default_rng(1)
    yaw, pitch = rng.uniform(-1.4, 1.4, 50), rng.uniform(-1.2, 1.2, 50)
    angles = camera_angles(orbit(yaw, pitch))
    np.testing.assert_allclose(angles, np.stack([yaw, pitch, 0 * yaw], axis=1), atol=1e-6)


def test_exact_points_give_the_exact_camera(views: tuple[np.ndarray, ...]) -> None:
    cameras, _, image = views
    fit = fit_camera(POINTS, image, radius_spread=1e3)
    np.testing.assert_allclose(fit.cam2world, cameras, atol=1e-6)
    assert fit.residual.max() < 1e-7
    # The library's own projection agrees with the one in this test.
    seen, _ = project_torch(torch.from_numpy(POINTS).float().repeat(COUNT, 1, 1), fit.camera())
    np.testing.assert_allclose(seen.numpy(), image, atol=1e-4)


@pytest.mark.parametrize("noise", [0.01 * EYES, 0.01])
def test_noise_does_not_bias_the_angles(views: tuple[np.ndarray, ...], noise: float) -> None:
    """1 % of the eye distance (a good network's jitter) and 1 % of the crop (a bad one's error)."""
    _, angles, image = views
    rng = np.random.default_rng(2)
    error = []
    for _ in range(5):
        fit = fit_camera(POINTS, image + noise * rng.normal(size=image.shape))
        error.append(np.degrees(camera_angles(fit.cam2world) - angles))
    spread, bias = np.std(error, axis=(0, 1)), np.mean(error, axis=(0, 1))
    assert np.abs(bias).max() < 0.1
    assert spread[:2].max() < (0.35 if noise < 0.005 else 1.15)
    # The yaw is not shrunk towards the front.
    yaw = angles[:, 0] + np.radians(np.mean(error, axis=0)[:, 0])
    assert np.polyfit(angles[:, 0], yaw, 1)[0] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_it_converges_from_forty_degrees_away(views: tuple[np.ndarray, ...], axis: int, sign: int) -> None:
    cameras, angles, image = views
    off = angles.copy()
    off[:, axis] += sign * np.radians(40)
    noisy = image + 0.002 * np.random.default_rng(3).normal(size=image.shape)
    far = fit_camera(POINTS, noisy, initial=orbit(off[:, 0], off[:, 1]))
    near = fit_camera(POINTS, noisy, initial=cameras)
    free = fit_camera(POINTS, noisy)
    np.testing.assert_allclose(far.cam2world, near.cam2world, atol=2e-4)
    np.testing.assert_allclose(free.cam2world, near.cam2world, atol=2e-4)


def test_a_tenth_of_wild_points_does_little(views: tuple[np.ndarray, ...]) -> None:
    _, angles, image = views
    rng = np.random.default_rng(4)
    noisy = image + 0.003 * rng.normal(size=image.shape)
    wild = rng.random(image.shape[:2]) < 0.1
    noisy[wild] += 0.15 * rng.normal(size=(wild.sum(), 2))
    error = np.degrees(camera_angles(fit_camera(POINTS, noisy).cam2world) - angles)
    assert error[:, :2].std(axis=0).max() < 0.5
    plain = np.degrees(camera_angles(fit_camera(POINTS, noisy, np.ones(68)).cam2world) - angles)
    assert plain[:, :2].std(axis=0).max() < 0.5


def test_a_frame_does_not_depend_on_its_batch(views: tuple[np.ndarray, ...]) -> None:
    _, _, image = views
    noisy = image + 0.01 * np.random.default_rng(5).normal(size=image.shape)
    together = fit_camera(POINTS, noisy)
    for size in (1, 8):
        parts = [fit_camera(POINTS, noisy[i : i + size]).cam2world for i in range(0, 48, size)]
        np.testing.assert_array_equal(np.concatenate(parts), together.cam2world[:48])


def test_each_frame_may_have_its_own_head(views: tuple[np.ndarray, ...]) -> None:
    cameras, _, _ = views
    rng = np.random.default_rng(6)
    heads = POINTS + 0.01 * rng.normal(size=(COUNT, 68, 3))
    fit = fit_camera(heads, project(heads, cameras, EG3D_FOCAL), radius_spread=1e3)
    np.testing.assert_allclose(fit.cam2world, cameras, atol=1e-6)


def test_the_distance_is_held_softly() -> None:
    cameras = orbit(np.zeros(1), np.zeros(1))
    image = project(POINTS * (1.1, 1.1, 1.1), cameras, EG3D_FOCAL)

    def distance(spread: float) -> float:
        position = fit_camera(POINTS, image, radius_spread=spread).cam2world[0, :3, 3]
        return float(np.linalg.norm(position - EG3D_PIVOT))

    assert distance(1e-4) == pytest.approx(EG3D_RADIUS, rel=0.01)
    # A head 10 % larger looks like one about 10 % nearer.
    assert distance(0.05) == pytest.approx(EG3D_RADIUS / 1.1, rel=0.03)


def test_an_outline_jaw_does_not_pull_the_yaw() -> None:
    """The far jaw of a turned face is seen at its outline, which stands further out than the jaw's own points."""
    yaw = np.radians(np.linspace(-50, 50, 41))
    cameras = orbit(yaw, 0 * yaw)
    image = project(POINTS, cameras, EG3D_FOCAL)
    bulge = 0.08 * np.abs(np.sin(yaw))[:, None]
    image[yaw > 0, 0:8, 0] -= bulge[yaw > 0]
    image[yaw < 0, 9:17, 0] += bulge[yaw < 0]
    plain = camera_angles(fit_camera(POINTS, image).cam2world)[:, 0]
    aware = camera_angles(fit_camera(POINTS, image, silhouette_jaw=True).cam2world)[:, 0]
    far = np.abs(yaw) > np.radians(30)
    assert np.degrees(np.abs(aware - yaw)[far]).max() < 0.1
    assert np.degrees(np.abs(plain - yaw)[far]).max() > 0.5


def test_few_points_and_degenerate_ones_do_not_crash() -> None:
    five = np.asarray(POINTS[[36, 45, 30, 48, 54]])
    cameras = orbit(np.array((0.3,)), np.array((-0.1,)))
    fit = fit_camera(five, project(five, cameras, EG3D_FOCAL))
    np.testing.assert_allclose(camera_angles(fit.cam2world), camera_angles(cameras), atol=1e-3)
    same = fit_camera(POINTS, np.full((1, 68, 2), 0.5))
    assert np.isfinite(same.cam2world).all()


def test_frames_without_a_face_get_no_camera(views: tuple[np.ndarray, ...]) -> None:
    _, _, image = views
    holed = image[:6].copy()
    holed[2] = np.nan
    holed[4, 30, 0] = np.nan
    fit, full = fit_camera(POINTS, holed), fit_camera(POINTS, image[:6])
    np.testing.assert_array_equal(np.isnan(fit.residual), [False, False, True, False, True, False])
    assert np.isnan(fit.cam2world[[2, 4]]).all()
    np.testing.assert_array_equal(fit.cam2world[[0, 1, 3, 5]], full.cam2world[[0, 1, 3, 5]])
