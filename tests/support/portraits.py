"""Running the portrait pipeline in tests: tiny model, drawn faces, and executors with something added."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from e3dge_video.faces.landmarks import LandmarkOptions
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.driver import Driver, Happening
from e3dge_video.pipelines.core.local import LocalExecutor, _LocalBackend
from e3dge_video.pipelines.core.spec import BarrierStage, Chunk, Job, MapStage, Outcome, Payload, RunOptions
from e3dge_video.pipelines.graph import build_job
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.portrait import Executor, RunResult, run_video
from e3dge_video.weights.bundle import read_spec
from tests.support.talking_clip import Talk

#: Files whose content tells of the run itself: times, versions.
ABOUT_THE_RUN = ("report.json", "report.html")


@dataclass(frozen=True)
class Studio:
    """A model and a clip, ready to be run."""

    model: Path
    talk: Talk

    def options(self, **changes: Any) -> PortraitOptions:
        """Landmarks from the clip's file, the rest as given."""
        landmarks = LandmarkOptions("file", points_file=self.talk.landmarks)
        return PortraitOptions(self.model, landmarks=landmarks, **changes)

    def run(self, out: Path, executor: Executor | None = None, **changes: Any) -> RunResult:
        """A run in this process unless said otherwise."""
        own = {name: changes.pop(name) for name in ("chunk_frames", "overwrite", "resume") if name in changes}
        executor = executor or LocalExecutor()
        return run_video(self.talk.video, out, self.options(**changes), executor, threads=1, **own)

    def stages(self, folder: Path, **changes: Any) -> dict[str, Payload]:
        """Every stage's result, uncompressed; see `by_hand`."""
        index = build_index(self.talk.video)
        output = OutputFolder(folder / "by_hand")
        job = build_job(self.talk.video, index, output, self.options(**changes), read_spec(self.model), threads=1)
        output.prepare()
        job.params.index.write_bytes(index.to_bytes())
        return by_hand(job)


def result_bytes(folder: Path) -> dict[str, bytes]:
    """Contents of all files that must not depend on how a run went."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in ABOUT_THE_RUN}


def differing(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> list[str]:
    """Names of files that differ, for short messages."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def by_hand(job: Job) -> dict[str, Payload]:
    """Every stage's result for the whole clip as one chunk, without scheduler, work folder and executor."""
    chunk = Chunk(0, 0, job.frames, job.frames, job.params)
    tools = {unit.name: unit.setup() for unit in job.graph.units}
    results: dict[str, Payload] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for stage in job.graph.stages:
        inputs = {argument: results[source] for argument, source in stage.inputs.items()}
        if isinstance(stage, MapStage):
            results[stage.name] = stage.body(chunk, tools[stage.unit], **inputs)
        elif stage.name != "assemble":
            done = stage.body([chunk], **{argument: [payload] for argument, payload in inputs.items()})
            results[stage.name] = done.per_chunk[0]
    torch.set_num_threads(before)
    return results


@dataclass(frozen=True)
class Altered:
    """An executor whose jobs are changed before they run."""

    executor: Executor
    change: Callable[[Job], Job]

    def run(self, jobs: list[Job]) -> list[Outcome]:
        return self.executor.run([self.change(job) for job in jobs])


def with_body(job: Job, stage: str, wrap: Callable[[Any], Any]) -> Job:
    """The job with another body for a stage; its key stays."""

    def changed(old: MapStage | BarrierStage) -> MapStage | BarrierStage:
        return replace(old, body=wrap(old.body), config=old.body) if old.name == stage else old

    stages = tuple(changed(old) for old in job.graph.stages)
    return replace(job, graph=replace(job.graph, stages=stages))


@dataclass(frozen=True)
class Failing:
    """A body that fails at one chunk."""

    body: Any
    chunk: int
    error: Exception

    def __call__(self, chunk: Chunk, tools: Any, **inputs: Payload) -> Payload:
        if chunk.index == self.chunk:
            raise self.error
        result: Payload = self.body(chunk, tools, **inputs)
        return result


@dataclass(frozen=True)
class Slow:
    """A body that takes its time."""

    body: Any
    seconds: float

    def __call__(self, chunk: Chunk, tools: Any, **inputs: Payload) -> Payload:
        time.sleep(self.seconds)
        result: Payload = self.body(chunk, tools, **inputs)
        return result


@dataclass(frozen=True)
class NoteProcess:
    """A setup that writes down in which process it runs."""

    setup: Callable[[], Any]
    folder: str

    def __call__(self) -> Any:
        (Path(self.folder) / str(os.getpid())).touch()
        return self.setup()


class _StoppingBackend(_LocalBackend):
    def __init__(self, polls: int) -> None:
        super().__init__(0)
        self.polls = polls

    def poll(self, timeout_s: float) -> list[Happening]:
        self.polls -= 1
        if self.polls < 0:
            raise KeyboardInterrupt
        return super().poll(timeout_s)


@dataclass(frozen=True)
class Stopping:
    """An executor that is interrupted when it asks for the n-th time what has happened."""

    polls: int

    def run(self, jobs: list[Job]) -> list[Outcome]:
        return Driver(_StoppingBackend(self.polls), 2**30, RunOptions()).run(jobs)
