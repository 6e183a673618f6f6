"""The whole state of a run at a step, in one file that is either old or new, never half of either."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from e3dge_video.errors import ConfigError
from e3dge_video.io.atomic import replacing

log = logging.getLogger(__name__)
CHECKPOINT_FILE, AVERAGED_FILE = "checkpoint.pt", "averaged.pt"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Steps done.
        sums: Of the losses since the last log record.
        figures: Of the last evaluation.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What of a run outlives its process.

    Attributes:
        folder: Of the run.
        modules: By name, trained or not.
        averages: Their averages.
        optimizer: With its moments.
        scaler: Of the gradients in half precision.
        resolved: The run's options as plain values; another run's checkpoint is refused by them.
        notes: What the run is made of, in words.
        workers: Processes among which the batch is divided.
        foundation: Digests of the networks that it is trained behind; another run's checkpoint is refused by them, too.
    """

    folder: Path
    modules: Mapping[str, nn.Module]
    averages: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    resolved: Mapping[str, Any] | None
    notes: Mapping[str, str]
    workers: int
    foundation: Mapping[str, str] | None = None

    def save(self, progress: Progress) -> None:
        """Write `checkpoint.pt`."""
        state = {
            "step": progress.step,
            "sums": progress.sums,
            "figures": progress.figures,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "averages": {name: module.state_dict() for name, module in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "workers": self.workers,
            "config": self._config(),
            "notes": dict(self.notes),
            "foundation": None if self.foundation is None else dict(self.foundation),
        }
        save_whole(self.folder / CHECKPOINT_FILE, state)

    def save_averages(self) -> None:
        """Write `averaged.pt`, what a finished run is for."""
        save_whole(self.folder / AVERAGED_FILE, {name: module.state_dict() for name, module in self.averages.items()})

    def load(self) -> Progress:
        """Take over the last checkpoint of the folder, if there is one.

        Raises:
            ConfigError: It was written with other options, behind other networks or by another number of processes.
        """
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return Progress()
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"] != self._config():
            raise ConfigError(
                f"{path}: was written by a run with other options; choose another output folder or remove this one"
            )
        behind = state.get("foundation") or {}  # checkpoints of earlier versions do not tell
        if others := [name for name, value in behind.items() if (self.foundation or {}).get(name) != value]:
            raise ConfigError(
                f"{path}: was written by a run behind another {' and '.join(others)} than the model has now; choose "
                "another output folder, or give the model that it was begun with"
            )
        if state["workers"] != self.workers:
            raise ConfigError(
                f"{path}: was written by {state['workers']} processes, these are {self.workers}; start as many, so "
                "that the run goes on with the batches it would have had"
            )
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            self.averages[name].load_state_dict(state["averages"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        log.info("going on from step %d of %s", state["step"], path)
        return Progress(int(state["step"]), dict(state["sums"]), dict(state["figures"]))

    def _config(self) -> str:
        return json.dumps(self.resolved, default=str, sort_keys=True)


def save_whole(path: Path, state: Mapping[str, Any]) -> None:
    """Write beside, then rename: a killed run never leaves half a checkpoint."""
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)
