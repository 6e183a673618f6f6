"""StyleSDF's implicit field: a sine network whose layers are scaled and shifted by the latent code.

Or-El et al., "StyleSDF: High-Resolution 3D-Consistent Image and Geometry Generation", 2022; the layer is FiLM-SIREN of
Chan et al., "pi-GAN", 2021. In E3DGE, section 5, `layers` are E_G0 and its heads φ_g (distance), φ_f (features) and
φ_c (colour): `to_sdf`, `color_layer`, `to_rgb`.
Letters: P heads, M points, W width, L layers (the colour layer included).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

#: Initial weights are uniform within ±√(6 / inputs) / this: a sine network must start smooth.
_FREQUENCY = 25


@dataclass(frozen=True)
class Film:
    """What a layer's code makes of its output: sin(scale · (Wx + b) + shift).

    Attributes:
        scale: γ, around 30. [P, 1, W]
        shift: β. [P, 1, W]
    """

    scale: Tensor
    shift: Tensor


class FilmLayer(nn.Module):
    """Linear layer, scaled and shifted by its code, and a sine."""

    def __init__(self, inputs: int, width: int, *, first: bool = False) -> None:
        super().__init__()
        bound = 1 / 3 if first else math.sqrt(6 / inputs) / _FREQUENCY
        self.linear = _linear(inputs, width, bound)
        self.scale = _code_linear(width)
        self.shift = _code_linear(width)

    def film(self, code: Tensor) -> Film:
        """[P, W] → the layer's scale and shift."""
        return Film((15 * self.scale(code) + 30)[:, None], (0.25 * self.shift(code))[:, None])

    def forward(self, x: Tensor, film: Film) -> Tensor:
        """[P, M, I] → [P, M, W]"""
        return torch.sin(torch.addcmul(film.shift, film.scale, self.linear(x)))


class FilmSiren(nn.Module):
    """Point and viewing direction → signed distance, colour and features.

    The distance comes from the point alone; the viewing direction enters behind it.

    Args:
        width: Of every layer, of the codes and of the features.
        depth: Layers in front of the distance.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FilmLayer(width if level else 3, width, first=level == 0) for level in range(depth))
        self.color_layer = FilmLayer(width + 3, width)
        bound = math.sqrt(6 / width) / _FREQUENCY
        self.to_sdf = _linear(width, 1, bound)
        self.to_rgb = _linear(width, 3, bound)

    def films(self, codes: Tensor) -> list[Film]:
        """One code for each layer, the colour layer's last [P, L, W] → what the layers make of them."""
        layers = [*cast(Iterable[FilmLayer], self.layers), self.color_layer]
        return [layer.film(code) for layer, code in zip(layers, codes.unbind(dim=1), strict=True)]

    def geometry(self, points: Tensor, films: Sequence[Film]) -> tuple[Tensor, Tensor]:
        """Signed distance, negative inside [P, M, 1], and what the colour layer is to see [P, M, W], at [P, M, 3]."""
        x = points
        for layer, film in zip(self.layers, films, strict=False):
            x = layer(x, film)
        return self.to_sdf(x), x

    def appearance(self, hidden: Tensor, directions: Tensor, film: Film) -> tuple[Tensor, Tensor]:
        """Colour logits [P, M, 3] and features [P, M, W] of points seen along unit directions [P, M, 3]."""
        features = self.color_layer(torch.cat([hidden, directions], dim=-1), film)
        return self.to_rgb(features), features


class CodeMapping(nn.Module):
    """z → the one code of all layers: linear layers with leaky ReLUs, nothing normalised."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        for layer in cast(Iterable[nn.Linear], self.layers):
            nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")

    def forward(self, z: Tensor) -> Tensor:
        """[B, W] → [B, W]"""
        for layer in self.layers:
            z = nn.functional.leaky_relu(layer(z), 0.2)
        return z


def _linear(inputs: int, outputs: int, bound: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer


def _code_linear(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")
    with torch.no_grad():
        layer.weight *= 0.25
    return layer
