"""StyleSDF's decoder: a StyleGAN2 network that starts from rendered features instead of a learned constant.

Or-El et al. 2022; G1 of E3DGE, section 3. Letters: B batch, R pixels of the rendering, D rows of W+ for the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from e3dge_video.config.generators import NoiseMode
from e3dge_video.config.stylesdf import StyleDecoderConfig
from e3dge_video.models.mapping import MappingNetwork
from e3dge_video.models.stylegan2 import SynthesisBlock, SynthesisLayer, ToRGB, channels_last


class StyleDecoder(nn.Module):
    """Rendered features → image.

    Args:
        features: Channels of the rendered features, and width of the codes that its mapping takes.
        resolution: Pixels R of the rendered features.
    """

    def __init__(self, config: StyleDecoderConfig, features: int, resolution: int) -> None:
        super().__init__()
        w_dim, channels = config.w_dim, config.channels
        self.mapping = MappingNetwork(
            features, 0, w_dim, layers=config.mapping_layers, lr_multiplier=config.lr_multiplier, track_mean=False
        )
        self.conv = SynthesisLayer(features, channels[0], w_dim, resolution)
        self.to_rgb = ToRGB(channels[0], 3, w_dim)
        self.blocks = nn.ModuleList(
            SynthesisBlock(inputs, outputs, w_dim, resolution << level, 3)
            for level, (inputs, outputs) in enumerate(pairwise(channels), start=1)
        )

    def forward(
        self, features: Tensor, latents: Tensor, *, noise: NoiseMode = "const", random: torch.Generator | None = None
    ) -> Tensor:
        """features [B, C, R, R], latents [B or 1, D, W] → [B, 3, H, H]"""
        rows = latents.unbind(dim=1)
        x = self.conv(channels_last(features), rows[0], noise=noise, random=random)
        image: Tensor | None = self.to_rgb(x, rows[1])
        for level, block in enumerate(cast(Iterable[SynthesisBlock], self.blocks)):
            row = 2 * level + 1  # each block shares its first row with the RGB layer of the one before
            x, image = block(x, image, latents[:, row : row + 3], noise=noise, random=random)
        assert image is not None
        return image
