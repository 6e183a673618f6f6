"""The corpus of odd videos: what is odd about each, and what must be seen in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tests.support.video_corpus import cut_with_edit_list, rotate_by_metadata, write_clip

TICKS = Fraction(1, 90000)
UNEVEN = [0, 1, 3003, 3004, 9000, 9900, 99000, 99001, 100000] + [
    120000 + 1500 * i * (1 + i % 3) for i in range(1, 60, 3)
]
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:b-pyramid=none:keyint=12:min-keyint=2:scenecut=0"}
HEVC_OPEN = {"x265-params": "open-gop=1:bframes=3:keyint=12:min-keyint=12:log-level=none:pools=none:frame-threads=1"}


@dataclass(frozen=True)
class Clip:
    """A test video and what must be seen in it."""

    path: Path
    times: tuple[Fraction, ...] | None = None  # None: the container sets them
    first_number: int = 0
    count: int = 40


def _plain(folder: Path, name: str, suffix: str = ".mp4", **options: object) -> Clip:
    pts = list(options.pop("pts", range(40)))  # type: ignore[call-overload]
    time_base = options.pop("time_base", Fraction(1, 25))
    assert isinstance(time_base, Fraction)
    path = write_clip(folder / f"{name}{suffix}", pts, time_base, **options)  # type: ignore[arg-type]
    exact = suffix in (".mp4", ".mkv", ".webm")
    return Clip(path, tuple(value * time_base for value in pts) if exact else None, count=len(pts))


def _cut(folder: Path) -> Clip:
    source = write_clip(folder / "uncut.mp4", options=OPEN_GOP)
    path = cut_with_edit_list(source, folder / "edit_list.mp4", 17)
    return Clip(path, tuple(Fraction(i, 25) for i in range(23)), first_number=17, count=23)


def _turned(folder: Path) -> Clip:
    clip = _plain(folder, "rotated")
    rotate_by_metadata(clip.path, (0, -1, 1, 0))
    return clip


MAKERS: dict[str, Callable[[Path, str], Clip]] = {
    "cfr": _plain,
    "vfr": lambda f, n: _plain(f, n, pts=UNEVEN, time_base=TICKS, options={"bf": "2"}),
    "open_gop_h264": lambda f, n: _plain(f, n, options=OPEN_GOP),
    "open_gop_hevc": lambda f, n: _plain(f, n, codec="libx265", options=HEVC_OPEN),
    "open_gop_mpeg2": lambda f, n: _plain(f, n, ".mpg", codec="mpeg2video", options={"bf": "2"}),
    "edit_list": lambda f, n: _cut(f),
    "transport": lambda f, n: _plain(f, n, ".ts", pts=range(300), audio=[("aac", 48000, Fraction(12))]),
    "transport_open_gop": lambda f, n: _plain(f, n, ".ts", options=OPEN_GOP),
    "rotated": lambda f, n: _turned(f),
    "anamorphic": lambda f, n: _plain(f, n, sample_aspect_ratio=Fraction(4, 5)),
    "odd": lambda f, n: _plain(f, n, size=(51, 47), pix_fmt="yuv444p"),
    "ten_bit": lambda f, n: _plain(f, n, codec="libx265", pix_fmt="yuv420p10le", options=HEVC_OPEN),
    "full_range": lambda f, n: _plain(f, n, pix_fmt="yuvj420p"),
    "late_start": lambda f, n: _plain(
        f, n, pts=range(67840, 67840 + 512 * 40, 512), time_base=Fraction(1, 12800), options={"bf": "0"}
    ),
    "gradual_refresh": lambda f, n: _plain(f, n, ".ts", options={"x264-params": "intra-refresh=1:bframes=0:keyint=12"}),
    "no_duration": lambda f, n: _plain(
        f,
        n,
        ".webm",
        pts=range(0, 1600, 40),
        time_base=Fraction(1, 1000),
        codec="libvpx-vp9",
        container="webm",
        streamed=True,
        options={"cpu-used": "8", "deadline": "realtime"},
    ),
    "vp8": lambda f, n: _plain(
        f,
        n,
        ".webm",
        pts=range(0, 1600, 40),
        time_base=Fraction(1, 1000),
        codec="libvpx",
        options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    ),
    "gif": lambda f, n: _plain(
        f, n, ".gif", codec="gif", pix_fmt="rgb8", pts=range(0, 200, 5), time_base=Fraction(1, 100)
    ),
    "avi": lambda f, n: _plain(f, n, ".avi", codec="mpeg4", options={"bf": "2"}),
    "avi_without_times": lambda f, n: _plain(f, n, ".avi", options={"bf": "2"}),
    "every_frame_a_key": lambda f, n: _plain(
        f, n, ".mkv", codec="ffv1", pts=range(0, 1600, 40), time_base=Fraction(1, 1000)
    ),
    "one_frame": lambda f, n: _plain(f, n, pts=[0]),
    "thirteen_frames": lambda f, n: _plain(f, n, pts=range(13)),
}
