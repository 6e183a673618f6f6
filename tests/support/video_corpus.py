"""Makes the test videos: every frame carries its own number as big black and white cells.

A clip is described by what is odd about it (timestamps, rotation, cut, damage …), encoded with PyAV and, where PyAV
has no knob, patched in its bytes. `read_number` tells from the pixels alone which frame is seen.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 4, 3  # 12 bits: numbers up to 4095


def barcode(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """The picture of a number, (width, height) pixels. [H, W, 3]"""
    width, height = size
    bits = np.array([(number >> i) & 1 for i in range(COLUMNS * ROWS)]).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns], 215, 40).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def read_number(picture: NDArray[np.uint8]) -> int:
    """The number in a decoded picture of any size. [H, W, 3]"""
    height, width = picture.shape[:2]
    rows = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    columns = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    bits = picture[rows][:, columns].mean(-1) > 127
    return int((bits.ravel() << np.arange(COLUMNS * ROWS)).sum())


def tone(rate: int, seconds: Fraction, channels: int = 1, pitch: float = 440.0) -> Iterator[av.AudioFrame]:
    """A sine wave as audio frames of 1024 samples."""
    total = int(seconds * rate)
    for start in range(0, total, 1024):
        times = np.arange(start, min(start + 1024, total)) / rate
        wave = (0.3 * np.sin(2 * np.pi * pitch * times)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.tile(wave, (channels, 1))),
            format="fltp",
            layout="mono" if channels == 1 else "stereo",
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def write_clip(
    path: Path,
    pts: Sequence[int] = tuple(range(40)),
    time_base: Fraction = Fraction(1, 25),
    *,
    codec: str = "libx264",
    container: str | None = None,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 12,
    picture: Callable[[int, tuple[int, int]], NDArray[np.uint8]] = barcode,
    audio: Sequence[tuple[str, int, Fraction]] = (),
    audio_offset: Fraction = Fraction(0),
    container_options: dict[str, str] | None = None,
    streamed: bool = False,
    setup: Callable[[av.VideoStream], None] = lambda stream: None,
    sample_aspect_ratio: Fraction | None = None,
) -> Path:
    """Encode frames 0, 1, 2 … at the timestamps asked (increasing), with audio tracks (codec, rate, seconds).

    `streamed` writes to a pipe, so that nothing can be filled in afterwards (WebM without duration).
    """
    sink = io.BytesIO()
    target = _Pipe(sink) if streamed else str(path)
    with av.open(target, "w", format=container, options=container_options or {}) as out:
        rate = 25 if len(pts) < 2 else Fraction(1) / (Fraction(pts[-1] - pts[0], len(pts) - 1) * time_base)
        stream = out.add_stream(codec, rate=rate.limit_denominator(1001) if isinstance(rate, Fraction) else rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = time_base
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        stream.options = dict(options or {})
        setup(stream)
        tracks = []
        for name, hertz, seconds in audio:
            track = out.add_stream(name, rate=hertz)
            track.codec_context.layout = "mono"
            tracks.append((track, tone(hertz, seconds)))
        for number, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame = frame.reformat(format=pix_fmt, interpolation="BILINEAR")
            frame.pts, frame.time_base, frame.pict_type = at, time_base, 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for track, frames in tracks:
            resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=track.rate)
            for frame in frames:
                frame.pts += int(audio_offset * frame.sample_rate)
                for ready in resampler.resample(frame):
                    out.mux(track.encode(ready))
            out.mux(track.encode(None))
    if streamed:
        path.write_bytes(sink.getvalue())
    return path


class _Pipe:
    """A file object that can only be written to."""

    def __init__(self, sink: io.BytesIO) -> None:
        self.write = sink.write


def cut_with_edit_list(source: Path, path: Path, first: int) -> Path:
    """Cut like `ffmpeg -ss … -c copy`: packets from the keyframe before `first` stay, an edit list hides them."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        packets = [p for p in given.demux(stream) if p.dts is not None]
        shown = sorted(p.pts for p in packets)[first]
        start = max(i for i, p in enumerate(packets) if p.is_keyframe and p.pts <= shown)
        target = out.add_stream_from_template(stream)
        for packet in packets[start:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shown, packet.dts - shown, target
            out.mux(packet)
    return path


def rotate_by_metadata(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) of the display matrix into the first track header of an mp4."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    at = header + (52 if data[header] == 1 else 40)
    a, b, c, d = (v << 16 for v in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Byte position and size of every video packet."""
    with av.open(str(path)) as given:
        return [(p.pos, p.size) for p in given.demux(video=0) if p.size]
