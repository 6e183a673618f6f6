"""Crops against closed forms, a scalar reference, and pictures whose every pixel is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_face import face_points, project

from e3dge_video.faces.alignment import (
    Similarity,
    apply_affine,
    crop_validity,
    eg3d_crop,
    ffhq_crop,
    resized,
    warp_crop,
)
from e3dge_video.geometry.cameras import EG3D_FOCAL, Camera
from e3dge_video.geometry.face_template import FIVE_POINTS

similarities = st.builds(
    lambda x, y, side, angle: Similarity.from_parameters((x, y, np.log(side), angle)),
    st.floats(-500, 2000),
    st.floats(-500, 2000),
    st.floats(8, 4000),
    st.floats(-10, 10),
)


def looking(yaw: float, pitch: float = 0.0) -> np.ndarray:
    return Camera.orbit(yaw, pitch).cam2world.numpy().astype(np.float64)


@settings(deadline=None)
@given(similarities, st.sampled_from([1.0, 128.0, 512.0]))
def test_crop_to_frame_and_back_is_the_identity(crop: Similarity, size: float) -> None:
    points = np.array(((0.0, 0.0), (size, 0.3 * size), (0.5 * size, size)))
    there = crop.into_frame(points, size)
    np.testing.assert_allclose(crop.into_crop(there, size), points, atol=1e-9 * size)


@settings(deadline=None)
@given(similarities)
def test_crop_geometry_is_what_its_parameters_say(crop: Similarity) -> None:
    corners = crop.corners()
    np.testing.assert_allclose(corners.mean(axis=0), crop.centre, atol=1e-7)
    edges = np.roll(corners, -1, axis=0) - corners
    np.testing.assert_allclose(np.linalg.norm(edges, axis=1), crop.side, rtol=1e-9)
    np.testing.assert_allclose(edges[0] / crop.side, (np.cos(crop.angle), np.sin(crop.angle)), atol=1e-9)
    # The second edge is the first one turned clockwise on the screen, where y points down.
    np.testing.assert_allclose(edges[1], (-edges[0][1], edges[0][0]), rtol=1e-7, atol=1e-6)


def test_similarities_are_vectorised_over_frames() -> None:
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(7, 4)) + np.array((100, 100, 5, 0))
    many = Similarity.from_parameters(parameters)
    points = rng.normal(size=(7, 68, 2)) * 100
    for i in range(7):
        one = Similarity.from_parameters(parameters[i])
        np.testing.assert_array_equal(many.into_crop(points)[i], one.into_crop(points[i]))
        np.testing.assert_array_equal(many[i].parameters, parameters[i])
    np.testing.assert_array_equal(many.parameters, parameters)


def test_eg3d_crop_of_the_template_seen_from_far_away_is_exact() -> None:
    # An affine picture of the template: 250 px per template unit, origin at (321, 123), y down.
    template = (np.asarray(FIVE_POINTS) - (0, 0.006, 0.161)) / 0.27
    points = np.zeros((68, 2))
    image = np.stack([321 + 250 * template[:, 0], 123 - 250 * template[:, 1]], axis=1)
    points[[36, 39]], points[[42, 45]], points[30], points[48], points[54] = image
    crop = eg3d_crop(points)
    np.testing.assert_allclose(crop.centre, (321, 123), atol=1e-6)
    np.testing.assert_allclose(crop.side, 700 / 300 * 250, rtol=1e-9)
    assert crop.angle == 0


@pytest.mark.parametrize("yaw", [-0.4, 0.0, 0.4])
@pytest.mark.parametrize("pitch", [-0.2, 0.0, 0.2])
def test_eg3d_crop_of_a_rendered_head_is_the_whole_picture(yaw: float, pitch: float) -> None:
    """The generator's camera and the crop agree: a head seen by it fills its own crop."""
    image = project(face_points(), looking(yaw, pitch), EG3D_FOCAL)[0] * 512
    crop = eg3d_crop(image)
    np.testing.assert_allclose(crop.side, 512, rtol=0.08)
    np.testing.assert_allclose(crop.centre, 256, atol=0.05 * 512)


def test_eg3d_crop_follows_shift_and_zoom_and_ignores_roll() -> None:
    points = project(face_points(), looking(0.3), EG3D_FOCAL)[0] * 512
    base = eg3d_crop(points)
    moved = eg3d_crop(2.5 * points + (100, -30))
    np.testing.assert_allclose(moved.centre, 2.5 * base.centre + (100, -30))
    np.testing.assert_allclose(moved.side, 2.5 * base.side)
    roll = np.array(((np.cos(0.3), -np.sin(0.3)), (np.sin(0.3), np.cos(0.3))))
    turned = eg3d_crop((points - base.centre) @ roll.T + base.centre)
    np.testing.assert_allclose(turned.centre, base.centre, atol=1e-9)
    np.testing.assert_allclose(turned.side, base.side, rtol=0.02)
    assert turned.angle == 0


def ffhq_reference(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The quad of FFHQ's recipe, one face at a time."""
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    eye, mouth = (left + right) / 2, (points[48] + points[54]) / 2
    e2e, e2m = right - left, mouth - eye
    x = e2e - np.array((-e2m[1], e2m[0]))
    x *= max(np.hypot(*e2e) * 2.0, np.hypot(*e2m) * 1.8) / np.hypot(*x)
    y = np.array((-x[1], x[0]))
    c = eye + e2m * 0.1
    quad = np.stack([c - x - y, c - x + y, c + x + y, c + x - y])
    return quad, float(np.hypot(*x) * 2), float(np.arctan2(x[1], x[0]))


def test_ffhq_crop_matches_the_published_recipe() -> None:
    rng = np.random.default_rng(1)
    points = project(face_points(), looking(0.2), EG3D_FOCAL)[0] * 400 + rng.normal(size=(20, 68, 2)) * 8
    crops = ffhq_crop(points)
    for i in range(20):
        quad, side, angle = ffhq_reference(points[i])
        np.testing.assert_allclose(crops.side[i], side)
        np.testing.assert_allclose(crops.angle[i], angle)
        np.testing.assert_allclose(crops.corners()[i], quad[[0, 3, 2, 1]], atol=1e-9)


def test_a_frame_without_a_face_gives_nan() -> None:
    points = np.full((2, 68, 2), np.nan)
    points[0] = project(face_points(), looking(0.0), EG3D_FOCAL)[0]
    for crop in (eg3d_crop(points), ffhq_crop(points)):
        assert np.isfinite(crop.parameters[0]).all()
        assert np.isnan(crop.parameters[1]).all()


def ramp(height: int, width: int, slope: float = 0.4713) -> np.ndarray:
    """Red grows to the right and green downwards by `slope` levels a pixel, both 127 in the middle."""
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    levels = np.stack([127 + slope * x, 127 + slope * y, np.full_like(x, 77)], axis=2)
    return levels.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [70.0, 128.0, 128.6, 200.0, 290.1, 331.7])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_warp_reads_the_right_place_to_a_fraction_of_a_pixel(side: float, angle: float) -> None:
    slope, size = 170 / side, 64
    picture = ramp(520, 520, slope)
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1).reshape(-1, 2)
    bias = []
    for x, y in np.random.default_rng(0).uniform(255, 265, (12, 2)):
        crop = Similarity.from_parameters((x, y, np.log(side), angle))
        pixels = warp_crop(picture, crop, size).astype(np.float64)
        expected = 127 + slope * (crop.into_frame(grid, size).reshape(size, size, 2) - 260)
        error = pixels[..., :2] - expected
        assert np.abs(error).max() < 1.6  # rounded to whole levels in the picture, in the warp and in the reduction
        assert (pixels[..., 2] == 77).all()
        bias.append(error.mean(axis=(0, 1)))
    # Half a frame pixel would be a quarter of a level or more.
    assert np.abs(np.mean(bias, axis=0)).max() < 0.15


@pytest.mark.parametrize("reduction", [1.5, 2.0, 2.9, 3.7, 7.9, 20.0])
def test_warp_does_not_alias(reduction: float) -> None:
    """Stripes finer than the output's pixels come out as their mean wherever the crop stands."""
    stripes = np.zeros((1400, 1400, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    for shift in (0.0, 0.37, 1.0):
        crop = Similarity.from_parameters((700 + shift, 700, np.log(64 * reduction), 0.1))
        middle = warp_crop(stripes, crop, 64)[4:-4, 4:-4].astype(np.float64)
        assert abs(middle.mean() - 100) < 2
        assert middle.std() < 25  # point sampling would give 100


def test_warp_follows_subpixel_motion_smoothly() -> None:
    rng = np.random.default_rng(0)
    picture = resized(rng.integers(0, 255, (20, 20, 3)).astype(np.uint8), 20, 20).repeat(12, 0).repeat(12, 1)
    shifts = np.arange(0, 2, 0.25)
    crops = [Similarity.from_parameters((120 + s, 120, np.log(120.0), 0.0)) for s in shifts]
    stack = np.stack([warp_crop(picture, c, 64).astype(np.float64) for c in crops])
    steps = np.abs(np.diff(stack, axis=0)).mean(axis=(1, 2, 3))
    # Whole-pixel crops would jump every fourth step and rest between.
    assert steps.min() > 0.3 * steps.max() > 0


def test_outside_the_picture_is_mirrored_and_marked() -> None:
    picture = ramp(100, 200)
    crop = Similarity.from_parameters((0.0, 50.0, np.log(80.0), 0.0))
    pixels, valid = warp_crop(picture, crop, 80), crop_validity(picture.shape, crop, 80)
    np.testing.assert_array_equal(pixels[:, :40], pixels[:, :39:-1])
    np.testing.assert_array_equal(valid[:, :40], 0)
    np.testing.assert_array_equal(valid[:, 41:], 1)
    inside = Similarity.from_parameters((100.0, 50.0, np.log(60.0), 0.3))
    assert (crop_validity(picture.shape, inside, 32) == 1).all()


@pytest.mark.parametrize("side", [90.0, 150.0, 401.3])
@pytest.mark.parametrize("centre", [(20.0, 60.0), (185.0, 100.0), (100.0, -30.0)])
def test_a_reduced_crop_at_the_border_is_the_mirrored_picture(side: float, centre: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (131, 203, 3)).astype(np.uint8), (0, 0), 6)
    crop = Similarity.from_parameters((*centre, np.log(side), 0.2))
    padded = cv2.copyMakeBorder(picture, 600, 600, 600, 600, cv2.BORDER_REFLECT)
    inside = Similarity.from_parameters((centre[0] + 600, centre[1] + 600, np.log(side), 0.2))
    difference = warp_crop(picture, crop, 40).astype(float) - warp_crop(padded, inside, 40)
    assert np.abs(difference).mean() < 0.6 and np.abs(difference).max() < 8


@settings(deadline=None)
@given(similarities)
def test_validity_agrees_with_the_place_of_each_pixel(crop: Similarity) -> None:
    size, shape = 24, (300, 400, 3)
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1).reshape(-1, 2)
    x, y = apply_affine(crop.crop_to_frame(size), grid).T
    margin = np.minimum(np.minimum(x, 400 - x), np.minimum(y, 300 - y)) * size / crop.side
    valid = crop_validity(shape, crop, size).ravel()
    np.testing.assert_array_equal(valid[margin > 0.51], 1)
    np.testing.assert_array_equal(valid[margin < -0.51], 0)
