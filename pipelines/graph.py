"""The graph of one clip: which stages there are, what each reads, and where it runs.

```
 video ─► scan ─► track ─► prep ─► observe ─► settle ─┐
        faces    person   crops    E0, E_ξ   codes,   ├─► portrait ─► encode ─► assemble ─► files
        per      and its  again               cameras │    G, edits,   GOP       sound,
        frame    crop      └──────────────────────────┘    views       segments  exact times
```
With `--refine` what `settle` found goes through stages of its own first (`refinement`) and comes out in the same form.
`track`, `settle` and `assemble` see the whole clip but only tiny data, and run in the driver; the rest runs chunk by
chunk in workers.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Literal

import e3dge_video
from e3dge_video.errors import ConfigError, InputError, ModelError
from e3dge_video.geometry.views import View
from e3dge_video.io.index import FrameIndex
from e3dge_video.models.build import orbit_of
from e3dge_video.pipelines.core.spec import (
    DEFAULT_CHUNK_FRAMES,
    BarrierStage,
    Graph,
    Job,
    MapStage,
    Resources,
    Unit,
)
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.refinement import refinement_stages
from e3dge_video.pipelines.stages.assemble import Assemble
from e3dge_video.pipelines.stages.clip import CHUNK_GRID, ClipParams, Indexes, Readers
from e3dge_video.pipelines.stages.depth import depth_code_of
from e3dge_video.pipelines.stages.encode import Encode
from e3dge_video.pipelines.stages.model import Observe, Portrait
from e3dge_video.pipelines.stages.prep import Prep
from e3dge_video.pipelines.stages.scan import Scan, SetupScan
from e3dge_video.pipelines.stages.settle import Settle
from e3dge_video.pipelines.stages.settle_codes import SettleCodes
from e3dge_video.pipelines.stages.setup import SetupModel
from e3dge_video.pipelines.stages.track import FollowPerson
from e3dge_video.weights.bundle import BundleSpec, sha256

#: After so long without an answer a worker that optimises is taken for hung.
_OPTIMISATION_S = 6 * 3600.0


def build_job(
    video: Path,
    index: FrameIndex,
    folder: OutputFolder,
    options: PortraitOptions,
    spec: BundleSpec,
    *,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    threads: int = 2,
) -> Job:
    """The job of one clip. Writes nothing: the stages expect `index` in the file that `Job.params` names.

    Args:
        video: The clip, absolute.
        index: Its frames.
        folder: Where the files go.
        options: What to do, with a landmark back end that is not `auto`.
        spec: The model's specification.
        chunk_frames: Frames per chunk.
        threads: Threads of the model's worker.

    Raises:
        InputError: The part asked for has no frames.
        ConfigError: The chunk size does not fit the grid.
    """
    if chunk_frames < 1 or chunk_frames % CHUNK_GRID:
        raise ConfigError(f"chunks must be a multiple of {CHUNK_GRID} frames, got {chunk_frames}")
    first, stop = frame_span(video, index, options)
    key = _content_key(video, index, first, stop)
    # Named after its content: another run that is started with the same --out must not write over it.
    clip = ClipParams(video, folder.partial / f"index-{key[:16]}.npz", first, stop - first)
    views = options.views if len(options.views) > 1 else (*options.views, beside(options.views[0]))
    gpus = 1.0 if options.device.startswith("cuda") else 0.0
    model = SetupModel(options.model, options.device, threads, tuple(sorted(spec.files.items())), options.toon)
    patience = Unit.timeout_s if options.refine.mode == "none" else _OPTIMISATION_S
    units = (
        Unit("scan", SetupScan(options.landmarks), close=_close),
        Unit("prep", Readers, close=_close),
        Unit("portrait", model, resources=Resources(cpus=threads, gpus=gpus, threads=threads), timeout_s=patience),
        Unit("encode", Indexes),
    )
    return Job(
        name=video.name,
        key=key,
        frames=stop - first,
        graph=Graph(units, _stages(clip, index, folder, options, spec, model, views)),
        work_dir=folder.work,
        params=clip,
        chunk_frames=chunk_frames,
    )


def frame_span(video: Path, index: FrameIndex, options: PortraitOptions) -> tuple[int, int]:
    """Frames [first, stop) of the part asked for.

    Raises:
        InputError: There are none.
    """
    start, end = options.start_s, options.end_s
    first, stop = index.span(
        None if start is None else index.start + start,
        None if end is None else index.start + end,
    )
    if first >= stop:
        length = float(index.end - index.start)
        since, until = float(start or 0), "its end" if end is None else f"{float(end):g} s"
        raise InputError(
            f"{video}: has no frames from {since:g} s to {until}; it is {length:.3f} s long, change --start or --end"
        )
    return first, stop


def beside(view: View) -> View:
    """The view that compare.mp4 shows beside the only one asked for."""
    return View("orbit", "orbit") if view.kind == "input" else View("input", "input")


def captions(options: PortraitOptions, other: View) -> tuple[str, ...]:
    """Names of compare.mp4's panels: input, global reconstruction, result, other view, depth."""
    edits = ", ".join(
        f"{edit.label} {edit.keyframes[0][1]:g}" if len(edit.keyframes) == 1 else f"{edit.label} over time"
        for edit in options.edits
    )
    if options.toon:
        edits = ", ".join(filter(None, (f"toon {options.toon:g}", edits)))
    view = options.views[0]
    seen = "" if view.kind == "input" else f", view {view.name}"
    return "input", "reconstruction", f"result: {edits or 'no edit'}{seen}", f"view {other.name}", "depth"


def _stages(
    clip: ClipParams,
    index: FrameIndex,
    folder: OutputFolder,
    options: PortraitOptions,
    spec: BundleSpec,
    model: SetupModel,
    views: tuple[View, ...],
) -> tuple[MapStage | BarrierStage, ...]:
    size, saved, depth = spec.resolution, len(options.views), depth_code_of(spec.backbone)
    origin = index.time(clip.first)
    times = tuple(float(index.time(k) - origin) for k in range(clip.first, clip.first + clip.frames))
    start = None if options.start_s is None else origin
    points = options.landmarks.points_file
    refinement = refinement_stages(options, model)
    settled = refinement[-1].name if refinement else "settle"
    return (
        MapStage(
            "scan",
            "scan",
            Scan(options.landmarks, sha256(points) if points is not None and points.is_file() else ""),
            persist=True,
            bytes_per_frame=20_000,
        ),
        BarrierStage(
            "track",
            FollowPerson(clip.video, times, options.person, options.smooth_s, _crop(options.model, spec)),
            {"scan": "scan"},
        ),
        MapStage("prep", "prep", Prep(size), {"track": "track"}, bytes_per_frame=3 * size * size),
        MapStage(
            "observe",
            "portrait",
            Observe(model),
            {"crops": "prep", "track": "track"},
            persist=True,
            bytes_per_frame=4 * math.prod(spec.generator.latent_shape) + 64,
        ),
        BarrierStage("settle", _settle(options, spec, model), {"observed": "observe", "track": "track"}),
        *refinement,
        MapStage(
            "portrait",
            "portrait",
            Portrait(model, options.edits, options.orthogonal, views, options.no_face, depth),
            {"crops": "prep", "track": "track", "settled": settled},
            bytes_per_frame=size * size * (3 + 5 * len(views)),
        ),
        MapStage(
            "encode",
            "encode",
            Encode(saved, captions(options, views[1]), depth),
            {"pictures": "portrait", "crops": "prep"},
            persist=True,
            bytes_per_frame=30_000,
        ),
        BarrierStage(
            "assemble",
            Assemble(
                clip.video,
                folder.result,
                tuple(view.name for view in options.views),
                size,
                start,
                None if options.end_s is None else _end(index, clip),
                index.info.clock_start if start is None else start,
            ),
            {"encoded": "encode", "track": "track", "settled": settled},
        ),
    )


def _settle(options: PortraitOptions, spec: BundleSpec, model: SetupModel) -> Settle | SettleCodes:
    """How codes and cameras settle: by the model's 3D landmarks and basis of expression, if it has them."""
    if spec.encoder is None:
        return SettleCodes(options.smooth_s, orbit_of(spec.generator).pivot)
    return Settle(options.model, model.files, options.smooth_s)


def _crop(folder: Path, spec: BundleSpec) -> Literal["eg3d", "ffhq"]:
    """The model's own crop.

    Raises:
        ModelError: Not one that is made from a human face.
    """
    if spec.crop == "eg3d" or spec.crop == "ffhq":
        return spec.crop  # type: ignore[return-value]
    raise ModelError(
        f"{folder}: the pictures of the model {spec.name} are cropped as {spec.crop}; videos need one of human faces, "
        "cropped as eg3d or ffhq"
    )


def _end(index: FrameIndex, clip: ClipParams) -> Any:
    """When the clip's last frame goes; None at the end of the video, whose sound may go on."""
    stop = clip.first + clip.frames
    return index.time(stop) if stop < len(index) else None


def _content_key(video: Path, index: FrameIndex, first: int, stop: int) -> str:
    """Fingerprint of the clip: its frames' sizes and times, beginning and end of the file, the part used."""
    digest = hashlib.sha256(f"{e3dge_video.__version__} {first} {stop}".encode())
    digest.update(index.to_bytes())
    with video.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, index.file_size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()


def _close(tools: Any) -> None:
    tools.close()
