"""The only training loop: step, log, checkpoint, resume. It knows nothing of faces; a `Stage` says what one step is.

A stage draws its batch from a generator seeded by (seed, step), in all processes but the first by their number as well.
So a resumed run sees the very batches that an uninterrupted one would have seen and ends with the same weights.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from e3dge_video.errors import ConfigError
from e3dge_video.training.checkpoints import Checkpoint
from e3dge_video.training.journal import Journal
from e3dge_video.training.workers import DeviceOption, Workers, choose_device, joined_workers


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
    #: "bf16", "fp16": networks in half precision (autocast), weights and optimiser in full. On a CPU, bf16 is about 1.6
    #: times faster where the processor has instructions for it, slower where it has not. fp16 is for GPUs without bf16;
    #: its gradients are scaled, and steps whose scaled gradients overflow are left out.
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: DeviceOption = "auto"  # "auto": a GPU where there is one
    tensorboard: bool = True  # events beside log.jsonl
    seed: int = 0


class Stage(Protocol):
    """What is trained, and what one step's loss is. Sizes of batches are those of one process.

    A stage may have `shares` besides: by a module's name, the share of the learning rate that it learns at.
    """

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


def begin(config: LoopConfig) -> None:
    """What comes before all else of a run: its networks' first numbers and what its stage estimates depend on it."""
    torch.manual_seed(config.seed)
    limit_threads(config)


def limit_threads(config: LoopConfig) -> None:
    """Compute with the run's own number of threads, which the last bits of sums depend on."""
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)


def train(
    stage: Stage,
    config: LoopConfig,
    folder: Path,
    *,
    resolved: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Run a stage to its last step; called again with the same folder it goes on where it stopped.

    Args:
        stage: What to train. Its modules are moved to the configured device; its batches must come there as well.
        config: Length, optimiser, intervals and device.
        folder: Receives `checkpoint.pt`, `log.jsonl`, `tensorboard/`, `samples/*.png` and, at the end, `averaged.pt`.
        resolved: The whole configuration of the run as plain values; saved with the checkpoint, compared on resume.
        notes: What else the run is made of, in words; logged and saved.

    Returns:
        The last evaluation's figures; none in processes other than the first.

    Raises:
        ConfigError: Options that do not fit this machine or the folder's checkpoint, or a loss that is no number.
        KeyboardInterrupt: It was asked to stop (Ctrl-C, SIGTERM), has finished its step and written a checkpoint.
    """
    limit_threads(config)
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(config.device)
    with joined_workers(device) as workers, _StopRequest() as stop:
        return _run(stage, config, folder, resolved, notes or {}, device, workers, stop)


def _run(
    stage: Stage,
    config: LoopConfig,
    folder: Path,
    resolved: Mapping[str, Any] | None,
    notes: Mapping[str, str],
    device: torch.device,
    workers: Workers,
    stop: _StopRequest,
) -> dict[str, float]:
    modules = {name: module.to(device) for name, module in stage.modules().items()}
    parameters = list(stage.parameters())
    buffers = [b for module in modules.values() for b in module.buffers() if b.is_floating_point()]
    workers.share([p.data for module in modules.values() for p in module.parameters()] + buffers)
    optimizer = torch.optim.AdamW(
        _groups(parameters, stage), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    half = torch.float16 if config.precision == "fp16" else torch.bfloat16
    averages = {name: _Average(module, config.ema_half_life) for name, module in modules.items()}
    averaged = {name: average.module for name, average in averages.items()}
    checkpoint = Checkpoint(folder, modules, averaged, optimizer, scaler, resolved, notes, workers.count)
    progress = checkpoint.load()
    workers.wait()  # nobody writes before everybody has read
    started, first = time.monotonic(), progress.step
    with contextlib.ExitStack() as stack:
        journal = None
        if workers.first:
            journal = stack.enter_context(Journal(folder, first, tensorboard=config.tensorboard))
            if notes and first == 0:
                journal.notes(first, notes)
        bar = stack.enter_context(
            tqdm(
                total=config.steps,
                initial=first,
                unit="step",
                smoothing=0.05,
                mininterval=2.0,
                disable=not workers.first,
            )
        )
        while progress.step < config.steps:
            step, sums = progress.step, progress.sums
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, config) * group.get("share", 1.0)
            torch.manual_seed((config.seed * 1_000_003 + step + (workers.rank << 40)) % (1 << 63))
            rng = np.random.default_rng([config.seed, step, workers.rank] if workers.rank else [config.seed, step])
            with torch.autocast(device.type, half, enabled=config.precision != "fp32"):
                losses = stage.losses(step, rng)
            total = torch.stack([value.float() for value in losses.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(total).backward()
            workers.average(p.grad for p in parameters if p.grad is not None)
            scaler.unscale_(optimizer)
            if config.gradient_clip > 0:
                norm = float(nn.utils.clip_grad_norm_(parameters, config.gradient_clip))
                if math.isfinite(norm) or not scaler.is_enabled():
                    sums["gradient_norm"] = sums.get("gradient_norm", 0.0) + norm
            # One number more tells whether any process was asked to stop.
            values = torch.stack([*(value.detach().float() for value in losses.values()), total.new_tensor(stop.asked)])
            workers.average([values])
            *seen, stopping = values.tolist()
            if not all(map(math.isfinite, seen)):
                raise ConfigError(
                    f"the loss is no number any more at step {step} "
                    f"({', '.join(f'{k} {v:.3g}' for k, v in zip(losses, seen, strict=True))}); "
                    f"the checkpoint in {folder} is sound: lower loop.learning_rate or turn loop.gradient_clip on"
                )
            scaler.step(optimizer)
            scaler.update()
            workers.average(buffers)  # statistics of batch normalisation
            for average in averages.values():
                average.update(step)
            for name, value in zip(losses, seen, strict=True):
                sums[name] = sums.get(name, 0.0) + value
            progress.step = step = step + 1
            bar.update()
            last = step == config.steps
            if step % config.log_every == 0 or last:
                since = (step - 1) % config.log_every + 1
                means = {name: value / since for name, value in sums.items()}
                if journal is not None:
                    journal.losses(step, means, seconds=time.monotonic() - started, **{"from": first})
                bar.set_postfix({k: f"{v:.4f}" for k, v in list(means.items())[:4]}, refresh=False)
                progress.sums = {}
            if step % config.evaluate_every == 0 or last:
                if journal is not None:
                    with torch.no_grad():
                        figures, sheet = stage.evaluate(averaged)
                        # Plain numbers: a checkpoint is read back without trusting anything else in it.
                        progress.figures = {name: float(value) for name, value in figures.items()}
                    journal.evaluation(step, progress.figures, sheet)
                workers.wait()
            if (step % config.checkpoint_every == 0 or last or stopping) and workers.first:
                checkpoint.save(progress)
            if stopping and not last:
                raise KeyboardInterrupt(
                    f"stopped after step {step} of {config.steps}; {folder} holds a checkpoint of it, and the same "
                    "command goes on from there"
                )
    if workers.first:
        checkpoint.save_averages()
    workers.wait()
    return progress.figures if workers.first else {}


def _groups(parameters: list[nn.Parameter], stage: Stage) -> list[dict[str, Any]]:
    """The parameters, those of modules that a stage's `shares` names apart from the others."""
    groups: list[dict[str, Any]] = []
    for name, share in getattr(stage, "shares", {}).items():
        own = {id(p) for p in stage.modules()[name].parameters()}
        groups.append({"params": [p for p in parameters if id(p) in own], "share": share})
        parameters = [p for p in parameters if id(p) not in own]
    return [{"params": parameters}, *groups]


class _StopRequest:
    """Lets a run that is asked to stop finish its step; asked twice, it stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> _StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


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
