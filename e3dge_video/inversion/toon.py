"""Toonification (§7.5): a copy of G that was fine-tuned on cartoons, and everything between it and G.

The encoders stay those of photographs: a code means the same person to both generators. A degree between 0 and 1 blends
their layers, coarse ones first, so that halfway the head has the shape of a cartoon and half of its drawing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from e3dge_video.models.generators.base import Generator


class ToonGenerator(nn.Module):
    """A generator between photographs and cartoons.

    Args:
        photo: G; left as it is.
        toon: The tensors of G's state that differ in its cartoon drawing copy.
        degree: 0 draws photographs, 1 cartoons.
        outline: Whether these cartoons have a line around the head.
    """

    def __init__(self, photo: Generator, toon: Mapping[str, Tensor], degree: float, *, outline: bool = False) -> None:
        super().__init__()
        self.degree, self.outline = degree, outline
        self.generator: Generator = blended(photo, toon, degree)


def blended(photo: Generator, toon: Mapping[str, Tensor], degree: float) -> Generator:
    """A copy of G, each of its layers `layer_share` of the way from `photo` to `toon`."""
    assert isinstance(photo, nn.Module)
    weights = photo.state_dict()
    shares = layer_shares(tuple(toon), degree)
    for key, value in toon.items():
        weights[key] = torch.lerp(weights[key].float(), value.float(), shares[key])
    generator = copy.deepcopy(photo)
    generator.load_state_dict(weights)
    return generator


def layer_shares(keys: tuple[str, ...], degree: float) -> dict[str, float]:
    """How far each tensor goes to the cartoon: the first layer twice as fast as the degree, the last one after half.

    Args:
        keys: Names of the tensors that differ, in the order of the layers, coarse to fine.
        degree: 0..1.
    """
    layers = list(dict.fromkeys(_layer(key) for key in keys))
    last = max(1, len(layers) - 1)
    return {key: min(1.0, max(0.0, 2 * degree - layers.index(_layer(key)) / last)) for key in keys}


def _layer(key: str) -> str:
    """The layer that a tensor belongs to: its name up to the first number, or its first part."""
    parts = key.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else parts[0]
