"""`e3dge-video run`: one clip → one portrait folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from e3dge_video.faces.landmarks.base import BackendName


@click.command("run")
@click.argument("video", type=click.Path(path_type=Path))
@click.option(
    "--edit",
    "edits",
    multiple=True,
    metavar="NAME[:LAYERS][=STRENGTH|=S@T,S@T,…]",
    help="An edit, repeatable: age, smile=1.5, age=0@0s,1.2@4s (strength at times), age:0-7=1.2 (some layers).",
)
@click.option("--orthogonal", is_flag=True, help="Each --edit leaves alone what those before it move along.")
@click.option(
    "--toon",
    is_flag=False,
    flag_value="1",
    metavar="[DEGREE]",
    help="The person as a cartoon: 1, as without a number, or less (0.5: half of it).",
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
    "--refine",
    type=click.Choice(["none", "pose", "pose+code", "clip"]),
    default="none",
    show_default=True,
    help="Optimise on the clip itself: pose, or pose and code, of every frame (seconds per frame on a CPU); clip: one "
    "generator tuned to the person (minutes per clip; better views from the side).",
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
@click.option("--preview", is_flag=True, help="Only the first three seconds.")
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
    video: Path, edits: tuple[str, ...], orthogonal: bool, toon: str | None, views: tuple[str, ...], model: str,
    out: Path | None, overwrite: bool, resume: bool, smooth: float, no_face: Literal["hold", "pass", "blank"],
    person: int, start: str | None, end: str | None, preview: bool, landmarks: BackendName, landmark_file: Path | None,
    executor: Literal["ray", "local"], address: str | None, device: str,
    refine: Literal["none", "pose", "pose+code", "clip"], chunk: int, threads: int | None,
    progress: Literal["auto", "bar", "line", "json", "none"],
) -> None:  # fmt: skip
    """Turn VIDEO into a 4D portrait folder: new views, edits and depth, with sound and exact times.

    \b
    e3dge-video run talk.mp4 --edit age
    e3dge-video run talk.mp4 --edit smile=1.2 --view 20,0 --view orbit
    e3dge-video run talk.mp4 --refine clip --view orbit
    e3dge-video run talk.mp4 --edit age=0@0s,1.2@4s --out older
    e3dge-video run talk.mp4 --toon --view input --view 20,0
    """
    from e3dge_video.pipelines.request import run

    result = run(
        video, edits=edits, orthogonal=orthogonal, toon=toon, views=views, model=model, out=out, overwrite=overwrite,
        resume=resume, smooth=smooth, no_face=no_face, person=person, start=start, end=end, preview=preview,
        landmarks=landmarks, landmark_file=landmark_file, executor=executor, address=address, device=device,
        refine=refine, chunk=chunk, threads=threads, progress=progress,
    )  # fmt: skip
    time, frames = result.report["time"], result.report["frames"]
    speed = "going on from a stopped run" if time["resumed"] else f"{time['frames_per_second']:.3g} frames per second"
    click.echo(f"{result.frames} frames in {result.seconds:.1f} s ({speed}) → {result.folder}")
    if frames["without_face"]:
        click.echo(f"note: {frames['without_face']} of {result.frames} frames show no face", err=True)
    for note in result.report["notes"]:
        click.echo(f"note: {note}", err=True)
    click.echo(f"look at {result.folder / 'report.html'} or play {result.folder / 'compare.mp4'}")
