"""Joins segments and sound into the final file, every frame at its exact time.

* mp4 (and mov): the video track counts in the source's own ticks, so every time is exact, also where the video starts
  later than the sound; the index stands in front (`faststart`). Sound is copied, see `audio`.
* mkv: video only. Matroska counts in milliseconds: times are rounded to those unless the source's clock is as coarse,
  and the report says so. Frames keep their order and number.

Decoding times are rebuilt for the whole file: packet k of the file is decoded when frame k - delay is shown. Within a
segment that is what an encoder would do; across segments it is what keeps the times rising. The same input gives the
same bytes.
"""

from __future__ import annotations

import contextlib
import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from e3dge_video.io import atomic
from e3dge_video.io.audio import AudioReport, AudioTrack, TimeWindow
from e3dge_video.io.segments import EncodedFrame, Segment, open_segment, read_segment

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_LARGEST_TIMESCALE = 2**31 - 1


@dataclass(frozen=True)
class MuxReport:
    """What was written."""

    path: Path
    frames: int
    start: Fraction  # when the first frame appears, in seconds on the file's clock
    end: Fraction  # when the last frame goes
    exact_times: bool  # False: rounded to what the container can express (milliseconds in mkv)
    audio: tuple[AudioReport, ...]
    warnings: tuple[str, ...]  # one line each, for the user


def mux(
    path: Path,
    segments: Iterable[bytes | Path],
    *,
    audio: Path | None = None,
    start: Fraction | None = None,
    end: Fraction | None = None,
    origin: Fraction = Fraction(0),
) -> MuxReport:
    """Write the final file, whole or not at all.

    Args:
        path: Ends in .mp4, .m4v, .mov or .mkv.
        segments: In order of time, bytes or files; each is held only while it is written.
        audio: The video file whose sound tracks are taken over, all of them.
        start: Sound before this time is left out, in seconds on the source's clock. None: nothing is.
        end: Sound from this time on is left out.
        origin: The time on the source's clock that becomes zero in the file; 0 keeps the source's times.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: the name must end in one of {', '.join(_FORMATS)}")
    kind = _FORMATS[path.suffix.lower()]
    if audio is not None and kind == "matroska":
        raise ValueError(f"{path}: sound is written to mp4 only")
    queue = _read(segments)
    first_data, first = next(queue, (None, None))
    if first_data is None or first is None:
        raise ValueError(f"{path}: there are no segments to write")
    warnings = []
    if first.first_pts * first.time_base < origin:
        early = origin - first.first_pts * first.time_base
        origin -= early
        warnings.append(f"the video starts before time zero; video and sound were moved by {float(early):.3f} s")
    window = TimeWindow(start, end, origin)
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic.replacing(path))
        template = stack.enter_context(open_segment(first_data)).streams.video[0]
        sounds = _sound_streams(audio)
        clock = Fraction(1, math.lcm(first.time_base.denominator, *([] if origin == 0 else [origin.denominator])))
        options = _options(kind, clock, [rate for _, rate in sounds])
        out = stack.enter_context(av.open(str(temporary), "w", format=kind, options=options))
        video = out.add_stream_from_template(template)
        video.time_base = clock
        tracks = []
        if audio is not None:
            for number, _ in sounds:
                track = AudioTrack(audio, number, out, window)
                tracks.append(stack.enter_context(contextlib.closing(track)))
        out.start_encoding()
        exact = (clock / Fraction(video.time_base or 1)).denominator == 1
        writer = _VideoPackets(video, clock, origin, [first], (segment for _, segment in queue))
        _interleave(out, [iter(writer), *(track.packets() for track in tracks)])
        warnings += [track.note for track in tracks if track.note]
        if not exact:
            warnings.append(f"{path.name}: times are rounded to milliseconds, as mkv counts in them")
        report = MuxReport(
            path,
            writer.frames,
            writer.start,
            writer.end,
            exact,
            tuple(track.report() for track in tracks),
            tuple(warnings),
        )
        out.close()
    return report


class _VideoPackets:
    """The packets of all segments on the file's clock, with decoding times for the file as a whole."""

    def __init__(
        self,
        stream: VideoStream,
        clock: Fraction,
        origin: Fraction,
        first: Sequence[Segment],
        rest: Iterator[Segment],
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._origin = origin
        self._segments = (segment for part in (first, rest) for segment in part)
        self.frames = 0
        self.start = self.end = Fraction(0)

    def __iter__(self) -> Iterator[av.Packet]:
        """The packets; the last one lasts as long as makes the decoding times add up to the length of the video.

        mp4 stores steps in decoding time only, so that is where players find when the last frame goes.
        """
        packets = self._timed()
        last = next(packets)
        first_dts = int(last.dts or 0)
        for packet in packets:
            yield last  # from here on its times are the muxer's
            last = packet
        length = (self.end - self.start) / self._clock
        last.duration = max(1, int(length) - (int(last.dts or 0) - first_dts))
        yield last

    def _timed(self) -> Iterator[av.Packet]:
        due: deque[int] = deque()  # times of frames, in order, at which no packet is decoded yet
        previous: Segment | None = None
        for segment in self._segments:
            self._check(previous, segment)
            times = sorted(self._ticks(frame.pts, segment) for frame in segment.frames)
            if previous is None:
                self.start = segment.first_pts * segment.time_base - self._origin
                ends = [self._ticks(frame.pts + frame.duration, segment) for frame in segment.frames]
                step = int(np.diff([*times, max(ends)]).min())
                due.extend(times[0] - step * ahead for ahead in range(segment.delay, 0, -1))
            due.extend(times)
            for frame in segment.frames:
                yield self._packet(frame, segment, due.popleft())
            previous = segment
            self.frames += len(segment.frames)
            self.end = segment.end_pts * segment.time_base - self._origin

    def _packet(self, frame: EncodedFrame, segment: Segment, dts: int) -> av.Packet:
        packet = av.Packet(frame.data)
        packet.stream, packet.time_base = self._stream, self._clock
        packet.pts, packet.dts = self._ticks(frame.pts, segment), dts
        packet.duration = self._ticks(frame.pts + frame.duration, segment) - packet.pts
        packet.is_keyframe = frame.keyframe
        if packet.dts > packet.pts:
            raise ValueError(f"a frame at {packet.pts} would be decoded at {packet.dts}: wrong delay {segment.delay}")
        return packet

    def _ticks(self, pts: int, segment: Segment) -> int:
        ticks = (pts * segment.time_base - self._origin) / self._clock
        assert ticks.denominator == 1, "the clock is a common divisor of both"
        return ticks.numerator

    def _check(self, previous: Segment | None, segment: Segment) -> None:
        if previous is None:
            return
        if (segment.time_base, segment.delay) != (previous.time_base, previous.delay):
            raise ValueError("the segments are of different encodings or videos")
        if segment.first_pts != previous.end_pts:
            raise ValueError(f"a segment begins at {segment.first_pts}, the one before it ends at {previous.end_pts}")


def _interleave(out: OutputContainer, sources: Sequence[Iterator[av.Packet]]) -> None:
    for packet in heapq.merge(*sources, key=_due):
        out.mux(packet)


def _due(packet: av.Packet) -> Fraction:
    return Fraction(packet.dts or 0) * Fraction(packet.time_base)


def _read(segments: Iterable[bytes | Path]) -> Iterator[tuple[bytes, Segment]]:
    for segment in segments:
        data = segment.read_bytes() if isinstance(segment, Path) else segment
        yield data, read_segment(data)


def _sound_streams(path: Path | None) -> list[tuple[int, int]]:
    """(stream number, samples per second) of every sound track."""
    if path is None:
        return []
    with av.open(f"file:{path}", "r", metadata_errors="replace") as container:
        return [(s.index, s.codec_context.sample_rate if s.codec_context else 0) for s in container.streams.audio]


def _options(kind: str, clock: Fraction, sample_rates: Sequence[int]) -> dict[str, str]:
    options = {"fflags": "+bitexact"}  # no version strings, no random identifiers
    if kind == "matroska":
        return options
    # The movie's clock measures the empty time before a track begins: fine enough for every track.
    common = math.lcm(clock.denominator, *(rate for rate in sample_rates if rate))
    return options | {
        "movflags": "+faststart",
        "use_editlist": "1",
        "video_track_timescale": str(clock.denominator),
        "movie_timescale": str(common if common <= _LARGEST_TIMESCALE else clock.denominator),
    }
