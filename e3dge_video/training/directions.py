"""Editing directions and the expression subspace of a generator whose z is that of the procedural heads.

Because an edit of a procedural head is exact (one attribute moves, nothing else does), a direction is simply the mean
difference of the codes of many such pairs: no classifier, no labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from e3dge_video.errors import ConfigError
from e3dge_video.heads.edits import edit
from e3dge_video.heads.latent import LAYOUT, Z_DIM
from e3dge_video.models.generators.base import Generator
from e3dge_video.weights.bundle import EditSpec


@dataclass(frozen=True)
class DirectionRecipe:
    """How one direction is made.

    Attributes:
        low: Strength of the heads' edit at one end of a pair.
        high: At the other end.
        step: Share of the way from low to high that strength 1 goes.
        unit: What strength 1 means, in words.
        limits: Strengths within which the result looks right.
        plus: Other directions that belong to it, and how much of each is added. A generator draws fine changes weaker
            than they are; this gives them back.
    """

    low: float
    high: float
    unit: str
    limits: tuple[float, float]
    step: float = 1.0
    plus: tuple[tuple[str, float], ...] = ()


#: The starter's edits. Categories and movements go from none to full; age and gender from one side to the other.
RECIPES: dict[str, DirectionRecipe] = {
    "age": DirectionRecipe(-1, 1, "about 40 years older", (-1.0, 1.25), step=0.8, plus=(("wrinkles", 1.4),)),
    "gender": DirectionRecipe(-1, 1, "more feminine by a standard deviation", (-2.0, 2.0), step=0.5),
    "smile": DirectionRecipe(-1, 1, "from no smile to a broad one", (-1.0, 1.5)),
    "mouth_open": DirectionRecipe(-1, 1, "from closed to wide open", (-1.0, 1.2)),
    "eyes_closed": DirectionRecipe(-1, 1, "from open to closed eyes", (-1.0, 1.2)),
    "glasses": DirectionRecipe(-1, 1, "glasses put on", (-1.2, 1.3)),
    "beard": DirectionRecipe(-1, 1, "a full beard", (-1.2, 1.3)),
    "wrinkles": DirectionRecipe(-1, 1, "from smooth to deeply wrinkled skin", (-1.0, 1.5)),
    "grey": DirectionRecipe(0, 1, "greyer hair", (-1.5, 1.5)),
    "surprise": DirectionRecipe(-1, 1, "raised brows, wide eyes, open mouth", (-0.5, 1.2)),
    "brow": DirectionRecipe(-1, 1, "brows raised", (-1.0, 1.0), step=0.5),
    "pucker": DirectionRecipe(-1, 1, "pursed lips", (-0.5, 1.2)),
    "frown": DirectionRecipe(-1, 1, "mouth corners down", (-0.5, 1.2)),
    "long_hair": DirectionRecipe(-1, 1, "long hair", (-1.2, 1.2)),
    "sunglasses": DirectionRecipe(-1, 1, "sunglasses", (-0.5, 1.2)),
    "lipstick": DirectionRecipe(0, 1, "lipstick", (-1.0, 1.5)),
}


@dataclass(frozen=True)
class DirectionConfig:
    """Sizes of the estimates."""

    pairs: int = 512
    expressions: int = 8  # per identity
    identities: int = 512
    components: int = 24  # of the expression subspace
    seed: int = 3
    edits: tuple[str, ...] = field(default_factory=lambda: tuple(RECIPES))


@torch.no_grad()
def edit_directions(generator: Generator, config: DirectionConfig) -> tuple[dict[str, Tensor], dict[str, EditSpec]]:
    """Mean code differences of exact pairs; [L, W] per attribute, and how each may be used.

    Raises:
        ConfigError: An edit that procedural heads do not have, or a generator of other codes.
    """
    if unknown := [name for name in config.edits if name not in RECIPES]:
        raise ConfigError(f"{unknown[0]}: procedural heads have no such edit; they have {', '.join(RECIPES)}")
    if generator.z_dim != Z_DIM:
        raise ConfigError(
            f"its z has {generator.z_dim} numbers, a procedural head's {Z_DIM}: exact pairs are for generators trained "
            "on those heads; for others use `train directions sample` and `fit`"
        )
    z = np.random.default_rng(config.seed).normal(size=(config.pairs, generator.z_dim)).astype(np.float32)

    @cache
    def change(name: str) -> Tensor:
        recipe = RECIPES[name]
        ends = [np.stack([edit(row, name, strength) for row in z]) for strength in (recipe.low, recipe.high)]
        low, high = (generator.map(torch.from_numpy(end)) for end in ends)
        return recipe.step * (high - low).mean(dim=0)

    directions, specs = {}, {}
    for name in config.edits:
        recipe = RECIPES[name]
        directions[name] = change(name) + sum(share * change(other) for other, share in recipe.plus)
        specs[name] = EditSpec(recipe.unit, recipe.limits)
    return directions, specs


@torch.no_grad()
def expression_basis(generator: Generator, config: DirectionConfig) -> tuple[Tensor, float]:
    """Principal directions of code differences between expressions of the same head.

    Returns:
        Orthonormal basis [K, W], and the share of the differences' variance that it holds.
    """
    rng = np.random.default_rng(config.seed + 1)
    z = rng.normal(size=(config.identities, 1, generator.z_dim)).repeat(config.expressions, axis=1)
    part = LAYOUT["expression"]
    z[:, :, part] = rng.normal(size=z[:, :, part].shape)
    w = generator.map(torch.from_numpy(z.reshape(-1, z.shape[-1]).astype(np.float32)))[:, 0]
    w = w.view(config.identities, config.expressions, -1)
    differences = (w - w.mean(dim=1, keepdim=True)).flatten(0, 1)
    _, values, vectors = torch.linalg.svd(differences, full_matrices=False)
    share = values[: config.components].square().sum() / values.square().sum()
    return vectors[: config.components].contiguous(), float(share)
