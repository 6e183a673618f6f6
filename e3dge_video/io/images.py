"""Images: uint8 [H, W, 3] arrays outside, float [3, H, W] tensors in [-1, 1] inside. The only place that converts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
