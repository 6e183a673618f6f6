"""E0 of the released StyleSDF model: a pSp encoder with heads for the field's codes and for the decoder's.

E3DGE, section 4.1 (Eq. 3) and 7.1; pSp is Richardson et al., "Encoding in Style", 2021. Letters: B batch, F rows of W+
for the field, D for the decoder.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.encoders.ir_se50 import IRSE50, STAGES
from e3dge_video.models.mapping import FullyConnected

#: Side of the images that E0 takes, pixels.
INPUT_SIZE = 256
#: Side of the map that a head is made for. The field's heads read 32 px all the same: their last convolutions see 1 px.
_HEAD_SIZE = 128


class StyleHead(nn.Module):
    """Feature map → one row of W+: stride-2 convolutions until nothing is left but channels, then a linear layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        steps = int(math.log2(_HEAD_SIZE))
        self.convs = nn.ModuleList(nn.Conv2d(width if k else inputs, width, 3, 2, 1) for k in range(steps))
        self.linear = FullyConnected(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, H], H at most 128 → [B, W]"""
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.01)
        return self.linear(x.flatten(1))


class HybridPSP(nn.Module):
    """Image → offsets of W+ from the mean code.

    Every row of the field has a head of its own on the 32 px map. The decoder's rows all get the same offset, from one
    head on the 128 px map.

    Args:
        field_rows: F
        field_width: Width of the field's codes.
        decoder_rows: D
        decoder_width: Width of the decoder's codes.
    """

    def __init__(
        self, field_rows: int = 9, field_width: int = 256, decoder_rows: int = 10, decoder_width: int = 512
    ) -> None:
        super().__init__()
        self.decoder_rows = decoder_rows
        self.body = IRSE50()
        *lower, (top, _) = STAGES
        self.laterals = nn.ModuleList(nn.Conv2d(width, top, 1) for width, _ in lower)
        self.field_heads = nn.ModuleList(StyleHead(top, field_width) for _ in range(field_rows))
        self.decoder_head = StyleHead(top, decoder_width)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """[B, 3, 256, 256] → maps of 512 channels at 128, 64, 32 and 16 px."""
        maps = self.body(image)
        for k in range(len(maps) - 2, -1, -1):
            above = F.interpolate(maps[k + 1], maps[k].shape[-2:], mode="bilinear", align_corners=True)
            maps[k] = above + self.laterals[k](maps[k])
        return maps

    def heads(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Offsets from the pyramid's maps."""
        fine, _, middle, _ = maps
        field = torch.stack([head(middle) for head in self.field_heads], dim=1)
        return field, self.decoder_head(fine)[:, None].expand(-1, self.decoder_rows, -1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of the field's codes [B, F, 256] and of the decoder's [B, D, 512] of [B, 3, 256, 256] in [-1, 1]."""
        return self.heads(self.pyramid(image))
