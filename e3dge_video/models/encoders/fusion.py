"""From local features to the modulation of the generator's features: position, fusion, FiLM.

E3DGE, section 4.2 (Eqs. 8, 9) and 4.3 (Eq. 10). Letters: N points in any leading shape, C channels.
"""

from __future__ import annotations

from typing import Literal

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
    """Local features ⊕ PE(x) → modulation of f_G (Eq. 9). Starts as the identity.

    Args:
        network: What makes γ and β, side by side: [..., C + 45] → [..., 2 F].
        scale: World coordinates are multiplied by it before their encoding.
        limits: Bounds of |γ| and |β|, reached smoothly; 0: none.
    """

    def __init__(self, network: nn.Module, scale: float = 1.0, limits: tuple[float, float] = (0, 0)) -> None:
        super().__init__()
        self.mlp, self.scale, self.limits = network, scale, limits

    def forward(self, local: Tensor, points: Tensor) -> FeatureModulation:
        """[..., C] at world points [..., 3]"""
        x = torch.cat([local, positional_encoding(points * self.scale)], dim=-1)
        films = self.mlp(x).chunk(2, dim=-1)
        return FeatureModulation(*(_bounded(film, limit) for film, limit in zip(films, self.limits, strict=True)))


def _bounded(x: Tensor, limit: float) -> Tensor:
    """x about zero, never beyond ±limit. Any shape"""
    return limit * torch.tanh(x / limit) if limit else x


def film_head(
    kind: Literal["residual", "deep", "linear"],
    channels: int = 256,
    features: int = 256,
    *,
    scale: float = 1.0,
    limits: tuple[float, float] = (0, 0),
    width: int = 128,
) -> FilmHead:
    """A head of one of three kinds.

    Args:
        kind: "residual": one residual MLP, of the released weights; "linear": one linear layer with equalised learning
            rate, which the released training options name; "deep": two residual MLPs, ours for EG3D's narrow f_G.
        channels: Of the local features.
        features: Of f_G.
        scale: World coordinates are multiplied by it before their encoding.
        limits: Bounds of |γ| and |β|; 0: none.
        width: Between the two MLPs of "deep".
    """
    inputs, outputs = channels + 3 + 6 * OCTAVES, 2 * features
    if kind == "linear":
        linear = PointLinear(inputs, outputs)
        nn.init.zeros_(linear.weight)
        return FilmHead(linear, scale, limits)
    last = ResidualMLP(inputs if kind == "residual" else width, outputs)
    for values in (last.linear1.weight, last.linear1.bias, last.shortcut.weight):
        nn.init.zeros_(values)
    return FilmHead(last if kind == "residual" else nn.Sequential(ResidualMLP(inputs, width), last), scale, limits)


class PointLinear(FullyConnected):
    """`FullyConnected` for any leading shape. [..., I] → [..., O]"""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.LeakyReLU(0.2), nn.Linear(channels, channels))
