"""What a video file is, before any of it is processed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from e3dge_video.errors import InputError
from e3dge_video.io.colour import Colour, colour_of
from e3dge_video.io.containers import open_video
from e3dge_video.io.display import Display, display_of
from e3dge_video.io.packets import PacketFeed

_BROADCAST_FORMATS = ("mpegts", "mpeg")


@dataclass(frozen=True)
class AudioInfo:
    """One sound track."""

    stream: int  # number of the stream in the file
    codec: str
    sample_rate: int  # Hz
    channels: int
    language: str | None


@dataclass(frozen=True)
class VideoInfo:
    """Format of a video: what the header and the first decoded frame say. Exact counts are in `FrameIndex`."""

    container: str
    codec: str
    pixel_format: str
    display: Display
    colour: Colour
    time_base: Fraction  # seconds per tick
    clock_start: Fraction  # what the file's clock shows when playing begins; not 0 only where clocks start anywhere
    average_rate: Fraction | None  # frames per second, as the header claims
    interlaced: bool
    frame_count: int | None  # as the header claims; None where it does not
    duration: Fraction | None  # seconds, as the header claims
    audio: tuple[AudioInfo, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures as shown."""
        return self.display.size

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report should mention about the format."""
        interlaced = ("interlaced video, shown without deinterlacing",) if self.interlaced else ()
        return (*self.colour.notes, *interlaced)


def check_video(path: Path) -> VideoInfo:
    """Open a video and decode its first frame.

    Raises:
        InputError: The file cannot be used; the message says what it is, what was expected and what to do.
    """
    container, stream = open_video(path)
    with container:
        first = next(decoded(container, stream), None)
        if first is None:
            raise no_frames(path, stream)
        return describe(container, stream, first)


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """All frames that decode, from the current position to the end, stepping over damage."""
    for packet in itertools.chain(PacketFeed(container, stream), [None]):
        try:
            yield from stream.codec_context.decode(packet)
        except (FFmpegError, EOFError):
            continue


def no_frames(path: Path, stream: VideoStream) -> InputError:
    """The error for a file whose picture track is there but useless."""
    return InputError(
        f"{path}: has a {stream.codec_context.name} picture track, but not one of its frames can be decoded; "
        "the file is damaged or cut off, copy or download it again"
    )


def describe(container: InputContainer, stream: VideoStream, first: av.VideoFrame) -> VideoInfo:
    """Collect the facts about a stream whose first frame has been decoded."""
    rate = stream.average_rate
    return VideoInfo(
        container=container.format.name,
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        display=display_of(stream, first),
        colour=colour_of(stream, first),
        time_base=Fraction(stream.time_base or Fraction(1, av.time_base)),
        clock_start=_clock_start(container),
        average_rate=Fraction(rate) if rate else None,
        interlaced=first.interlaced_frame,
        frame_count=stream.frames or None,
        duration=_duration(container, stream),
        audio=tuple(_audio_info(track) for track in container.streams.audio),
    )


def _clock_start(container: InputContainer) -> Fraction:
    """Broadcast streams carry a clock that may have run for hours; elsewhere a late start is meant."""
    if container.format.name not in _BROADCAST_FORMATS:
        return Fraction(0)
    starts = [
        stream.start_time * Fraction(stream.time_base)
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base
    ]
    return min(starts, default=Fraction(0))


def _duration(container: InputContainer, stream: VideoStream) -> Fraction | None:
    if stream.duration and stream.time_base:
        return stream.duration * Fraction(stream.time_base)
    return Fraction(container.duration, av.time_base) if container.duration else None


def _audio_info(track: AudioStream) -> AudioInfo:
    context = track.codec_context
    if context is None:  # no decoder; the packets may still be copied
        return AudioInfo(track.index, "unknown", 0, 0, track.language)
    return AudioInfo(track.index, context.name, context.sample_rate, context.channels, track.language)
