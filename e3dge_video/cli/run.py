"""`e3dge-video run`: one clip → one portrait folder."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from e3dge_video.errors import ConfigError, InputError

if TYPE_CHECKING:
    from e3dge_video.faces.landmarks import LandmarkOptions
    from e3dge_video.faces.landmarks.base import BackendName
    from e3dge_video.geometry.views import View
    from e3dge_video.inversion.editing import Edit

_PREVIEW_S = Fraction(3)


@click.command("run")
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME[=STRENGTH|=S@T,S@T,…]",
    help="An edit, repeatable: age, smile=1.5, age=0@0s,2@4s (strength at times).",
)
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="VIEW",
    help="A view, repeatable; the first is rgb.mp4: input (default), frontal, orbit, ellipse, YAW,PITCH in "
    "degrees beside the input camera, or a camera path in a .json file.",
)
@click.option("--model", default="starter", show_default=True, help="Name or folder of a model bundle.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder. Default: the video's name + _e3dge.")
@click.option("--overwrite", is_flag=True, help="Replace the output folder if it is there.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on from what a stopped run left.")
@click.option(
    "--smooth",
    type=click.FloatRange(0, 5),
    default=0.2,
    show_default=True,
    metavar="SECONDS",
    help="Window of the sliding mean over crop, camera and expression; 0 turns it off.",
)
@click.option(
    "--no-face",
    type=click.Choice(["hold", "pass", "blank"]),
    default="hold",
    show_default=True,
    help="What frames without a face show: the nearest frame with one, the source's crop, black.",
)
@click.option(
    "--person", type=click.IntRange(0), default=0, show_default=True, help="0: the main person, 1: the next, …"
)
@click.option("--start", metavar="SECONDS", help="Begin here.")
@click.option("--end", metavar="SECONDS", help="End here.")
@click.option("--preview", is_flag=True, help=f"Only the first {_PREVIEW_S} seconds.")
@click.option(
    "--landmarks",
    type=click.Choice(["auto", "mesh", "dlib", "face-alignment", "file"]),
    default="auto",
    show_default=True,
    help="Landmark back end; `e3dge-video doctor` shows which work here.",
)
@click.option(
    "--landmark-file", type=click.Path(path_type=Path), help="Landmarks for --landmarks file (.npz or .json)."
)
@click.option("--executor", type=click.Choice(["ray", "local"]), default="ray", show_default=True)
@click.option("--address", help="Ray cluster to join; default RAY_ADDRESS, else Ray is started here.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, …")
@click.option(
    "--chunk",
    type=click.IntRange(16),
    default=64,
    show_default=True,
    metavar="FRAMES",
    help="Frames per chunk, a multiple of 16; does not change the result.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of the model's worker. Default: the cores, at most 8.")
@click.option(
    "--progress", type=click.Choice(["auto", "bar", "line", "json", "none"]), default="auto", show_default=True
)
def run_command(
    video: Path, edits: tuple[str, ...], views: tuple[str, ...], model: str, out: Path | None, overwrite: bool,
    resume: bool, smooth: float, no_face: Literal["hold", "pass", "blank"], person: int, start: str | None,
    end: str | None, preview: bool, landmarks: BackendName, landmark_file: Path | None,
    executor: Literal["ray", "local"], address: str | None, device: str, chunk: int, threads: int | None,
    progress: Literal["auto", "bar", "line", "json", "none"],
) -> None:  # fmt: skip
    """Turn VIDEO into a 4D portrait folder: new views, edits and depth, with sound and exact times.

    \b
    e3dge-video run talk.mp4 --edit age
    e3dge-video run talk.mp4 --edit smile=1.2 --view 20,0 --view orbit
    e3dge-video run talk.mp4 --edit age=0@0s,2@4s --out older
    """
    import os

    from e3dge_video.pipelines.core.progress import make_progress
    from e3dge_video.pipelines.options import PortraitOptions
    from e3dge_video.pipelines.portrait import make_executor, run_video
    from e3dge_video.weights.bundle import read_spec
    from e3dge_video.weights.catalog import find_bundle

    if chunk % 16:
        raise ConfigError(f"--chunk {chunk}: must be a multiple of 16")
    if address and executor != "ray":
        raise ConfigError(f"--address {address}: is for --executor ray")
    folder = find_bundle(model).absolute()
    since, until = _span(start, end, preview)
    options = PortraitOptions(
        model=folder,
        edits=_edits(edits, {name: use.limits for name, use in read_spec(folder).edits.items()}),
        views=_views(views),
        smooth_s=smooth,
        no_face=no_face,
        person=person,
        start_s=since,
        end_s=until,
        landmarks=_landmarks(landmarks, landmark_file),
        device=_device(device),
    )
    target = out or video.with_name(video.stem + "_e3dge")
    with make_executor(executor, address=address, progress=make_progress(progress)) as runner:
        result = run_video(
            video, target, options, runner, overwrite=overwrite, resume=resume, chunk_frames=chunk,
            threads=threads or min(os.cpu_count() or 1, 8),
        )  # fmt: skip
    time, frames = result.report["time"], result.report["frames"]
    speed = "going on from a stopped run" if time["resumed"] else f"{time['frames_per_second']:.3g} frames per second"
    click.echo(f"{result.frames} frames in {result.seconds:.1f} s ({speed}) → {result.folder}")
    if frames["without_face"]:
        click.echo(f"note: {frames['without_face']} of {result.frames} frames show no face", err=True)
    for note in result.report["notes"]:
        click.echo(f"note: {note}", err=True)
    click.echo(f"look at {result.folder / 'report.html'} or play {result.folder / 'compare.mp4'}")


def _edits(texts: tuple[str, ...], known: dict[str, tuple[float, float]]) -> tuple[Edit, ...]:
    from e3dge_video.inversion.editing import parse_edit

    edits = tuple(parse_edit(text, known) for text in texts)
    names = [edit.name for edit in edits]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--edit {twice[0]}: is given {len(twice)} times; give one strength, or keyframes over time")
    return edits


def _views(texts: tuple[str, ...]) -> tuple[View, ...]:
    from e3dge_video.geometry.views import parse_view

    views = tuple(parse_view(text) for text in texts or ("input",))
    names = [view.name for view in views]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--view: {len(twice)} views are called {twice[0]}; each needs a name of its own")
    return views


def _landmarks(backend: BackendName, points: Path | None) -> LandmarkOptions:
    from e3dge_video.faces.landmarks import LandmarkOptions

    if backend == "file" and points is None:
        raise ConfigError("--landmarks file: needs --landmark-file with the landmarks (.npz or .json)")
    if points is not None and backend not in ("auto", "file"):
        raise ConfigError(f"--landmark-file {points}: contradicts --landmarks {backend}; leave one of them out")
    if points is not None and not points.is_file():
        raise InputError(f"{points}: no such landmark file; check --landmark-file")
    return LandmarkOptions(backend=backend, points_file=points.absolute() if points else None)


def _span(start: str | None, end: str | None, preview: bool) -> tuple[Fraction | None, Fraction | None]:
    """Beginning and end of the part to use, in seconds from the first frame."""
    since, until = _seconds("--start", start), _seconds("--end", end)
    if preview and until is not None:
        raise ConfigError("--preview and --end: give one of them")
    if preview:
        until = (since or Fraction(0)) + _PREVIEW_S
    if until is not None and until <= (since or 0):
        raise ConfigError(f"--end {end}: must come after {'--start ' + start if start else 'the beginning'}")
    return since, until


def _seconds(option: str, text: str | None) -> Fraction | None:
    """A time in seconds: 12, 12.5 or 1:05.5."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+):)?(\d+(?:\.\d+)?)s?", text.strip())
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
