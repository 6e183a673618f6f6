"""What can happen to the scheduler (events) and what it asks an executor to do (actions)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from e3dge_video.pipelines.core.jobstate import Task
from e3dge_video.pipelines.core.plan import JobPlan
from e3dge_video.pipelines.core.spec import Unit


@dataclass(frozen=True)
class JobOpened:
    """A job is there, with what its work folder already holds."""

    job: int
    plan: JobPlan
    stored: Mapping[str, Collection[int]]  # persisted node → chunks found in the work folder


@dataclass(frozen=True)
class JobsExhausted:
    """No further job will be opened."""


@dataclass(frozen=True)
class WorkerReady:
    """A worker has loaded its tools."""

    worker: int


@dataclass(frozen=True)
class WorkerDied:
    """A worker's process is gone."""

    worker: int
    reason: str


@dataclass(frozen=True)
class SetupFailed:
    """A unit's `setup` raised: no worker of this unit will ever work."""

    worker: int
    error: Exception


@dataclass(frozen=True)
class TaskDone:
    """A worker has computed a chunk."""

    worker: int
    task: Task
    nbytes: int


@dataclass(frozen=True)
class TaskFailed:
    """The body raised. It would raise again, so the job fails with this error."""

    worker: int
    task: Task
    error: Exception


@dataclass(frozen=True)
class InputsLost:
    """A task (or barrier) could not read these results."""

    task: Task
    lost: tuple[Task, ...]
    worker: int | None = None


@dataclass(frozen=True)
class BarrierDone:
    """A barrier has run."""

    task: Task


@dataclass(frozen=True)
class BarrierFailed:
    """The barrier's body raised, so the job fails."""

    task: Task
    error: Exception


@dataclass(frozen=True)
class Stop:
    """Begin nothing new."""


Event = (
    JobOpened
    | JobsExhausted
    | WorkerReady
    | WorkerDied
    | SetupFailed
    | TaskDone
    | TaskFailed
    | InputsLost
    | BarrierDone
    | BarrierFailed
    | Stop
)


@dataclass(frozen=True)
class StartWorker:
    """Start a worker of this unit, after a pause if others have just died."""

    worker: int
    unit: Unit
    delay_s: float


@dataclass(frozen=True)
class StopWorker:
    """Nothing is left to do for this idle worker."""

    worker: int


@dataclass(frozen=True)
class Submit:
    """Give a task to a worker."""

    task: Task
    worker: int


@dataclass(frozen=True)
class RunBarrier:
    """Run a barrier: all its inputs are there."""

    task: Task


@dataclass(frozen=True)
class Release:
    """Nobody reads this transient result any more."""

    task: Task


@dataclass(frozen=True)
class CloseJob:
    """A job has ended, well or with an error."""

    job: int
    error: Exception | None


Action = StartWorker | StopWorker | Submit | RunBarrier | Release | CloseJob
