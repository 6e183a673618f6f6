"""One video → one portrait folder: the graph of stages, and the run around it.

```
 video ─► scan ─► track ─► prep ─► observe ─► settle ─┐
        faces    person   crops    E0, E_ξ   codes,   ├─► portrait ─► encode ─► assemble ─► folder
        per      and its  again               cameras │    G, edits,   GOP       sound,
        frame    crop      └──────────────────────────┘    views       segments  exact times
```
`track`, `settle` and `assemble` see the whole clip but only tiny data, and run in the driver; the rest runs chunk by
chunk in workers.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from e3dge_video.errors import ConfigError, InputError
from e3dge_video.faces.landmarks import available_backends, choose_backend
from e3dge_video.geometry.views import View
from e3dge_video.io import atomic
from e3dge_video.io.index import FrameIndex
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.progress import Progress
from e3dge_video.pipelines.core.spec import (
    DEFAULT_CHUNK_FRAMES,
    BarrierStage,
    Graph,
    Job,
    MapStage,
    Outcome,
    Resources,
    Unit,
)
from e3dge_video.pipelines.options import ClipParams, RunOptions
from e3dge_video.pipelines.report import write_report
from e3dge_video.pipelines.stages.assemble import Assemble
from e3dge_video.pipelines.stages.encode import Encode, Indexes
from e3dge_video.pipelines.stages.model import Observe, Portrait, SetupModel
from e3dge_video.pipelines.stages.prep import Prep
from e3dge_video.pipelines.stages.readers import Readers
from e3dge_video.pipelines.stages.scan import Scan, SetupScan
from e3dge_video.pipelines.stages.settle import Settle
from e3dge_video.pipelines.stages.track import FollowPerson
from e3dge_video.weights.bundle import BundleSpec, read_spec

#: Shown beside the result in compare.mp4 when only one view is asked for.
_ASIDE = View("aside", "orbit")


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
    options: RunOptions,
    executor: Executor,
    *,
    overwrite: bool = False,
    resume: bool = True,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    threads: int = 2,
) -> RunResult:
    """The main job: one clip to one output folder.

    Everything is written under `OUT.partial` and renamed when whole. A run that stopped goes on from its finished
    chunks and gives the same bytes.

    Args:
        video: The clip.
        out: The output folder.
        options: What to do.
        executor: Where the stages run.
        overwrite: Replace `out` if it is there.
        resume: Use what a stopped run left in `OUT.partial`; otherwise it is thrown away.
        chunk_frames: Frames per chunk, a multiple of 16; does not change the result.
        threads: Threads of the model's worker; part of the result's last bits.

    Raises:
        InputError: The video or the output folder cannot be used.
    """
    began = time.monotonic()
    video, out = video.absolute(), out.absolute()
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is already there; choose another --out, or give --overwrite to replace it")
    if chunk_frames % 16:
        raise ConfigError(f"chunks must be a multiple of 16 frames, got {chunk_frames}")
    index = build_index(video)
    partial = out.with_name(out.name + ".partial")
    try:
        if not resume:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial / "result", ignore_errors=True)
    except OSError as error:
        raise InputError(f"{partial}: cannot be written ({error.strerror}); choose another --out") from error
    spec = read_spec(options.model)
    options = resolved(options)
    job = build_job(video, index, partial, options, spec, chunk_frames=chunk_frames, threads=threads)
    (outcome,) = executor.run([job])
    try:
        values = outcome.result()
    except Exception:
        if not any((partial / "work").glob("*/*")):
            shutil.rmtree(partial, ignore_errors=True)  # nothing worth resuming
        raise
    seconds = time.monotonic() - began
    report = write_report(partial / "result", video, index, options, spec, job, outcome, values, seconds)
    _publish(partial, out)
    return RunResult(out, job.frames, seconds, report)


def resolved(options: RunOptions) -> RunOptions:
    """Options with `auto` replaced by the choice made here, so that all workers make the same one."""
    name, _ = choose_backend(options.landmarks)
    return replace(options, landmarks=replace(options.landmarks, backend=name))


def build_job(
    video: Path,
    index: FrameIndex,
    folder: Path,
    options: RunOptions,
    spec: BundleSpec,
    *,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    threads: int = 2,
) -> Job:
    """The graph of one clip.

    Args:
        video: The clip, absolute.
        index: Its frames.
        folder: Working folder; `folder/result` receives the files.
        options: What to do, `resolved`.
        spec: The model's specification.
        chunk_frames: Frames per chunk.
        threads: Threads of the model's worker.
    """
    first, stop = _span(video, index, options)
    atomic.write_bytes(folder / "index.npz", index.to_bytes())
    clip = ClipParams(video, folder / "index.npz", first, stop - first)
    times = tuple(float(index.time(k) - index.time(first)) for k in range(first, stop))
    views = options.views if len(options.views) > 1 else (*options.views, _ASIDE)
    model = SetupModel(options.model, options.device, tuple(sorted(spec.files.items())))
    silhouette = options.landmarks.backend in ("dlib", "face-alignment")
    size = spec.resolution
    cut = options.start_s is not None or options.end_s is not None
    start, end = index.time(first), index.time(stop) if stop < len(index) else index.end
    gpus = 1.0 if options.device.startswith("cuda") else 0.0
    graph = Graph(
        units=(
            Unit("scan", SetupScan(options.landmarks), close=_close),
            Unit("prep", Readers, close=_close),
            Unit("portrait", model, resources=Resources(cpus=threads, gpus=gpus, threads=threads)),
            Unit("encode", Indexes),
        ),
        stages=(
            MapStage("scan", "scan", Scan(options.landmarks), persist=True, bytes_per_frame=20_000),
            BarrierStage("track", FollowPerson(video, times, options.person, options.smooth_s), {"scan": "scan"}),
            MapStage("prep", "prep", Prep(size), {"track": "track"}, bytes_per_frame=3 * size * size),
            MapStage(
                "observe",
                "portrait",
                Observe(model),
                {"crops": "prep", "track": "track"},
                persist=True,
                bytes_per_frame=4 * spec.generator.latent_rows * spec.generator.w_dim + 64,
            ),
            BarrierStage(
                "settle",
                Settle(options.model, model.files, times, options.smooth_s, silhouette),
                {"observed": "observe", "track": "track"},
            ),
            MapStage(
                "portrait",
                "portrait",
                Portrait(model, options.edits, views, times, options.no_face),
                {"crops": "prep", "track": "track", "settled": "settle"},
                bytes_per_frame=size * size * (3 + 5 * len(views)),
            ),
            MapStage(
                "encode",
                "encode",
                Encode(len(options.views), len(views) - 1 if len(options.views) == 1 else 1, _captions(options, views)),
                {"pictures": "portrait", "crops": "prep"},
                persist=True,
                bytes_per_frame=30_000,
            ),
            BarrierStage(
                "assemble",
                Assemble(
                    video,
                    folder / "result",
                    tuple(view.name for view in options.views),
                    times,
                    start if cut else None,
                    end if cut else None,
                    start if cut else index.info.clock_start,
                ),
                {"encoded": "encode", "track": "track", "settled": "settle"},
            ),
        ),
    )
    return Job(
        name=video.name,
        key=_content_key(video, first, stop),
        frames=stop - first,
        graph=graph,
        work_dir=folder / "work",
        params=clip,
        chunk_frames=chunk_frames,
    )


def make_executor(
    kind: Literal["ray", "local"], *, address: str | None = None, progress: Progress | None = None
) -> Any:
    """An executor, to be used in a `with` block."""
    if kind == "ray":
        from e3dge_video.pipelines.core.rayexec import RayExecutor

        return RayExecutor(address, progress=progress)
    import contextlib

    from e3dge_video.pipelines.core.local import LocalExecutor

    return contextlib.nullcontext(LocalExecutor(progress=progress))


def landmark_status() -> list[str]:
    """One line per landmark back end, for `doctor`."""
    return [str(status) for status in available_backends()]


def _span(video: Path, index: FrameIndex, options: RunOptions) -> tuple[int, int]:
    """Frames [first, stop) of the part asked for."""
    shift = index.start
    start = None if options.start_s is None else shift + options.start_s
    end = None if options.end_s is None else shift + options.end_s
    first, stop = index.span(start, end)
    if first >= stop:
        length = float(index.end - index.start)
        until = "its end" if options.end_s is None else f"{float(options.end_s):g} s"
        since = float(options.start_s or 0)
        raise InputError(f"{video}: has no frames from {since:g} s to {until}; it is {length:.3f} s long")
    return first, stop


def _content_key(video: Path, first: int, stop: int) -> str:
    """Fingerprint of the clip: size, beginning and end of the file, and the part used."""
    digest = hashlib.sha256(f"{video.stat().st_size} {first} {stop}".encode())
    with video.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, video.stat().st_size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()


def _captions(options: RunOptions, views: tuple[View, ...]) -> tuple[str, ...]:
    edits = ", ".join(_edit_text(edit.keyframes, edit.name) for edit in options.edits) or "no edit"
    first = "" if views[0].kind == "input" else f", view {views[0].name}"
    return "input", "global reconstruction", f"result: {edits}{first}", f"result, view {views[1].name}", "depth"


def _edit_text(keyframes: tuple[tuple[float, float], ...], name: str) -> str:
    return f"{name} {keyframes[0][1]:g}" if len(keyframes) == 1 else f"{name} over time"


def _publish(partial: Path, out: Path) -> None:
    """Give the finished folder its name; what stood there is replaced only now."""
    old = out.with_name(out.name + ".replaced")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    (partial / "result").rename(out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def _close(tools: Any) -> None:
    tools.close()
