"""The driver: feeds the scheduler with what happens and does what it says. Shared by all executors.

It keeps what the pure scheduler cannot: open work folders, results, barriers, the clock, Ctrl-C. How a body gets to a
worker is the business of a `Backend`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from e3dge_video.errors import E3DGEError
from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.jobstate import Status, Task
from e3dge_video.pipelines.core.plan import JobPlan, plan_job
from e3dge_video.pipelines.core.progress import NoProgress, Progress
from e3dge_video.pipelines.core.spec import (
    BarrierResult,
    BarrierStage,
    Interrupted,
    Job,
    MapStage,
    Outcome,
    Payload,
    PipelineError,
    RunOptions,
    UnfinishedJob,
    Unit,
)
from e3dge_video.pipelines.core.state import Scheduler
from e3dge_video.pipelines.core.store import DamagedChunkError, StoredResults, WorkDir, check_payload
from e3dge_video.pipelines.core.worker import Call, explain, read_only

logger = logging.getLogger(__name__)

POLL_S = 0.2


@dataclass(frozen=True)
class Finished:
    """A body ran to its end. `handle` leads to its result by `Backend.fetch`."""

    worker: int
    task: Task
    handle: Any
    nbytes: int
    seconds: float


Happening = (
    Finished | events.WorkerReady | events.WorkerDied | events.SetupFailed | events.TaskFailed | events.InputsLost
)


class Backend(Protocol):
    """Workers somewhere. Never blocks longer than asked.

    A worker that died may still be given calls or be stopped, until the death that `poll` reported is handled: events
    are handled one by one, and one before the death can lead to more work for the worker. Such calls are dropped; the
    death returns them to the scheduler.
    """

    slots: int  # tasks given to one worker at a time
    limit: int | None  # tasks running at a time
    threaded_barriers: bool  # whether barriers run beside the driver's loop

    def start_worker(self, worker: int, unit: Unit, delay_s: float) -> None: ...
    def stop_worker(self, worker: int) -> None: ...
    def submit(self, worker: int, call: Call) -> None: ...
    def poll(self, timeout_s: float) -> list[Happening]: ...
    def fetch(self, handle: Any) -> Payload | None:
        """The result behind a handle; None if it is lost."""

    def close(self) -> None:
        """End all workers, busy or not."""


@dataclass
class _OpenJob:
    plan: JobPlan
    work_dir: WorkDir
    per_chunk: dict[str, Sequence[Payload]] = field(default_factory=dict)  # barrier → its results
    values: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    crashes: int = 0


class Driver:
    """One run over some jobs.

    Args:
        backend: Where bodies run. Closed at the end of the run.
        budget: Limit for the transient results alive. [bytes]
        options: Limits common to all executors.
        progress: Is told how far the stages are.
    """

    def __init__(self, backend: Backend, budget: int, options: RunOptions, progress: Progress | None = None) -> None:
        self.backend = backend
        self.options = options
        self.progress = progress or NoProgress()
        self.scheduler = Scheduler(
            budget,
            window=options.window,
            slots=backend.slots,
            limit=backend.limit,
            kills_per_chunk=options.kills_per_chunk,
            deaths_per_unit=options.deaths_per_unit,
        )
        self._open: dict[int, _OpenJob] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._results: dict[Task, Any] = {}
        self._events: deque[events.Event] = deque()
        self._barriers_done: queue.SimpleQueue[tuple[Task, BarrierResult | Exception]] = queue.SimpleQueue()
        self._opened = 0

    def run(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Run all jobs; a failed one does not stop the others. Outcomes come in the order of the jobs.

        Raises:
            Interrupted: On Ctrl-C, with what was reached.
        """
        source = iter(jobs)
        deadline = None
        try:
            with _interrupts() as interrupts:
                while True:
                    self._open_jobs(source)
                    self._drain()
                    self._show()
                    if self.scheduler.finished:
                        return [self._outcomes[index] for index in sorted(self._outcomes)]
                    if interrupts and deadline is None:
                        deadline = time.monotonic() + self.options.grace_s
                        self.scheduler.handle(events.Stop())
                        if count := self.scheduler.worth_waiting_for():
                            text = f"stopping after {count} running chunks; press Ctrl-C again to stop at once"
                            self.progress.message(text)
                    if deadline is not None and (not self.scheduler.worth_waiting_for() or time.monotonic() > deadline):
                        raise KeyboardInterrupt
                    if self._may_open():
                        continue
                    if self.scheduler.stalled:
                        raise RuntimeError("the scheduler has open jobs, but nothing runs and nothing can begin")
                    self._wait()
        except KeyboardInterrupt:
            raise Interrupted(self._unfinished()) from None
        finally:
            with uninterrupted():
                self.backend.close()
                for job in self._open.values():
                    job.work_dir.__exit__()
                self._results.clear()
                self.progress.close()

    def _may_open(self) -> bool:
        closing = self.scheduler.exhausted or self.scheduler.stopping
        return not closing and len(self._open) < self.options.max_open

    def _open_jobs(self, source: Iterator[Job]) -> None:
        while self._may_open():
            job = next(source, None)
            if job is None:
                self._events.append(events.JobsExhausted())
                self._drain()
                return
            index = self._opened
            self._opened += 1
            plan = plan_job(job)
            work_dir = WorkDir(plan)
            try:
                work_dir.__enter__()
            except E3DGEError as error:
                self._outcomes[index] = Outcome(job.name, error, {}, {}, {}, 0)
                continue
            self._open[index] = _OpenJob(plan, work_dir)
            self._events.append(events.JobOpened(index, plan, work_dir.stored()))
            self._drain()

    def _wait(self) -> None:
        while not self._barriers_done.empty():
            self._end_barrier(*self._barriers_done.get())
        if self._events:
            return
        for happening in self.backend.poll(POLL_S / 4 if self.scheduler.running_barriers else POLL_S):
            match happening:
                case Finished():
                    self._events.append(self._take_in(happening))
                case events.InputsLost(task, _, worker):
                    self._events.append(events.InputsLost(task, self._transient_inputs(task), worker))
                case events.TaskFailed(worker, task, error):
                    job = self._open.get(task.job)
                    where = self._call(job, task, {}).where if job else "a closed job"
                    self._events.append(events.TaskFailed(worker, task, explain(error, where)))
                case events.SetupFailed(worker, error):
                    unit = self.scheduler.workers[worker].unit if worker in self.scheduler.workers else "?"
                    self._events.append(events.SetupFailed(worker, explain(error, f"the setup of unit {unit}")))
                case events.WorkerDied(worker, reason):
                    self._note_crash(worker, reason)
                    self._events.append(happening)
                case _:
                    self._events.append(happening)

    def _drain(self) -> None:
        while self._events:
            for action in self.scheduler.handle(self._events.popleft()):
                self._do(action)

    def _do(self, action: events.Action) -> None:
        match action:
            case events.StartWorker(worker, unit, delay_s):
                self.backend.start_worker(worker, unit, delay_s)
            case events.StopWorker(worker):
                self.backend.stop_worker(worker)
            case events.Submit(task, worker):
                self._submit(task, worker)
            case events.RunBarrier(task):
                self._begin_barrier(task)
            case events.Release(task):
                self._results.pop(task, None)
            case events.CloseJob(index, error):
                job = self._open.pop(index)
                job.work_dir.__exit__()
                self._outcomes[index] = Outcome(
                    job.plan.job.name, error, job.values, job.tasks, job.seconds, job.crashes
                )

    # tasks

    def _submit(self, task: Task, worker: int) -> None:
        job = self._open[task.job]
        inputs: dict[str, Any] = {}
        for argument, source in job.plan.nodes[task.node].inputs:
            node = job.plan.nodes[source]
            if node.barrier:
                inputs[argument] = job.per_chunk[node.stage][task.chunk]
            elif node.persist:
                try:
                    stored = job.work_dir.read(node.stage, task.chunk)
                except DamagedChunkError:
                    lost = Task(task.job, source, task.chunk)
                    self._events.append(events.InputsLost(task, (lost,), worker))
                    return
                inputs[argument] = _read_only(stored)
            else:
                inputs[argument] = self._results[Task(task.job, source, task.chunk)]
        self.backend.submit(worker, self._call(job, task, inputs))

    def _call(self, job: _OpenJob, task: Task, inputs: dict[str, Any]) -> Call:
        stage = job.plan.job.graph.stage(job.plan.nodes[task.node].stage)
        assert isinstance(stage, MapStage)
        return Call(task, job.plan.job.name, stage.name, stage.body, job.plan.chunks[task.chunk], inputs)

    def _take_in(self, done: Finished) -> events.Event:
        """Keep a result, in a file or by its handle."""
        job = self._open.get(done.task.job)
        if job is None:
            return events.TaskDone(done.worker, done.task, done.nbytes)
        node = job.plan.nodes[done.task.node]
        job.tasks[node.stage] = job.tasks.get(node.stage, 0) + 1
        job.seconds[node.stage] = job.seconds.get(node.stage, 0.0) + done.seconds
        if not node.persist:
            self._results[done.task] = done.handle
            return events.TaskDone(done.worker, done.task, done.nbytes)
        payload = self.backend.fetch(done.handle)
        if payload is None:
            return events.InputsLost(done.task, (), done.worker)
        try:
            job.work_dir.write(node.stage, done.task.chunk, payload)
        except OSError as error:
            text = f"{job.work_dir.path}: cannot write a result ({error.strerror}); make room there"
            return events.TaskFailed(done.worker, done.task, PipelineError(text))
        return events.TaskDone(done.worker, done.task, done.nbytes)

    def _transient_inputs(self, task: Task) -> tuple[Task, ...]:
        if task.job not in self._open:
            return ()
        sources = [source for _, source in self._open[task.job].plan.nodes[task.node].inputs]
        tasks = (Task(task.job, source, task.chunk) for source in sources)
        return tuple(source for source in tasks if source in self._results)

    def _note_crash(self, worker: int, reason: str) -> None:
        if (known := self.scheduler.workers.get(worker)) is None:
            return
        logger.warning("a %s worker died (%s); its chunks are computed again", known.unit, reason)
        for index in {task.job for task in known.inflight} & set(self._open):
            self._open[index].crashes += 1

    # barriers

    def _begin_barrier(self, task: Task) -> None:
        job = self._open[task.job]
        stage = job.plan.job.graph.stage(task.node)
        assert isinstance(stage, BarrierStage)
        inputs: dict[str, Sequence[Payload]] = {
            argument: job.per_chunk[source] if job.plan.nodes[source].barrier else StoredResults(job.work_dir, source)
            for argument, source in stage.inputs.items()
        }

        def compute() -> BarrierResult | Exception:
            try:
                return _checked(stage.body(job.plan.chunks, **inputs), job.plan, stage.name)
            except Exception as error:
                return error

        if self.backend.threaded_barriers:
            # A daemon, so that a second Ctrl-C need not wait for it.
            threading.Thread(target=lambda: self._barriers_done.put((task, compute())), daemon=True).start()
        else:
            self._end_barrier(task, compute())

    def _end_barrier(self, task: Task, result: BarrierResult | Exception) -> None:
        job = self._open.get(task.job)
        if isinstance(result, DamagedChunkError):
            lost = Task(task.job, result.stage, result.chunk)
            self._events.append(events.InputsLost(task, (lost,)))
        elif isinstance(result, Exception):
            where = f"{job.plan.job.name}: stage {task.node}" if job else "a closed job"
            self._events.append(events.BarrierFailed(task, explain(result, where)))
        else:
            if job is not None:
                job.per_chunk[task.node] = [_read_only(payload) for payload in result.per_chunk]
                job.values[task.node] = result.value
            self._events.append(events.BarrierDone(task))

    # reporting

    def _show(self) -> None:
        self.progress.update(self.scheduler.progress(), len(self._outcomes), self._opened)

    def _unfinished(self) -> list[UnfinishedJob]:
        found = []
        for index, job in self._open.items():
            if (state := self.scheduler.jobs.get(index)) is None:
                continue
            kept = [status for node in job.plan.nodes.values() if node.persist for status in state.status[node.name]]
            done = sum(status == Status.DONE for status in kept)
            found.append(UnfinishedJob(job.plan.job.name, job.plan.job.work_dir, done, len(kept)))
        return found


def _checked(result: object, plan: JobPlan, name: str) -> BarrierResult:
    if not isinstance(result, BarrierResult):
        raise TypeError(f"barrier {name} returned a {type(result).__name__}; expected a BarrierResult")
    if plan.nodes[name].height and len(result.per_chunk) != len(plan.chunks):
        raise TypeError(f"barrier {name} returned {len(result.per_chunk)} results for {len(plan.chunks)} chunks")
    for payload in result.per_chunk:
        check_payload(payload, f"barrier {name}")
    return result


def _read_only(payload: Payload) -> Payload:
    return {name: value if isinstance(value, bytes) else read_only(value) for name, value in payload.items()}


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """No Ctrl-C while open, for the seconds in which workers are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C while open: the first is noted in the list yielded, the second raises `KeyboardInterrupt`."""
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, previous)
