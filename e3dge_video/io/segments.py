"""Encodes the frames of one chunk into a *segment*: closed GOPs that join without a seam to those of other chunks.

A segment is a NUT file in bytes (FFmpeg's own container: exact time bases, any codec; `ffplay segment.nut` shows it).
Its timestamps count from its first frame; the time on the source's clock stands in the metadata:

    first_pts, end_pts   when the first frame appears and the last one goes, in ticks (integers)
    time_base            seconds per tick (a fraction)
    delay                frames by which decoding order may run ahead of display order

Every GOP starts at a multiple of `gop` frames of the *video* and is encoded by a fresh encoder with fixed settings and
one thread. So the encoded frames do not depend on how the video was divided into chunks, as long as chunks begin at
multiples of `gop`, nor on the timestamps.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from numpy.typing import NDArray

_BT709, _LIMITED = 1, 1  # AVColorSpace, -Primaries and -TransferCharacteristic alike; AVColorRange


@dataclass(frozen=True)
class H264:
    """Colour video that plays everywhere: 8-bit 4:2:0, BT.709, limited range, tagged as such."""

    crf: int = 18  # quality, lower is better; as good and as large as 17 would be with macroblock tree
    preset: str = "fast"
    gop: int = 16  # frames per closed GOP; 16 costs about 15 % in size over 64, and chunks may be as small


@dataclass(frozen=True)
class LosslessGray16:
    """16-bit grey, kept exactly (FFV1, every frame by itself): depth."""

    gop: int = 1


Encoding = H264 | LosslessGray16


@dataclass(frozen=True)
class EncodedFrame:
    """One packet of a segment, in order of decoding."""

    pts: int  # ticks on the source's clock
    duration: int  # ticks
    keyframe: bool
    data: bytes


@dataclass(frozen=True)
class Segment:
    """What a segment holds."""

    time_base: Fraction
    first_pts: int
    end_pts: int
    delay: int
    frames: tuple[EncodedFrame, ...]  # in order of decoding


def encode_segment(
    frames: NDArray[np.uint8] | NDArray[np.uint16],
    pts: NDArray[np.int64],
    durations: NDArray[np.int64],
    time_base: Fraction,
    encoding: Encoding,
    *,
    first_frame: int = 0,
    rate: Fraction = Fraction(25),
) -> bytes:
    """Encode consecutive frames.

    Args:
        frames: RGB for `H264`, depth codes for `LosslessGray16`. Odd sizes are made even for H.264 by repeating the
            last row or column. [n, H, W, 3] uint8 or [n, H, W] uint16
        pts: When each frame appears, in ticks. [n]
        durations: How long each frame stays, in ticks. [n]
        time_base: Seconds per tick.
        first_frame: Number of the first frame in the whole video; fixes where GOPs begin.
        rate: Nominal frames per second, only for what the stream says about itself; the same for a whole video.
    """
    if not len(frames) == len(pts) == len(durations) > 0:
        raise ValueError(f"{len(frames)} frames with {len(pts)} timestamps and {len(durations)} durations")
    height, width = _encoded_shape(frames, encoding)
    sink = io.BytesIO()
    delay = _delay(encoding)
    with av.open(sink, "w", format="nut", options={"fflags": "+bitexact"}) as out:
        stream: Any = out.add_stream(_codec_name(encoding), rate=rate)
        _configure(stream.codec_context, encoding, width, height, rate)
        stream.time_base = time_base
        out.metadata.update(
            first_pts=str(pts[0]),
            end_pts=str(pts[-1] + durations[-1]),
            time_base=str(time_base),
            delay=str(delay),
        )
        since = [int(value - pts[0]) for value in pts]
        for place, (number, packet) in enumerate(_encode(frames, encoding, width, height, first_frame, rate)):
            packet.stream, packet.time_base = stream, time_base
            # NUT has no negative times: all are moved by `delay` ticks, and back again on reading.
            packet.pts = since[number] + delay
            packet.dts = since[place - delay] + delay if place >= delay else place
            packet.duration = int(durations[number])
            out.mux(packet)
    return sink.getvalue()


def open_segment(data: bytes) -> InputContainer:
    """The segment as FFmpeg sees it; a template for the stream that a file of several segments needs."""
    return av.open(io.BytesIO(data), "r", format="nut")


def read_segment(data: bytes) -> Segment:
    """Take a segment apart."""
    with open_segment(data) as container:
        facts = container.metadata
        stream = container.streams.video[0]
        time_base, delay = Fraction(facts["time_base"]), int(facts["delay"])
        packets = [packet for packet in container.demux(stream) if packet.size]
        ticks = Fraction(stream.time_base or 1) / time_base  # the muxer may have chosen a finer clock
        times = [_exact((packet.pts or 0) * ticks) - delay for packet in packets]
        first, end = int(facts["first_pts"]), int(facts["end_pts"])
        ordered = [*sorted(times), end - first]
        lasts = dict(zip(ordered, np.diff(ordered).tolist(), strict=False))
        return Segment(
            time_base,
            first,
            end,
            delay,
            tuple(
                EncodedFrame(first + time, lasts[time], packet.is_keyframe, bytes(packet))
                for time, packet in zip(times, packets, strict=True)
            ),
        )


def _encode(
    frames: NDArray[np.uint8] | NDArray[np.uint16],
    encoding: Encoding,
    width: int,
    height: int,
    first_frame: int,
    rate: Fraction,
) -> Iterator[tuple[int, av.Packet]]:
    """(place in `frames`, packet) in order of decoding."""
    start = 0
    while start < len(frames):
        stop = min(start + encoding.gop - (first_frame + start) % encoding.gop, len(frames))
        encoder: Any = av.CodecContext.create(_codec_name(encoding), "w")
        _configure(encoder, encoding, width, height, rate)
        encoder.flags |= int(av.codec.context.Flags.global_header)
        for number, picture in enumerate(_pictures(frames[start:stop], encoding)):
            picture.pts, picture.time_base = number, 1 / rate
            for packet in encoder.encode(picture):
                yield start + int(packet.pts), packet
        for packet in encoder.encode(None):
            yield start + int(packet.pts), packet
        start = stop


def _pictures(frames: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> Iterator[av.VideoFrame]:
    """Frames in the encoder's pixel format."""
    if isinstance(encoding, LosslessGray16):
        for frame in frames:
            yield av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray16le")
        return
    height, width = _encoded_shape(frames, encoding)
    padding = ((0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0))
    graph = Graph()
    last = graph.add("buffer", f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/1")
    for name, arguments in (
        ("scale", "in_range=pc:out_range=tv:out_color_matrix=bt709:flags=bicubic+accurate_rnd+full_chroma_int"),
        ("format", "yuv420p"),
        ("buffersink", None),
    ):
        step = graph.add(name, arguments)
        last.link_to(step)
        last = step
    graph.configure()
    for frame in frames:
        padded = np.pad(frame, padding, mode="edge") if any(map(any, padding)) else np.ascontiguousarray(frame)
        graph.push(av.VideoFrame.from_ndarray(padded, format="rgb24"))
        converted: Any = graph.pull()
        yield converted


def _configure(context: av.VideoCodecContext, encoding: Encoding, width: int, height: int, rate: Fraction) -> None:
    context.width, context.height = width, height
    context.framerate, context.time_base = rate, 1 / rate
    context.thread_count = 1  # more threads change the bytes
    if isinstance(encoding, LosslessGray16):
        context.pix_fmt = "gray16le"
        context.options = {"level": "3", "g": "1", "slices": "4", "slicecrc": "1"}
        return
    context.pix_fmt = "yuv420p"
    context.sample_aspect_ratio = Fraction(1)
    context.color_range = _LIMITED
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.options = {
        "crf": str(encoding.crf),
        "preset": encoding.preset,
        "g": str(encoding.gop),
        "bf": "2",
        # A fixed reordering, see `_delay`; and no macroblock tree, whose SIMD code reads memory that nobody wrote at
        # widths that are no multiple of 128: the same frames then give different bytes from run to run.
        "x264-params": "open-gop=0:b-adapt=0:b-pyramid=none:mbtree=0",
    }


def _codec_name(encoding: Encoding) -> str:
    return "ffv1" if isinstance(encoding, LosslessGray16) else "libx264"


def _delay(encoding: Encoding) -> int:
    """With B-frames that are no references, each reference frame is decoded one place early at most."""
    return 0 if isinstance(encoding, LosslessGray16) else 1


def _encoded_shape(frames: NDArray[np.uint8] | NDArray[np.uint16], encoding: Encoding) -> tuple[int, int]:
    """(height, width): even for 4:2:0."""
    height, width = frames.shape[1:3]
    if isinstance(encoding, LosslessGray16):
        return height, width
    return height + height % 2, width + width % 2


def _exact(value: Fraction) -> int:
    if value.denominator != 1:
        raise ValueError(f"a segment's timestamp, {value} ticks, is not whole")
    return value.numerator
