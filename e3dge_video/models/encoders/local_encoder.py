"""E1: what the global reconstruction missed → a feature map F_L; numerically that of the released StyleSDF model.

E3DGE, section 4.2 (Eq. 7). The hourglass is that of Saito et al., "PIFu", 2019, after Newell et al., "Stacked Hourglass
Networks", 2016. Letters: B batch, C channels.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _group_norm(channels: int) -> nn.GroupNorm:
    """Over 32 groups, as released, where the channels can be divided so."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


class Stem(nn.Module):
    """Image or depth → 32 channels at the same size. [B, I, H, W] → [B, O, H, W]"""

    def __init__(self, inputs: int, outputs: int, norm: Literal["instance", "batch"]) -> None:
        super().__init__()
        self.conv_in = _reflected(inputs, outputs)
        self.norms = nn.ModuleList(_norm(norm, outputs) for _ in range(2))
        self.convs = nn.ModuleList(_reflected(outputs, outputs) for _ in range(2))
        self.conv_out = nn.Conv2d(outputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        change = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            change = conv(F.relu(norm(change)))
        return self.conv_out(x + change)


class PyramidBlock(nn.Module):
    """Residual block whose result is the outputs of three convolutions side by side. [B, I, H, W] → [B, O, H, W]

    Bulat and Tzimiropoulos, "Binarized Convolutional Landmark Localizers", 2017.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        sizes = ((inputs, outputs // 2), (outputs // 2, outputs // 4), (outputs // 4, outputs // 4))
        self.norms = nn.ModuleList(_group_norm(i) for i, _ in sizes)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, 1, 1, bias=False) for i, o in sizes)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs
            else nn.Sequential(_group_norm(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        parts, part = [], x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            part = conv(F.relu(norm(part)))
            parts.append(part)
        return torch.cat(parts, dim=1) + self.shortcut(x)


class Hourglass(nn.Module):
    """Down `depth` times and up again, adding what each size saw. [B, C, H, W] → [B, C, H, W]"""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.skip = PyramidBlock(channels, channels)
        self.down = PyramidBlock(channels, channels)
        self.inner = Hourglass(channels, depth - 1) if depth > 1 else PyramidBlock(channels, channels)
        self.up = PyramidBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.avg_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(low, scale_factor=2, mode="bicubic", align_corners=True)


class HourglassStack(nn.Module):
    """One hourglass of the row, and how its output comes back into the features that all of them refine."""

    def __init__(self, channels: int, depth: int, *, last: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(channels, depth)
        self.block = PyramidBlock(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = _group_norm(channels)
        self.output = nn.Conv2d(channels, channels, 1)
        self.features_back = None if last else nn.Conv2d(channels, channels, 1)
        self.output_back = None if last else nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] → refined features and this hourglass's output, both [B, C, H, W]."""
        features = F.relu(self.norm(self.conv(self.block(self.hourglass(x)))))
        output = self.output(features)
        if self.features_back is not None and self.output_back is not None:
            x = x + self.features_back(features) + self.output_back(output)
        return x, output


class HourglassFilter(nn.Module):
    """PIFu's image filter: a quarter of the size, then hourglasses in a row. [B, I, S, S] → [B, C, S/4, S/4] each"""

    def __init__(
        self, inputs: int, channels: int = 256, *, base_width: int = 64, stacks: int = 4, depth: int = 2
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, base_width, 7, 2, 3)
        self.norm = _group_norm(base_width)
        widths = (base_width, 2 * base_width, 2 * base_width, channels)
        self.blocks = nn.ModuleList(PyramidBlock(i, o) for i, o in pairwise(widths))
        self.stacks = nn.ModuleList(HourglassStack(channels, depth, last=k == stacks - 1) for k in range(stacks))

    def forward(self, x: Tensor) -> list[Tensor]:
        first, second, third = self.blocks
        x = F.avg_pool2d(first(F.relu(self.norm(self.conv(x)))), 2)
        x = third(second(x))
        outputs = []
        for stack in self.stacks:
            x, output = stack(x)
            outputs.append(output)
        return outputs


class LocalEncoder(nn.Module):
    """E1: residual Δ and depth → F_L.

    Args:
        norm: Of the stems. The released weights are of "instance"; the released training options name "batch".
        stem_width: Channels of each stem.
        base_width, channels, stacks, depth: Of the hourglass filter.
        residual_skip: Whether the residual itself follows the filter's channels.
    """

    def __init__(
        self,
        norm: Literal["instance", "batch"] = "instance",
        *,
        stem_width: int = 32,
        base_width: int = 64,
        channels: int = 256,
        stacks: int = 4,
        depth: int = 2,
        residual_skip: bool = False,
    ) -> None:
        super().__init__()
        self.residual_skip = residual_skip
        self.residual_stem, self.depth_stem = Stem(3, stem_width, norm), Stem(1, stem_width, norm)
        self.filter = HourglassFilter(2 * stem_width, channels, base_width=base_width, stacks=stacks, depth=depth)

    def forward(self, residual: Tensor, depth: Tensor) -> Tensor:
        """Residual [B, 3, S, S] and depth [B, 1, S, S], world units → local feature map [B, C, S/4, S/4]."""
        features = self.filter(torch.cat([self.residual_stem(residual), self.depth_stem(depth)], dim=1))[-1]
        if not self.residual_skip:
            return features
        small = F.interpolate(residual, features.shape[-2:], mode="area")
        return torch.cat([features, small.to(features.dtype)], dim=1)


def _norm(kind: Literal["instance", "batch"], channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if kind == "instance" else nn.BatchNorm2d(channels)


def _reflected(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=False)
