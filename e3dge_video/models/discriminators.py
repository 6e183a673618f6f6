"""What the generators are trained against: EG3D's dual discriminator, StyleSDF's two.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022, section 4.3 (dual discrimination):
the final image is judged together with the volume-rendered one, given the camera. Or-El et al., "StyleSDF", 2022: one
discriminator for the volume-rendered image, which also estimates the viewpoint, and one for the final image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


class ImageDiscriminator(nn.Module):
    """StyleGAN2's discriminator: judges an image alone, as StyleSDF's decoder is trained (Karras et al. 2020).

    Args:
        channels: Feature channels at 4, 8, 16, ... px; their number sets the resolution.
    """

    def __init__(self, channels: Sequence[int], *, group: int = 4) -> None:
        super().__init__()
        self.resolution = 2 << len(channels)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(
                channels[level], channels[level - 1], image_channels=3 if level == len(channels) - 1 else 0
            )
            for level in range(len(channels) - 1, 0, -1)
        )
        self.head = DiscriminatorHead(channels[0], 0, group=group)

    def forward(self, image: Tensor, rendered: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """Score of each image, higher means more real. [B, 3, H, H] → [B, 1]

        It may be asked as `DualDiscriminator` is: of volume-rendered image and label it sees nothing.
        """
        x = image.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return self.head(x, None)


class CoordinateConv(nn.Module):
    """3×3 convolution that also sees where it stands, and a leaky ReLU (Liu et al., "CoordConv", 2018)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + 2, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] → [B, O, H, W]"""
        rows, columns = (torch.linspace(-1, 1, size, dtype=x.dtype, device=x.device) for size in x.shape[2:])
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        return F.leaky_relu(self.conv(torch.cat([x, place], dim=1)), 0.2)


class CoordinateBlock(nn.Module):
    """Residual block of two coordinate convolutions that halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = CoordinateConv(inputs, outputs)
        self.conv1 = CoordinateConv(outputs, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, H, W] → [B, O, H / 2, W / 2]"""
        halved = F.avg_pool2d(self.conv1(self.conv0(x)), 2)
        return (halved + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


class ViewpointDiscriminator(nn.Module):
    """Judges a volume-rendered image and tells from where it was seen: StyleSDF's volume discriminator.

    Or-El et al. 2022. E3DGE takes the camera of a photograph from its viewpoint head.

    Args:
        channels: Feature channels at 2, 4, 8, ... px; their number sets the resolution.
    """

    def __init__(self, channels: Sequence[int] = (400, 400, 400, 400, 256, 128)) -> None:
        super().__init__()
        self.resolution = 1 << len(channels)
        self.from_rgb = nn.Conv2d(3, channels[-1], 1)
        self.blocks = nn.ModuleList(
            CoordinateBlock(channels[level], channels[level - 1]) for level in range(len(channels) - 1, 0, -1)
        )
        self.output = nn.Conv2d(channels[0], 3, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score [B, 1], higher means more real, and (azimuth, elevation) in radians [B, 2] of images [B, 3, R, R]."""
        x = F.leaky_relu(self.from_rgb(image), 0.2)
        for block in self.blocks:
            x = block(x)
        output = self.output(x).flatten(1)
        return output[:, :1], output[:, 1:]


def append_batch_spread(x: Tensor, group: int) -> Tensor:
    """Append one channel with the mean standard deviation over groups of the batch (Karras et al. 2018, section 3).

    A generator that draws the same thing every time is found out by it. The group shrinks until the batch is made of
    whole ones.
    """
    batch, channels, height, width = x.shape
    group = next(size for size in range(min(group, batch), 0, -1) if batch % size == 0)
    grouped = x.reshape(group, -1, channels, height, width)
    spread = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, spread.repeat(group)[:, None, None, None].expand(-1, 1, height, width)], dim=1)
