"""Which of the residuals that may belong to a place of the target view is believed there.

The lift knows where a place was seen in the picture; whether what was seen there may be shown is learned: confidence
near outlines and at glancing angles, the hidden side from its mirror image, no seams, and nothing of a mouth or of eyes
that an edit opens or shuts.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What a place may show: the residual seen there, the one seen at its mirror image, a smooth continuation, none.
CANDIDATES = ("seen", "mirrored", "continued", "none")
#: Channels of the input, see `LiftReading.features`.
INPUTS = 17
#: Share that a candidate keeps, however little the lift thinks of it.
_FLOOR = 0.02


class ResidualBlender(nn.Module):
    """A small U-Net over the target view, at half its size. Begins as the plain lift.

    Args:
        widths: Channels at half the picture's size, a quarter, …
    """

    def __init__(self, widths: tuple[int, ...] = (24, 32, 48, 64)) -> None:
        super().__init__()
        self.stem = _block(INPUTS, widths[0])
        self.down = nn.ModuleList(_block(i, o) for i, o in pairwise(widths))
        self.up = nn.ModuleList(_block(o + i, i) for i, o in reversed(list(pairwise(widths))))
        self.out = nn.Conv2d(widths[0], len(CANDIDATES), 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def logits(self, features: Tensor) -> Tensor:
        """What is learned: how much more than the lift thinks a candidate is believed. [B, 17, h, h] → [B, 4, h, h]"""
        x = self.stem(features)
        seen = []
        for block in self.down:
            seen.append(x)
            x = block(F.avg_pool2d(x, 2))
        for block, skip in zip(self.up, reversed(seen), strict=True):
            large = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([large, skip], dim=1))
        return self.out(x)

    def forward(self, features: Tensor, weight: Tensor, mirror_weight: Tensor, trust: Tensor) -> Tensor:
        """Shares of the candidates.

        Args:
            features: [B, 17, h, h]
            trust: How far what was learned counts, 0 (the plain lift) to 1. [B, 1, S, S]
            weight: The lift's trust in what was seen at a place, 0..1. [B, 1, S, S], S a multiple of h
            mirror_weight: The same at its mirror image. [B, 1, S, S]

        Returns:
            They add up to one. [B, 4, S, S]
        """
        learned = self.logits(features)
        size = weight.shape[-2:]
        if learned.shape[-2:] != size:
            learned = F.interpolate(learned, size, mode="bilinear", align_corners=False)
        return shares(learned, weight, mirror_weight, trust)


def shares(learned: Tensor, weight: Tensor, mirror_weight: Tensor, trust: Tensor) -> Tensor:
    """Shares of the candidates from what is learned and what the lift thinks; where nothing is trusted, the lift's."""
    rest = 1 - weight
    prior = torch.cat([weight, _FLOOR * trust * rest * mirror_weight, rest, _FLOOR / 20 * trust], dim=1)
    # What was not seen cannot be shown: its share is next to nothing, whatever is learned.
    return torch.softmax(trust * learned + prior.clamp_min(1e-8).log(), dim=1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.LeakyReLU(0.2),
    )
