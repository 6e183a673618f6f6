"""The mean filter against a brute-force loop, and against motions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from e3dge_video.errors import ConfigError
from e3dge_video.faces.alignment import Similarity
from e3dge_video.faces.smoothing import (
    smooth_cameras,
    smooth_crops,
    smooth_rotations,
    smooth_values,
    window_radii,
)
from e3dge_video.geometry.cameras import Camera


def frames_at(fps: float, count: int) -> np.ndarray:
    return np.arange(count) / fps


@st.composite
def clips(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (uneven), runs (with frames without a face) and values of a random clip."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    times = np.cumsum(rng.choice([0.02, 0.04, 0.05], size=count))
    run = np.sort(rng.integers(0, 4, size=count))
    run[rng.random(count) < 0.1] = -1
    return times, run, rng.normal(size=(count, 3)) * 100


@pytest.mark.parametrize(
    ("fps", "frames"), [(25, 5), (24000 / 1001, 5), (30, 7), (30000 / 1001, 7), (60, 13), (5, 1), (12, 3)]
)
def test_a_fifth_of_a_second_is_an_odd_number_of_frames(fps: float, frames: int) -> None:
    radius = window_radii(frames_at(fps, 61), np.zeros(61, dtype=int), 0.2)
    assert 2 * radius[30] + 1 == frames
    np.testing.assert_array_equal(radius, np.minimum(radius[30], np.minimum(np.arange(61), np.arange(61)[::-1])))


@settings(deadline=None)
@given(clips(), st.floats(0, 0.6))
def test_radii_match_a_loop(clip: tuple[np.ndarray, np.ndarray, np.ndarray], window: float) -> None:
    times, run, _ = clip
    radius = window_radii(times, run, window)
    for i in range(len(times)):
        expected = 0
        while run[i] >= 0:
            a, b = i - expected - 1, i + expected + 1
            if a < 0 or b >= len(times) or (run[a : b + 1] != run[i]).any():
                break
            if max(times[i] - times[a], times[b] - times[i]) > 0.5 * window * 1.05:
                break
            expected += 1
        assert radius[i] == expected


@settings(deadline=None)
@given(clips(), st.floats(0, 0.5))
def test_means_match_a_loop(clip: tuple[np.ndarray, np.ndarray, np.ndarray], window: float) -> None:
    times, run, values = clip
    smoothed = smooth_values(values, times, run, window)
    radius = window_radii(times, run, window)
    for i in range(len(times)):
        if run[i] < 0:
            assert np.isnan(smoothed[i]).all()
            continue
        inside = slice(i - radius[i], i + radius[i] + 1)
        # The regression line of the window at the frame's time; its mean when the window is centred.
        t = times[inside] - times[i]
        expected = np.polyfit(t, values[inside], 1)[1] if radius[i] else values[i]
        np.testing.assert_allclose(smoothed[i], expected, atol=1e-8)


def test_even_frames_get_the_plain_mean() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    smoothed = smooth_values(values, frames_at(25, 30), np.zeros(30, dtype=int), 0.2)
    for i in range(2, 28):
        np.testing.assert_allclose(smoothed[i], values[i - 2 : i + 3].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(smoothed[1], values[:3].mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(smoothed[0], values[0])


@settings(deadline=None)
@given(clips())
def test_what_stands_still_stays_to_the_last_bit(clip: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    times, run, values = clip
    still = np.broadcast_to(values[:1], values.shape)
    smoothed = smooth_values(still, times, run)
    np.testing.assert_array_equal(smoothed[run >= 0], still[run >= 0])


@settings(deadline=None)
@given(clips())
def test_steady_motion_is_kept_whatever_the_frame_times(clip: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    times, run, values = clip
    steady = values[:1] + times[:, None] * (3.0, -50.0, 0.2)
    smoothed = smooth_values(steady, times, run, 0.4)
    np.testing.assert_allclose(smoothed[run >= 0], steady[run >= 0], atol=1e-9)


@settings(deadline=None)
@given(clips(), st.integers(0, 39))
def test_nothing_crosses_a_run(clip: tuple[np.ndarray, np.ndarray, np.ndarray], changed: int) -> None:
    times, run, values = clip
    changed %= len(times)
    other = values.copy()
    other[changed] += 1e6
    before, after = (smooth_values(v, times, run) for v in (values, other))
    same = (run != run[changed]) & (run >= 0)
    np.testing.assert_array_equal(before[same], after[same])


@settings(deadline=None)
@given(clips(), st.integers(1, 30))
def test_a_span_with_its_neighbours_gives_the_same_bits(
    clip: tuple[np.ndarray, np.ndarray, np.ndarray], start: int
) -> None:
    """Smoothing part of a clip, with enough frames around it, equals smoothing it all."""
    times, run, values = clip
    whole = smooth_values(values, times, run, 0.2)
    halo = 12
    a, b = min(start, len(times) - 1), min(start + 8, len(times))
    low, high = max(a - halo, 0), min(b + halo, len(times))
    part = smooth_values(values[low:high], times[low:high], run[low:high], 0.2)[a - low : b - low]
    np.testing.assert_array_equal(part, whole[a:b])


def crops(parameters: np.ndarray) -> Similarity:
    return Similarity.from_parameters(parameters)


def test_noise_shrinks_by_the_root_of_the_window() -> None:
    rng = np.random.default_rng(0)
    parameters = np.array((300.0, 200.0, 5.0, 0.1)) + rng.normal(size=(4000, 4)) * (2, 2, 0.01, 0.01)
    smoothed = smooth_crops(crops(parameters), frames_at(25, 4000), np.zeros(4000, dtype=int), leash=None)
    ratio = smoothed.parameters[10:-10].std(axis=0) / parameters.std(axis=0)
    np.testing.assert_allclose(ratio, 1 / np.sqrt(5), rtol=0.08)


def test_angles_are_averaged_across_the_seam() -> None:
    angle = np.array((np.pi - 0.02, np.pi - 0.01, -np.pi, -np.pi + 0.01, -np.pi + 0.02))
    parameters = np.stack([np.full(5, 100.0), np.full(5, 100.0), np.full(5, 4.0), angle], axis=1)
    smoothed = smooth_crops(crops(parameters), frames_at(25, 5), np.zeros(5, dtype=int))
    np.testing.assert_allclose(np.exp(1j * smoothed.angle), np.exp(1j * angle), atol=1e-9)


def test_clips_shorter_than_the_window_and_missing_frames() -> None:
    parameters = np.arange(12, dtype=float).reshape(3, 4)
    one = smooth_crops(crops(parameters[:1]), [0.0], [0], 5.0)
    np.testing.assert_array_equal(one.parameters, parameters[:1])
    none = smooth_crops(crops(parameters[:0]), [], [], 5.0)
    assert len(none) == 0
    holed = np.concatenate([parameters, parameters + 100, parameters])
    holed[4] = np.nan
    smoothed = smooth_crops(crops(holed), frames_at(25, 9), np.zeros(9, dtype=int), 1.0, leash=None).parameters
    assert np.isnan(smoothed[4]).all() and np.isfinite(np.delete(smoothed, 4, axis=0)).all()
    # The hole ends the run: its neighbours cannot be symmetric about anything and stay.
    np.testing.assert_array_equal(smoothed[[3, 5]], holed[[3, 5]])


def test_no_window_means_no_smoothing_and_negative_is_refused() -> None:
    parameters = np.random.default_rng(0).normal(size=(9, 4))
    smoothed = smooth_crops(crops(parameters), frames_at(25, 9), np.zeros(9, dtype=int), 0.0)
    np.testing.assert_array_equal(smoothed.parameters, parameters)
    with pytest.raises(ConfigError, match="negative"):
        window_radii([0.0, 0.1], [0, 0], -0.1)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0.005, 0.1))
def test_the_leash_holds(seed: int, leash: float) -> None:
    rng = np.random.default_rng(seed)
    shake = 60 * np.sin(np.linspace(0, 40, 80) + rng.uniform(0, 6))
    parameters = np.stack([300 + shake, 200 + 0.3 * shake, np.full(80, 5.5), 0.002 * shake], axis=1)
    raw, run = crops(parameters), np.repeat([0, 1], 40)
    smoothed = smooth_crops(raw, frames_at(25, 80), run, 0.4, leash=leash)
    off = np.linalg.norm(smoothed.corners() - raw.corners(), axis=-1).max(axis=1) / raw.side
    assert off.max() <= leash + 1e-9
    free = smooth_crops(raw, frames_at(25, 80), run, 0.4, leash=10.0).parameters
    np.testing.assert_array_equal(free, smooth_crops(raw, frames_at(25, 80), run, 0.4, leash=None).parameters)


def test_rotations_turning_steadily_are_kept() -> None:
    times = np.cumsum(np.random.default_rng(0).choice([0.03, 0.04, 0.05], size=40))
    start = Rotation.from_euler("xyz", (0.3, -0.7, 2.0))
    turning = (Rotation.from_rotvec(times[:, None] * (0.2, 1.5, -0.4)) * start).as_matrix()
    smoothed = smooth_rotations(turning, times, np.zeros(40, dtype=int), 0.3)
    np.testing.assert_allclose(smoothed, turning, atol=1e-12)


def test_rotations_agree_with_the_chordal_mean() -> None:
    rng = np.random.default_rng(1)
    matrices = (Rotation.from_rotvec(rng.normal(size=(60, 3)) * 0.03) * Rotation.from_rotvec((1, 2, 3))).as_matrix()
    smoothed = smooth_rotations(matrices, frames_at(25, 60), np.zeros(60, dtype=int), 0.2)
    for i in range(2, 58):
        expected = Rotation.from_matrix(matrices[i - 2 : i + 3]).mean().as_matrix()
        np.testing.assert_allclose(smoothed[i], expected, atol=2e-5)
    np.testing.assert_allclose(smoothed @ smoothed.transpose(0, 2, 1), np.eye(3)[None].repeat(60, 0), atol=1e-12)


def test_rotations_break_where_there_is_no_face() -> None:
    matrices = Rotation.from_rotvec(np.linspace(0, 1, 20)[:, None] * (0, 1.0, 0)).as_matrix()
    matrices[7] = np.nan
    run = np.array([0] * 12 + [-1] * 2 + [1] * 6)
    smoothed = smooth_rotations(matrices, frames_at(25, 20), run)
    lost = np.isnan(smoothed).any(axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(lost), [7, 12, 13])


def test_cameras_in_orbit_keep_their_distance() -> None:
    yaw = np.linspace(-1, 1, 30)
    cameras = Camera.orbit(yaw, np.zeros(30)).cam2world.double().numpy()
    smoothed = smooth_cameras(cameras, frames_at(25, 30), np.zeros(30, dtype=int), 0.6)
    np.testing.assert_allclose(smoothed, cameras, atol=1e-6)
    jitter = cameras.copy()
    jitter[:, :3, 3] += np.random.default_rng(0).normal(size=(30, 3)) * 0.05
    calm = smooth_cameras(jitter, frames_at(25, 30), np.zeros(30, dtype=int), 0.2)
    assert np.abs(calm - cameras)[3:-3].mean() < 0.6 * np.abs(jitter - cameras)[3:-3].mean()
