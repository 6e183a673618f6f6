"""What pictures are compared in besides their colours: where they change, and how much they change around a place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def difference_error(image: Tensor, truth: Tensor) -> Tensor:
    """Mean error of the differences of neighbouring pixels, along both axes together. []"""
    return torch.stack([(image.diff(dim=dim) - truth.diff(dim=dim)).abs().mean() for dim in (2, 3)]).sum()


def contrast_error(image: Tensor, truth: Tensor, window: int = 8) -> Tensor:
    """Mean error of the root mean square of those differences in windows of some pixels. []

    It is the same wherever exactly lines run: what cannot be placed to the pixel (wrinkles, strands) would otherwise be
    averaged away.
    """
    errors = [(_contrast(image, dim, window) - _contrast(truth, dim, window)).abs().mean() for dim in (2, 3)]
    return torch.stack(errors).sum()


def _contrast(image: Tensor, dim: int, window: int) -> Tensor:
    return (F.avg_pool2d(image.diff(dim=dim).square(), window, window // 2) + 1e-4).sqrt()
