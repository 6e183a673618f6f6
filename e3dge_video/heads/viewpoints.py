"""Cameras for pictures of heads: as varied as the crops of real videos, in EG3D's convention."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: EG3D's focal length over image size, camera distance and pivot (`geometry/cameras.py` holds the same for tensors).
FOCAL = 2985.29 / 700.0
RADIUS = 2.7
PIVOT = (0.0, 0.0, 0.2)

YAW_DEVIATION, YAW_LIMIT = 0.38, np.radians(60.0)
PITCH_DEVIATION, PITCH_LIMIT = 0.20, np.radians(35.0)
ROLL_DEVIATION = 0.10
#: Largest shift of the point looked at, world units, and largest relative change of distance.
TARGET_JITTER, DISTANCE_JITTER = 0.02, 0.04


def intrinsics_matrix() -> NDArray[np.float32]:
    """Pinhole intrinsics divided by the image size. [3, 3]"""
    return np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]], np.float32)


def look_at(
    yaw: float, pitch: float, roll: float = 0.0, target: tuple[float, float, float] = PIVOT, radius: float = RADIUS
) -> NDArray[np.float32]:
    """cam2world of a camera around `target`, OpenCV axes. [4, 4]

    Args:
        yaw: To the world's +x side, radians.
        pitch: Upwards, radians.
        roll: Turn of the camera about its axis, radians.
    """
    outward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    forward = -outward
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = cos * right + sin * down, cos * down - sin * right, forward
    pose[:3, 3] = np.array(target) + radius * outward
    return pose.astype(np.float32)


def camera_label(cam2world: NDArray[np.floating], intrinsics: NDArray[np.floating]) -> NDArray[np.float32]:
    """EG3D's 25 numbers. [25]"""
    return np.concatenate([cam2world.reshape(16), intrinsics.reshape(9)]).astype(np.float32)


def random_cameras(count: int, rng: np.random.Generator, *, near_frontal: bool = False) -> NDArray[np.float32]:
    """Random camera labels. [count, 25]

    Args:
        near_frontal: A quarter of the angles, for the first view of an identity.
    """
    labels = np.empty((count, 25), np.float32)
    share = 0.25 if near_frontal else 1.0
    for i in range(count):
        yaw = float(np.clip(rng.normal(0, YAW_DEVIATION * share), -YAW_LIMIT, YAW_LIMIT))
        pitch = float(np.clip(rng.normal(0, PITCH_DEVIATION * share), -PITCH_LIMIT, PITCH_LIMIT))
        roll = float(rng.normal(0, ROLL_DEVIATION * share))
        x, y, z = np.array(PIVOT) + rng.uniform(-TARGET_JITTER, TARGET_JITTER, 3)
        radius = RADIUS * (1 + rng.uniform(-DISTANCE_JITTER, DISTANCE_JITTER))
        labels[i] = camera_label(look_at(yaw, pitch, roll, (float(x), float(y), float(z)), radius), intrinsics_matrix())
    return labels
