"""Turn clean renders into what an encoder meets in real video: backgrounds, cameras, codecs, light, things in the way.

Everything works on single images as float32 RGB in 0..1 and draws from the generator it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.training.backgrounds import Image, random_background

#: Brightness that a change of contrast leaves alone, in 0..1.
_MIDDLE = 0.42


@dataclass(frozen=True)
class AugmentationConfig:
    """Probability of each disturbance."""

    blur: float = 0.4
    rescale: float = 0.4
    sharpen: float = 0.15
    jpeg: float = 0.5
    noise: float = 0.4
    color: float = 0.9
    shadow: float = 0.25
    occluder: float = 0.15
    recolor: float = 0.3
    grey: float = 0.04


def composite(color: Image, alpha: NDArray[np.floating], background: Image) -> Image:
    """Lay straight colours over a background. [S, S, 3], [S, S, 1], [S, S, 3] → [S, S, 3]"""
    return background + alpha * (color - background)


def disturbed(
    rgba: NDArray[np.uint8],
    labels: NDArray[np.uint8] | None,
    recolored: tuple[int, ...],
    rng: np.random.Generator,
    config: AugmentationConfig,
) -> tuple[Image, NDArray[np.floating]]:
    """One encoder input made from one render.

    Args:
        rgba: Render with straight alpha. [S, S, 4]
        labels: Region of each pixel, or None. [S, S]
        recolored: Region labels (hair, clothing) whose colour and texture may be exchanged.
        rng: Source of every draw.
        config: Probabilities.

    Returns:
        The picture, RGB in 0..1 [S, S, 3], and the visible foreground (what covers it is not part of it), 0..1 [S, S].
    """
    size = rgba.shape[0]
    if labels is not None and rng.random() < config.recolor:
        rgba = _recolor(rgba, labels == rng.choice(recolored), rng)
    whole = rgba.astype(np.float32) * np.float32(1 / 255)
    alpha = whole[..., 3:]
    image = composite(whole[..., :3], alpha, random_background(size, rng))
    if rng.random() < config.shadow:
        image = image * _soft_shadow(size, rng)
    if rng.random() < config.occluder:
        image, alpha = occluded(image, alpha, rng)
    if rng.random() < config.color:
        image = color_cast(rng)(image)
    image = camera_disturbance(image, rng, config)
    if rng.random() < config.grey:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.clip(image, 0, 1).astype(np.float32), alpha[..., 0]


def occluded(image: Image, alpha: NDArray[np.floating], rng: np.random.Generator) -> tuple[Image, NDArray[np.floating]]:
    """Put something in front of the head; it is not part of the foreground. [S, S, 3], [S, S, 1]"""
    cover = _occluder(image.shape[0], rng)[..., None]
    return image * (1 - cover) + cover * random_background(image.shape[0], rng), alpha * (1 - cover)


def _recolor(rgba: NDArray[np.uint8], region: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Give hair or clothing another colour and texture, so that colour alone is no cue."""
    if not region.any():
        return rgba
    soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), 1.0)[..., None]
    color = rgba[..., :3].astype(np.float32) / 255
    shade = color.mean(axis=-1, keepdims=True) / max(float(color[region].mean()), 0.05)
    other = random_background(rgba.shape[0], rng) * np.clip(shade, 0.3, 2.5) ** rng.uniform(0.5, 1)
    mixed = color + soft * rng.uniform(0.4, 1) * (np.clip(other, 0, 1) - color)
    return np.concatenate([np.round(255 * np.clip(mixed, 0, 1)).astype(np.uint8), rgba[..., 3:]], axis=-1)


def _soft_shadow(size: int, rng: np.random.Generator) -> Image:
    edge = rng.uniform(0.05, 0.4) * size
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    distance = np.cos(angle) * (x - rng.uniform(0.2, 0.8) * size) + np.sin(angle) * (y - rng.uniform(0.2, 0.8) * size)
    depth = rng.uniform(0.1, 0.5)
    shadow: Image = (1 - depth / (1 + np.exp(-distance / edge * 4)))[..., None].astype(np.float32)
    return shadow


def _occluder(size: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """A hand, cup, microphone or frame edge: a blob or bar that mostly enters from below or the sides. [S, S]"""
    mask = np.zeros((size, size), np.float32)
    side = rng.random()
    start = np.array([rng.uniform(0, 1), 1.0]) if side < 0.6 else np.array([float(side < 0.8), rng.uniform(0.3, 1)])
    end = start + (np.array([0.5, 0.55]) - start) * rng.uniform(0.15, 0.6)
    thickness = int(rng.uniform(0.03, 0.2) * size)
    cv2.line(mask, tuple((start * size).astype(int)), tuple((end * size).astype(int)), 1.0, thickness, cv2.LINE_AA)
    if rng.random() < 0.6:
        axes = (int(rng.uniform(0.04, 0.15) * size), int(rng.uniform(0.04, 0.15) * size))
        cv2.ellipse(mask, tuple((end * size).astype(int)), axes, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
    return mask


def color_cast(rng: np.random.Generator) -> Callable[[Image], Image]:
    """White balance, exposure, contrast, gamma and saturation of one camera, cheap or good."""
    gains = (np.exp(rng.normal(0, 0.07, 3)) * np.exp(rng.normal(0, 0.16))).astype(np.float32)
    gamma = float(np.exp(rng.normal(0, 0.16)))
    contrast, saturation = np.exp(rng.normal(0, 0.12)), np.exp(rng.normal(0, 0.22))
    # Contrast and saturation about each pixel's grey are one linear map of the colour.
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)

    def cast(image: Image) -> Image:
        lit = np.clip(image * gains, 0, 1)
        lit = cv2.pow(lit, gamma, dst=lit)
        offset = (1 - contrast) * _MIDDLE
        return np.clip(cv2.transform(lit, np.c_[mix, np.full(3, offset)]), 0, 1)

    return cast


def camera_disturbance(image: Image, rng: np.random.Generator, config: AugmentationConfig) -> Image:
    """Optics, sensor and codec: blur, loss of resolution, sharpening, noise, JPEG."""
    size = image.shape[0]
    if rng.random() < config.blur:
        image = _blurred(image, rng.uniform(0.3, 0.009 * size))
    elif rng.random() < 0.1:
        image = _motion_blur(image, rng)
    if rng.random() < config.rescale:
        small = int(size * rng.uniform(0.25, 0.9))
        reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        kind = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(2)]
        image = np.asarray(cv2.resize(reduced, (size, size), interpolation=kind), np.float32)
    if rng.random() < config.sharpen:
        image = image + rng.uniform(0.3, 1.2) * (image - _blurred(image, 0.006 * size))
    if rng.random() < config.noise:
        strength = np.float32(rng.uniform(0.003, 0.04))
        image = image + strength * rng.standard_normal(image.shape, np.float32)
    image = np.clip(image, 0, 1)
    if rng.random() < config.jpeg:
        image = _jpeg(image, int(rng.integers(25, 95)))
    return image


def _jpeg(image: Image, quality: int) -> Image:
    pixels = np.round(255 * image[..., ::-1]).astype(np.uint8)
    decoded = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    assert decoded is not None  # it was just encoded
    return np.asarray(decoded[..., ::-1], np.float32) / 255


def _blurred(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), float(sigma)), np.float32)


def _motion_blur(image: Image, rng: np.random.Generator) -> Image:
    length = int(rng.integers(3, max(4, image.shape[0] // 16)))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    offset = np.array([np.cos(angle), np.sin(angle)]) * half
    start, end = (np.array([half, half]) - offset).astype(int), (np.array([half, half]) + offset).astype(int)
    cv2.line(kernel, tuple(int(v) for v in start), tuple(int(v) for v in end), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)
