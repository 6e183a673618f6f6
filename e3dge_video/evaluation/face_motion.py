"""Landmarks of two pictures of one face by the same back end, and what they say of its expression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.landmarks import LandmarkBackend

#: Side at which landmarks are looked for, pixels.
_LOOKED_AT = 512


def points_of(
    backend: LandmarkBackend, source: NDArray[np.uint8], made: NDArray[np.uint8]
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """68 points of both pictures; None where either shows no face. [68, 2] twice"""
    large = [
        np.ascontiguousarray(cv2.resize(picture, (_LOOKED_AT, _LOOKED_AT)), np.uint8) for picture in (source, made)
    ]
    known = backend.detect(large[0], 0)
    other = backend.track(large[1], 0, known[0]) if known else None
    return None if other is None else (known[0].points, other.points)


def eye_distance(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Between the centres of the eyes. [T, 68, 2] → [T]"""
    return np.linalg.norm(points[:, 36:42].mean(axis=1) - points[:, 42:48].mean(axis=1), axis=1)


def mouth_opening(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Between the inner lips, over the eyes' distance. [T, 68, 2] → [T]"""
    return np.linalg.norm(points[:, 61:64] - points[:, 67:64:-1], axis=2).mean(axis=1) / eye_distance(points)


def mouth_width(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Between the mouth's corners, over the eyes' distance. [T, 68, 2] → [T]"""
    return np.linalg.norm(points[:, 48] - points[:, 54], axis=1) / eye_distance(points)


def lid_opening(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Height over width of the eyes, the mean of both. [T, 68, 2] → [T]"""
    eyes = []
    for first in (36, 42):
        eye = points[:, first : first + 6]
        height = np.linalg.norm(eye[:, 1:3] - eye[:, 5:3:-1], axis=2).mean(axis=1)
        eyes.append(height / np.linalg.norm(eye[:, 0] - eye[:, 3], axis=1))
    return np.mean(eyes, axis=0)


def point_error(source: NDArray[np.floating], made: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean distance of the points but the jaw line's, percent of the source's eyes' distance. [T, 68, 2] twice → [T]"""
    return 100 * np.linalg.norm(source - made, axis=2)[:, 17:].mean(axis=1) / eye_distance(source)
