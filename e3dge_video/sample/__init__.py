"""The bundled talking clip, ours and free, and tiny clips that show which codecs work here.

How they were made: ORIGIN.md in this folder.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from e3dge_video.errors import InputError
from e3dge_video.io import atomic

#: Codecs of the tiny clips, by FFmpeg's names, and the grey level (0..255) of each of their frames.
PROBE_CODECS = ("h264", "hevc", "vp9", "av1")
PROBE_LEVELS = (60, 120, 180)


def sample_video() -> Path:
    """The talking clip inside the package."""
    return Path(str(files(__name__) / "talk.mp4"))


def probe_clip(codec: str) -> bytes:
    """A Matroska file in one of `PROBE_CODECS`: a frame of plain grey for each of `PROBE_LEVELS`."""
    return (files(__name__) / "codecs" / f"{codec}.mkv").read_bytes()


def write_sample(out: Path, *, overwrite: bool = False) -> Path:
    """Copy the talking clip to `out`, whole or not at all.

    Raises:
        InputError: `out` cannot be written, or is there already and `overwrite` is False.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give a file name, such as {out / 'talk.mp4'}")
    if out.suffix.lower() != ".mp4":
        raise InputError(f"{out}: the clip is an MP4 file; give a name that ends in .mp4")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give another name or --overwrite")
    try:
        atomic.write_bytes(out, sample_video().read_bytes())
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    return out
