"""LPIPS: distance of two images as a network trained on recognition sees it.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, version 0.1; E3DGE's
Eq. 17, whose numbers are those of AlexNet.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PerceptualNet = Literal["alex", "vgg"]
#: Mean and spread of the network's training images, in [-1, 1].
_MEAN, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Conv(NamedTuple):
    """A convolution and the ReLU behind it.

    Attributes:
        pool: Side of the windows whose largest values it sees, two pixels apart; 0: it sees the map itself.
        compared: Whether its output is a map that images are compared in.
    """

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = True


def _vgg() -> tuple[_Conv, ...]:
    """The 13 convolutions of VGG-16: five blocks, of which the last output is compared."""
    convs, inputs = [], 3
    for block, (outputs, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for k in range(count):
            pool = 2 if block and k == 0 else 0
            convs.append(_Conv(inputs, outputs, pool=pool, compared=k == count - 1))
            inputs = outputs
    return tuple(convs)


CONVS: dict[PerceptualNet, tuple[_Conv, ...]] = {
    "alex": (
        _Conv(3, 64, 11, 4, 2),
        _Conv(64, 192, 5, 1, 2, pool=3),
        _Conv(192, 384, pool=3),
        _Conv(384, 256),
        _Conv(256, 256),
    ),
    "vgg": _vgg(),
}


class PerceptualDistance(nn.Module):
    """LPIPS. Its weights come from elsewhere: `weights.metric_networks.load_perceptual`.

    Args:
        network: Which one sees the images; the paper's is AlexNet.
    """

    def __init__(self, network: PerceptualNet = "alex") -> None:
        super().__init__()
        self.layers = CONVS[network]
        self.convs = nn.ModuleList(nn.Conv2d(c.inputs, c.outputs, c.kernel, c.stride, c.padding) for c in self.layers)
        self.weights = nn.ParameterList(torch.zeros(c.outputs) for c in self.layers if c.compared)

    def features(self, image: Tensor) -> list[Tensor]:
        """Images in [-1, 1] [B, 3, H, W] → maps of unit vectors, one per layer that is compared."""
        x = (image - image.new_tensor(_MEAN)[:, None, None]) / image.new_tensor(_SPREAD)[:, None, None]
        maps = []
        for layer, conv in zip(self.layers, self.convs, strict=True):
            x = F.relu(conv(F.max_pool2d(x, layer.pool, 2) if layer.pool else x))
            if layer.compared:
                # The small number under the root keeps the gradient finite where a map is zero.
                maps.append(x / ((x.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() + 1e-10))
        return maps

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        """[B, 3, H, W], [B, 3, H, W] → [B]"""
        total = image.new_zeros(len(image))
        for weight, a, b in zip(self.weights, self.features(image), self.features(truth), strict=True):
            total = total + torch.einsum("bchw,c->bhw", (a - b).square(), weight).mean(dim=(1, 2))
        return total
