"""A made-up face for tests: 68 points in world units around EG3D's five template points, and pictures of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from e3dge_video.geometry.face_template import FIVE_POINTS


def face_points() -> NDArray[np.float64]:
    """68 iBUG points of a plausible, left-right symmetric head, whose five points are the template's. [68, 3]"""
    left_eye, right_eye, nose, left_mouth, right_mouth = np.asarray(FIVE_POINTS, dtype=np.float64)
    p = np.zeros((68, 3))
    jaw = np.linspace(-1, 1, 17) * np.pi / 2
    p[:17] = np.stack([0.165 * np.sin(jaw), 0.08 - 0.24 * np.cos(jaw), 0.13 * np.cos(jaw) ** 2 + 0.08], axis=1)
    brow = np.linspace(-1, 1, 5)
    for first, eye, side in ((17, left_eye, -1), (22, right_eye, 1)):
        x = eye[0] + 0.045 * brow
        y = eye[1] + 0.045 + 0.012 * (1 - brow**2)
        p[first : first + 5] = np.stack([x, y, eye[2] + 0.02 - 0.02 * brow * side], axis=1)
    bridge = np.linspace(0, 1, 4)[:, None]
    p[27:31] = (1 - bridge) * np.array((0, left_eye[1], left_eye[2] + 0.035)) + bridge * nose
    wings = np.linspace(-1, 1, 5)
    p[31:36] = np.stack([0.035 * wings, nose[1] - 0.035 + 0 * wings, nose[2] - 0.045 - 0.02 * np.abs(wings)], axis=1)
    turn = np.array((np.pi, 2 * np.pi / 3, np.pi / 3, 0, -np.pi / 3, -2 * np.pi / 3))
    for first, eye in ((36, left_eye), (42, right_eye)):
        p[first : first + 6] = eye + np.stack([0.03 * np.cos(turn), 0.011 * np.sin(turn), 0.008 * np.sin(turn) ** 2], 1)
    middle = (left_mouth + right_mouth) / 2
    width = (right_mouth[0] - left_mouth[0]) / 2
    for first, count, scale in ((48, 12, 1.0), (60, 8, 0.75)):
        angle = np.pi - 2 * np.pi * np.arange(count) / count
        bulge = 0.03 * (1 - np.abs(np.cos(angle)))
        lips = np.stack([scale * width * np.cos(angle), 0.028 * scale * np.sin(angle), bulge], axis=1)
        p[first : first + count] = middle + lips
    return p


def project(points: NDArray[np.float64], cam2world: NDArray[np.float64], focal: float) -> NDArray[np.float64]:
    """Image coordinates 0..1 of world points. [N, 3] or [B, N, 3], [B, 4, 4] → [B, N, 2]"""
    local = (points - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    return focal * local[..., :2] / local[..., 2:] + 0.5


def scene(hue: int, shift: float = 0.0, light: float = 1.0) -> NDArray[np.uint8]:
    """A striped room of one colour with a bright disc that moves."""
    y, x = np.mgrid[0:90, 0:160].astype(float)
    picture = np.stack([80 + 60 * np.sin(x / 9 + hue), 60 + hue * 20 + y / 2, 140 - hue * 30 + 0 * x], axis=2)
    disc = (x - 80 - shift) ** 2 + (y - 45) ** 2 < 30**2
    picture[disc] = (220, 180, 150)
    return np.clip(picture * light, 0, 255).astype(np.uint8)
