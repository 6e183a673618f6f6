"""Procedural backgrounds for encoder inputs: rooms, walls, shelves, bokeh, outdoor bands, plain studio paper.

An encoder or matte that has seen only smooth gradients takes any edge for an outline, so most of these have edges,
texture and colours as warm as skin and hair.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating]  # [S, S, 3], RGB in 0..1


def random_background(size: int, rng: np.random.Generator) -> Image:
    """One background. [size, size, 3] in 0..1"""
    makers = (_plain, _clouds, _room, _shelves, _bokeh, _bands, _texture)
    make = makers[rng.choice(len(makers), p=(0.14, 0.14, 0.2, 0.14, 0.12, 0.12, 0.14))]
    if rng.random() >= 0.6:
        return np.clip(make(size, rng), 0, 1, dtype=np.float32)
    # Out of focus: what the blur takes away need not be drawn, half the size costs a quarter.
    half = (size + 1) // 2
    small = np.asarray(make(half, rng), np.float32)
    blurred = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.3, 0.03 * half)))
    large = np.asarray(cv2.resize(blurred, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.clip(large, 0, 1, out=large)


def _color(rng: np.random.Generator) -> Image:
    """A colour as rooms and landscapes have them: mostly dull, often warm, sometimes vivid."""
    hue = rng.uniform(0, 180) if rng.random() < 0.5 else rng.normal(14, 8) % 180
    saturation = 255 * (rng.beta(1.2, 3.5) if rng.random() < 0.8 else rng.uniform(0.4, 1))
    hsv = np.array([[[hue, saturation, 255 * rng.beta(1.6, 1.3)]]], np.uint8)
    color: Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255
    return color


def _noise(size: int, rng: np.random.Generator, cells: int, channels: int = 1) -> Image:
    """Smooth noise with about `cells` features across, values about -1..1. [size, size, channels]"""
    grid = rng.standard_normal((cells + 1, cells + 1, channels), np.float32)
    field = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field, np.float32).reshape(size, size, channels)


def _plain(size: int, rng: np.random.Generator) -> Image:
    base, other = _color(rng), _color(rng)
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    ramp = np.clip(np.cos(angle) * x + np.sin(angle) * y + 0.5, 0, 1)[..., None]
    return base + share * ramp * (other - base)


def _clouds(size: int, rng: np.random.Generator) -> Image:
    image = np.broadcast_to(_color(rng), (size, size, 3)).copy()
    for cells in (2, 4, 9):
        image = image + _noise(size, rng, cells, 3) * np.float32(rng.uniform(0.02, 0.25) / np.sqrt(cells))
    return image


def _room(size: int, rng: np.random.Generator) -> Image:
    """Wall with a door, window, picture or curtain: large rectangles with frames and light falling off."""
    image = _plain(size, rng)
    for _ in range(rng.integers(1, 6)):
        x, y = rng.uniform(-0.2, 0.9, 2) * size
        w, h = rng.uniform(0.1, 0.7, 2) * size
        corners = cv2.boxPoints(((x + w / 2, y + h / 2), (w, h), float(rng.normal(0, 3)))).astype(np.int32)
        cv2.fillPoly(image, [corners], _color(rng).tolist(), cv2.LINE_AA)
        if rng.random() < 0.7:
            cv2.polylines(
                image, [corners], True, _color(rng).tolist(), int(rng.integers(1, 1 + size // 20)), cv2.LINE_AA
            )
    return image * (1 + 0.25 * _noise(size, rng, 2))


def _shelves(size: int, rng: np.random.Generator) -> Image:
    """Books and boxes: rows of narrow upright rectangles."""
    image = _plain(size, rng)
    rows = rng.integers(2, 6)
    for row in range(rows):
        top, bottom = int(row * size / rows), int((row + 0.92) * size / rows)
        x = 0
        while x < size:
            width = int(rng.integers(max(2, size // 60), max(4, size // 10)))
            low = top + int(rng.uniform(0, 0.35) * (bottom - top))
            if rng.random() < 0.85:
                cv2.rectangle(image, (x, low), (x + width, bottom), _color(rng).tolist(), -1)
            x += width + int(rng.integers(0, 3))
    return image


def _bokeh(size: int, rng: np.random.Generator) -> Image:
    image = _clouds(size, rng) * np.float32(rng.uniform(0.2, 0.9))
    for _ in range(rng.integers(6, 40)):
        x, y, radius = *rng.uniform(0, size, 2).astype(int), int(rng.uniform(0.01, 0.09) * size) + 1
        # Lights add up; only the square around each has to be touched.
        rows, columns = slice(max(0, y - radius - 1), y + radius + 2), slice(max(0, x - radius - 1), x + radius + 2)
        part = np.zeros_like(image[rows, columns])
        centre = (int(x - columns.start), int(y - rows.start))
        cv2.circle(part, centre, radius, _color(rng).tolist(), -1, cv2.LINE_AA)
        image[rows, columns] += part * np.float32(rng.uniform(0.1, 0.7))
    return image


def _bands(size: int, rng: np.random.Generator) -> Image:
    """Sky, hills and ground: horizontal bands with uneven borders."""
    image = _plain(size, rng)
    for _ in range(rng.integers(1, 5)):
        profile = rng.uniform(0, 1) + 0.08 * _noise(size, rng, int(rng.integers(2, 12)))[0, :, 0]
        below = (np.arange(size)[:, None] / size) > profile[None, :]
        image = np.where(below[..., None], _color(rng) + 0.05 * _noise(size, rng, 16), image)
    return image


def _texture(size: int, rng: np.random.Generator) -> Image:
    """Bricks, planks, stripes, foliage: a repeated or fine-grained pattern."""
    base, other = _color(rng), _color(rng)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 40)
    wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y) + 2 * _noise(size, rng, 5)[..., 0])
    fine = _noise(size, rng, int(rng.integers(20, 90)))[..., 0]
    mix = np.clip(0.5 + rng.uniform(0, 0.5) * np.sign(wave) + rng.uniform(0, 0.3) * fine, 0, 1)[..., None]
    return base + mix * (other - base)
