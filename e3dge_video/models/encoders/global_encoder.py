"""E0: from one image to W+ codes (§4.1, Eq. 3; architecture §7.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.encoders import GlobalEncoderConfig, WindowConfig
from e3dge_video.errors import ConfigError
from e3dge_video.models.encoders.backbone import FeaturePyramid
from e3dge_video.models.encoders.windows import cut_window


@dataclass(frozen=True)
class EncoderOutput:
    """What E0 sees in a batch of images.

    Attributes:
        latents: W+ codes. [B, L, W]
        features: Deepest feature map, for the pose head. [B, C, h, h]
    """

    latents: Tensor
    features: Tensor


class GlobalEncoder(nn.Module):
    """E0: image → latents = mean latents + offsets.

    Args:
        config: Sizes.
        latent_shape: Rows and width of the generator's W+ codes, (L, W).
    """

    mean_latents: Tensor

    def __init__(self, config: GlobalEncoderConfig, latent_shape: tuple[int, int]) -> None:
        super().__init__()
        rows, width = latent_shape
        if sum(head.rows for head in config.heads) != rows:
            raise ConfigError(
                f"the encoder's heads predict {sum(head.rows for head in config.heads)} latent rows, "
                f"the generator has {rows}"
            )
        self.config = config
        self.latent_shape = latent_shape
        self.register_buffer("mean_latents", torch.zeros(rows, width))
        self.body = FeaturePyramid(config.stem_width, config.widths, config.blocks, config.pyramid_width)
        sides = [config.input_size >> (k + 2) for k in range(len(config.widths))]
        self._levels = [sides.index(head.level) for head in config.heads]
        self.heads = nn.ModuleList(
            _StyleHead(config.pyramid_width, head.level, head.rows, width) for head in config.heads
        )
        self.windows = nn.ModuleList(
            _WindowBranch(window, config.window_width, rows, width) for window in config.windows
        )

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Channels and side of `EncoderOutput.features`."""
        return self.config.pyramid_width, self.config.input_size >> (len(self.config.widths) + 1)

    def forward(self, image: Tensor, landmarks: Tensor) -> EncoderOutput:
        """Encode face crops.

        Args:
            image: RGB in [-1, 1], at any size from the encoder's input size up. [B, 3, S, S]
            landmarks: 68 points in crop coordinates 0..1; the close-ups are cut along them. [B, 68, 2]
        """
        size = self.config.input_size
        small = (
            image
            if image.shape[-1] == size
            else F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
        )
        maps = self.body(small)
        offsets = torch.cat([head(maps[level]) for head, level in zip(self.heads, self._levels, strict=True)], dim=1)
        for branch in self.windows:
            offsets = offsets + branch(image, landmarks)
        return EncoderOutput(self.mean_latents + offsets, maps[-1])


class _StyleHead(nn.Module):
    """Stride-2 convolutions down to 4×4, then a linear read-out of the head's latent rows."""

    def __init__(self, channels: int, side: int, rows: int, width: int) -> None:
        super().__init__()
        steps = max(0, int(math.log2(side)) - 2)
        self.down = nn.Sequential(
            *(m for _ in range(steps) for m in (nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU(0.2, True)))
        )
        self.hidden = nn.Linear(channels * (side >> steps) ** 2, 2 * width)
        self.out = nn.Linear(2 * width, rows * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.shape = rows, width

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.hidden(self.down(features).flatten(1)), 0.2)
        return self.out(hidden).view(-1, *self.shape)


class _WindowBranch(nn.Module):
    """A close-up's contribution to all latent rows."""

    def __init__(self, window: WindowConfig, base: int, rows: int, width: int) -> None:
        super().__init__()
        self.window = window
        widths = (base, 2 * base, 3 * base, 4 * base)
        self.convolutions = nn.Sequential(
            *(
                m
                for i, o in zip((3, *widths[:-1]), widths, strict=True)
                for m in (nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.PReLU(o))
            )
        )
        cells = math.ceil(window.height / 16) * math.ceil(window.width / 16)
        self.hidden = nn.Linear(widths[-1] * cells, width)
        self.out = nn.Linear(width, rows * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.shape = rows, width

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        features = self.convolutions(cut_window(image, landmarks, self.window))
        return self.out(F.leaky_relu(self.hidden(features.flatten(1)), 0.2)).view(-1, *self.shape)
