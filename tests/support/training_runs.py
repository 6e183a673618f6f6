"""What tests of training share: a run's log without what differs from machine to machine, and a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from e3dge_video.training.loop import Stage


def log_figures(folder: Path) -> list[dict[str, Any]]:
    """Every record of a run's log but for its times."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "from")} for record in records]


def learned(stage: Stage) -> list[dict[str, float]]:
    """Losses of twelve steps on the same batch again and again."""
    optimizer, history = torch.optim.Adam(stage.parameters(), lr=3e-3), []
    for _ in range(12):
        losses = stage.losses(0, np.random.default_rng(3))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    return history
