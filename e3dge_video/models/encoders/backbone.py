"""Building blocks of the encoders: improved residual block (of pSp's and ArcFace's body) and feature pyramid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channel means."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=(2, 3), keepdim=True))


class IRBlock(nn.Module):
    """Improved residual block (Deng et al., "ArcFace", 2019). [B, I, H, W] → [B, O, H/stride, W/stride]

    Args:
        squeeze: End in squeeze-and-excitation: the block "IR-SE".
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, squeeze: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        )
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            *([SqueezeExcite(outputs)] if squeeze else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        # The shortcut skips pixels before its convolution: one with a stride of its own overwrites foreign memory in
        # its backward pass on a CPU (PyTorch 2.14, channels last).
        return self.shortcut(x[..., :: self.stride, :: self.stride]) + self.residual(x)


class FeaturePyramid(nn.Module):
    """IR-SE body with top-down connections: one map per stage, all of one width, finest first."""

    def __init__(self, stem_width: int, widths: tuple[int, ...], blocks: tuple[int, ...], pyramid_width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_width, 3, 2, 1, bias=False), nn.BatchNorm2d(stem_width), nn.PReLU(stem_width)
        )
        inputs = (stem_width, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(*(IRBlock(i if k == 0 else o, o, 2 if k == 0 else 1) for k in range(n)))
            for i, o, n in zip(inputs, widths, blocks, strict=True)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid_width, 1) for width in widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Image [B, 3, S, S] → maps at S/4, S/8, …, each [B, pyramid_width, ·, ·]."""
        x = self.stem(image)
        maps = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for k in range(len(maps) - 2, -1, -1):
            above = F.interpolate(maps[k + 1], maps[k].shape[-2:], mode="bilinear", align_corners=False)
            maps[k] = maps[k] + above
        return maps
