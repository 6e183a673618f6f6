"""The packets of a video stream: a table of all of them, and a cursor that finds any of them again for certain.

Seeking in a video file is a request, not a command: MPEG-TS lands anywhere, edit lists shift what a timestamp means,
damaged files do what they like. So a seek here counts only once the packet that came out is *recognised* in the table;
otherwise the cursor aims earlier, and at last reads from the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from e3dge_video.errors import InputError
from e3dge_video.io.containers import open_video

UNKNOWN = np.iinfo(np.int64).min  # a timestamp or position the container does not give
_STUCK_AFTER = 10_000  # consecutive read errors after which a demuxer is taken to be going nowhere
_NEAR = 32  # packets that are read through rather than sought over


@dataclass(frozen=True)
class PacketTable:
    """All packets of one stream in the order of the file, which is decoding order. Letters: P packets."""

    pts: NDArray[np.int64]  # presentation time in ticks of the stream's time base [P]
    dts: NDArray[np.int64]  # decoding time [P]
    pos: NDArray[np.int64]  # byte position in the file [P]
    size: NDArray[np.int64]  # bytes [P]
    duration: NDArray[np.int64]  # ticks, 0 where unknown [P]
    keyframe: NDArray[np.bool_]  # [P]
    hidden: NDArray[np.bool_]  # to be decoded but not shown (edit lists) [P]
    damaged: bool  # the demuxer met unreadable places or an incomplete packet

    def __len__(self) -> int:
        return len(self.pts)


def read_table(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Demux a stream from the start to the end."""
    rows = []
    feed = PacketFeed(container, stream)
    damaged = False
    for packet in feed:
        damaged |= packet.is_corrupt
        flags = (packet.is_keyframe, packet.is_discard)
        rows.append((*_stamps(packet), packet.duration or 0, *flags))
    columns = np.array(rows, np.int64).reshape(-1, 7).T
    pts, dts, pos, size, duration, keyframe, hidden = columns
    return PacketTable(
        pts, dts, pos, size, duration, keyframe.astype(bool), hidden.astype(bool), damaged or feed.errors > 0
    )


class PacketFeed:
    """Iterates over the packets of one stream, stepping over unreadable places, without the empty flush packet.

    A damaged or cut file gives the packets that can be read, always the same ones in the same order.
    """

    def __init__(self, container: InputContainer, stream: av.stream.Stream) -> None:
        self.errors = 0
        self._container = container
        self._stream = stream

    def __iter__(self) -> Iterator[av.Packet]:
        stuck = 0
        while stuck < _STUCK_AFTER:
            try:
                for packet in self._container.demux(self._stream):
                    stuck = 0
                    if packet.size:
                        yield packet
                return
            except (FFmpegError, OSError):
                self.errors += 1
                stuck += 1


def _stamps(packet: av.Packet) -> tuple[int, int, int, int]:
    """(pts, dts, position, size) of a packet."""
    pts, dts, pos = (UNKNOWN if value is None else int(value) for value in (packet.pts, packet.dts, packet.pos))
    return pts, dts, pos, int(packet.size)


def _identity(pts: int, dts: int, pos: int, size: int) -> tuple[int, ...]:
    """What distinguishes a packet from all others: its place in the file, or else its times."""
    return (pos, size) if pos != UNKNOWN and pos >= 0 else (pts, dts, size)


class PacketCursor:
    """Delivers any span of packets by number; consecutive spans are read on without seeking."""

    def __init__(self, path: Path, table: PacketTable, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self._table = table
        self._stamps = np.stack([table.pts, table.dts, table.pos, table.size], axis=1)  # [P, 4]
        self._numbers: dict[tuple[int, ...], int] | None = None
        self._kept: dict[int, av.Packet] = {}
        self._container: InputContainer | None = None
        self.stream = self._open()

    def close(self) -> None:
        """Close the file."""
        self._kept.clear()
        if self._container is not None:
            self._container.close()
            self._container = None

    def packets(self, start: int, stop: int, keep_from: int) -> Iterator[av.Packet]:
        """Packets [start, stop). Those from `keep_from` on are remembered, as the next span begins there."""
        if start not in self._kept or max(self._kept) + 1 != self._next:
            # Remembered packets serve only what is read on: a seek amid the span would reset the decoder.
            self._kept = {}
        for number in range(start, stop):
            packet = self._kept.get(number)
            if packet is None:
                self._go_to(number)
                packet = self._take()
            if number >= keep_from:
                self._kept[number] = packet
            else:
                self._kept.pop(number, None)
            yield packet

    def _open(self) -> VideoStream:
        self.close()
        self._container, stream = open_video(self._path, self._threads)
        self._feed = iter(PacketFeed(self._container, stream))
        self._next = 0
        self._sought = False
        self.stream = stream
        return stream

    def _take(self) -> av.Packet:
        """The next packet, with the times that the table knows."""
        packet = next(self._feed, None)
        if packet is not None and _identity(*_stamps(packet)) != _identity(*self._stamps[self._next].tolist()):
            packet = self._take_from_start() if self._sought else None
        if packet is None:
            raise InputError(f"{self._path}: ends before the frames found in it earlier; was it changed meanwhile?")
        # After a seek a demuxer may guess times that the container does not store (AVI) differently.
        packet.pts, packet.dts = (_known(stamps[self._next]) for stamps in (self._table.pts, self._table.dts))
        self._next += 1
        return packet

    def _take_from_start(self) -> av.Packet | None:
        """The next packet once more, after the packets behind a seek have turned out not to be those of the table."""
        number = self._next
        self._open()
        while self._next < number:
            self._take()
        return next(self._feed, None)

    def _go_to(self, number: int) -> None:
        """Arrange that the next packet taken is `number`."""
        keyframe_between = self._table.keyframe[self._next + 1 : number + 1].any()
        if self._next > number or (keyframe_between and number - self._next > _NEAR):
            self._jump(number)
        while self._next < number:
            self._take()

    def _jump(self, number: int) -> None:
        """Land on packet `number` or, for certain, before it."""
        earlier = np.flatnonzero(self._table.keyframe[: number + 1])[::-1]
        for target in earlier[:4]:
            if self._seek(int(target)) and self._next <= number:
                return
        self._open()

    def _seek(self, target: int) -> bool:
        """Ask the demuxer for a packet; tell whether it is known where it landed."""
        stamps = [int(s[target]) for s in (self._table.pts, self._table.dts) if s[target] != UNKNOWN]
        if not stamps or self._container is None:
            return False
        try:
            self._container.seek(min(stamps), stream=self.stream, backward=True)
        except (FFmpegError, OSError):
            return False
        self._feed = iter(PacketFeed(self._container, self.stream))
        # The first packets after a jump into the middle of a transport stream may be fragments.
        for packet in itertools.islice(self._feed, _NEAR):
            number = self._number_of(packet)
            if number is not None:
                self._next, self._sought = number, True
                self._feed = itertools.chain([packet], self._feed)
                return True
        return False

    def _number_of(self, packet: av.Packet) -> int | None:
        if self._numbers is None:
            identities = [_identity(*row) for row in self._stamps.tolist()]
            self._numbers = {identity: number for number, identity in enumerate(identities)}
            for number, identity in enumerate(identities):  # packets that look alike prove nothing
                if self._numbers.get(identity, number) != number:
                    del self._numbers[identity]
        return self._numbers.get(_identity(*_stamps(packet)))


def _known(stamp: np.int64) -> int | None:
    return None if stamp == UNKNOWN else int(stamp)
