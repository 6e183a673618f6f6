"""Independent pieces of work on all CPU threads, one thread each.

Splitting every small operation over the threads makes them wait for each other a hundred times a picture; a thread that
takes a whole block of rays or of pixels waits once, and keeps the block in its own cache. Results do not depend on the
number of threads.
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


def map_blocks(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """`work` of every item, in their order, on as many threads as torch may use; for work without gradients on a CPU.

    Raises:
        Exception: The first one that `work` raises.
    """
    threads = torch.get_num_threads()
    inference = torch.is_inference_mode_enabled()

    def alone(item: _Item) -> _Result:
        # Modes belong to threads; no_grad comes last because leaving the inference mode turns gradients on.
        with torch.inference_mode(inference), torch.no_grad():
            return work(item)

    workers = min(threads, len(items))
    if workers == 0 or threads == 1:
        return [alone(item) for item in items]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)  # what a worker sets for itself also becomes the default of threads to come
