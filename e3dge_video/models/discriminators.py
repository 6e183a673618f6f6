"""EG3D's dual discriminator: judges the final image together with the volume-rendered one, given the camera.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022, section 4.3 (dual discrimination).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.mapping import FullyConnected, MappingNetwork
from e3dge_video.models.stylegan2 import ResampledConv


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size. The first one also takes in the image.

    Args:
        image_channels: Channels of the image for the first block, 0 for the others.
    """

    def __init__(self, inputs: int, outputs: int, *, image_channels: int = 0, clamp: float | None = None) -> None:
        super().__init__()
        self.from_rgb = (
            ResampledConv(image_channels, inputs, 1, activation="lrelu", clamp=clamp) if image_channels else None
        )
        self.conv0 = ResampledConv(inputs, inputs, 3, activation="lrelu", clamp=clamp)
        self.conv1 = ResampledConv(inputs, outputs, 3, activation="lrelu", down=2, clamp=clamp)
        self.skip = ResampledConv(inputs, outputs, 1, bias=False, down=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] → [B, O, H / 2, W / 2]"""
        if self.from_rgb is not None:
            x = self.from_rgb(x)
        half = math.sqrt(0.5)
        shortcut = self.skip(x, gain=half)
        return shortcut + self.conv1(self.conv0(x), gain=half)


class DiscriminatorHead(nn.Module):
    """Features at 4 px and the embedded camera → one score; the score is a projection on the camera's embedding."""

    def __init__(
        self, channels: int, embed_width: int, *, group: int = 4, size: int = 4, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.group = group
        self.conv = ResampledConv(channels + 1, channels, 3, activation="lrelu", clamp=clamp)
        self.hidden = FullyConnected(channels * size * size, channels, activation="lrelu")
        self.output = FullyConnected(channels, embed_width or 1)
        self.embed_width = embed_width

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """x [B, C, 4, 4], embedding [B, E] → [B, 1]"""
        x = self.conv(append_batch_spread(x, self.group))
        x = self.output(self.hidden(x.flatten(1)))
        if embedding is None:
            return x
        return (x * embedding).sum(dim=1, keepdim=True) / math.sqrt(self.embed_width)


class DualDiscriminator(nn.Module):
    """Final image and volume-rendered image, stacked, plus camera → score.

    Args:
        channels: Feature channels at 4, 8, 16, ... px; their number sets the resolution.
        camera_dim: Numbers of the camera label; 0 judges without a camera.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        image_channels: int = 3,
        camera_dim: int = 25,
        mapping_layers: int = 8,
        group: int = 4,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution = 2 << len(channels)
        embed_width = channels[0] if camera_dim else 0
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                channels[level],
                channels[level - 1],
                image_channels=2 * image_channels if level == len(channels) - 1 else 0,
                clamp=clamp,
            )
            for level in range(len(channels) - 1, 0, -1)
        )
        self.mapping = (
            MappingNetwork(0, camera_dim, embed_width, layers=mapping_layers, track_mean=False) if camera_dim else None
        )
        self.head = DiscriminatorHead(channels[0], embed_width, group=group, clamp=clamp)

    def forward(self, image: Tensor, rendered: Tensor, label: Tensor | None = None) -> Tensor:
        """Score of each pair; higher means more real.

        Args:
            image: Final images. [B, 3, H, H]
            rendered: Volume-rendered images of any size. [B, 3, R, R]
            label: EG3D camera labels. [B, 25]

        Returns:
            [B, 1]
        """
        x = torch.cat([image, resize_bilinear(rendered, image.shape[-1])], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return self.head(x, None if self.mapping is None else self.mapping(None, label))


def append_batch_spread(x: Tensor, group: int) -> Tensor:
    """Append one channel with the mean standard deviation over groups of the batch (Karras et al. 2018, section 3).

    A generator that draws the same thing every time is found out by it. The group shrinks to the batch size.
    """
    batch, channels, height, width = x.shape
    group = min(group, batch)
    grouped = x.reshape(group, -1, channels, height, width)
    spread = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, spread.repeat(group)[:, None, None, None].expand(-1, 1, height, width)], dim=1)
