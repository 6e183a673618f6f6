"""What a pipeline is made of: chunks, units of workers, stages and jobs. Plain picklable values.

A *job* is one video. Its frames are cut into *chunks* on an absolute grid (chunk k = frames [kC, kC + C)),
and every result of the pipeline belongs to one chunk. Two kinds of stage make a graph:

* a `MapStage` computes one chunk in a worker. It must be a pure function of (job parameters, chunk, inputs),
  because a chunk whose worker died, or whose result was dropped, is simply computed again;
* a `BarrierStage` runs in the driver once every chunk of its inputs is complete, sees them in order and
  returns one tiny result per chunk. Smoothing over time, choices for the whole clip and the final mux are
  barriers.

A result is *persisted* (one checksummed file per chunk in the work folder; it survives the process) or
*transient* (held only until the stages that read this chunk are done; made again if needed later).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from e3dge_video.errors import E3DGEError

Payload = Mapping[str, "np.ndarray | bytes"]
"""Result of a stage for one chunk: named arrays and byte strings. Receivers must not write into them."""

DEFAULT_CHUNK_FRAMES = 64


class PipelineError(E3DGEError):
    """A job could not be run to its end on this machine (work folder in use, disk full, workers killed)."""


class GraphError(Exception):
    """A graph is wired wrongly. A programmer's mistake, hence no `E3DGEError`."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run. What was persisted stays; running the same jobs again continues from there.

    A child of `KeyboardInterrupt`, so that `except Exception` around one video of many does not swallow it.
    """

    def __init__(self, jobs: Sequence[UnfinishedJob]) -> None:
        self.jobs = tuple(jobs)
        kept = sum(job.chunks_kept for job in jobs)
        left = f"{kept} finished chunks are kept, the same command continues from there" if kept else "nothing is kept"
        super().__init__(f"stopped; {left}")


@dataclass(frozen=True)
class UnfinishedJob:
    """Where an interrupted job stood."""

    name: str
    work_dir: Path
    chunks_kept: int  # persisted results, of `chunks_total` that the job has in all its persisted stages
    chunks_total: int


@dataclass(frozen=True)
class Resources:
    """What one worker of a unit takes.

    On a Ray that we start ourselves `cpus` and `memory_mb` are not reserved (see `rayexec`), so that four
    units run on one or two cores; on a joined cluster they are. `threads` is always enforced, also
    in-process: the number of threads can change the last bits of a matrix product, and results must not
    depend on the executor.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    threads: int = 1
    memory_mb: int = 0


@dataclass(frozen=True)
class Chunk:
    """Frames [start, stop) of one job: what a map stage is asked to compute."""

    index: int
    start: int
    stop: int
    total: int  # frames of the whole job
    params: Any = None  # `Job.params`

    def __len__(self) -> int:
        return self.stop - self.start


def _no_tools() -> None:
    return None


@dataclass(frozen=True)
class Unit:
    """A pool of identical workers, each a process that loads something heavy once and then runs stages."""

    name: str
    setup: Callable[[], Any] = _no_tools  # its result is handed to every stage body as `tools`
    close: Callable[[Any], None] | None = None  # called with the tools when a worker is stopped in good order
    resources: Resources = Resources()
    workers: int = 1
    timeout_s: float = 1800.0  # a worker that completes nothing for so long while busy is taken for hung


MapBody = Callable[..., Payload]
"""`body(chunk, tools, **inputs) -> payload`: usually a small frozen dataclass with `__call__`."""


@dataclass(frozen=True)
class MapStage:
    """A stage that runs once per chunk in a worker of `unit`."""

    name: str
    unit: str
    body: MapBody
    inputs: Mapping[str, str] = field(default_factory=dict)  # argument of the body → stage it comes from
    persist: bool = False
    bytes_per_frame: float = 0.0  # size of the result, for the memory budget; raised when found larger
    version: int = 1  # raise it when the code changes what it computes
    config: Any = None  # what enters the key; default: the body itself, which then must be a dataclass


@dataclass(frozen=True)
class BarrierResult:
    """What a barrier returns: one payload per chunk (none if nobody reads them), a value for the caller."""

    per_chunk: Sequence[Payload] = ()
    value: Any = None


BarrierBody = Callable[..., BarrierResult]
"""`body(chunks, **inputs) -> BarrierResult`; each input is a lazy sequence of payloads in chunk order."""


@dataclass(frozen=True)
class BarrierStage:
    """A stage that runs in the driver once all chunks of its inputs are complete. Cheap and deterministic."""

    name: str
    body: BarrierBody
    inputs: Mapping[str, str]  # argument of the body → persisted map stage or other barrier
    version: int = 1
    config: Any = None


Stage = MapStage | BarrierStage


@dataclass(frozen=True)
class Graph:
    """Stages, each after the stages it reads, and the units that run them."""

    units: tuple[Unit, ...]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def unit(self, name: str) -> Unit:
        return next(unit for unit in self.units if unit.name == name)


@dataclass(frozen=True)
class Job:
    """One video to be run through a graph."""

    name: str  # for messages
    key: str  # fingerprint of the content and of every parameter that changes all results
    frames: int
    graph: Graph
    work_dir: Path
    params: Any = None  # small and picklable; reaches every body as `chunk.params`
    chunk_frames: int = DEFAULT_CHUNK_FRAMES


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: str
    error: Exception | None
    values: Mapping[str, Any]  # barrier → its `BarrierResult.value`
    tasks: Mapping[str, int]  # stage → bodies run (repeats included, chunks found in the work folder not)
    seconds: Mapping[str, float]  # stage → time spent in its bodies
    crashes: int  # workers lost while they computed this job

    def result(self) -> Mapping[str, Any]:
        """The barriers' values; raises the error of a failed job as it was raised in the worker."""
        if self.error is not None:
            raise self.error
        return self.values


@dataclass(frozen=True)
class RunOptions:
    """Limits common to all executors."""

    budget_mb: float | None = None  # transient results alive at once; None: the executor's own default
    window: int = 8  # chunks of a job in work past its oldest unfinished one
    max_open: int = 4  # jobs in work at once
    grace_s: float = 30.0  # how long the first Ctrl-C waits for running chunks worth keeping
    setup_timeout_s: float = 900.0  # for a worker to be placed and to load its tools
    kills_per_chunk: int = 3  # a chunk that took so many workers with it fails its job
    deaths_per_unit: int = 4  # a unit that lost more workers than this in a row without a task to blame is given up


def validate_job(job: Job) -> None:
    """Raise `GraphError` for a wiring that cannot run, with the stage and the reason."""
    if job.frames < 1 or job.chunk_frames < 1:
        raise GraphError(f"{job.name}: needs at least one frame per job and per chunk")
    units = [unit.name for unit in job.graph.units]
    if len(set(units)) != len(units):
        raise GraphError(f"{job.name}: two units of one name")
    seen: dict[str, Stage] = {}
    read: set[str] = set()
    for stage in job.graph.stages:
        where = f"{job.name}: stage {stage.name}"
        if stage.name in seen or "@" in stage.name or "/" in stage.name:
            raise GraphError(f"{where}: the name is taken, or contains '@' or '/'")
        for source in stage.inputs.values():
            if source not in seen:
                raise GraphError(f"{where} reads {source}, which is not a stage before it")
        read.update(stage.inputs.values())
        if isinstance(stage, MapStage):
            if stage.unit not in units:
                raise GraphError(f"{where} wants unit {stage.unit}, which is not among {units}")
        else:
            for source in stage.inputs.values():
                origin = seen[source]
                if isinstance(origin, MapStage) and not origin.persist:
                    raise GraphError(f"{where} is a barrier and reads transient {source}: set persist=True there")
            if not stage.inputs:
                raise GraphError(f"{where} is a barrier without inputs")
        seen[stage.name] = stage
    for stage in job.graph.stages:
        if isinstance(stage, MapStage) and not stage.persist and stage.name not in read:
            raise GraphError(f"{job.name}: result of transient stage {stage.name} is read by nobody")
