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
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.heads.appearance import appearance
from e3dge_video.heads.decode import decode
from e3dge_video.models.generators.eg3d.generator import EG3D


@dataclass(frozen=True)
class MappingStageConfig:
    """Training of the mapping network."""

    codes: int = 200_000  # different codes, drawn once
    held_out: int = 4096
    batch: int = 256
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
        self.reader = nn.Linear(generator.config.w_dim, seen.shape[1])

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "reader": self.reader}

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.generator.mapping.parameters()
        yield from self.reader.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        rows = torch.from_numpy(rng.integers(0, self.config.codes, self.config.batch))
        w = self.generator.map(self.z[rows])[:, 0]
        # w keeps unit size, as a mapping network's output has at its start: G's layers are made for that.
        size = (w.square().mean() - 1).square()
        return {"appearance": F.mse_loss(self.reader(w), self.seen[rows]), "size": 0.1 * size}

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        generator, reader = modules["generator"], modules["reader"]
        assert isinstance(generator, EG3D)
        z, seen = self.z[self.config.codes :], self.seen[self.config.codes :]
        w = generator.map(z)[:, 0]
        unexplained = (reader(w) - seen).square().mean(dim=0) / seen.var(dim=0).clamp_min(1e-4)
        r2 = 1 - unexplained
        return {"r2_mean": float(r2.mean()), "r2_lowest_tenth": float(r2.quantile(0.1)), "w_size": float(w.std())}, None
