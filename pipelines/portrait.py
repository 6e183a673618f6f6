"""The main job: one video → one portrait folder."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from e3dge_video.errors import BackendError, ConfigError, E3DGEError, InputError
from e3dge_video.faces.landmarks import choose_backend
from e3dge_video.inversion.refinement.load import find_metric_files
from e3dge_video.io import atomic
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.plan import plan_job
from e3dge_video.pipelines.core.progress import Progress
from e3dge_video.pipelines.core.spec import (
    DEFAULT_CHUNK_FRAMES,
    Interrupted,
    Job,
    Outcome,
    PipelineError,
    UnfinishedJob,
)
from e3dge_video.pipelines.core.store import WorkDir
from e3dge_video.pipelines.graph import build_job
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.report import Run, write_report
from e3dge_video.weights.bundle import read_spec


class Executor(Protocol):
    """What runs jobs: in this process, or on Ray."""

    def run(self, jobs: list[Job]) -> list[Outcome]: ...


@dataclass(frozen=True)
class RunResult:
    """A finished portrait.

    Attributes:
        folder: The output folder.
        frames: Frames rendered.
        seconds: Wall time of the whole run.
        report: What report.json holds.
    """

    folder: Path
    frames: int
    seconds: float
    report: Mapping[str, Any]


def run_video(
    video: Path,
    out: Path,
    options: PortraitOptions,
    executor: Executor,
    *,
    overwrite: bool = False,
    resume: bool = True,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    threads: int = 2,
) -> RunResult:
    """Turn one clip into one output folder.

    Everything is written under `OUT.partial` and renamed when whole. A run that stopped goes on from its finished
    chunks and gives the same bytes; one that stopped before the first of them, or over a file that cannot be used,
    leaves nothing behind.

    Args:
        video: The clip.
        out: The output folder.
        options: What to do.
        executor: Where the stages run.
        overwrite: Replace `out` if an older result is there.
        resume: Use what a stopped run left in `OUT.partial`; otherwise it is thrown away.
        chunk_frames: Frames per chunk, a multiple of 16; does not change the result.
        threads: Threads of the model's worker; part of the result's last bits.

    Raises:
        InputError: The video or the output folder cannot be used.
        Interrupted: Ctrl-C.
    """
    began = time.monotonic()
    video, folder = video.absolute(), OutputFolder(out)
    index = build_index(video)
    folder.check(video, overwrite=overwrite)
    spec = read_spec(options.model)
    options = _resolved(options)
    job = build_job(video, index, folder, options, spec, chunk_frames=chunk_frames, threads=threads)
    folder.prepare()
    try:
        if not resume:
            _forget(job)
        atomic.write_bytes(job.params.index, index.to_bytes())
        (outcome,) = executor.run([job])
        values = outcome.result()
        seconds = time.monotonic() - began
        report = write_report(folder.result, Run(video, index, options, spec, job, outcome, values, seconds))
        folder.publish()
    except (Exception, KeyboardInterrupt) as error:
        told = _leave(folder, job, error)
        if told is error:
            raise
        raise told from error
    return RunResult(folder.path, job.frames, seconds, report)


@contextlib.contextmanager
def make_executor(
    kind: Literal["ray", "local"], *, address: str | None = None, progress: Progress | None = None
) -> Iterator[Executor]:
    """An executor, open as long as the block.

    Args:
        kind: On Ray, or in this process.
        address: A Ray cluster to join; None joins `RAY_ADDRESS` if that is set, else starts Ray here.
        progress: Is told how far the stages are.
    """
    if kind == "local":
        from e3dge_video.pipelines.core.local import LocalExecutor

        yield LocalExecutor(progress=progress)
        return
    try:
        from e3dge_video.pipelines.core.rayexec import RayExecutor
    except ModuleNotFoundError as error:
        raise BackendError(f"Ray is not installed ({error}); --executor local works without it") from error
    with RayExecutor(address, progress=progress) as executor:
        yield executor


def _resolved(options: PortraitOptions) -> PortraitOptions:
    """Options with what this machine offers put in place of `auto`, so that all workers take the same."""
    name, _ = choose_backend(options.landmarks)
    refine = options.refine
    if refine.mode != "none":
        refine = replace(refine, metrics=find_metric_files())
    return replace(options, landmarks=replace(options.landmarks, backend=name), refine=refine)


def _forget(job: Job) -> None:
    """Throw away what a stopped run left, unless it is still at work."""
    with WorkDir(plan_job(job)) as work:
        shutil.rmtree(work.path / "chunks", ignore_errors=True)


def _leave(folder: OutputFolder, job: Job, error: BaseException) -> BaseException:
    """Tidy up after a run that did not end well; returns the error to raise, with what is left for a next try.

    Finished chunks are kept, except after an error that the same command would only run into again.
    """
    try:
        with WorkDir(plan_job(job)) as work:
            stored = work.stored()
    except PipelineError:  # in use by another run, or out of reach: not ours to touch
        return error
    kept = sum(map(len, stored.values()))
    if kept == 0 or isinstance(error, InputError | ConfigError):
        kept = 0
        folder.discard()
    if isinstance(error, KeyboardInterrupt):
        return Interrupted([UnfinishedJob(job.name, job.work_dir, kept, len(stored) * len(work.plan.chunks))])
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, BrokenPipeError):
        error = _disk_error(folder, error)
    if kept and isinstance(error, E3DGEError):
        return type(error)(f"{error}; {kept} finished chunks are kept, the same command continues from there")
    return error


def _disk_error(folder: OutputFolder, error: OSError) -> PipelineError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room there, or choose another --out" if full else "check the disk and its permissions"
    inside = error.filename is None or Path(error.filename).is_relative_to(folder.partial)  # some passing name
    return PipelineError(f"{folder.partial if inside else error.filename}: {error.strerror}; {advice}")
