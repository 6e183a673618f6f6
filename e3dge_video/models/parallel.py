"""Independent pieces of work on all CPU threads, one thread each.

Splitting every small operation over the threads makes them wait for each other a hundred times a picture; a thread that
takes a whole block of rays or of pixels waits once, and keeps the block in its own cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether a result computed from these is to be differentiated."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def map_blocks(work: Callable[[_Item], _Result], items: Sequence[_Item], device: torch.device) -> list[_Result]:
    """`work` of every item, in their order.

    On a CPU and with gradients off, as many threads as torch may use take an item each; otherwise the caller's thread
    takes one after the other.

    Raises:
        Exception: The first one that `work` raises.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or torch.is_grad_enabled() or min(threads, len(items)) <= 1:
        return [work(item) for item in items]
    inference = torch.is_inference_mode_enabled()

    def alone(item: _Item) -> _Result:
        # Modes belong to threads; no_grad comes last because leaving the inference mode turns gradients on.
        with torch.inference_mode(inference), torch.no_grad():
            return work(item)

    try:
        workers = min(threads, len(items))
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)  # what a worker sets for itself also becomes the default of threads to come
