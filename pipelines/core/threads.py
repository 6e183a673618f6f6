"""Thread counts of the numeric libraries. They are part of a result: more threads can mean other last bits."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that must stand before a process imports its libraries.

    Idle OpenMP threads must sleep, not spin: the stages share the cores, and a thread that spins while another stage
    has its core makes small operations slower by a factor of ten and more.
    """
    return dict.fromkeys(_ENVIRONMENT, str(threads)) | {"OMP_WAIT_POLICY": "PASSIVE"}


def limit_threads(threads: int) -> None:
    """Set the thread count of torch and OpenCV if they are loaded; loads neither itself.

    numpy's own BLAS and numba listen to the environment only.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(threads)


@contextlib.contextmanager
def own_thread_counts() -> Iterator[None]:
    """Give the caller back the thread counts it had."""
    torch, cv2 = sys.modules.get("torch"), sys.modules.get("cv2")
    before = torch.get_num_threads() if torch else 0, cv2.getNumThreads() if cv2 else 0
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before[0])
        if cv2:
            cv2.setNumThreads(before[1])
