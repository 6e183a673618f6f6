"""Images: uint8 [H, W, 3] arrays outside, float [3, H, W] tensors in [-1, 1] inside. The only place that converts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import InputError
from e3dge_video.io.atomic import write_bytes
from e3dge_video.io.pixels import on_white


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """8-bit RGB to float in [-1, 1].

    Args:
        image: RGB, channels last, any number of leading axes. [..., H, W, 3]

    Returns:
        The same pixels, channels first. [..., 3, H, W]
    """
    # The copy is needed anyway: arrays from Ray's object store are read-only.
    pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3)))
    return pixels.to(torch.float32).mul_(2.0 / 255.0).sub_(1.0)


def to_array(image: Tensor) -> NDArray[np.uint8]:
    """Float in [-1, 1] to 8-bit RGB, rounded to nearest and clamped. [..., 3, H, W] → [..., H, W, 3]"""
    pixels = image.detach().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels.cpu().numpy(), -3, -1))


def read_image(path: Path) -> NDArray[np.uint8]:
    """A picture file as it is meant to be seen: turned by its EXIF tag, transparency on white, 8 bits. [H, W, 3]

    Raises:
        InputError: The file is missing or is no picture that can be read.
    """
    if not path.is_file():
        what = "is a folder, a picture file was expected" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; check the path")
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    # OpenCV applies the EXIF orientation only when it also drops the transparency.
    opaque = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if opaque is None:
        raise InputError(f"{path}: is not a picture that can be read; give a PNG, JPEG or WebP file")
    picture = _to_8_bit(path, opaque)
    stored = _decode(data, cv2.IMREAD_UNCHANGED)
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4 and stored.shape[:2] == opaque.shape[:2]:
        stored = _to_8_bit(path, stored)
        picture = on_white(stored[..., :3], stored[..., 3])
    return np.ascontiguousarray(picture[..., ::-1])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture as PNG, whole or not at all. RGB [H, W, 3]

    Raises:
        InputError: It cannot be written there.
    """
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    try:
        write_bytes(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check the folder") from error


def _decode(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:  # a header that promises more pixels than OpenCV allows
        return None


def _to_8_bit(path: Path, picture: NDArray[Any]) -> NDArray[np.uint8]:
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise InputError(f"{path}: has {picture.dtype} pixels; save it with 8 or 16 bits per channel")
    return picture
