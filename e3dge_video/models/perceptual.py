"""LPIPS with AlexNet: distance of two images as a network trained on recognition sees it.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, version 0.1; E3DGE's
Eq. 17.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Mean and spread of the network's training images, in [-1, 1].
_MEAN, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
#: Inputs, outputs, kernel, stride and padding of each convolution; the second and third see halved maps.
_CONVS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
_HALVED = (1, 2)


class PerceptualDistance(nn.Module):
    """LPIPS. Its weights, those of AlexNet among them, come from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, stride, padding) for i, o, k, stride, padding in _CONVS)
        self.weights = nn.ParameterList(torch.zeros(outputs) for _, outputs, *_ in _CONVS)

    def features(self, image: Tensor) -> list[Tensor]:
        """Images in [-1, 1] [B, 3, H, W] → maps of unit vectors, one per layer."""
        x = (image - image.new_tensor(_MEAN)[:, None, None]) / image.new_tensor(_SPREAD)[:, None, None]
        maps = []
        for level, conv in enumerate(self.convs):
            x = F.relu(conv(F.max_pool2d(x, 3, 2) if level in _HALVED else x))
            # The small number under the root keeps the gradient finite where a map is zero.
            maps.append(x / ((x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() + 1e-10))
        return maps

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """[B, 3, H, W], [B, 3, H, W] → [B]"""
        total = image.new_zeros(len(image))
        for weight, a, b in zip(self.weights, self.features(image), self.features(truth), strict=True):
            total = total + torch.einsum("bchw,c->bhw", (a - b).square(), weight).mean(dim=(1, 2))
        return total
