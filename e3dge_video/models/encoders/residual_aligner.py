"""E_ADA: the residual of one view or code → that of another; numerically that of the released model.

E3DGE, section 4.3; the network is the adaptive distortion alignment of Wang et al., "High-Fidelity GAN Inversion for
Image Attribute Editing", 2022.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.encoders.backbone import IRBlock


class ResidualAligner(nn.Module):
    """E_ADA: a small U-Net of residual blocks.

    Args:
        widths: Channels at full size, half, a quarter and an eighth.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.stem = nn.Sequential(nn.Conv2d(6, full, 3, 1, 1, bias=False), nn.BatchNorm2d(full), nn.PReLU(full))
        self.down = nn.ModuleList(_stage(i, o, o, o, stride=2) for i, o in pairwise(widths))
        self.up = nn.ModuleList([
            _stage(eighth + quarter, eighth, half, half),
            _stage(half + half, half, full, full),
            _stage(full + full, full, 3, 3),
        ])  # fmt: skip

    def forward(self, residual: Tensor, target: Tensor) -> Tensor:
        """Align a residual to a picture.

        Args:
            residual: Δ. [B, 3, S, S]
            target: The global reconstruction that the residual is to fit. [B, 3, S, S]

        Returns:
            [B, 3, S, S]
        """
        x = self.stem(torch.cat([residual, target], dim=1))
        seen = []
        for stage in self.down:
            seen.append(x)
            x = stage(x)
        for stage, skip in zip(self.up, reversed(seen), strict=True):
            large = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = stage(torch.cat([large, skip], dim=1))
        return x


def _stage(*widths: int, stride: int = 1) -> nn.Sequential:
    """Residual blocks between these widths; the first one has the stride."""
    sizes = enumerate(pairwise(widths))
    return nn.Sequential(*(IRBlock(i, o, 1 if k else stride, squeeze=False) for k, (i, o) in sizes))
