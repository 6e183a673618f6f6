"""A small reader of attributes: which age, smile, glasses … does a picture of a head show? For evaluation only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.encoders.backbone import FeaturePyramid


class AttributeNet(nn.Module):
    """Picture of a head over mid-grey → attributes.

    Args:
        count: Number of attributes.
        size: Side at which the picture is looked at, pixels.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, count: int, size: int = 64) -> None:
        super().__init__()
        self.size = size
        self.body = FeaturePyramid(24, (32, 64, 96), (1, 2, 2), 64)
        self.hidden = nn.Linear(64 * (size // 16) ** 2, 256)
        self.out = nn.Linear(256, count)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))

    def standardised(self, image: Tensor) -> Tensor:
        """Attributes minus their mean, divided by their spread. [B, 3, S, S] in [-1, 1] → [B, A]"""
        if image.shape[-1] != self.size:
            image = F.interpolate(image, (self.size, self.size), mode="area")
        features = self.body(image)[-1]
        return self.out(F.leaky_relu(self.hidden(features.flatten(1)), 0.2))

    def forward(self, image: Tensor) -> Tensor:
        """Attributes in their own units. [B, 3, S, S] in [-1, 1] → [B, A]"""
        return self.mean + self.spread * self.standardised(image)
