"""A run whose batch of eight rows is divided among its processes: FOLDER [STEP AT WHICH IT BREAKS]."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from e3dge_video.training.loop import LoopConfig, train

CONFIG = LoopConfig(
    steps=15,
    learning_rate=0.01,
    warmup_steps=1,
    log_every=5,
    checkpoint_every=5,
    evaluate_every=15,
    threads=1,
    device="cpu",
    tensorboard=False,
)


class SharedBatch:
    """Fit a product of three numbers."""

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(int(os.environ.get("RANK", "0")))  # the first process's weights must win
        self.fit = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.statistics = nn.BatchNorm1d(1, momentum=0.5)
        self.stop_at = stop_at
        self.draws: list[float] = []

    def modules(self) -> dict[str, nn.Module]:
        return {"fit": self.fit, "statistics": self.statistics}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.fit.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise RuntimeError("power cut")
        self.draws.append(float(rng.random()))
        rows = torch.from_numpy(np.random.default_rng([9, step]).normal(size=(8, 3)).astype(np.float32))
        if dist.is_initialized():
            rows = rows.chunk(dist.get_world_size())[dist.get_rank()]
        y = self.fit(rows)
        self.statistics(y.detach())
        return {"fit": (y[:, 0] - rows.prod(dim=1)).square().mean()}

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], None]:
        return {"mean": float(modules["statistics"].running_mean)}, None


def main() -> None:
    folder = Path(sys.argv[1])
    stage = SharedBatch(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    train(stage, CONFIG, folder)
    (folder / f"draws{os.environ['RANK']}.txt").write_text(repr(stage.draws))


if __name__ == "__main__":
    main()
