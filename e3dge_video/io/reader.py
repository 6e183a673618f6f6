"""Reads frames by number: exact, repeatable, and without a seek when the numbers follow each other.

`read(a, b)` gives the same pictures whatever was read before, on whichever machine and in whatever chunks, because
every unit of the index is decoded from a clean decoder. Frames that do not come out well follow one rule, applied to
each frame alone:

* bad frames at the head of a unit (its keyframe is not clean: gradual refresh, damage) are decoded again from one and
  then two units earlier, and the first clean result is taken, else the first result of any kind;
* a frame the decoder marks as damaged is shown and reported as `CORRUPT`;
* a frame that does not come out at all shows the last one before it that does (or, at the start of the video, the
  first one after it) and is reported as `LOST`: numbers and times never shift.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import InputError
from e3dge_video.io.colour import PictureConverter
from e3dge_video.io.decoding import UnitDecoder
from e3dge_video.io.index import FrameIndex
from e3dge_video.io.indexing import build_index
from e3dge_video.io.info import VideoInfo

OK, CORRUPT, LOST = 0, 1, 2
_EARLIER_UNITS = (1, 2)  # tried in turn when a unit does not begin cleanly


@dataclass(frozen=True)
class Frame:
    """One frame as it is shown."""

    number: int
    rgb: NDArray[np.uint8]  # [H, W, 3]
    pts: int  # ticks of the index's time base
    status: int  # OK, CORRUPT or LOST


@dataclass(frozen=True)
class Frames:
    """Consecutive frames as they are shown. Letters: n frames."""

    first: int
    rgb: NDArray[np.uint8]  # [n, H, W, 3]
    pts: NDArray[np.int64]  # ticks [n]
    time_base: Fraction  # seconds per tick
    status: NDArray[np.uint8]  # OK, CORRUPT or LOST [n]

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> list[Fraction]:
        """When each frame appears, in seconds on the file's own clock."""
        return [int(pts) * self.time_base for pts in self.pts]


class VideoReader:
    """Random access to the frames of one video, upright, with square pixels, in RGB."""

    def __init__(self, path: Path, index: FrameIndex | None = None, *, threads: int = 1) -> None:
        """Open a video.

        Args:
            path: A video file.
            index: Its frame index, if built before; workers get it from whoever built it.
            threads: Decoder threads. On undamaged files the number makes no difference to the pictures.
        """
        self.path = path
        self.index = build_index(path) if index is None else index
        if index is not None and path.exists() and path.stat().st_size != index.file_size:
            raise InputError(f"{path}: has changed since its frames were listed; start over with the new file")
        self._threads = threads
        self._decoder = UnitDecoder(path, self.index, threads)
        self._convert = PictureConverter(self.info.colour, self.info.display)
        self._unit = -1  # whose frames `_stream` gives
        self._stream: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._ahead: tuple[int, av.VideoFrame] | None = None  # taken from the stream but not yet asked for
        self._next = 0  # every frame of the unit before this one has been passed
        self._head_bad = True  # no clean frame of the unit has been seen yet

    @property
    def info(self) -> VideoInfo:
        """Size, colour, sound tracks and other facts about the file."""
        return self.index.info

    def __len__(self) -> int:
        return len(self.index)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._unit = -1
        self._decoder.close()

    def read(self, start: int, stop: int) -> Frames:
        """Frames [start, stop)."""
        width, height = self.info.size
        rgb = np.empty((max(stop - start, 0), height, width, 3), np.uint8)
        status = np.zeros(len(rgb), np.uint8)
        for place, frame in enumerate(self.iterate(start, stop)):
            rgb[place], status[place] = frame.rgb, frame.status
        return Frames(start, rgb, self.index.pts[start:stop].copy(), self.index.time_base, status)

    def iterate(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames [start, stop) one at a time, for callers who keep only a part of each."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"frames {start} to {stop} of {self.path}, which has {len(self)}")
        last: Frame | None = None
        for number, picture, status in self._pictures(start, stop):
            if picture is not None:
                rgb = self._convert(picture)
            else:
                rgb = last.rgb if last is not None else self._stand_in(number)
            last = Frame(number, rgb, int(self.index.pts[number]), status)
            yield last

    def _pictures(self, start: int, stop: int) -> Iterator[tuple[int, av.VideoFrame | None, int]]:
        """(number, decoded frame or None, status) for every number in [start, stop)."""
        while start < stop:
            unit = self.index.unit_of(start)
            end = min(stop, self.index.unit_frames(unit)[1])
            yield from self._unit_pictures(unit, start, end)
            start = end

    def _unit_pictures(self, unit: int, start: int, stop: int) -> Iterator[tuple[int, av.VideoFrame | None, int]]:
        """The same within one unit."""
        if unit != self._unit or start < self._next:
            self._unit, self._stream = unit, self._decoder.frames(unit)
            self._ahead, self._next, self._head_bad = None, self.index.unit_frames(unit)[0], True
        head: dict[int, av.VideoFrame | None] = {}  # frames seen so far if none of the unit was clean
        for number in range(self._next, stop):
            picture = self._advance(number)
            self._next = number + 1
            clean = picture is not None and not picture.is_corrupt
            if self._head_bad and not clean:
                if number >= start:
                    head[number] = picture
                continue
            self._head_bad = False
            yield from self._mended(unit, head)
            head = {}
            if number >= start:
                yield number, picture, _status(picture)
        yield from self._mended(unit, head)

    def _advance(self, number: int) -> av.VideoFrame | None:
        """The picture of a frame if the stream has it."""
        if self._ahead is None:
            self._ahead = next(self._stream, None)
        if self._ahead is None or self._ahead[0] != number:
            return None
        picture = self._ahead[1]
        self._ahead = None
        return picture

    def _mended(
        self, unit: int, head: dict[int, av.VideoFrame | None]
    ) -> Iterator[tuple[int, av.VideoFrame | None, int]]:
        """Bad frames at the head of a unit, decoded again from earlier units where that helps."""
        if head and unit > 0:
            # A second file handle leaves the reader's own place alone.
            with contextlib.closing(UnitDecoder(self.path, self.index, self._threads)) as decoder:
                for earlier in _EARLIER_UNITS[:unit]:
                    wanted = [n for n, picture in head.items() if picture is None or picture.is_corrupt]
                    if not wanted:
                        break
                    for number, picture in decoder.frames(unit, earlier):
                        if number in wanted and (head[number] is None or not picture.is_corrupt):
                            head[number] = picture
                        if number >= wanted[-1]:
                            break
        for number, best in head.items():
            yield number, best, _status(best)

    def _stand_in(self, number: int) -> NDArray[np.uint8]:
        """What a lost frame shows: the last frame before it that decodes, else the first after it. [H, W, 3]"""
        with VideoReader(self.path, self.index, threads=self._threads) as other:
            stop = number
            while stop > 0:
                first = self.index.unit_frames(self.index.unit_of(stop - 1))[0]
                found = None
                for _, picture, _ in other._pictures(first, stop):
                    found = picture or found
                if found is not None:
                    return self._convert(found)
                stop = first
            for _, picture, _ in other._pictures(number, len(self)):
                if picture is not None:
                    return self._convert(picture)
        raise InputError(f"{self.path}: none of its frames can be decoded any more; was it changed meanwhile?")


def _status(picture: av.VideoFrame | None) -> int:
    if picture is None:
        return LOST
    return CORRUPT if picture.is_corrupt else OK
