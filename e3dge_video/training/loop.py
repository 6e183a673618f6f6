"""The only training loop: step, log, checkpoint, resume. It knows nothing of faces; a `Stage` says what one step is.

A stage draws its batch from a generator seeded by (seed, step), so a resumed run sees the very batches that an
uninterrupted one would have seen and ends with the same weights.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from e3dge_video.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast and how often."""

    steps: int = 10_000
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    #: Share of the run after which the learning rate falls to zero along a half cosine.
    decay_from: float = 0.4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    gradient_clip: float = 1.0  # norm over all parameters of the stage; 0 turns it off
    ema_half_life: int = 500  # steps
    log_every: int = 50
    checkpoint_every: int = 1000
    evaluate_every: int = 2000
    threads: int = 2
    #: "bf16": networks in half precision (autocast), weights and optimiser in full. About 1.6 times faster where the
    #: processor has bf16 instructions, slower where it has not.
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0


class Stage(Protocol):
    """What is trained, and what one step's loss is."""

    def modules(self) -> dict[str, nn.Module]:
        """Modules by name, trained or not, that a checkpoint must hold."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that this stage trains."""
        ...

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one step, already weighted, by the name under which they are logged."""
        ...

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Held-out figures and a sample sheet of the given (averaged) modules."""
        ...


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Warm-up, plateau, half cosine to zero. Pure function of the step, in [0, 1]."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    start = config.decay_from * config.steps
    if step < start:
        return warmup
    return warmup * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, config.steps - start)))


def train(
    stage: Stage, config: LoopConfig, folder: Path, *, resolved: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Run a stage to its last step; called again with the same folder it goes on where it stopped.

    Args:
        stage: What to train.
        config: Length, optimiser and intervals.
        folder: Receives `checkpoint.pt`, `log.jsonl`, `samples/*.png` and, at the end, `averaged.pt`.
        resolved: The whole configuration of the run as plain values; saved with the checkpoint, compared on resume.

    Returns:
        The last evaluation's figures.
    """
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    folder.mkdir(parents=True, exist_ok=True)
    modules = stage.modules()
    parameters = list(stage.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    averages = {name: _Average(module, config.ema_half_life) for name, module in modules.items()}
    step = _resume(folder, modules, averages, optimizer, resolved)
    figures: dict[str, float] = {}
    sums: dict[str, float] = {}
    started, first = time.monotonic(), step
    with (folder / "log.jsonl").open("a") as journal:
        progress = tqdm(total=config.steps, initial=step, unit="step", smoothing=0.05, mininterval=2.0)
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, config)
            torch.manual_seed((config.seed * 1_000_003 + step) % (1 << 63))
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                losses = stage.losses(step, np.random.default_rng([config.seed, step]))
            total = torch.stack([value.float() for value in losses.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            if config.gradient_clip > 0:
                norm = nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
                sums["gradient_norm"] = sums.get("gradient_norm", 0.0) + float(norm)
            if not torch.isfinite(total):
                raise FloatingPointError(f"the loss became {float(total)} at step {step}: {losses}")
            optimizer.step()
            for average in averages.values():
                average.update(step)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            step += 1
            progress.update()
            if step % config.log_every == 0 or step == config.steps:
                since = (step - 1) % config.log_every + 1
                record = {name: value / since for name, value in sums.items()}
                _write(journal, {"step": step, "seconds": time.monotonic() - started, "from": first, **record})
                progress.set_postfix({k: f"{v:.4f}" for k, v in list(record.items())[:4]}, refresh=False)
                sums = {}
            if step % config.evaluate_every == 0 or step == config.steps:
                figures = _evaluate(stage, averages, folder, step, journal)
            if step % config.checkpoint_every == 0 or step == config.steps:
                _checkpoint(folder, step, modules, averages, optimizer, resolved)
        progress.close()
    _save(folder / "averaged.pt", {name: average.module.state_dict() for name, average in averages.items()})
    return figures


class _Average:
    """Exponential moving average of a module's parameters; buffers are copied."""

    def __init__(self, module: nn.Module, half_life: int) -> None:
        self.source, self.half_life = module, half_life
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        # Early on the average must not remember the random start: the half-life grows with the steps done.
        decay = 0.5 ** (1 / max(1.0, min(self.half_life, step / 10)))
        for average, value in zip(self.module.parameters(), self.source.parameters(), strict=True):
            average.lerp_(value, 1 - decay)
        for kept, buffer in zip(self.module.buffers(), self.source.buffers(), strict=True):
            kept.copy_(buffer)


def _evaluate(
    stage: Stage, averages: Mapping[str, _Average], folder: Path, step: int, journal: Any
) -> dict[str, float]:
    with torch.no_grad():
        figures, sheet = stage.evaluate({name: average.module for name, average in averages.items()})
    _write(journal, {"step": step, "evaluation": figures})
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    if sheet is not None:
        (folder / "samples").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "samples" / f"{step:07d}.png"), sheet[..., ::-1])
    return figures


def _checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    averages: Mapping[str, _Average],
    optimizer: torch.optim.Optimizer,
    resolved: Mapping[str, Any] | None,
) -> None:
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "averages": {name: average.module.state_dict() for name, average in averages.items()},
        "optimizer": optimizer.state_dict(),
        "config": json.dumps(resolved, default=str, sort_keys=True),
    }
    _save(folder / "checkpoint.pt", state)


def _resume(
    folder: Path,
    modules: Mapping[str, nn.Module],
    averages: Mapping[str, _Average],
    optimizer: torch.optim.Optimizer,
    resolved: Mapping[str, Any] | None,
) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != json.dumps(resolved, default=str, sort_keys=True):
        raise ConfigError(
            f"{path}: was written by a run with other options; choose another output folder or remove this one"
        )
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
        averages[name].module.load_state_dict(state["averages"][name])
    optimizer.load_state_dict(state["optimizer"])
    log.info("going on from step %d of %s", state["step"], path)
    return int(state["step"])


def _save(path: Path, state: Mapping[str, Any]) -> None:
    """Write beside, then rename: a killed run never leaves half a checkpoint."""
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    temporary.replace(path)


def _write(journal: Any, record: Mapping[str, Any]) -> None:
    journal.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}) + "\n")
    journal.flush()
