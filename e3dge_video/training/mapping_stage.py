"""Teach the mapping network what a code means before G learns to draw it.

The codes of procedural heads are awkward for a generator: a hair style is the largest of fifteen numbers, a smile
begins at a threshold, and colours depend on age and origin. What a head looks like is known for any code without
rendering it, so the mapping can learn it from millions of codes in minutes, where G would meet a few thousand: w is
trained until everything visible can be read from it by one linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.heads.appearance import appearance
from e3dge_video.heads.decode import decode
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class MappingStageConfig:
    """Training of the mapping network."""

    codes: int = 200_000  # different codes, drawn once
    held_out: int = 4096
    batch: int = 256
    #: Of what is there or not (a hair style, glasses) against all that varies by degrees: a wrong style is wrong over
    #: the whole picture, and the boundaries between styles are what the network learns last.
    category_weight: float = 1.0
    seed: int = 0


class MappingStage:
    """Squared error of the standardised appearance, read linearly from w."""

    def __init__(self, generator: EG3D, config: MappingStageConfig) -> None:
        self.generator, self.config = generator, config
        count = config.codes + config.held_out
        rng = np.random.default_rng([config.seed, 77])
        z = rng.standard_normal((count, generator.config.z_dim), np.float32)
        seen = torch.from_numpy(np.stack([appearance(decode(row)) for row in z]))
        self.z = torch.from_numpy(z)
        self.seen = (seen - seen.mean(dim=0)) / seen.std(dim=0).clamp_min(1e-4)
        category = ((seen == 0) | (seen == 1)).all(dim=0)
        weight = torch.where(category, config.category_weight, 1.0)
        self.category, self.weight = category, weight / weight.mean()
        self.reader = self._best_reader()

    @torch.no_grad()
    def _best_reader(self, codes: int = 20_000) -> nn.Linear:
        """What can be read by now (least squares): w then changes by what is missing, and G still knows its way."""
        reader = nn.Linear(self.generator.config.w_dim, self.seen.shape[1])
        w = torch.cat([self.generator.map(z)[:, 0] for z in self.z[:codes].split(1024)])
        # A little ridge: at the start of a new mapping some directions of w are hardly used.
        centred = w - w.mean(dim=0)
        covariance = centred.T @ centred / len(w) + 1e-4 * torch.eye(w.shape[1])
        reader.weight.copy_(torch.linalg.solve(covariance, centred.T @ self.seen[:codes] / len(w)).T)
        reader.bias.copy_(self.seen[:codes].mean(dim=0) - reader.weight @ w.mean(dim=0))
        return reader

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "reader": self.reader}

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.generator.mapping.parameters()
        yield from self.reader.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        rows = torch.from_numpy(rng.integers(0, self.config.codes, self.config.batch))
        z, seen, weight = placed((self.z[rows], self.seen[rows], self.weight), device_of(self.reader))
        w = self.generator.map(z)[:, 0]
        error = (self.reader(w) - seen).square()
        # w keeps unit size, as a mapping network's output has at its start: G's layers are made for that.
        size = (w.square().mean() - 1).square()
        return {"appearance": (error * weight).mean(), "size": 0.1 * size}

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        generator, reader = modules["generator"], modules["reader"]
        assert isinstance(generator, EG3D)
        z, seen = placed((self.z[self.config.codes :], self.seen[self.config.codes :]), device_of(reader))
        w = generator.map(z)[:, 0]
        unexplained = (reader(w) - seen).square().mean(dim=0) / seen.var(dim=0).clamp_min(1e-4)
        r2 = 1 - unexplained
        figures = {
            "r2_mean": r2.mean(),
            "r2_categories": r2[self.category.to(r2.device)].mean(),
            "r2_lowest_tenth": r2.quantile(0.1),
        }
        return {name: float(value) for name, value in figures.items()} | {"w_size": float(w.std())}, None
