"""From local features to the modulation of the generator's features: position, fusion, FiLM.

E3DGE, section 4.2 (Eqs. 8, 9) and 4.3 (Eq. 10). Letters: N points in any leading shape, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.models.generators.base import FeatureModulation
from e3dge_video.models.mapping import FullyConnected

#: Octaves of the positional encoding.
OCTAVES = 7


def positional_encoding(points: Tensor, octaves: int = OCTAVES) -> Tensor:
    """PE(x) = (x, sin x, cos x, sin 2x, cos 2x, sin 4x, …), x in world units (Mildenhall et al., "NeRF", 2020, Eq. 4).

    [..., 3] → [..., 3 + 6 · octaves]
    """
    waves = [wave(points * 2.0**k) for k in range(octaves) for wave in (torch.sin, torch.cos)]
    return torch.cat([points, *waves], dim=-1)


class ResidualMLP(nn.Module):
    """Two linear layers around which a linear shortcut leads. [..., I] → [..., O]"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = min(inputs, outputs)
        self.linear0, self.linear1 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.shortcut = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.linear1(F.relu(self.linear0(F.relu(x))))


class SFTFusion(nn.Module):
    """Features seen in the reference view, corrected by those aligned to the target view (Eq. 10).

    A spatial feature transform (Wang et al., "Recovering Realistic Texture in Image Super-Resolution by Deep Spatial
    Feature Transform", 2018): h = MLP(f_ADA ⊕ m ⊕ f_L), f = f_L + (f_L · scale(h) + shift(h)).
    """

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.joint = ResidualMLP(2 * channels + 1, channels)
        self.scale, self.shift = _mlp(channels), _mlp(channels)

    def forward(self, local: Tensor, aligned: Tensor, visible: Tensor) -> Tensor:
        """Fuse.

        Args:
            local: f_L, from the reference view. [..., C]
            aligned: f_ADA, from the residual aligned to the target view. [..., C]
            visible: 1 where the target view shows something that lies inside the reference image, else 0. [..., 1]

        Returns:
            [..., C]
        """
        joint = self.joint(torch.cat([aligned, visible, local], dim=-1))
        return local + (local * self.scale(joint) + self.shift(joint))


class FilmHead(nn.Module):
    """Local features ⊕ PE(x) → modulation of f_G, through one residual MLP (Eq. 9): the head of the released weights.

    Starts as the identity.
    """

    def __init__(self, channels: int = 256, features: int = 256) -> None:
        super().__init__()
        self.mlp = ResidualMLP(channels + 3 + 6 * OCTAVES, 2 * features)
        for values in (self.mlp.linear1.weight, self.mlp.linear1.bias, self.mlp.shortcut.weight):
            nn.init.zeros_(values)

    def forward(self, local: Tensor, points: Tensor) -> FeatureModulation:
        """[..., C] at world points [..., 3]"""
        return _modulation(self.mlp(torch.cat([local, positional_encoding(points)], dim=-1)))


class LinearFilmHead(nn.Module):
    """The same through one linear layer with equalised learning rate: the head that the training options name."""

    def __init__(self, channels: int = 256, features: int = 256) -> None:
        super().__init__()
        self.linear = FullyConnected(channels + 3 + 6 * OCTAVES, 2 * features)
        nn.init.zeros_(self.linear.weight)

    def forward(self, local: Tensor, points: Tensor) -> FeatureModulation:
        """[..., C] at world points [..., 3]"""
        x = torch.cat([local, positional_encoding(points)], dim=-1)
        return _modulation(self.linear(x.flatten(0, -2)).unflatten(0, x.shape[:-1]))


def _modulation(values: Tensor) -> FeatureModulation:
    scale, shift = values.chunk(2, dim=-1)
    return FeatureModulation(scale, shift)


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.LeakyReLU(0.2), nn.Linear(channels, channels))
