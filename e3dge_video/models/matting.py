"""Foreground matte of a face crop: head, hair, neck and clothing against everything else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.encoders import MatteConfig


class MatteNet(nn.Module):
    """Small U-Net, image → matte.

    Args:
        config: Input size and channels per level; each level halves the resolution.
    """

    def __init__(self, config: MatteConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.down = nn.ModuleList(_convolutions(i, o, stride=2) for i, o in zip((3, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(
            _convolutions(widths[k] + widths[k - 1], widths[k - 1]) for k in range(len(widths) - 1, 0, -1)
        )
        # The last step sees the picture itself, so that the matte follows its edges at full resolution.
        self.out = nn.Sequential(nn.Conv2d(widths[0] + 3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1))

    def logits(self, image: Tensor) -> Tensor:
        """Matte before the sigmoid, at the network's input size. [B, 3, S, S] → [B, 1, S, S]"""
        maps, x = [], image
        for block in self.down:
            x = block(x)
            maps.append(x)
        for block, skip in zip(self.up, reversed(maps[:-1]), strict=True):
            x = block(torch.cat([_resize(x, skip.shape[-1]), skip], dim=1))
        return self.out(torch.cat([_resize(x, image.shape[-1]), image], dim=1))

    def forward(self, image: Tensor) -> Tensor:
        """Matte in 0..1 at the image's own size. [B, 3, H, H] → [B, 1, H, H]"""
        size = self.config.input_size
        inner = (
            image
            if image.shape[-1] == size
            else F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
        )
        return _resize(self.logits(inner).sigmoid(), image.shape[-1])


def _resize(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def _convolutions(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
