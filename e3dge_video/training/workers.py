"""Where a run computes: its device, and its processes if torchrun started several.

    torchrun --nproc-per-node 4 -m e3dge_video.cli.main train global --config … --out …

Every process draws a share of the batch of its own and holds all weights; gradients are averaged, so that N processes
with a batch of B each do what one with N·B would. The first process alone writes files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera

DeviceOption = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Workers:
    """This process among those of the run.

    Attributes:
        rank: Its number.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, which must give them in the same order."""
        if self.count > 1:
            waiting = [(tensor, dist.all_reduce(tensor, async_op=True)) for tensor in tensors]
            for tensor, work in waiting:
                work.wait()
                tensor.div_(self.count)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first process's."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


def choose_device(option: DeviceOption) -> torch.device:
    """The device of this process: "auto" takes a GPU where there is one, the one of its number under torchrun.

    Raises:
        ConfigError: A GPU is asked for that is not there.
    """
    if option == "cpu" or (option == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("device cuda: torch finds no usable GPU here; set loop.device=cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"device cuda: process {number} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}; start as many processes as there are GPUs"
        )
    return torch.device("cuda", number)


@contextlib.contextmanager
def joined_workers(device: torch.device) -> Iterator[Workers]:
    """This process among those that torchrun started; alone without it."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Workers()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def device_of(module: nn.Module) -> torch.device:
    """Where a network's parameters are, and what it computes with must be."""
    return next(module.parameters()).device


def placed(value: Any, device: torch.device) -> Any:
    """A tensor, a camera, a dataclass or tuple of them on a device; anything else as it is."""
    if isinstance(value, Tensor | Camera):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(placed(part, device) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: placed(getattr(value, f.name), device) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value
