"""A quiet room behind the speaker, out of focus: window light from the left, a shelf, a plant, a lamp."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Colour = tuple[float, float, float]


def draw_room(size: int, seed: int) -> Array:
    """The background in linear light, without the camera's noise. [size, size, 3]"""
    rng = np.random.default_rng(seed)
    picture = _wall(size)
    _window(picture)
    _shelf(picture, rng)
    _lamp(picture)
    _plant(picture, rng)
    return _out_of_focus(picture, 0.0125 * size)


def _wall(size: int) -> Array:
    """Warm plaster, brighter towards the window, darker towards the floor."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    light = 1.0 - 0.42 * x - 0.18 * np.abs(y - 0.35)
    base = np.array((0.56, 0.50, 0.42), np.float32)
    return (base * light[..., None]).astype(np.float32)


def _box(picture: Array, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
    """A rectangle in units of the picture's side."""
    size = picture.shape[0]
    corners = [round(v * size) for v in (left, top, right, bottom)]
    cv2.rectangle(picture, (corners[0], corners[1]), (corners[2] - 1, corners[3] - 1), colour, -1)


def _blob(picture: Array, x: float, y: float, a: float, b: float, turn: float, colour: Colour) -> None:
    size = picture.shape[0]
    centre, axes = (int(x * size), int(y * size)), (max(1, int(a * size)), max(1, int(b * size)))
    cv2.ellipse(picture, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)


def _window(picture: Array) -> None:
    """Overcast daylight, trees below, a light frame and a curtain."""
    size = picture.shape[0]
    _box(picture, -0.02, 0.03, 0.205, 0.66, (0.62, 0.60, 0.56))
    panes = (
        (0.0, 0.055, 0.09, 0.33),
        (0.105, 0.055, 0.185, 0.33),
        (0.0, 0.35, 0.09, 0.635),
        (0.105, 0.35, 0.185, 0.635),
    )
    for left, top, right, bottom in panes:
        _box(picture, left, top, right, bottom, (1.25, 1.32, 1.38))
        middle = max(top, 0.40)
        _box(picture, left, middle, right, bottom, (0.62, 0.78, 0.50))
    for i in range(9):
        _blob(picture, 0.01 + 0.023 * i, 0.40 + 0.02 * np.sin(2.3 * i), 0.028, 0.035, 0, (0.40, 0.58, 0.33))
    for left, top, right, bottom in ((0.09, 0.03, 0.105, 0.66), (0.0, 0.33, 0.2, 0.35)):
        _box(picture, left, top, right, bottom, (0.72, 0.70, 0.66))
    x = np.arange(size, dtype=np.float32) / size
    folds = 0.86 + 0.14 * np.sin(2 * np.pi * x / 0.021 + 1.3 * np.sin(2 * np.pi * x / 0.06))
    cloth = np.clip((x - 0.185) / 0.004, 0, 1) * np.clip((0.272 - x) / 0.004, 0, 1)
    colour = np.array((0.78, 0.73, 0.64), np.float32) * folds[:, None]
    picture += cloth[None, :, None] * (colour[None] - picture)


def _shelf(picture: Array, rng: np.random.Generator) -> None:
    """Two boards with books and a few round things."""
    spines = ((0.24, 0.09, 0.07), (0.10, 0.17, 0.22), (0.42, 0.33, 0.18), (0.46, 0.42, 0.36), (0.12, 0.19, 0.12),
              (0.30, 0.16, 0.08), (0.20, 0.20, 0.24), (0.50, 0.38, 0.22))  # fmt: skip
    for board, (start, end) in ((0.235, (0.70, 1.02)), (0.475, (0.74, 1.02))):
        _box(picture, start - 0.03, board + 0.022, end, board + 0.05, (0.16, 0.13, 0.10))
        x = start
        while x < end - 0.02:
            width, height = rng.uniform(0.014, 0.031), rng.uniform(0.10, 0.165)
            if rng.random() < 0.14:
                x += rng.uniform(0.02, 0.05)
                continue
            colour = np.array(spines[rng.integers(len(spines))]) * rng.uniform(0.7, 1.1)
            _box(picture, x, board - height, x + width, board, tuple(colour.tolist()))
            _box(picture, x, board - 0.75 * height, x + width, board - 0.7 * height, tuple((1.5 * colour).tolist()))
            x += width + 0.002
        _box(picture, start - 0.03, board, end, board + 0.022, (0.36, 0.25, 0.15))


def _lamp(picture: Array) -> None:
    """A small lamp with a warm shade on a sideboard at the right."""
    _box(picture, 0.80, 0.80, 1.02, 1.02, (0.20, 0.14, 0.09))
    _box(picture, 0.79, 0.785, 1.02, 0.80, (0.40, 0.29, 0.18))
    _box(picture, 0.898, 0.68, 0.908, 0.785, (0.22, 0.17, 0.10))
    size = picture.shape[0]
    shade = np.array([(0.868, 0.585), (0.938, 0.585), (0.96, 0.69), (0.846, 0.69)]) * size
    cv2.fillPoly(picture, [shade.astype(np.int32)], (1.25, 0.86, 0.45), cv2.LINE_AA)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    glow = np.exp(-(((x - 0.903) / 0.13) ** 2 + ((y - 0.64) / 0.14) ** 2))
    picture += glow[..., None] * np.array((0.16, 0.10, 0.04), np.float32)


def _plant(picture: Array, rng: np.random.Generator) -> None:
    """Long leaves from a pot at the left, before the window."""
    size = picture.shape[0]
    for _ in range(26):
        lean = rng.uniform(-1.15, 1.15)
        length = rng.uniform(0.16, 0.34) * (1 - 0.25 * abs(lean))
        t = np.linspace(0, 1, 24)
        x = 0.115 + 0.02 * rng.normal() + length * np.sin(lean) * t + 0.05 * np.sign(lean) * t**2
        y = 0.93 - length * np.cos(lean) * 1.25 * t + 0.09 * t**2.5
        width = 0.017 * np.sin(np.pi * np.clip(0.12 + 0.88 * t, 0, 1)) ** 0.7
        tone = rng.uniform(0.5, 1.25)
        leaf = np.concatenate([np.stack([x - width, y], 1), np.stack([x + width, y], 1)[::-1]])
        colour = (0.065 * tone, 0.17 * tone, 0.055 * tone)
        cv2.fillPoly(picture, [(leaf * size).astype(np.int32)], colour, cv2.LINE_AA)
        cv2.polylines(
            picture, [(np.stack([x, y], 1) * size).astype(np.int32)], False,
            tuple(1.5 * c for c in colour), max(1, size // 340), cv2.LINE_AA,
        )  # fmt: skip
    pot = np.array([(0.05, 0.92), (0.18, 0.92), (0.165, 1.02), (0.065, 1.02)]) * size
    cv2.fillPoly(picture, [pot.astype(np.int32)], (0.42, 0.20, 0.12), cv2.LINE_AA)


def _out_of_focus(picture: Array, radius: float) -> Array:
    """Blur as a lens does: every point becomes a disc, in linear light."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    blurred = cv2.filter2D(picture, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.GaussianBlur(blurred, (0, 0), 0.3 * radius), np.float32)


def to_srgb(linear: Array) -> Array:
    """Display values 0..1 with a soft shoulder for highlights. [..., 3]"""
    toned = np.where(linear < 0.6, linear, 0.6 + 0.4 * (1 - np.exp(-(np.maximum(linear, 0.6) - 0.6) / 0.4)))
    return np.where(toned <= 0.0031308, 12.92 * toned, 1.055 * np.maximum(toned, 1e-6) ** (1 / 2.4) - 0.055).astype(
        np.float32
    )
