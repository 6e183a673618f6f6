"""Rendered maps at the size of pictures, and pictures at the size of the encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.generators.base import RenderOutput


def resized(values: Tensor, size: int) -> Tensor:
    """Maps at another size: smoothed when they shrink. [B, C, size, size]"""
    if values.shape[-1] == size:
        return values
    return F.interpolate(values, (size, size), mode="bilinear", align_corners=False, antialias=values.shape[-1] > size)


def enlarged(values: Tensor, size: int) -> Tensor:
    """A rendered map at the picture's size, smoothed so that an outline does not show the steps of its pixels."""
    large = F.interpolate(values, (size, size), mode="bilinear", align_corners=False)
    reach = size // values.shape[-1] + 1 - size // values.shape[-1] % 2
    return F.avg_pool2d(large, reach, 1, reach // 2, count_include_pad=False)


def enlarged_surface(rendered: RenderOutput, size: int) -> tuple[Tensor, Tensor]:
    """Depth and opacity of a rendering at the picture's size. [B, 1, size, size] twice"""
    alpha = enlarged(rendered.alpha, size)
    # Empty rays have no depth of their own: they must not pull the outline's depth away from the head.
    weighted = enlarged(rendered.depth * rendered.alpha, size)
    depth = torch.where(alpha > 0.02, weighted / alpha.clamp_min(0.02), enlarged(rendered.depth, size))
    return depth, alpha
