"""Crops in the generator's frame: from 68 points to a similarity, and one antialiased warp to pixels.

A crop is a square of the picture, described by centre, log side and roll. Crop coordinates run 0..1 from edge to edge;
frame coordinates are pixels with (0, 0) at the outer corner of the top-left pixel. The same similarity takes landmarks
into the crop, tells the warp which pixels to read and, inverted, pastes a result back.

Angles are positive clockwise on the screen (x right, y down).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from e3dge_video.geometry.face_template import FIVE_POINTS

#: EG3D's crop: 700 px of a picture in which one template unit is 300 px; world = 0.27 · template + offset.
_EG3D_SIDE = 700.0 / 300.0
_WORLD_SCALE = 0.27
_WORLD_OFFSET = np.array((0.0, 0.006, 0.161))
#: Reductions beyond this are done by averaging blocks of pixels first.
_WARP_REDUCTION = 1.15

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """Square crops of frames, one per leading index; any field may be NaN where there is no face.

    Attributes:
        centre: Middle of the square in frame pixels. [..., 2]
        log_side: Natural logarithm of the side in pixels. [...]
        angle: Roll of the square, radians. [...]
    """

    centre: Array
    log_side: Array
    angle: Array

    @staticmethod
    def from_parameters(parameters: ArrayLike) -> Similarity:
        """Read (cx, cy, log side, angle). [..., 4]"""
        values = np.asarray(parameters, dtype=np.float64)
        return Similarity(values[..., :2], values[..., 2], values[..., 3])

    @property
    def parameters(self) -> Array:
        """(cx, cy, log side, angle): the numbers that smoothing averages. [..., 4]"""
        return np.concatenate([self.centre, self.log_side[..., None], self.angle[..., None]], axis=-1)

    @property
    def side(self) -> Array:
        """Side in pixels. [...]"""
        return np.exp(self.log_side)

    def __len__(self) -> int:
        return len(self.log_side)

    def __getitem__(self, index: int | slice | NDArray[np.generic]) -> Similarity:
        return Similarity(self.centre[index], self.log_side[index], self.angle[index])

    def _axes(self) -> Array:
        """Matrix whose columns are the crop's right and down edges in frame pixels. [..., 2, 2]"""
        cosine, sine = self.side * np.cos(self.angle), self.side * np.sin(self.angle)
        return np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)

    def crop_to_frame(self, size: float = 1.0) -> Array:
        """Matrices from crop coordinates 0..size to frame pixels. [..., 2, 3]"""
        axes = self._axes() / size
        # The crop's middle (size/2, size/2) lies on the centre.
        offset = self.centre - 0.5 * size * axes.sum(axis=-1)
        return np.concatenate([axes, offset[..., None]], axis=-1)

    def frame_to_crop(self, size: float = 1.0) -> Array:
        """Matrices from frame pixels to crop coordinates 0..size: the exact inverse of `crop_to_frame`. [..., 2, 3]"""
        axes = self._axes()
        inverse = size * np.swapaxes(axes, -1, -2) / (self.side**2)[..., None, None]
        offset = 0.5 * size - (inverse @ self.centre[..., None])[..., 0]
        return np.concatenate([inverse, offset[..., None]], axis=-1)

    def into_crop(self, points: ArrayLike, size: float = 1.0) -> Array:
        """Frame pixels to crop coordinates 0..size. [..., N, 2]"""
        return apply_affine(self.frame_to_crop(size), points)

    def into_frame(self, points: ArrayLike, size: float = 1.0) -> Array:
        """Crop coordinates 0..size to frame pixels. [..., N, 2]"""
        return apply_affine(self.crop_to_frame(size), points)

    def corners(self) -> Array:
        """Corners in frame pixels: top left, top right, bottom right, bottom left. [..., 4, 2]"""
        unit = np.array(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))
        return self.into_frame(np.broadcast_to(unit, (*self.log_side.shape, 4, 2)))


def apply_affine(matrix: Array, points: ArrayLike) -> Array:
    """Map points by matrices. [..., 2, 3], [..., N, 2] → [..., N, 2]"""
    values = np.asarray(points, dtype=np.float64)
    return values @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def five_points(points68: ArrayLike) -> Array:
    """Eyes, nose tip and mouth corners as EG3D wants them. [..., 68, D] → [..., 5, D]

    An eye is the middle of its two corners, which a blink does not move.
    """
    p = np.asarray(points68, dtype=np.float64)
    left, right = (p[..., 36, :] + p[..., 39, :]) / 2, (p[..., 42, :] + p[..., 45, :]) / 2
    return np.stack([left, right, p[..., 30, :], p[..., 48, :], p[..., 54, :]], axis=-2)


def eg3d_crop(points68: ArrayLike, template: ArrayLike = FIVE_POINTS) -> Similarity:
    """EG3D's crop of a picture: the template's origin in the middle, its scale fixed, roll left in.

    x and y of the five points are each a linear function of the template's (X, Y, Z, 1), fitted by least squares; the
    constant terms are the projected origin, the mean norm of the two gradients is the scale s in pixels per template
    unit, and the side is 700/300 · s.

    Args:
        points68: iBUG points in pixels. [..., 68, 2]
        template: The five points of the generator's mean face, world units; ours unless given. [5, 3]
    """
    local = (np.asarray(template, dtype=np.float64) - _WORLD_OFFSET) / _WORLD_SCALE
    solve = np.linalg.pinv(np.concatenate([local, np.ones((5, 1))], axis=1))  # [4, 5]
    fit = np.swapaxes(solve @ five_points(points68), -1, -2)  # rows x and y, columns X, Y, Z, 1: [..., 2, 4]
    scale = np.linalg.norm(fit[..., :3], axis=-1).mean(axis=-1)
    log_side = np.log(np.maximum(_EG3D_SIDE * scale, 1e-6))
    return Similarity(fit[..., 3], log_side, np.where(np.isnan(log_side), np.nan, 0.0))


def ffhq_crop(points68: ArrayLike) -> Similarity:
    """FFHQ's crop (used by StyleSDF): a square along the eyes and across the mouth, roll removed.

    With eye centres (mean of six points each) and mouth corners: x = eye-to-eye − rot90(eye-to-mouth), scaled to
    max(2.0 · |eye-to-eye|, 1.8 · |eye-to-mouth|); centre = middle of the eyes + 0.1 · eye-to-mouth; side = 2 |x|.

    Args:
        points68: iBUG points in pixels. [..., 68, 2]
    """
    p = np.asarray(points68, dtype=np.float64)
    left, right = p[..., 36:42, :].mean(axis=-2), p[..., 42:48, :].mean(axis=-2)
    eyes = (left + right) / 2
    eye_to_eye = right - left
    eye_to_mouth = (p[..., 48, :] + p[..., 54, :]) / 2 - eyes
    # rot90 of (x, y) is (-y, x) on a screen whose y points down.
    x = eye_to_eye - np.stack([-eye_to_mouth[..., 1], eye_to_mouth[..., 0]], axis=-1)
    half = np.maximum(2.0 * np.linalg.norm(eye_to_eye, axis=-1), 1.8 * np.linalg.norm(eye_to_mouth, axis=-1))
    return Similarity(eyes + 0.1 * eye_to_mouth, np.log(np.maximum(2 * half, 1e-6)), np.arctan2(x[..., 1], x[..., 0]))


def warp_crop(
    frame: NDArray[np.uint8], crop: Similarity, size: int, *, border: int = cv2.BORDER_REFLECT
) -> NDArray[np.uint8]:
    """Read one crop with sub-pixel accuracy; outside the picture the picture is mirrored.

    When the crop is larger than the output, each output pixel is the mean of 2x2 or 3x3 bilinear samples no more than a
    pixel apart, taken from the picture itself or, for a strong reduction, from area averages of whole blocks of its
    pixels: nothing finer than the output's pixels aliases, and the crop still moves by fractions of a pixel.

    Args:
        frame: The picture. [H, W, 3]
        crop: One similarity, without leading axes.
        size: Side of the result.
        border: OpenCV's rule for pixels outside the picture.

    Returns:
        [size, size, 3]
    """
    reduction = float(crop.side) / size
    blocks = max(int(reduction / _WARP_REDUCTION), 1)
    picture, to_picture = _block_means(frame, crop, blocks)
    samples = min(max(int(np.ceil(reduction / blocks - 1e-3)), 1), 3)
    matrix = crop.crop_to_frame(size * samples)
    matrix = to_picture[:, :1] * matrix
    matrix[:, 2] += to_picture[:, 1]
    # OpenCV addresses pixel centres by whole numbers, we by whole numbers and a half.
    matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
    warped = cv2.warpAffine(
        picture,
        matrix,
        (size * samples, size * samples),
        flags=(cv2.INTER_CUBIC if samples == 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )
    return resized(np.asarray(warped, dtype=np.uint8), size, size)


def _block_means(frame: NDArray[np.uint8], crop: Similarity, blocks: int) -> tuple[NDArray[np.uint8], Array]:
    """The part of the picture around a crop with every `blocks` x `blocks` pixels averaged into one.

    Returns:
        The smaller picture, and for x and y the (factor, offset) that take frame pixels into it. [2, 2]
    """
    if blocks == 1:
        return frame, np.array(((1.0, 0.0), (1.0, 0.0)))
    corners = crop.corners()
    to_picture = np.zeros((2, 2))
    bounds = []
    for axis, length in ((0, frame.shape[1]), (1, frame.shape[0])):
        # Blocks start at multiples of their size wherever the crop stands, so that they do not crawl with it. A crop
        # that leaves the picture needs what is mirrored from inside.
        low, high = float(corners[:, axis].min()), float(corners[:, axis].max())
        beyond = max(-low, high - length, 0.0)
        first = max(int((low - beyond) // blocks) - 2, 0) * blocks
        last = min((int((high + beyond) // blocks) + 3) * blocks, length)
        if last - first < 2 * blocks:
            first, last = 0, length
        count = max(round((last - first) / blocks), 1)
        to_picture[axis] = count / (last - first), -first * count / (last - first)
        bounds.append((first, last, count))
    (x0, x1, width), (y0, y1, height) = bounds
    return resized(frame[y0:y1, x0:x1], width, height), to_picture


def resized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A picture of another size, each pixel the mean of the area it covers. [H, W] or [H, W, C]"""
    width, height = max(width, 1), max(height, 1)
    if picture.shape[:2] == (height, width):
        return picture
    if picture.shape[0] == 2 * height and picture.shape[1] == 2 * width:
        # OpenCV's 8-bit average of 2x2 pixels rounds upwards and would brighten the picture by an eighth of a level.
        means = cv2.resize(picture.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return np.rint(means).astype(np.uint8)
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def crop_validity(frame_shape: tuple[int, ...], crop: Similarity, size: int) -> NDArray[np.float32]:
    """How far each crop pixel lies inside the picture: 1 inside, 0 outside, a one-pixel ramp between.

    Args:
        frame_shape: Height and width first.
        crop: One similarity, without leading axes.
        size: Side of the crop in pixels.

    Returns:
        [size, size]
    """
    height, width = frame_shape[:2]
    corners = crop.corners()
    if (corners >= 0).all() and (corners <= (width, height)).all():
        return np.ones((size, size), dtype=np.float32)
    matrix = crop.crop_to_frame(size)
    grid = np.arange(size) + 0.5
    x = matrix[0, 0] * grid[None, :] + matrix[0, 1] * grid[:, None] + matrix[0, 2]
    y = matrix[1, 0] * grid[None, :] + matrix[1, 1] * grid[:, None] + matrix[1, 2]
    depth = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) * (size / float(crop.side))
    return np.clip(depth + 0.5, 0.0, 1.0).astype(np.float32)
