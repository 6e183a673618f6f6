"""`e3dge-video run`: one clip → one portrait folder."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import click

from e3dge_video.errors import ConfigError

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
    resume: bool, smooth: float, no_face: str, person: int, start: str | None, end: str | None, preview: bool,
    landmarks: str, landmark_file: Path | None, executor: str, address: str | None, device: str, chunk: int,
    threads: int | None, progress: str,
) -> None:  # fmt: skip
    """Turn VIDEO into a 4D portrait folder: new views, edits and depth, with sound and exact times.

    \b
    e3dge-video run talk.mp4 --edit age
    e3dge-video run talk.mp4 --edit smile=1.2 --view 20,0 --view orbit
    e3dge-video run talk.mp4 --edit age=0@0s,2@4s --out older
    """
    import os

    from e3dge_video.faces.landmarks import LandmarkOptions
    from e3dge_video.geometry.views import parse_view
    from e3dge_video.inversion.editing import parse_edit
    from e3dge_video.pipelines.core.progress import make_progress
    from e3dge_video.pipelines.options import RunOptions
    from e3dge_video.pipelines.portrait import make_executor, run_video
    from e3dge_video.weights.bundle import read_spec
    from e3dge_video.weights.catalog import find_bundle

    folder = find_bundle(model).absolute()
    known = {name: use.limits for name, use in read_spec(folder).edits.items()}
    parsed_views = tuple(parse_view(text) for text in views) or (parse_view("input"),)
    names = [view.name for view in parsed_views]
    if len(set(names)) < len(names):
        raise ConfigError(f"--view: {', '.join(names)}: every view needs a name of its own")
    if preview and end is not None:
        raise ConfigError("--preview and --end: give one of them")
    since = _seconds("--start", start)
    until = _seconds("--end", end)
    options = RunOptions(
        model=folder,
        edits=tuple(parse_edit(text, known) for text in edits),
        views=parsed_views,
        smooth_s=smooth,
        no_face=no_face,  # type: ignore[arg-type]
        person=person,
        start_s=since,
        end_s=(since or Fraction(0)) + _PREVIEW_S if preview else until,
        landmarks=LandmarkOptions(backend=landmarks, points_file=landmark_file),  # type: ignore[arg-type]
        device=_device(device),
    )
    target = out or video.with_name(video.stem + "_e3dge")
    shown = make_progress(progress)  # type: ignore[arg-type]
    with make_executor(executor, address=address, progress=shown) as runner:  # type: ignore[arg-type]
        result = run_video(
            video, target, options, runner, overwrite=overwrite, resume=resume, chunk_frames=chunk,
            threads=threads or min(os.cpu_count() or 1, 8),
        )  # fmt: skip
    speed = result.report["time"]["frames_per_second"]
    click.echo(f"{result.frames} frames in {result.seconds:.1f} s ({speed:g} frames per second) → {result.folder}")
    for note in result.report["notes"]:
        click.echo(f"note: {note}", err=True)
    click.echo(f"look at {result.folder / 'report.html'} or play {result.folder / 'compare.mp4'}")


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
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: does not work here ({str(error).splitlines()[0]}); use cpu") from error
    return name
