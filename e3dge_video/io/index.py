"""The frame index: which frames a video shows, when, and from where each can be decoded.

A frame is addressed by its number in order of display; its time is `pts × time_base`. The stream is divided into
*units*, runs of frames that decode from one keyframe without knowing anything before it. A unit's packets reach from
its keyframe to the last packet that shows one of its frames; where a GOP is open, that includes the next keyframe,
which then belongs to two units. So what a unit shows is a function of its packets alone, and a frame is the same
picture whatever was decoded before it.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e3dge_video.io.colour import Colour
from e3dge_video.io.display import Display
from e3dge_video.io.info import AudioInfo, VideoInfo
from e3dge_video.io.packets import PacketTable

_FORMAT = 1  # of the serialised form


@dataclass(frozen=True)
class FrameIndex:
    """All frames of a video in order of display. Letters: N frames, U units, P packets."""

    info: VideoInfo
    pts: NDArray[np.int64]  # strictly increasing, in ticks [N]
    last_duration: int  # how long the last frame stays, in ticks
    units: NDArray[np.int64]  # first packet, end packet, first frame of each unit [U, 3]
    packets: PacketTable
    by_order: bool  # the file has no usable timestamps: frames are counted as they come out of the decoder
    lost: int  # frames the file promises (or once held) that are not among the N
    notes: tuple[str, ...]  # what a report should mention
    file_size: int  # bytes, to notice an index of another file

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return self.info.time_base

    @property
    def durations(self) -> NDArray[np.int64]:
        """How long each frame stays on the screen, in ticks. [N]"""
        return np.append(np.diff(self.pts), self.last_duration)

    @property
    def start(self) -> Fraction:
        """When the first frame appears, in seconds."""
        return self.time(0)

    @property
    def end(self) -> Fraction:
        """When the last frame goes, in seconds."""
        return (int(self.pts[-1]) + self.last_duration) * self.time_base

    @property
    def rate(self) -> Fraction:
        """Mean frames per second, a description only: times come from `time`."""
        return len(self) / (self.end - self.start)

    def time(self, frame: int) -> Fraction:
        """When a frame appears, in seconds on the file's own clock."""
        return int(self.pts[frame]) * self.time_base

    def span(self, start: Fraction | None, end: Fraction | None) -> tuple[int, int]:
        """Frames [first, stop) that appear in the time [start, end), in seconds on the file's own clock."""
        first = 0 if start is None else int(np.searchsorted(self.pts, _ceil(start / self.time_base)))
        stop = len(self) if end is None else int(np.searchsorted(self.pts, _ceil(end / self.time_base)))
        return first, max(first, stop)

    def unit_of(self, frame: int) -> int:
        """The unit that shows a frame."""
        return int(np.searchsorted(self.units[:, 2], frame, "right")) - 1

    def unit_frames(self, unit: int) -> tuple[int, int]:
        """Frames [first, stop) of a unit."""
        stop = len(self) if unit + 1 == len(self.units) else int(self.units[unit + 1, 2])
        return int(self.units[unit, 2]), stop

    def to_bytes(self) -> bytes:
        """Serialise (npz, no pickle); equal indexes give equal bytes."""
        facts = {
            "format": _FORMAT,
            "info": asdict(self.info),
            "last_duration": self.last_duration,
            "by_order": self.by_order,
            "lost": self.lost,
            "notes": self.notes,
            "file_size": self.file_size,
            "damaged": self.packets.damaged,
        }
        table = self.packets
        sink = io.BytesIO()
        np.savez_compressed(
            sink,
            facts=np.frombuffer(json.dumps(facts, default=str, sort_keys=True).encode(), np.uint8),
            pts=self.pts,
            units=self.units,
            packets=np.stack([table.pts, table.dts, table.pos, table.size, table.duration]),
            flags=np.stack([table.keyframe, table.hidden]),
        )
        return sink.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> FrameIndex:
        """The inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["format"] != _FORMAT:
                raise ValueError(f"frame index of format {facts['format']}, expected {_FORMAT}; build it again")
            pts, dts, pos, size, duration = arrays["packets"]
            keyframe, hidden = arrays["flags"]
            table = PacketTable(pts, dts, pos, size, duration, keyframe, hidden, facts["damaged"])
            return FrameIndex(
                _info_from_json(facts["info"]),
                arrays["pts"],
                facts["last_duration"],
                arrays["units"],
                table,
                facts["by_order"],
                facts["lost"],
                tuple(facts["notes"]),
                facts["file_size"],
            )


def plan_units(
    table: PacketTable, shown: NDArray[np.int64], pts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Divide frames into units that decode by themselves.

    Args:
        shown: Packet that carries each frame, in order of display. [N]
        pts: Timestamps of the frames, increasing. [N]
        ends: Packet up to which (exclusively) decoding must go to see each frame. [N]

    Returns:
        First packet, end packet, first frame of each unit. [U, 3]
    """
    keys = np.flatnonzero(table.keyframe)
    if not len(keys) or keys[0] > 0:
        keys = np.append(0, keys)
    # A frame's unit begins at the last keyframe that is neither decoded after it nor shown after it: frames shown
    # before the keyframe that precedes them in the file (open GOP) need the keyframe before that.
    entry = np.searchsorted(keys, shown, "right") - 1
    while (late := (entry > 0) & (table.pts[keys[entry]] > pts)).any():
        entry = entry - late
    # Frames shown later never begin earlier.
    entry = np.minimum.accumulate(entry[::-1])[::-1]
    used, first_frames = np.unique(entry, return_index=True)
    stops = np.maximum.reduceat(ends, first_frames)
    return np.stack([keys[used], stops, first_frames], axis=1).astype(np.int64)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _info_from_json(facts: dict[str, Any]) -> VideoInfo:
    def fraction(value: str | None) -> Fraction | None:
        return None if value is None else Fraction(value)

    display, colour = facts["display"], facts["colour"]
    sizes = {key: tuple(display[key]) for key in ("coded_size", "square_size")}
    aspect = Fraction(display["sample_aspect_ratio"])
    return VideoInfo(
        **{
            **facts,
            "display": Display(**{**display, **sizes, "sample_aspect_ratio": aspect}),
            "colour": Colour(**{**colour, "notes": tuple(colour["notes"])}),
            "time_base": Fraction(facts["time_base"]),
            "clock_start": Fraction(facts["clock_start"]),
            "average_rate": fraction(facts["average_rate"]),
            "duration": fraction(facts["duration"]),
            "audio": tuple(AudioInfo(**track) for track in facts["audio"]),
        }
    )
