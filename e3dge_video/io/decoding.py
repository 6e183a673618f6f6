"""Decodes one unit of a stream, always from a clean decoder: the same packets give the same frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from e3dge_video.io.index import FrameIndex
from e3dge_video.io.packets import PacketCursor


class UnitDecoder:
    """A decoder over one open file; asked for units in order, it reads on without seeking."""

    def __init__(self, path: Path, index: FrameIndex, threads: int = 1) -> None:
        self._index = index
        self._cursor = PacketCursor(path, index.packets, threads)

    def close(self) -> None:
        """Close the file."""
        self._cursor.close()

    def frames(self, unit: int, units_before: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames of a unit that decode, numbered, in order of display.

        `units_before` starts decoding that many units earlier, for streams whose keyframe is not clean at once.
        """
        start = int(self._index.units[max(unit - units_before, 0), 0])
        stop = int(self._index.units[unit, 1])
        last = unit + 1 == len(self._index.units)
        keep_from = stop if last else int(self._index.units[unit + 1, 0])
        first, end = self._index.unit_frames(unit)
        expected = first
        for number, frame in self._numbered(start, stop, keep_from):
            if expected <= number < end:
                yield number, frame
                expected = number + 1

    def raw(self, unit: int) -> Iterator[av.VideoFrame]:
        """Whatever comes out of the decoder for a unit, in that order."""
        start, stop, _ = (int(value) for value in self._index.units[unit])
        return self._decode(start, stop, stop)

    def _numbered(self, start: int, stop: int, keep_from: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode packets [start, stop) and find the number of each frame; hidden and unknown ones are left out."""
        pts = self._index.pts
        for count, frame in enumerate(self._decode(start, stop, keep_from)):
            if self._index.by_order:
                yield count, frame
            elif frame.pts is not None:
                number = int(np.searchsorted(pts, frame.pts))
                if number < len(pts) and pts[number] == frame.pts:
                    yield number, frame

    def _decode(self, start: int, stop: int, keep_from: int) -> Iterator[av.VideoFrame]:
        fresh = False
        for packet in self._cursor.packets(start, stop, keep_from):
            codec = self._cursor.stream.codec_context  # after the first packet: finding it may reopen the file
            if not fresh:
                codec.flush_buffers()
                fresh = True
            yield from _tolerant(codec, packet)
        yield from _tolerant(self._cursor.stream.codec_context, None)


def _tolerant(codec: av.VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return codec.decode(packet)
    except (FFmpegError, EOFError):  # a damaged packet shows nothing; the frames after it still may
        return []
