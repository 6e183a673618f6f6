"""Which frames of a clip its generator is tuned on, and which of their pixels matter most."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: A turn of the head that counts as much as one standard deviation of an expression coefficient. [rad]
_TURN = 0.1


def choose_key_frames(
    angles: NDArray[np.floating], expression: NDArray[np.floating], scene: NDArray[np.integer], count: int
) -> NDArray[np.intp]:
    """Frames that differ most: every scene gets a share, and within it each next frame is the one farthest from all.

    Args:
        angles: Yaw, pitch, roll of each frame, radians. [N, 3]
        expression: Coefficients of each frame. [N, K]
        scene: Scene of each frame; negative: no face, never chosen. [N]
        count: How many. Scenes beyond that number, the shortest ones, get none.

    Returns:
        At most `count` frames, increasing.
    """
    usable = scene >= 0
    spread = expression[usable].std(axis=0)
    scale = np.sqrt(np.square(spread).sum()) / np.sqrt(len(spread))
    traits = np.concatenate([angles / _TURN, expression / max(scale, 1e-9)], axis=1)
    numbers, lengths = np.unique(scene[usable], return_counts=True)
    longest = np.argsort(-lengths, kind="stable")[:count]
    quota = np.maximum(1, np.floor(count * lengths[longest] / lengths[longest].sum())).astype(int)
    while quota.sum() > count:  # many short scenes were rounded up to one
        quota[np.argmax(quota)] -= 1
    quota[0] += count - quota.sum()
    chosen = [
        _farthest(np.flatnonzero(scene == numbers[s]), traits, int(share))
        for s, share in zip(longest, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _farthest(frames: NDArray[np.intp], traits: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Farthest-point sampling, from the frame nearest to the mean on."""
    own = traits[frames]
    chosen = [int(np.argmin(np.square(own - own.mean(axis=0)).sum(axis=1)))]
    distance = np.square(own - own[chosen[0]]).sum(axis=1)
    while len(chosen) < min(count, len(frames)) and distance.max() > 0:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.square(own - own[chosen[-1]]).sum(axis=1))
    return frames[chosen]


def between_key_frames(
    own: NDArray[np.floating],
    key_frames: NDArray[np.integer],
    times_s: NDArray[np.floating],
    scene: NDArray[np.integer],
) -> NDArray[np.float64]:
    """What key frames have of their own, carried to every frame: linear in time between the key frames of its scene.

    Before the first and after the last of them it stays as it is there; a scene without any gets zeros.

    Args:
        own: Of each key frame. [K, ...]
        key_frames: Which frames they are, increasing. [K]
        times_s: Time of each frame, increasing, seconds. [N]
        scene: Scene of each frame. [N]

    Returns:
        [N, ...]
    """
    values = own.reshape(len(own), -1).astype(np.float64)
    result = np.zeros((len(times_s), values.shape[1]))
    for number in np.unique(scene[key_frames]):
        inside, keys = np.flatnonzero(scene == number), np.flatnonzero(scene[key_frames] == number)
        place = np.interp(times_s[inside], times_s[key_frames[keys]], np.arange(len(keys)))  # among the key frames
        left = place.astype(np.intp)
        right = np.minimum(left + 1, len(keys) - 1)
        result[inside] = values[keys[left]] + (place - left)[:, None] * (values[keys[right]] - values[keys[left]])
    return result.reshape(len(times_s), *own.shape[1:])


def detail_region(landmarks: Tensor, size: int) -> Tensor:
    """Eyes and mouth of each crop, feathered. Landmarks 0..1 [B, 68, 2] → [B, 1, S, S]"""
    masks = []
    for points in landmarks.detach().cpu().numpy():
        eyes = float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))) * size
        mask: NDArray[np.float32] = np.zeros((size, size), np.float32)
        for part in (points[36:42], points[42:48], points[48:68]):
            hull = cv2.convexHull((part * size).astype(np.float32))
            cv2.fillConvexPoly(mask, np.round(hull * 16).astype(np.int32), 1.0, cv2.LINE_AA, shift=4)
        reach = int(0.2 * eyes) | 1
        wide = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        masks.append(np.asarray(cv2.GaussianBlur(wide, (0, 0), max(0.04 * eyes, 0.5)), np.float32))
    return torch.from_numpy(np.stack(masks))[:, None]
