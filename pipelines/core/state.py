"""The scheduler: a pure state machine from events to actions. No Ray, no clock, no I/O, no threads.

Both executors drive this one machine, so everything that can go wrong (death of a worker, loss of a result,
failure of one job among several) is an event that a test can send. Its promises, each held by a property
test:

* the transient results alive never exceed the budget, except for a lone chunk that is larger than the budget
  by itself: a chunk enters a section only when room for all its results there is reserved, hence no deadlock
  (and a damaged result is made again even if those who wait for it fill the budget);
* at most `window` chunks of a job are in work past its oldest unfinished one;
* late stages first, then old jobs, then old chunks: what was begun is finished before more is begun;
* chunk k + 1 of a stage prefers the worker that did chunk k (its reader stands at the right frame);
* every run ends: all kills are counted against a chunk (its job fails) or against a unit (its jobs fail).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from e3dge_video.pipelines.core.events import (
    Action,
    BarrierDone,
    BarrierFailed,
    CloseJob,
    Event,
    InputsLost,
    JobOpened,
    JobsExhausted,
    Release,
    RunBarrier,
    SetupFailed,
    StartWorker,
    Stop,
    StopWorker,
    Submit,
    TaskDone,
    TaskFailed,
    WorkerDied,
    WorkerReady,
)
from e3dge_video.pipelines.core.jobstate import WHOLE, JobState, Status, Task
from e3dge_video.pipelines.core.spec import PipelineError, Unit

MAX_LOSSES = 5  # of one result, before its job is given up
MAX_BACKOFF_S = 30.0


@dataclass
class _Worker:
    unit: str
    ready: bool = False
    inflight: list[Task] = field(default_factory=list)  # in order of submission: the first one is being computed
    last: dict[tuple[int, str], int] = field(default_factory=dict)  # (job, stage) → chunk given to it last


@dataclass
class _Pool:
    unit: Unit
    deaths: int = 0  # in a row, since a task of the unit was completed; sets the back-off
    fruitless: int = 0  # deaths in a row without a task to blame
    error: Exception | None = None


@dataclass(frozen=True)
class StageProgress:
    """Frames of one stage over all jobs so far. A stage that goes over the frames twice is shown as two."""

    stage: str
    done: int
    total: int
    running: int  # tasks given to workers


class Scheduler:
    """Decides what runs where and what is kept.

    Args:
        budget: Upper limit for the transient results alive and reserved. [bytes]
        window: Chunks of a job and section in work past the oldest unfinished one.
        slots: Tasks given to one worker at a time; 2 hides the hand-over between processes.
        limit: Tasks running at a time over all workers; None: no limit.
        kills_per_chunk: Workers a chunk may take with it before its job fails.
        deaths_per_unit: Workers of a unit that may die in a row without a task to blame. More than
            `kills_per_chunk`, so that a poisonous chunk is dropped before its unit is.
    """

    def __init__(
        self,
        budget: int,
        *,
        window: int = 8,
        slots: int = 1,
        limit: int | None = None,
        kills_per_chunk: int = 3,
        deaths_per_unit: int = 4,
    ) -> None:
        self.budget = budget
        self.window = window
        self.slots = slots
        self.limit = limit
        self.kills_per_chunk = kills_per_chunk
        self.deaths_per_unit = max(deaths_per_unit, kills_per_chunk)
        self.jobs: dict[int, JobState] = {}
        self.workers: dict[int, _Worker] = {}
        self.pools: dict[str, _Pool] = {}
        self.exhausted = False
        self.stopping = False
        self.running_barriers: set[Task] = set()
        self._next_worker = 0
        self._strays: dict[Task, int] = {}  # running tasks of closed jobs → bytes they may still bring
        self._labels: dict[str, None] = {}  # of nodes, in the order in which their sections run
        self._closed_progress: dict[str, tuple[int, int]] = {}

    # questions

    @property
    def finished(self) -> bool:
        return self.exhausted and not self.jobs

    @property
    def reserved(self) -> int:
        """Transient results alive, and those that tasks in work will bring. [bytes]"""
        return sum(job.reserved for job in self.jobs.values()) + sum(self._strays.values())

    @property
    def inflight(self) -> list[Task]:
        return [task for worker in self.workers.values() for task in worker.inflight]

    @property
    def stalled(self) -> bool:
        """Whether jobs are open but nothing can ever happen again. Would be a bug; executors raise."""
        starting = any(not worker.ready for worker in self.workers.values())
        busy = self.inflight or self.running_barriers or starting
        return bool(self.jobs) and not busy and not self.stopping

    def worth_waiting_for(self) -> int:
        """Running tasks whose result will survive the process, and running barriers."""
        kept = [t for t in self.inflight if t.job in self.jobs and self.jobs[t.job].plan.nodes[t.node].persist]
        return len(kept) + len(self.running_barriers)

    def progress(self) -> list[StageProgress]:
        """In the order of the graph."""
        sums = dict(self._closed_progress)
        for state in self.jobs.values():
            for stage, total in state.frames_total.items():
                done, known = sums.get(stage, (0, 0))
                sums[stage] = (done + state.frames_done[stage], known + total)
        running: dict[str, int] = {}
        for task in self.inflight:
            if task.job in self.jobs:
                label = self.jobs[task.job].plan.nodes[task.node].label
                running[label] = running.get(label, 0) + 1
        return [StageProgress(label, *sums[label], running.get(label, 0)) for label in self._labels if label in sums]

    # events

    def handle(self, event: Event) -> list[Action]:
        """Take in one event; returns what is to be done now, in this order."""
        actions: list[Action] = []
        match event:
            case JobOpened():
                self._open(event, actions)
            case JobsExhausted():
                self.exhausted = True
            case WorkerReady(worker):
                if worker in self.workers:
                    self.workers[worker].ready = True
            case WorkerDied(worker, reason):
                self._worker_died(worker, reason, actions)
            case SetupFailed(worker, error):
                if (unit := self._lose_worker(worker)) is not None:
                    self._give_up_unit(unit, error, actions)
            case TaskDone(worker, task, nbytes):
                self._task_done(worker, task, nbytes, actions)
            case TaskFailed(worker, task, error):
                if self._take(worker, task):
                    self._close(task.job, error, actions)
            case InputsLost():
                self._inputs_lost(event, actions)
            case BarrierDone(task):
                if self._take_barrier(task):
                    self.jobs[task.job].complete(task, 0)
                    self._close_if_finished(task.job, actions)
            case BarrierFailed(task, error):
                if self._take_barrier(task):
                    self._close(task.job, error, actions)
            case Stop():
                self.stopping = True
        if not self.stopping:
            self._advance(actions)
        return actions

    def _open(self, event: JobOpened, actions: list[Action]) -> None:
        state = self.jobs[event.job] = JobState(event.job, event.plan, event.stored, self.window)
        nodes = sorted(event.plan.nodes.values(), key=lambda node: node.section)
        self._labels.update(dict.fromkeys(node.label for node in nodes))
        for unit in event.plan.job.graph.units:
            pool = self.pools.setdefault(unit.name, _Pool(unit))
            if pool.unit != unit:
                error = PipelineError(f"{event.plan.job.name}: unit {unit.name} differs from that of a job before it")
                return self._close(event.job, error, actions)
            if pool.error is not None and state.remaining.get(unit.name):
                return self._close(event.job, pool.error, actions)
        self._close_if_finished(event.job, actions)

    def _task_done(self, worker: int, task: Task, nbytes: int, actions: list[Action]) -> None:
        if worker in self.workers:
            pool = self.pools[self.workers[worker].unit]
            pool.deaths = pool.fruitless = 0
        if not self._take(worker, task):
            actions.append(Release(task))
            return
        actions += [Release(gone) for gone in self.jobs[task.job].complete(task, nbytes)]
        self._close_if_finished(task.job, actions)

    def _lose_worker(self, number: int) -> str | None:
        """Forget a worker and queue its tasks again; returns its unit."""
        worker = self.workers.pop(number, None)
        if worker is None:
            return None
        for task in worker.inflight:
            self._strays.pop(task, None)
            if task.job in self.jobs:
                self.jobs[task.job].requeue(task)
        return worker.unit

    def _worker_died(self, number: int, reason: str, actions: list[Action]) -> None:
        worker = self.workers.get(number)
        if worker is None:
            return
        self._lose_worker(number)
        pool = self.pools[worker.unit]
        pool.deaths += 1
        if not worker.inflight:
            pool.fruitless += 1
            if pool.fruitless > self.deaths_per_unit:
                text = f"worker {worker.unit} died {pool.fruitless} times without having begun a chunk: {reason}"
                self._give_up_unit(worker.unit, PipelineError(text), actions)
            return
        blamed = worker.inflight[0]
        if blamed.job in self.jobs:
            state = self.jobs[blamed.job]
            state.kills[blamed] = state.kills.get(blamed, 0) + 1
            if state.kills[blamed] >= self.kills_per_chunk:
                self._close(blamed.job, self._poisoned(blamed, reason), actions)

    def _poisoned(self, task: Task, reason: str) -> PipelineError:
        state = self.jobs[task.job]
        chunk = state.plan.chunks[task.chunk]
        return PipelineError(
            f"{state.plan.job.name}: stage {state.plan.nodes[task.node].stage}, frames {chunk.start} to "
            f"{chunk.stop - 1}, killed its worker {state.kills[task]} times ({reason}); out of memory, or a crash "
            f"in native code? try smaller chunks or fewer workers"
        )

    def _inputs_lost(self, event: InputsLost, actions: list[Action]) -> None:
        task = event.task
        taken = self._take_barrier(task) if task.chunk == WHOLE else self._take(event.worker, task)
        if not taken:
            return
        state = self.jobs[task.job]
        for lost in event.lost or (task,):
            state.lose(lost)
            if state.losses[lost] > MAX_LOSSES:
                name = f"{state.plan.job.name}: the result of {lost.node}, chunk {lost.chunk}"
                error = PipelineError(f"{name} was lost {MAX_LOSSES} times; is the disk or a node failing?")
                return self._close(task.job, error, actions)
        if task.chunk == WHOLE:
            state.status[task.node][0] = Status.WAITING
        else:
            state.requeue(task)

    def _take(self, number: int | None, task: Task) -> bool:
        """Take a task back from its worker; whether its job still wants to know."""
        worker = self.workers.get(number) if number is not None else None
        if worker is None or task not in worker.inflight:
            return False
        worker.inflight.remove(task)
        self._strays.pop(task, None)
        return task.job in self.jobs

    def _take_barrier(self, task: Task) -> bool:
        self.running_barriers.discard(task)
        return task.job in self.jobs

    def _close_if_finished(self, job: int, actions: list[Action]) -> None:
        if self.jobs[job].finished:
            self._close(job, None, actions)

    def _close(self, job: int, error: Exception | None, actions: list[Action]) -> None:
        state = self.jobs.pop(job)
        actions += [Release(task) for task in state.held()]
        for task in self.inflight:
            if task.job == job:
                self._strays[task] = state.estimate(state.plan.nodes[task.node], task.chunk)
        for stage, total in state.frames_total.items():
            done, known = self._closed_progress.get(stage, (0, 0))
            self._closed_progress[stage] = (done + state.frames_done[stage], known + total)
        actions.append(CloseJob(job, error))

    def _give_up_unit(self, unit: str, error: Exception, actions: list[Action]) -> None:
        self.pools[unit].error = error
        for number in [number for number, worker in self.workers.items() if worker.unit == unit]:
            if not self.workers[number].inflight:
                del self.workers[number]
                actions.append(StopWorker(number))
        for job in [job for job, state in self.jobs.items() if state.remaining.get(unit)]:
            self._close(job, error, actions)

    # decisions

    def _advance(self, actions: list[Action]) -> None:
        for state in self.jobs.values():
            for name in state.ready_barriers():
                task = Task(state.index, name, WHOLE)
                state.start(task)
                self.running_barriers.add(task)
                actions.append(RunBarrier(task))
        self._staff(actions)
        self._admit()
        self._dispatch(actions)

    def _staff(self, actions: list[Action]) -> None:
        for name, pool in self.pools.items():
            remaining = sum(state.remaining.get(name, 0) for state in self.jobs.values())
            mine = [number for number, worker in self.workers.items() if worker.unit == name]
            wanted = 0 if pool.error else min(pool.unit.workers, remaining)
            for _ in range(wanted - len(mine)):
                delay = 0.0 if pool.deaths < 2 else min(MAX_BACKOFF_S, 0.5 * 2.0 ** (pool.deaths - 2))
                self.workers[self._next_worker] = _Worker(name)
                actions.append(StartWorker(self._next_worker, pool.unit, delay))
                self._next_worker += 1
            if not remaining and self.exhausted:
                for number in mine:
                    if not self.workers[number].inflight:
                        del self.workers[number]
                        actions.append(StopWorker(number))

    def _admit(self) -> None:
        """Let chunks into their sections as far as memory and window allow, late sections and old jobs first."""

        def admit_where(fits: Callable[[int], bool], *, late_first: bool) -> bool:
            sections = [(section, job, state) for job, state in self.jobs.items() for section in state.sections()]
            sections.sort(key=lambda entry: (-entry[0] if late_first else entry[0], entry[1]))
            for section, _, state in sections:
                chunk = state.next_admissible(section)
                if chunk is not None and fits(state.footprint(section, chunk)):
                    state.admit(section, chunk)
                    return True
            return False

        while admit_where(lambda footprint: self.reserved + footprint <= self.budget, late_first=True):
            pass
        # Nothing runs or could run: the lone chunk may be larger than the budget. Early sections first,
        # because chunks of later ones may be waiting for a lost result of an earlier one.
        idle = not self.inflight and not self.running_barriers and next(self._candidates(), None) is None
        if idle:
            admit_where(lambda footprint: True, late_first=False)

    def _candidates(self) -> Iterator[tuple[int, int, int, str]]:
        """Ready tasks, oldest chunk of each node: (height, job, chunk, node)."""
        for job, state in self.jobs.items():
            for name, node in state.plan.nodes.items():
                if not node.barrier and (chunk := state.ready_chunk(name)) is not None:
                    yield node.height, job, chunk, name

    def _dispatch(self, actions: list[Action]) -> None:
        while self.limit is None or len(self.inflight) < self.limit:
            free: dict[str, list[int]] = {}
            for number, worker in self.workers.items():
                if worker.ready and len(worker.inflight) < self.slots and not self.pools[worker.unit].error:
                    free.setdefault(worker.unit, []).append(number)
            runnable = [c for c in self._candidates() if self.jobs[c[1]].plan.nodes[c[3]].unit in free]
            if not runnable:
                return
            _, job, chunk, name = min(runnable)
            state = self.jobs[job]
            node = state.plan.nodes[name]
            place = (job, node.stage)

            def preference(number: int, place: tuple[int, str] = place, chunk: int = chunk) -> tuple[int, bool, int]:
                worker = self.workers[number]
                return len(worker.inflight), worker.last.get(place) != chunk - 1, number

            number = min(free[node.unit], key=preference)
            task = Task(job, name, chunk)
            state.start(task)
            self.workers[number].inflight.append(task)
            self.workers[number].last[place] = chunk
            actions.append(Submit(task, number))
