"""Sound tracks of a source for the final file: copied packet by packet, or converted where the container refuses.

Copied means: the same bytes at the same times. Only a codec that the container cannot hold (mu-law telephone sound,
WMA, AMR … in mp4) is converted, to AAC, and the report says so. Sound in ADTS framing (MPEG-TS) loses that framing, as
mp4 has its own; the AAC frames inside stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError

from e3dge_video.io.packets import PacketFeed

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz
_AAC_BITS_PER_CHANNEL = 96_000  # per second
_MOST_CHANNELS = 8


@dataclass(frozen=True)
class TimeWindow:
    """The part of the source that is written, and where its clock is set to zero, in seconds of the source's clock."""

    start: Fraction | None = None  # None: from the beginning
    end: Fraction | None = None  # None: to the end
    origin: Fraction = Fraction(0)

    def touches(self, start: Fraction, end: Fraction) -> bool:
        """Whether something that sounds from `start` to `end` is heard in the window."""
        return (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(frozen=True)
class AudioReport:
    """What became of one sound track."""

    stream: int  # its number in the source
    codec: str
    copied: bool  # packets unchanged; otherwise converted to AAC, or left out if `packets` is 0
    packets: int
    dropped: int  # damaged packets that were left out


class AudioTrack:
    """One sound track on its way from the source to the output."""

    def __init__(self, source: Path, stream: int, out: OutputContainer, window: TimeWindow) -> None:
        """Open the source for this track alone and add a stream to the output."""
        self._container = av.open(f"file:{source}", "r", metadata_errors="replace")
        track = self._container.streams[stream]
        assert isinstance(track, AudioStream)
        self._source = track
        self._window = window
        self._packets = 0
        self._dropped = 0
        self.codec = track.codec_context.name if track.codec_context else "unknown"
        self._copied = track.codec_context is not None
        self._out: AudioStream | None = None
        if track.codec_context is not None:
            try:
                self._out = out.add_stream_from_template(track)
            except ValueError:  # the container cannot hold this codec
                self._out = _aac_stream(out, track)
                self._copied = False
        if self._out is not None and track.language:
            self._out.metadata["language"] = track.language

    def close(self) -> None:
        """Close the source."""
        self._container.close()

    def report(self) -> AudioReport:
        """What became of the track, once all its packets are written."""
        return AudioReport(self._source.index, self.codec, self._copied, self._packets, self._dropped)

    @property
    def note(self) -> str | None:
        """One line for the user if the track is not simply copied."""
        name = f"sound track {self._source.index} ({self.codec})"
        if self._out is None:
            return f"{name} left out: the output format cannot hold it and this FFmpeg build cannot decode it"
        if not self._copied:
            return f"{name} converted to AAC: the output format cannot hold it"
        if self._dropped:
            return f"{name}: {self._dropped} damaged packets left out"
        return None

    def packets(self) -> Iterator[av.Packet]:
        """Packets for the output, in order of time, moved to the output's clock."""
        if self._out is None:
            return
        source = self._copies() if self._copied else self._conversions(self._out)
        last = None
        for packet in source:
            packet.stream = self._out
            stamp = packet.dts
            if stamp is None or (last is not None and stamp <= last):
                self._dropped += 1  # players stop at time running backwards, and muxers refuse it
                continue
            last = stamp
            self._packets += 1
            yield packet

    def _copies(self) -> Iterator[av.Packet]:
        out = self._out
        assert out is not None
        clock = Fraction(out.time_base or self._source.time_base or 1)  # the header is written: this is final
        for packet in PacketFeed(self._container, self._source):
            base = Fraction(packet.time_base)
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.is_corrupt or stamp is None:
                self._dropped += 1
                continue
            start = stamp * base
            if not self._window.touches(start, start + (packet.duration or 1) * base):
                continue
            dts = stamp if packet.dts is None else packet.dts
            packet.time_base = clock
            packet.pts = round((start - self._window.origin) / clock)
            packet.dts = round((dts * base - self._window.origin) / clock)
            packet.duration = round((packet.duration or 0) * base / clock)
            yield packet

    def _conversions(self, out: AudioStream) -> Iterator[av.Packet]:
        rate = out.codec_context.sample_rate
        resampler = av.AudioResampler(format="fltp", layout=out.codec_context.layout, rate=rate)
        position: int | None = None  # of the next sample on the output's clock
        for packet in PacketFeed(self._container, self._source):
            for frame in _decode(self._source, packet):
                start = Fraction(frame.pts or 0) * Fraction(frame.time_base or 1)
                if not self._window.touches(start, start + Fraction(frame.samples, frame.sample_rate)):
                    continue
                if position is None:
                    position = round((start - self._window.origin) * rate)
                frame.pts = None
                for ready in resampler.resample(frame):
                    ready.pts, ready.time_base = position, Fraction(1, rate)
                    position += ready.samples
                    yield from out.encode(ready)
        yield from out.encode(None)


def _decode(stream: AudioStream, packet: av.Packet) -> list[av.AudioFrame]:
    try:
        return stream.codec_context.decode(packet)
    except (FFmpegError, EOFError):
        return []


def _aac_stream(out: OutputContainer, source: AudioStream) -> AudioStream:
    given = source.codec_context
    rate = min(_AAC_RATES, key=lambda candidate: (candidate < given.sample_rate, abs(candidate - given.sample_rate)))
    stream = out.add_stream("aac", rate=rate)
    stream.codec_context.layout = given.layout if given.channels <= _MOST_CHANNELS else "stereo"
    stream.codec_context.bit_rate = _AAC_BITS_PER_CHANNEL * min(given.channels, _MOST_CHANNELS)
    stream.codec_context.thread_count = 1
    return stream
