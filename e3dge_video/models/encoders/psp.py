"""E0 as the paper has it: pSp encoders with a head for each code, for StyleSDF as released and for EG3D.

E3DGE, section 4.1 (Eq. 3) and 7.1; pSp is Richardson et al., "Encoding in Style", 2021. Letters: B batch, L rows and W
width of W+, F rows for StyleSDF's field, D for its decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.models.encoders.global_encoder import EncoderOutput
from e3dge_video.models.encoders.ir_se50 import IRSE50, STAGES
from e3dge_video.models.mapping import FullyConnected

#: Side of the images that E0 takes, pixels.
INPUT_SIZE = 256
#: Side of the map that a head of the released model is made for. The field's heads read 32 px all the same: their last
#: convolutions see 1 px.
_HEAD_SIZE = 128
#: Sides of the pyramid's maps, finest first.
_LEVELS = (128, 64, 32, 16)


class StyleHead(nn.Module):
    """Feature map → one row of W+: stride-2 convolutions until nothing is left but channels, then a linear layer.

    Args:
        size: Side of the maps.
    """

    def __init__(self, inputs: int, width: int, size: int = _HEAD_SIZE) -> None:
        super().__init__()
        steps = int(math.log2(size))
        self.convs = nn.ModuleList(nn.Conv2d(width if k else inputs, width, 3, 2, 1) for k in range(steps))
        self.linear = FullyConnected(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, H], H at most the head's size → [B, W]"""
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            x = F.leaky_relu(conv(x) if x.shape[-1] > 1 else _middle(conv, x), 0.01)
        return self.linear(x.flatten(1))


def _middle(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution of a map of one pixel, of which only its middle sees anything. [B, C, 1, 1]

    Torch's own one returns arbitrary numbers as the weight's gradient there, in bf16 on a CPU (seen in 2.14).
    """
    return F.linear(x.flatten(1), conv.weight[:, :, 1, 1], conv.bias)[..., None, None]


class PSPPyramid(nn.Module):
    """Body of the encoders: IR-SE50 and a feature pyramid.

    Args:
        stages: Width and number of blocks of the body's stages.
    """

    def __init__(self, stages: Sequence[tuple[int, int]] = STAGES) -> None:
        super().__init__()
        self.body = IRSE50(stages)
        *lower, (self.channels, _) = stages
        self.laterals = nn.ModuleList(nn.Conv2d(width, self.channels, 1) for width, _ in lower)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """[B, 3, 256, 256] → maps at 128, 64, 32 and 16 px, of as many channels as the last stage has: 512."""
        maps = self.body(image)
        for k in range(len(maps) - 2, -1, -1):
            above = F.interpolate(maps[k + 1], maps[k].shape[-2:], mode="bilinear", align_corners=True)
            maps[k] = above + self.laterals[k](maps[k])
        return maps


class HybridPSP(PSPPyramid):
    """Image → offsets of StyleSDF's W+ from the mean code.

    Every row of the field has a head of its own on the 32 px map. The decoder's rows all get the same offset, from one
    head on the 128 px map.

    Args:
        field_rows: F
        field_width: Width of the field's codes.
        decoder_rows: D
        decoder_width: Width of the decoder's codes.
        stages: Width and number of blocks of the body's stages.
    """

    def __init__(
        self,
        field_rows: int = 9,
        field_width: int = 256,
        decoder_rows: int = 10,
        decoder_width: int = 512,
        stages: Sequence[tuple[int, int]] = STAGES,
    ) -> None:
        super().__init__(stages)
        self.decoder_rows = decoder_rows
        self.field_heads = nn.ModuleList(StyleHead(self.channels, field_width) for _ in range(field_rows))
        self.decoder_head = StyleHead(self.channels, decoder_width)

    def heads(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Offsets from the pyramid's maps."""
        fine, _, middle, _ = maps
        field = torch.stack([head(middle) for head in self.field_heads], dim=1)
        return field, self.decoder_head(fine)[:, None].expand(-1, self.decoder_rows, -1)

    def offsets(self, maps: list[Tensor]) -> Tensor:
        """The same as one W+ code, the narrower rows filled up with zeros. [B, L, W]"""
        field, decoder = self.heads(maps)
        width = max(field.shape[-1], decoder.shape[-1])
        return torch.cat([F.pad(codes, (0, width - codes.shape[-1])) for codes in (field, decoder)], dim=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of the field's codes [B, F, 256] and of the decoder's [B, D, 512] of [B, 3, 256, 256] in [-1, 1]."""
        return self.heads(self.pyramid(image))


class RowPSP(PSPPyramid):
    """Image → offsets of W+ from the mean code, a head for each row; coarse rows read coarse maps.

    Args:
        levels: Side of the map that each of the L rows reads, of an image of 256 px: 128, 64, 32 or 16.
        width: W
        stages: Width and number of blocks of the body's stages.
    """

    def __init__(self, levels: Sequence[int], width: int, stages: Sequence[tuple[int, int]] = STAGES) -> None:
        super().__init__(stages)
        if not set(levels) <= set(_LEVELS):
            raise ConfigError(f"encoder.heads: levels are {', '.join(map(str, _LEVELS))}; got {sorted(set(levels))}")
        self.maps = [_LEVELS.index(level) for level in levels]
        self.heads = nn.ModuleList(StyleHead(self.channels, width, level) for level in levels)

    def offsets(self, maps: list[Tensor]) -> Tensor:
        """[B, L, W] from the pyramid's maps."""
        return torch.stack([head(maps[number]) for head, number in zip(self.heads, self.maps, strict=True)], dim=1)


class PSPEncoder(nn.Module):
    """E0 of a generator: image → W+ codes = mean codes plus offsets.

    Args:
        psp: The networks.
        latent_shape: (L, W)
        input_size: Side of the images that they see, pixels.
    """

    mean_latents: Tensor

    def __init__(self, psp: HybridPSP | RowPSP, latent_shape: tuple[int, int], input_size: int = INPUT_SIZE) -> None:
        super().__init__()
        self.psp, self.input_size = psp, input_size
        self.register_buffer("mean_latents", torch.zeros(latent_shape))

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Channels and side of `EncoderOutput.features`."""
        return self.psp.channels, self.input_size // 16

    def forward(self, image: Tensor, landmarks: Tensor | None = None) -> EncoderOutput:
        """Encode crops.

        Args:
            image: RGB in [-1, 1]. [B, 3, S, S]
            landmarks: Play no part.
        """
        if image.shape[-1] != self.input_size:
            image = F.interpolate(image, (self.input_size,) * 2, mode="area")
        maps = self.psp.pyramid(image)
        return EncoderOutput(self.mean_latents + self.psp.offsets(maps), maps[-1])
