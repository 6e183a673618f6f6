"""`e3dge-video sample`: the bundled talking clip."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("sample")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.mp4")
@click.option("--overwrite", is_flag=True, help="Replace OUT.mp4 if it is there.")
def sample_command(out: Path, overwrite: bool) -> None:
    """Write the bundled talking clip to OUT.mp4: five seconds of a rendered speaker with sound, free for any use (CC0).

    \b
    e3dge-video sample talk.mp4
    """
    from e3dge_video.sample import write_sample

    write_sample(out, overwrite=overwrite)
    click.echo(f"wrote {out} ({out.stat().st_size / 1000:.0f} kB; made by this project, CC0)")
    click.echo(f"now try: e3dge-video run {shlex.quote(str(out))} --edit age")
