"""A request in words, as people give it, to a run: the same for the command line and for Python.

Messages name the command's options (`--edit`, `--start`), which the arguments of `run` are called after.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from e3dge_video.errors import ConfigError, InputError
from e3dge_video.faces.landmarks import LandmarkOptions
from e3dge_video.faces.landmarks.base import BackendName
from e3dge_video.geometry.views import View, parse_view
from e3dge_video.inversion.editing import parse_edits
from e3dge_video.pipelines.core.progress import make_progress
from e3dge_video.pipelines.options import NoFace, PortraitOptions, RefineMode, RefineOptions
from e3dge_video.pipelines.portrait import RunResult, make_executor, run_video
from e3dge_video.weights.bundle import read_spec, require_encoders, require_toon
from e3dge_video.weights.catalog import find_bundle

#: Length of a preview, seconds.
_PREVIEW_S = Fraction(3)


def run(
    video: str | Path,
    *,
    edits: Sequence[str] = (),
    orthogonal: bool = False,
    toon: str | float | None = None,
    views: Sequence[str] = (),
    model: str = "starter",
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = True,
    smooth: float = 0.2,
    no_face: NoFace = "hold",
    person: int = 0,
    start: str | float | None = None,
    end: str | float | None = None,
    preview: bool = False,
    landmarks: BackendName = "auto",
    landmark_file: str | Path | None = None,
    executor: Literal["ray", "local"] = "ray",
    address: str | None = None,
    device: str = "auto",
    refine: RefineMode = "none",
    chunk: int = 64,
    threads: int | None = None,
    progress: Literal["auto", "bar", "line", "json", "none"] = "auto",
) -> RunResult:
    """Turn a talking-head video into a 4D portrait folder; what `e3dge-video run` does.

    Args:
        video: The clip.
        edits: Edits as text: `age`, `smile=1.5`, `age=0@0s,1.2@4s` (strength at times), `age:0-7=1.2` (some layers).
        orthogonal: Each edit leaves alone what those before it move along.
        toon: Degree of toonification, 0 to 1: the person as a cartoon; None: none.
        views: Views as text: `input` (default), `frontal`, `orbit`, `ellipse`, `YAW,PITCH` in degrees beside the input
            camera, or a camera path in a .json file. The first one is `rgb.mp4`.
        model: Name or folder of a model bundle.
        out: Output folder; the video's name + `_e3dge` when None.
        overwrite: Replace the output folder if it is there.
        resume: Go on from what a stopped run left.
        smooth: Window of the sliding mean over crop, camera and expression, seconds; 0 turns it off.
        no_face: What frames without a face show: the nearest frame with one, the source's crop, black.
        person: 0 for the main person, 1 for the next, …
        start: Begin here; seconds, or text such as `1:05.5`.
        end: End here.
        preview: Only the first three seconds.
        landmarks: Landmark back end.
        landmark_file: Landmarks for the back end `file`.
        executor: `ray`, or `local` for this process.
        address: Ray cluster to join; `RAY_ADDRESS` or a Ray of its own when None.
        device: Where the networks run: auto, cpu, cuda, cuda:1, …
        refine: Test-time optimisation: `pose` or `pose+code` of every frame, or `clip`: one generator tuned to the
            person of the whole clip.
        chunk: Frames per chunk, a multiple of 16; does not change the result.
        threads: Threads of the model's worker; the cores, at most 8, when None.
        progress: How progress is shown.

    Returns:
        Folder, frames, seconds and the report of the finished portrait.

    Raises:
        E3DGEError: Anything that the caller can mend, in one line: a file that cannot be used, an unknown edit, …
    """
    if chunk < 16 or chunk % 16:
        raise ConfigError(f"--chunk {chunk}: must be a multiple of 16")
    if smooth < 0:
        raise ConfigError(f"--smooth {smooth:g}: must be 0 or more seconds")
    if refine not in get_args(RefineMode):
        raise ConfigError(f"--refine {refine}: expected {', '.join(get_args(RefineMode))}")
    if address and executor != "ray":
        raise ConfigError(f"--address {address}: is for --executor ray")
    video, folder = Path(video), find_bundle(model).absolute()
    spec = read_spec(folder)
    require_encoders(folder, spec)
    if refine != "none" and spec.encoder is None:
        raise ConfigError(
            f"--refine {refine}: the model {spec.name} has no matte, without which background would be learned; choose "
            "a --model that has one, such as starter"
        )
    degree = _degree(toon)
    if degree:
        require_toon(folder, spec)
    since, until = _span(start, end, preview)
    options = PortraitOptions(
        model=folder,
        edits=parse_edits(edits, spec.edits, spec.generator.latent_shape[0]),
        orthogonal=orthogonal,
        toon=degree,
        views=_views(views),
        smooth_s=smooth,
        no_face=no_face,
        person=person,
        start_s=since,
        end_s=until,
        landmarks=_landmarks(landmarks, None if landmark_file is None else Path(landmark_file)),
        device=_device(device),
        refine=RefineOptions(refine),
    )
    target = Path(out) if out is not None else video.with_name(video.stem + "_e3dge")
    with make_executor(executor, address=address, progress=make_progress(progress)) as runner:
        return run_video(
            video, target, options, runner, overwrite=overwrite, resume=resume, chunk_frames=chunk,
            threads=threads or min(os.cpu_count() or 1, 8),
        )  # fmt: skip


def _degree(toon: str | float | None) -> float:
    """Degree of toonification."""
    try:
        degree = 0.0 if toon is None else float(toon)
    except ValueError:
        degree = math.nan
    if not 0 <= degree <= 1:
        raise ConfigError(f"--toon {toon}: expected a degree from 0 (photograph) to 1 (cartoon), or nothing for 1")
    return degree


def _views(texts: Sequence[str]) -> tuple[View, ...]:
    views = tuple(parse_view(text) for text in texts or ("input",))
    names = [view.name for view in views]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--view: {len(twice)} views are called {twice[0]}; each needs a name of its own")
    return views


def _landmarks(backend: BackendName, points: Path | None) -> LandmarkOptions:
    if backend == "file" and points is None:
        raise ConfigError("--landmarks file: needs --landmark-file with the landmarks (.npz or .json)")
    if points is not None and backend not in ("auto", "file"):
        raise ConfigError(f"--landmark-file {points}: contradicts --landmarks {backend}; leave one of them out")
    if points is not None and not points.is_file():
        raise InputError(f"{points}: no such landmark file; check --landmark-file")
    return LandmarkOptions(backend=backend, points_file=points.absolute() if points else None)


def _span(start: str | float | None, end: str | float | None, preview: bool) -> tuple[Fraction | None, Fraction | None]:
    """Beginning and end of the part to use, in seconds from the first frame."""
    since, until = _seconds("--start", start), _seconds("--end", end)
    if preview and until is not None:
        raise ConfigError("--preview and --end: give one of them")
    if preview:
        until = (since or Fraction(0)) + _PREVIEW_S
    if until is not None and until <= (since or 0):
        raise ConfigError(f"--end {end}: must come after {'the beginning' if start is None else f'--start {start}'}")
    return since, until


def _seconds(option: str, text: str | float | None) -> Fraction | None:
    """A time in seconds: 12, 12.5 or 1:05.5."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+):)?(\d+(?:\.\d+)?)s?", str(text).strip())
    if not match:
        raise ConfigError(f"{option} {text}: expected seconds (12.5) or minutes and seconds (1:05.5)")
    return 60 * Fraction(int(match[1] or 0)) + Fraction(match[2])


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        raise ConfigError(f"--device {name}: expected auto, cpu, cuda, cuda:1, … or mps")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: does not work here ({str(error).splitlines()[0]}); use cpu") from error
    return name
