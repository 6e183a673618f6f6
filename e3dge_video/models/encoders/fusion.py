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
    """Local features ⊕ PE(x) → modulation of f_G (Eq. 9): how, the subclasses say. Each starts as the identity.

    Args:
        channels: Of the local features.
        features: Of f_G.
        scale: World coordinates are multiplied by it before their encoding.
    """

    def __init__(self, channels: int = 256, features: int = 256, scale: float = 1.0) -> None:
        super().__init__()
        self.inputs, self.outputs, self.scale = channels + 3 + 6 * OCTAVES, 2 * features, scale

    def forward(self, local: Tensor, points: Tensor) -> FeatureModulation:
        """[..., C] at world points [..., 3]"""
        values = self.values(torch.cat([local, positional_encoding(points * self.scale)], dim=-1))
        return FeatureModulation(*values.chunk(2, dim=-1))

    def values(self, x: Tensor) -> Tensor:
        """γ and β side by side. [..., I] → [..., 2 F]"""
        raise NotImplementedError


class ResidualFilmHead(FilmHead):
    """Through one residual MLP: the head of the released weights."""

    def __init__(self, channels: int = 256, features: int = 256, scale: float = 1.0) -> None:
        super().__init__(channels, features, scale)
        self.mlp = ResidualMLP(self.inputs, self.outputs)
        _silence(self.mlp)

    def values(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class DeepFilmHead(FilmHead):
    """Through two residual MLPs, 128 channels between them: ours for EG3D, whose f_G is narrow."""

    def __init__(self, channels: int = 256, features: int = 256, scale: float = 1.0, *, hidden: int = 128) -> None:
        super().__init__(channels, features, scale)
        self.first, self.mlp = ResidualMLP(self.inputs, hidden), ResidualMLP(hidden, self.outputs)
        _silence(self.mlp)

    def values(self, x: Tensor) -> Tensor:
        return self.mlp(self.first(x))


class LinearFilmHead(FilmHead):
    """Through one linear layer with equalised learning rate: the head that the released training options name."""

    def __init__(self, channels: int = 256, features: int = 256, scale: float = 1.0) -> None:
        super().__init__(channels, features, scale)
        self.linear = FullyConnected(self.inputs, self.outputs)
        nn.init.zeros_(self.linear.weight)

    def values(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


#: By name in the options.
FILM_HEADS: dict[str, type[FilmHead]] = {
    "residual": ResidualFilmHead,
    "deep": DeepFilmHead,
    "linear": LinearFilmHead,
}


def _silence(mlp: ResidualMLP) -> None:
    """Make a residual MLP say nothing, until it has learned."""
    for values in (mlp.linear1.weight, mlp.linear1.bias, mlp.shortcut.weight):
        nn.init.zeros_(values)


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, channels), nn.LeakyReLU(0.2), nn.Linear(channels, channels))
