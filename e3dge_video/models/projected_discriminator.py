"""A discriminator that knows faces before it sees its first picture: it looks at them through a trained encoder.

Sauer et al., "Projected GANs Converge Faster", 2021: small networks judge the maps of a network that is kept as it is.
What tells pictures from drawings then need not be learned from a few hundred pictures. Here that network is the body of
E0. Since E0 has learned to overlook much, such as hue, each judge also sees the pictures themselves at its map's size,
and one more sees the pixels, for the sharpness of lines.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.encoders.backbone import FeaturePyramid
from e3dge_video.models.encoders.ir_se50 import IRSE50
from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.stylegan2 import ResampledConv

#: Scores of a judge, along each side of the picture.
PLACES = 8
#: Channels of the pixels' judge, from full size down.
_PIXEL_WIDTHS = (16, 32, 64)


class ProjectedDiscriminator(nn.Module):
    """Final image and volume-rendered image, stacked → scores, each of a place in it as one of the judges sees it.

    Args:
        body: E0's; neither its weights nor its statistics change.
        size: Side of the images that it was trained on.
        width: Channels of the judges of its maps.
    """

    def __init__(self, body: FeaturePyramid | IRSE50, size: int, *, width: int = 64) -> None:
        super().__init__()
        self.size = size
        self.body = body.eval().requires_grad_(False)
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, size, size))
        self.judges = nn.ModuleList(_judge(seen.shape[1] + 6, seen.shape[-1], width) for seen in maps)
        self.pixels = nn.Sequential(
            *(ResampledConv(i, o, 3, activation="lrelu", down=2) for i, o in pairwise((6, *_PIXEL_WIDTHS))),
            ResampledConv(_PIXEL_WIDTHS[-1], 1, 1),
        )

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        """As ever, but for the body, whose statistics stay."""
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, image: Tensor, rendered: Tensor, label: Tensor | None = None) -> Tensor:
        """Scores of each pair; higher means more real. It may be asked as `DualDiscriminator` is, but sees no label.

        Args:
            image: Final images. [B, 3, H, H]
            rendered: Volume-rendered images of any size. [B, 3, R, R]

        Returns:
            One for each judge and place. [B, N]
        """
        pair = torch.cat([image, resize_bilinear(rendered, image.shape[-1])], dim=1)
        scores = [self.pixels(pair)]
        for judge, seen in zip(self.judges, self._maps(resize_bilinear(image, self.size)), strict=True):
            scores.append(judge(torch.cat([seen, F.adaptive_avg_pool2d(pair, seen.shape[-1]).to(seen)], dim=1)))
        return torch.cat([_by_place(score) for score in scores], dim=1)

    def _maps(self, image: Tensor) -> list[Tensor]:
        """What the body's stages see: at every place a unit vector, so that all stages speak equally loud."""
        seen = self.body.stem(image)
        maps = [seen]
        for stage in self.body.stages:
            seen = stage(seen)
            maps.append(seen)
        return [F.normalize(x.float(), dim=1) * x.shape[1] ** 0.5 for x in maps]


def _judge(channels: int, side: int, width: int) -> nn.Sequential:
    """Map [B, C, H, H] → scores [B, 1, h, h], h at most `PLACES`."""
    layers: list[nn.Module] = [ResampledConv(channels, width, 3, activation="lrelu")]
    while side > PLACES:
        layers.append(ResampledConv(width, width, 3, activation="lrelu", down=2))
        side //= 2
    return nn.Sequential(*layers, ResampledConv(width, 1, 1))


def _by_place(score: Tensor) -> Tensor:
    """[B, 1, h, h] → [B, `PLACES`², or h² if that is less]"""
    return F.adaptive_avg_pool2d(score.float(), min(PLACES, score.shape[-1])).flatten(1)
