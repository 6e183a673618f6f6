"""The in-process executor: same scheduler, same results, no Ray. For debugging, tiny jobs and tests."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.driver import Driver, Finished, Happening
from e3dge_video.pipelines.core.progress import Progress
from e3dge_video.pipelines.core.spec import Job, Outcome, Payload, RunOptions, Unit
from e3dge_video.pipelines.core.store import payload_bytes
from e3dge_video.pipelines.core.threads import limit_threads, own_thread_counts
from e3dge_video.pipelines.core.worker import Call, run_body

logger = logging.getLogger(__name__)

DEFAULT_BUDGET_MB = 1024.0


class LocalExecutor:
    """Runs jobs in this process.

    Args:
        threads: Bodies running at a time; 0 runs them one after another in the calling thread.
        options: Limits.
        progress: Is told how far the stages are.
    """

    def __init__(self, threads: int = 0, options: RunOptions | None = None, progress: Progress | None = None) -> None:
        self.threads = threads
        self.options = options or RunOptions()
        self.progress = progress

    def run(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Run all jobs; see `Driver.run`."""
        budget_mb = DEFAULT_BUDGET_MB if self.options.budget_mb is None else self.options.budget_mb
        with own_thread_counts():
            return Driver(_LocalBackend(self.threads), int(budget_mb * 2**20), self.options, self.progress).run(jobs)


class _Worker:
    """Tools of a unit, loaded when first needed."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.tools: Any = None
        self.loaded = False

    def load(self) -> None:
        if not self.loaded:
            self.tools = self.unit.setup()
            self.loaded = True

    def close(self) -> None:
        if self.loaded and self.unit.close:
            try:
                self.unit.close(self.tools)
            except Exception:
                logger.warning("closing the tools of unit %s failed", self.unit.name, exc_info=True)
        self.tools, self.loaded = None, False


class _LocalBackend:
    slots = 1
    threaded_barriers = False

    def __init__(self, threads: int) -> None:
        self.limit: int | None = max(threads, 1)
        self._pool = ThreadPoolExecutor(threads, "stage") if threads else None
        self._workers: dict[int, _Worker] = {}
        self._new: list[Happening] = []
        self._todo: deque[tuple[int, Call]] = deque()
        self._done: queue.SimpleQueue[tuple[int, Happening]] = queue.SimpleQueue()
        self._busy: set[int] = set()  # workers in threads

    def start_worker(self, worker: int, unit: Unit, delay_s: float) -> None:
        self._workers[worker] = _Worker(unit)
        self._new.append(events.WorkerReady(worker))

    def stop_worker(self, worker: int) -> None:
        self._workers.pop(worker).close()

    def submit(self, worker: int, call: Call) -> None:
        if self._pool:
            self._busy.add(worker)
            self._pool.submit(lambda: self._done.put((worker, self._run(worker, call))))
        else:
            self._todo.append((worker, call))

    def poll(self, timeout_s: float) -> list[Happening]:
        if self._new:
            new, self._new = self._new, []
            return new
        if self._todo:
            return [self._run(*self._todo.popleft())]
        try:
            worker, happening = self._done.get(timeout=timeout_s)
        except queue.Empty:
            return []
        self._busy.discard(worker)
        return [happening]

    def _run(self, worker: int, call: Call) -> Happening:
        mine = self._workers[worker]
        try:
            mine.load()
        except Exception as error:
            return events.SetupFailed(worker, error)
        limit_threads(mine.unit.resources.threads)
        began = time.perf_counter()
        try:
            payload = run_body(call.body, call.chunk, mine.tools, call.inputs, call.where)
        except Exception as error:
            return events.TaskFailed(worker, call.task, error)
        return Finished(worker, call.task, payload, payload_bytes(payload), time.perf_counter() - began)

    def fetch(self, handle: Any) -> Payload:
        payload: Payload = handle
        return payload

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)  # threads cannot be ended; Python waits on exit
        for number, worker in self._workers.items():
            if number not in self._busy:
                worker.close()
        self._workers.clear()
