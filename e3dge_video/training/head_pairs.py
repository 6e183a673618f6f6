"""Pairs of heads that differ in their skin alone, for the generator to learn what an edit of it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import ConfigError
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.head_views import HeadViews, pixel_rays
from e3dge_video.training.workers import device_of, placed


class HeadPairs:
    """Random points of random pairs, with how their colour changes from the first head to the second.

    Args:
        folder: Written by `train heads --pairs …` with an edit that keeps the shape.
        z_dim: Numbers in a latent code of the generator.

    Raises:
        ConfigError: The data set has no pairs, or other codes.
    """

    #: Share of the points that are drawn by how much they change; the others lie anywhere on the head.
    CHANGED = 0.6

    def __init__(self, folder: Path, z_dim: int) -> None:
        self.data = HeadViews(folder, held_out=2)
        self.second = np.flatnonzero(self.data.edits >= 0)
        if not len(self.second):
            raise ConfigError(f"{folder}: holds no pairs of heads; render it with --pairs wrinkles")
        if self.data.z_dim != z_dim:
            raise ConfigError(f"{folder}: its codes have {self.data.z_dim} numbers, the generator's {z_dim}")

    def draw(self, count: int, points: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [K, 2, Z], points on the surface that both share [K, P, 3], change of colour in [-2, 2] [K, P, 3]."""
        rows = rng.choice(self.second, count, replace=count > len(self.second))
        z = torch.from_numpy(np.stack([self.data.z[[row - 1, row]] for row in rows]))
        parts = [self._points(int(row), points, rng) for row in rows]
        where, change = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
        return z, where, change

    def _points(
        self, row: int, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        view = int(rng.integers(self.data.views))
        first, second = (self.data.view(r, view) for r in (row - 1, row))
        change = (second.rgba[..., :3].astype(np.float32) - first.rgba[..., :3]).reshape(-1, 3) / np.float32(127.5)
        on_head = (np.minimum(first.rgba[..., 3], second.rgba[..., 3]) > 250) & (first.depth > 0)
        weight = np.abs(change).mean(axis=1) * on_head.reshape(-1)
        head = np.flatnonzero(on_head)
        changed = int(self.CHANGED * count) if weight.sum() > 0 else 0
        pixels = head[rng.integers(0, len(head), count - changed)]
        if changed:
            drawn = np.searchsorted(np.cumsum(weight, dtype=np.float64), rng.random(changed) * weight.sum())
            pixels = np.concatenate([pixels, np.minimum(drawn, len(weight) - 1)])
        size = first.depth.shape[0]
        origin, rays = pixel_rays(first.camera, pixels, size)
        depth = first.depth.reshape(-1)[pixels].astype(np.float32) + rng.normal(0.006, 0.006, count)
        return (origin + rays * depth[:, None]).astype(np.float32), change[pixels]


def change_error(generator: EG3D, pairs: HeadPairs, count: int, points: int, rng: np.random.Generator) -> Tensor:
    """Mean error of the change of colour that G's field shows from the first to the second head of `count` pairs. []

    In a pair everything else that G gets wrong cancels out, so that faint changes are learned, too.
    """
    z, where, change = placed(pairs.draw(count, points, rng), device_of(generator))
    planes = generator.planes(generator.map(z.flatten(0, 1)))
    features = generator.sample(planes, where.repeat_interleave(2, dim=0)).features
    color = 2 * features[..., :3].unflatten(0, (-1, 2)) - 1
    return (color[:, 1] - color[:, 0] - change).abs().mean()
