"""How it is said: mouth, blinks, gaze, brows and the head's motion over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from e3dge_video.heads.spec import Expression

from .actor import Pose
from .speech import RATE, mouth_curves, sounds

Array = NDArray[np.float64]

#: (second, yaw, pitch, roll in degrees; shift to the right, up, towards the camera in world units)
_HEAD = (
    (-0.10, -1.0, -0.5, -1.0, 0.000, 0.000, 0.00),
    (0.45, -3.0, 2.0, -2.0, 0.000, 0.004, 0.00),
    (0.80, 2.0, -5.0, 1.0, 0.000, 0.000, 0.02),
    (1.15, 4.0, 0.0, 2.5, 0.004, 0.000, 0.03),
    (1.55, 11.0, 2.0, 4.5, 0.012, 0.000, 0.04),
    (1.95, 15.0, -4.0, 5.0, 0.018, -0.004, 0.07),
    (2.35, 18.0, 0.5, 3.0, 0.016, 0.000, 0.08),
    (2.80, 6.0, 3.5, -2.0, 0.004, 0.004, 0.08),
    (3.25, -10.0, 0.0, -5.0, -0.012, 0.000, 0.13),
    (3.70, -18.0, -4.5, -5.5, -0.020, -0.004, 0.15),
    (4.05, -15.0, 2.5, -3.0, -0.016, 0.000, 0.11),
    (4.45, -5.0, -1.0, 2.5, -0.004, 0.002, 0.05),
    (5.10, 1.0, 0.5, 4.5, 0.004, 0.000, 0.00),
)
#: Seconds at which the lids meet.
_BLINKS = (0.30, 1.22, 2.58, 4.36)
#: (second, gaze to the right, gaze up) beside the camera.
_GAZE = (
    (0.00, 0.0, 0.0), (1.05, 0.0, 0.0), (1.12, 0.05, 0.02), (2.42, 0.0, 0.0), (2.52, 0.30, 0.20), (2.78, 0.34, 0.22),
    (2.88, 0.0, 0.0), (3.60, 0.0, 0.0), (3.66, -0.06, 0.0), (4.20, 0.0, 0.0), (5.00, 0.0, 0.0),
)  # fmt: skip
#: (second, smile, squint, brows up, inner brows up)
_MOOD = (
    (0.00, 0.30, 0.05, 0.00, 0.0), (0.35, 0.34, 0.06, 0.18, 0.0), (0.75, 0.26, 0.05, 0.48, 0.1),
    (1.20, 0.42, 0.14, 0.14, 0.0), (1.60, 0.26, 0.06, 0.10, 0.1), (1.95, 0.30, 0.08, 0.32, 0.1),
    (2.45, 0.46, 0.18, 0.06, 0.0), (2.75, 0.22, 0.05, 0.30, 0.2), (3.10, 0.14, 0.04, 0.12, 0.1),
    (3.75, 0.16, 0.04, 0.55, 0.1), (4.25, 0.40, 0.14, 0.16, 0.0), (4.60, 0.62, 0.24, 0.10, 0.0),
    (5.00, 0.58, 0.22, 0.06, 0.0),
)  # fmt: skip
#: Yaw and pitch, radians, that a full sideways and a full upward gaze make up for.
_GAZE_YAW, _GAZE_PITCH = 0.62, 0.45


def perform(frames: int, rate: int) -> list[tuple[Expression, Pose]]:
    """Expression and pose of each frame, taken at its middle."""
    seconds = frames / rate
    mouth = mouth_curves(seconds)
    times = (np.arange(frames) + 0.5) / rate
    at = np.minimum((times * RATE).astype(int), round(seconds * RATE) - 1)
    head, gaze, mood = (_interpolated(table, times) for table in (_HEAD, _GAZE, _MOOD))
    nod = _emphasis(seconds)[at]
    restless = _restlessness(times)
    lids = _lids(times)
    result = []
    for i in range(frames):
        yaw, pitch, roll = np.radians(head[i, :3]) + 0.012 * restless[i]
        pitch = pitch - 0.030 * nod[i]
        lips = {name: float(curve[at[i]]) for name, curve in mouth.items()}
        speaking = min(1.0, 2.2 * lips["jaw_open"] + lips["press"] + lips["pucker"])
        # A smile gives way to the sounds, but not wholly.
        lips["smile"] += float(mood[i, 0]) * (1 - 0.45 * speaking)
        expression = Expression(
            **{name: float(np.clip(value, 0, 1)) for name, value in lips.items()},
            blink_left=float(lids[i]),
            blink_right=float(lids[i]),
            squint=float(mood[i, 1]),
            wide=0.10 * float(nod[i]),
            brow_up=float(np.clip(0.65 * mood[i, 2] + 0.20 * nod[i], 0, 1)),
            brow_inner_up=float(mood[i, 3]),
            gaze_x=float(np.clip(gaze[i, 0] - yaw / _GAZE_YAW, -1, 1)),
            gaze_y=float(np.clip(gaze[i, 1] - pitch / _GAZE_PITCH - 0.12 * lids[i], -1, 1)),
        )
        result.append((expression, Pose(float(yaw), float(pitch), float(roll), tuple(head[i, 3:].tolist()))))
    return result


def _interpolated(table: tuple[tuple[float, ...], ...], times: Array) -> Array:
    """Smooth curves through keyed values. [n, columns]"""
    keys = np.array(table)
    return np.asarray(PchipInterpolator(keys[:, 0], keys[:, 1:])(times))


def _emphasis(seconds: float) -> Array:
    """A swell on each accented sound, `RATE` values per second. [n]"""
    time = np.arange(round(seconds * RATE)) / RATE
    swell = np.zeros_like(time)
    for sound in sounds():
        if sound.accent:
            middle = 0.5 * (sound.start + sound.end)
            swell += np.exp(-(((time - middle) / 0.13) ** 2))
    return np.clip(swell, 0, 1)


def _restlessness(times: Array) -> Array:
    """Small slow sway that no living head is without. [n, 3]"""
    waves = ((0.73, 0.2), (0.91, 1.9), (0.57, 4.0))
    fast = ((1.9, 0.7), (2.3, 2.2), (1.6, 5.1))
    return np.stack(
        [
            0.7 * np.sin(2 * np.pi * f * times + p) + 0.3 * np.sin(2 * np.pi * g * times + q)
            for (f, p), (g, q) in zip(waves, fast, strict=True)
        ],
        axis=1,
    )


def _lids(times: Array) -> Array:
    """How far the lids are closed: quick down, a little slower up. [n]"""
    fine = np.arange(0, times[-1] + 0.5, 1 / RATE)
    closed = np.zeros_like(fine)
    for moment in _BLINKS:
        since = fine - moment
        closed = np.maximum(closed, np.interp(since, (-0.09, -0.02, 0.03, 0.19), (0, 1, 1, 0)))
    return np.interp(times, fine, gaussian_filter1d(closed, 0.012 * RATE))
