"""Built and rendered heads: exact geometry, determinism, labels, landmarks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from e3dge_video.geometry.face_template import FIVE_POINTS, MEAN_68
from e3dge_video.heads.edits import edit
from e3dge_video.heads.landmarks import fit_scale_translation, five_points
from e3dge_video.heads.latent import LAYOUT
from e3dge_video.heads.paint import LABEL
from e3dge_video.heads.render import RenderedHead, render
from e3dge_video.heads.sampler import Head, HeadSampler
from e3dge_video.heads.viewpoints import intrinsics_matrix, look_at, random_cameras

SIZE = 96


def _relaxed(z: np.ndarray) -> np.ndarray:
    z = z.copy()
    z[LAYOUT["expression"]] = -1.0
    return z


@pytest.fixture(scope="module")
def head(sampler: HeadSampler) -> Head:
    return sampler.build(sampler.decode(sampler.sample(3, seed=4)[2]))


@pytest.fixture(scope="module")
def pose() -> np.ndarray:
    return look_at(0.35, 0.1, 0.05)


@pytest.fixture(scope="module")
def shot(head: Head, pose: np.ndarray) -> RenderedHead:
    return render(head, pose, intrinsics_matrix(), SIZE)


def _unproject(shot: RenderedHead, pose: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    pixel = np.stack([(columns + 0.5) / SIZE, (rows + 0.5) / SIZE, np.ones(len(rows))], axis=1)
    ray = pixel @ np.linalg.inv(intrinsics_matrix()).T
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    return pose[:3, 3] + (ray @ pose[:3, :3].T) * shot.depth[rows, columns][:, None]


def test_depth_unprojects_onto_the_mesh(head: Head, shot: RenderedHead, pose: np.ndarray) -> None:
    rows, columns = np.nonzero(shot.depth > 0)
    pick = np.random.default_rng(0).permutation(len(rows))[:60]
    points = _unproject(shot, pose, rows[pick], columns[pick])
    corners = head.vertices[head.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    corners, normals = corners[length > 1e-12], normals[length > 1e-12] / length[length > 1e-12, None]
    for point in points:
        near = np.linalg.norm(corners.mean(1) - point, axis=1) < 0.09
        a, b, c = (corners[near, k] for k in range(3))
        n = normals[near]
        height = ((point - a) * n).sum(1)
        foot = point - height[:, None] * n
        inside = np.ones(near.sum(), bool)
        for first, second in ((a, b), (b, c), (c, a)):
            inside &= (np.cross(second - first, foot - first) * n).sum(1) > -1e-7
        assert np.abs(height[inside]).min() < 2e-4


def test_silhouette_agrees_between_alpha_depth_and_label(shot: RenderedHead) -> None:
    solid = shot.depth > 0
    np.testing.assert_array_equal(solid, shot.label > 0)
    assert (shot.alpha[solid] >= 64).all()
    assert (np.linalg.norm(shot.normal[solid], axis=1) > 0.99).all() and not shot.normal[~solid].any()
    edge = (shot.alpha > 0) & (shot.alpha < 255)
    assert 0 < edge.sum() < 0.15 * solid.sum()
    assert len(np.unique(shot.alpha)) > 8


def test_landmarks_land_on_their_labels(sampler: HeadSampler) -> None:
    """Eye corners beside the eyes, lips on lips, jaw on skin: frontal, eyes open, no glasses, hair or beard."""
    good = total = 0
    for z in sampler.sample(6, seed=2):
        z = edit(edit(edit(_relaxed(z), "glasses", -1), "beard", -1), "bald", 1)
        head = sampler.build(sampler.decode(z))
        pose = look_at(0.0, 0.0)
        shot = render(head, pose, intrinsics_matrix(), SIZE)
        camera = (head.landmarks - pose[:3, 3]) @ pose[:3, :3]
        pixels = (camera @ intrinsics_matrix().T)[:, :2] / camera[:, 2:] * SIZE
        for points, label in (((50, 51, 52, 56, 57, 58), "lips"), ((27, 28, 29, 30), "skin"), ((8,), "skin")):
            for p in points:
                column, row = (pixels[p]).astype(int)
                around = shot.label[row - 1 : row + 2, column - 1 : column + 2]
                good += int((around == LABEL[label]).any())
                total += 1
        eyes = [pixels[36:42].mean(0), pixels[42:48].mean(0)]
        assert all(shot.label[int(y), int(x)] == LABEL["eye"] for x, y in eyes)
        assert pixels[36, 0] < pixels[39, 0] < pixels[42, 0] < pixels[45, 0]
        assert pixels[19, 1] < pixels[37, 1] < pixels[33, 1] < pixels[51, 1] < pixels[8, 1]
    assert good / total > 0.95


def test_landmarks_move_with_expression(sampler: HeadSampler) -> None:
    z = _relaxed(sampler.sample(1, seed=7)[0])
    points = {
        name: sampler.build(sampler.decode(edit(z, name) if name else z)).landmarks
        for name in ("", "mouth_open", "eyes_closed", "smile")
    }

    def gap(name: str, upper: int, lower: int) -> float:
        return float(points[name][upper, 1] - points[name][lower, 1])

    assert gap("mouth_open", 62, 66) > gap("", 62, 66) + 0.04
    assert gap("eyes_closed", 37, 41) < 0.35 * gap("", 37, 41)
    width = {name: points[name][54, 0] - points[name][48, 0] for name in ("", "smile")}
    assert width["smile"] > width[""] + 0.01
    assert points["smile"][48, 1] > points[""][48, 1] + 0.005


def test_neutral_shape_is_fitted_to_the_template(sampler: HeadSampler) -> None:
    """The five points of any neutral shape fit with scale one and no shift, whatever the expression is."""
    for z in sampler.sample(4, seed=9):
        spec = sampler.decode(z)
        neutral, _ = sampler.shape.neutral(spec.phenotype)
        points = five_points(sampler.shape.landmarks(neutral))
        scale, shift = fit_scale_translation(points, FIVE_POINTS)
        assert scale == pytest.approx(1.0, abs=1e-4)
        np.testing.assert_allclose(shift, 0.0, atol=1e-4)
    np.testing.assert_allclose(five_points(MEAN_68), FIVE_POINTS)
    assert FIVE_POINTS[1, 0] - FIVE_POINTS[0, 0] == pytest.approx(0.168, abs=0.003)


def test_same_code_gives_same_bytes(sampler: HeadSampler, pose: np.ndarray) -> None:
    z = sampler.sample(2, seed=5)[1]
    first, second = (render(sampler.build(sampler.decode(z)), pose, intrinsics_matrix(), SIZE) for _ in range(2))
    for name in ("rgb", "alpha", "depth", "normal", "label"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_small_steps_in_the_code_make_small_steps_in_the_picture(sampler: HeadSampler) -> None:
    """No hidden randomness: a tiny step in every entry hardly changes the picture."""
    z = sampler.sample(2, seed=6)[1]
    step = 1e-3 * np.random.default_rng(1).standard_normal(len(z)).astype(np.float32)
    pictures = [
        render(sampler.build(sampler.decode(code)), look_at(0.1, 0.0), intrinsics_matrix(), SIZE)
        for code in (z, z + step)
    ]
    change = np.abs(pictures[0].rgb.astype(int) - pictures[1].rgb.astype(int))[pictures[0].alpha > 250]
    assert change.mean() < 0.6


def test_edit_of_glasses_changes_only_pixels_near_the_glasses(sampler: HeadSampler) -> None:
    z = edit(_relaxed(sampler.sample(4, seed=8)[3]), "glasses", -1)
    plain, worn = (
        render(sampler.build(sampler.decode(code)), look_at(0.0, 0.0), intrinsics_matrix(), SIZE)
        for code in (z, edit(z, "glasses", 1))
    )
    assert (worn.label == LABEL["glasses"]).sum() > 30 and not (plain.label == LABEL["glasses"]).any()
    lower_face = slice(int(0.72 * SIZE), None)
    change = np.abs(plain.rgb.astype(int) - worn.rgb.astype(int))[lower_face]
    assert change.mean() < 0.5


def test_wrinkles_can_be_seen_at_portrait_resolution(sampler: HeadSampler) -> None:
    """A generator of 128 px planes can only learn what survives at about 64 px across the picture."""
    z = _relaxed(sampler.sample(4, seed=8)[3])
    smooth, old = (
        render(sampler.build(sampler.decode(edit(z, "wrinkles", way))), look_at(0.0, 0.0), intrinsics_matrix(), 256).rgb
        for way in (-1, 1)
    )
    drawn = cv2.resize((old.astype(np.float32) - smooth).mean(axis=2), (64, 64), interpolation=cv2.INTER_AREA)
    lines = drawn - cv2.GaussianBlur(drawn, (0, 0), 3)
    assert lines[10:26, 24:40].std() > 4  # of 255, on the forehead


def test_everything_drawn_lies_in_the_box(sampler: HeadSampler) -> None:
    """A tri-plane covers ±0.5; what a camera can see of a head must lie inside."""
    for z in sampler.sample(8, seed=10):
        head = sampler.build(sampler.decode(z))
        used = np.unique(head.triangles)
        assert np.abs(head.vertices[used]).max() <= 0.5


def test_light_is_the_only_thing_that_irradiance_depends_on(sampler: HeadSampler, head: Head) -> None:
    brighter = replace(head.spec, light=replace(head.spec.light, exposure=2 * head.spec.light.exposure))
    np.testing.assert_allclose(sampler.build(brighter).irradiance, 2 * head.irradiance, rtol=1e-4, atol=1e-5)


def test_random_cameras_have_the_spread_of_real_crops() -> None:
    labels = random_cameras(4000, np.random.default_rng(0))
    poses = labels[:, :16].reshape(-1, 4, 4)
    outward = -poses[:, :3, 2]
    yaw, pitch = np.arctan2(outward[:, 0], outward[:, 2]), np.arcsin(outward[:, 1])
    assert yaw.std() == pytest.approx(0.38, abs=0.03) and np.abs(yaw).max() <= np.radians(60) + 1e-4
    assert pitch.std() == pytest.approx(0.20, abs=0.02) and np.abs(pitch).max() <= np.radians(35) + 1e-4
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3)[None].repeat(4000, 0), atol=1e-5
    )
    assert (np.linalg.det(poses[:, :3, :3]) > 0.99).all()
