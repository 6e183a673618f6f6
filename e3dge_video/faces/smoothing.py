"""Sliding-window mean of crops and poses: one person's run at a time, window in seconds of real time.

The mean over a window symmetric about the frame removes landmark jitter and does not delay motion. At the ends of a run
the window shrinks to what is there on both sides, so that a steady motion keeps its speed. Where frames are not evenly
spaced in time, the window's centre of gravity lies beside the frame; the mean is then carried back to the frame along
the window's own regression line. A steady motion comes out exactly as it went in, whatever the frame times.

Sums run over the window in a fixed order in float64 and begin at the frame's own value: no frame outside the window
touches a result, and what stands still stays still to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from e3dge_video.errors import ConfigError
from e3dge_video.faces.alignment import Similarity
from e3dge_video.geometry.cameras import EG3D_PIVOT

Array = NDArray[np.float64]

#: Default window: five frames at 25 per second.
WINDOW_S = 0.2
#: Talking heads stay within this share of the side anyway; violent shakes would leave the crop by a tenth of it.
LEASH = 0.04
#: Frame times in files are rounded; this much more than the window still counts as inside.
_TOLERANCE = 1.05
#: Windows whose mean time is off by less than this share of a frame are centred.
_CENTRED = 1e-3


def window_radii(times_s: ArrayLike, run: ArrayLike, window_s: float = WINDOW_S) -> NDArray[np.intp]:
    """Number of frames to either side that a window takes in.

    Args:
        times_s: Presentation times, increasing. [N]
        run: Run of each frame; negative means no face. [N]
        window_s: Length of the window; 0 leaves every frame as it is.

    Returns:
        The smaller of the numbers of frames of the same run within half a window before and after. [N]
    """
    if window_s < 0:
        raise ConfigError(f"the smoothing window is {window_s} s; it must not be negative (0 switches smoothing off)")
    times, runs = np.asarray(times_s, dtype=np.float64), np.asarray(run, dtype=np.int64)
    half = 0.5 * window_s * _TOLERANCE
    index = np.arange(len(times))
    first, last = _run_ends(runs)
    before = index - np.maximum(np.searchsorted(times, times - half, side="left"), first)
    after = np.minimum(np.searchsorted(times, times + half, side="right") - 1, last) - index
    return np.where(runs >= 0, np.minimum(before, after), 0)


def _run_ends(run: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index of the first and of the last frame of the run that each frame belongs to. [N], [N]"""
    if len(run) == 0:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    starts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]]))
    lengths = np.diff(np.append(starts, len(run)))
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


def mean_step(step: Callable[[NDArray[np.intp]], Array], times_s: ArrayLike, radius: ArrayLike) -> Array:
    """Mean step from each frame to the frames of its window, at the frame's own time.

    Args:
        step: Steps from every frame i to the frames `other[i]`. [N] → [N, D]
        times_s: Presentation times. [N]
        radius: Frames to either side, from `window_radii`. [N]

    Returns:
        What to add to each frame to get its window's mean. [N, D]
    """
    times, reach = np.asarray(times_s, dtype=np.float64), np.asarray(radius)
    index = np.arange(len(times))
    total = moment = step(index)  # all zero, and of the right shape
    time_total = time_square = np.zeros_like(times)
    widest = int(reach.max(initial=0))
    for offset in range(-widest, widest + 1):
        other = np.where(np.abs(offset) <= reach, index + offset, index)
        there, delay = step(other), times[other] - times
        total = total + there
        moment = moment + delay[:, None] * there
        time_total = time_total + delay
        time_square = time_square + delay * delay
    count = 2 * reach + 1
    mean, mean_time = total / count[:, None], time_total / count
    spread = time_square / count - mean_time**2
    skewed = np.abs(mean_time) > _CENTRED * np.sqrt(np.maximum(spread, 0.0))
    skewed &= spread > 0
    slope = (moment / count[:, None] - mean_time[:, None] * mean) / np.where(skewed, spread, 1.0)[:, None]
    return np.where(skewed[:, None], mean - slope * mean_time[:, None], mean)


def smooth_values(values: ArrayLike, times_s: ArrayLike, run: ArrayLike, window_s: float = WINDOW_S) -> Array:
    """Mean filter over plain numbers; frames with a NaN end the run as if they had no face. [N, D] → [N, D]"""
    x = np.asarray(values, dtype=np.float64)
    runs = _without_nan(np.asarray(run, dtype=np.int64), x)
    known = np.where(runs[:, None] >= 0, x, 0.0)
    smoothed = known + mean_step(lambda other: known[other] - known, times_s, window_radii(times_s, runs, window_s))
    smoothed[runs < 0] = np.nan
    return smoothed


def smooth_crops(
    crop: Similarity,
    times_s: ArrayLike,
    run: ArrayLike,
    window_s: float = WINDOW_S,
    *,
    leash: float | None = LEASH,
) -> Similarity:
    """Mean filter over centre, log side and angle: exactly a similarity again, at any roll.

    Args:
        crop: Raw crops; frames with a NaN end the run as if they had no face. [N]
        times_s: Presentation times. [N]
        run: Run of each frame; negative means no face. [N]
        window_s: Length of the window.
        leash: Where a corner of the smoothed square would leave the raw one by more than this share of the side, the
            window shrinks; None never shrinks it.

    Returns:
        Smoothed crops, NaN where there is no face. [N]
    """
    parameters = crop.parameters
    runs = _without_nan(np.asarray(run, dtype=np.int64), parameters)
    radius = window_radii(times_s, runs, window_s)
    if leash is not None:
        radius = _leashed(parameters, times_s, runs, radius, leash)
    smoothed = _mean_parameters(parameters, times_s, radius)
    smoothed[runs < 0] = np.nan
    return Similarity.from_parameters(smoothed)


def _without_nan(run: NDArray[np.int64], values: Array) -> NDArray[np.int64]:
    """Runs with frames taken out that hold a NaN; what is left on both sides counts as two runs. [N]"""
    broken = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    separate = np.cumsum(broken) + run * (int(broken.sum()) + 1)
    return np.where(broken | (run < 0), -1, separate)


def _mean_parameters(parameters: Array, times_s: ArrayLike, radius: NDArray[np.intp]) -> Array:
    known = np.nan_to_num(parameters)

    def step(other: NDArray[np.intp]) -> Array:
        change = known[other] - known
        change[:, 3] -= 2 * np.pi * np.round(change[:, 3] / (2 * np.pi))
        return change

    return known + mean_step(step, times_s, radius)


def _leashed(
    parameters: Array, times_s: ArrayLike, run: NDArray[np.int64], radius: NDArray[np.intp], leash: float
) -> NDArray[np.intp]:
    """Largest radii that keep the corners within the leash and differ by at most 1 from frame to frame. [N]"""
    raw = Similarity.from_parameters(np.nan_to_num(parameters))
    allowed = np.zeros_like(radius)
    for r in range(1, int(radius.max(initial=0)) + 1):
        # Only the unbroken sequence 0..r counts: a wide window that is right by accident is no reason to use it.
        smoothed = Similarity.from_parameters(_mean_parameters(parameters, times_s, np.minimum(radius, r)))
        off = np.linalg.norm(smoothed.corners() - raw.corners(), axis=-1).max(axis=-1) / raw.side
        allowed = np.where((off <= leash) & (allowed == r - 1), r, allowed)
    allowed = np.minimum(allowed, radius)
    for i in range(1, len(allowed)):
        if run[i] == run[i - 1]:
            allowed[i] = min(allowed[i], allowed[i - 1] + 1)
    for i in range(len(allowed) - 2, -1, -1):
        if run[i] == run[i + 1]:
            allowed[i] = min(allowed[i], allowed[i + 1] + 1)
    return allowed


def smooth_rotations(rotations: ArrayLike, times_s: ArrayLike, run: ArrayLike, window_s: float = WINDOW_S) -> Array:
    """Mean filter on rotations: each frame is turned by the mean of the rotation vectors from it to its neighbours.

    Args:
        rotations: Rotation matrices; NaN where there is none. [N, 3, 3]
        times_s: Presentation times. [N]
        run: Run of each frame; negative means no face. [N]
        window_s: Length of the window.

    Returns:
        Rotation matrices, NaN where there is no face. [N, 3, 3]
    """
    matrices = np.asarray(rotations, dtype=np.float64)
    runs = _without_nan(np.asarray(run, dtype=np.int64), matrices)
    radius = window_radii(times_s, runs, window_s)
    known = np.where((runs >= 0)[:, None, None], matrices, np.eye(3))

    def step(other: NDArray[np.intp]) -> Array:
        return Rotation.from_matrix(np.swapaxes(known, 1, 2) @ known[other]).as_rotvec()

    turn = Rotation.from_rotvec(mean_step(step, times_s, radius)).as_matrix()
    smoothed = known @ turn
    smoothed[runs < 0] = np.nan
    return smoothed


def smooth_cameras(
    cam2world: ArrayLike,
    times_s: ArrayLike,
    run: ArrayLike,
    window_s: float = WINDOW_S,
    *,
    pivot: ArrayLike = EG3D_PIVOT,
) -> Array:
    """Mean filter on cameras that look at a head: on the rotation, and on where the pivot stands before the camera.

    Averaging the camera's own position instead would pull it towards the head when it orbits.

    Args:
        cam2world: Camera-to-world matrices; NaN where there is none. [N, 4, 4]
        times_s: Presentation times. [N]
        run: Run of each frame; negative means no face. [N]
        window_s: Length of the window.
        pivot: Point of the head, world units. [3]

    Returns:
        [N, 4, 4]
    """
    matrices = np.asarray(cam2world, dtype=np.float64)
    runs = _without_nan(np.asarray(run, dtype=np.int64), matrices)
    point = np.asarray(pivot, dtype=np.float64)
    rotation, position = matrices[:, :3, :3], matrices[:, :3, 3]
    seen = np.einsum("nji,nj->ni", rotation, point - position)
    mean_rotation = smooth_rotations(rotation, times_s, runs, window_s)
    mean_seen = smooth_values(seen, times_s, runs, window_s)
    result = matrices.copy()
    result[:, :3, :3] = mean_rotation
    result[:, :3, 3] = point - np.einsum("nij,nj->ni", mean_rotation, mean_seen)
    return result
