"""Builds the frame index of a file.

The packets are listed once without decoding (a few milliseconds for a clip). Then the beginning is decoded to see
whether the list keeps its promise. It does not for field-coded video in transport streams, codecs with invisible
frames, or containers without display times; such a stream is decoded once from start to end and the frames that came
out *are* the index. A cut or damaged file is also checked at its end, and loses the frames there that do not decode.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from e3dge_video.errors import InputError
from e3dge_video.io.containers import open_video
from e3dge_video.io.decoding import UnitDecoder
from e3dge_video.io.index import FrameIndex, plan_units
from e3dge_video.io.info import VideoInfo, check_video, no_frames
from e3dge_video.io.packets import UNKNOWN, PacketFeed, PacketTable, read_table

logger = logging.getLogger(__name__)

_PROBED_FRAMES = 48  # decoded at the beginning to test the packet list
_LONGEST_LAST_FRAME_S = 10  # headers that claim more are taken to be wrong


def build_index(path: Path, *, decode_all: bool = False) -> FrameIndex:
    """List the frames a video shows.

    Args:
        path: A video file.
        decode_all: Decode the whole stream now, so that frames which do not decode are left out of the index instead
            of being found out (and held over from the frame before) when they are read.

    Raises:
        InputError: The file cannot be used; the message says why and what to do.
    """
    info = check_video(path)
    container, stream = open_video(path)
    with container:
        table = read_table(container, stream)
        end = _claimed_end(container, stream)
    index = None if decode_all else _from_packets(path, info, table)
    if index is None:
        logger.info("%s: decoding the whole stream once to find its frames", path)
        index = _from_decoding(path, info, table)
    if end is not None and not table.damaged and 0 < end - index.pts[-1] <= _LONGEST_LAST_FRAME_S / info.time_base:
        index = replace(index, last_duration=int(end - index.pts[-1]))
    return _with_losses(path, index)


def _claimed_end(container: InputContainer, stream: VideoStream) -> int | None:
    """When the last frame goes, in ticks, where the header says so.

    In mp4 the durations of single packets are steps in decoding time: with B-frames not those of the display.
    """
    if "mp4" not in container.format.name or stream.start_time is None or not stream.duration:
        return None
    return int(stream.start_time + stream.duration)


def _from_packets(path: Path, info: VideoInfo, table: PacketTable) -> FrameIndex | None:
    """The index as the container tells it, or None if the decoder tells otherwise."""
    shown = np.flatnonzero(~table.hidden)
    if not len(shown) or (table.pts == UNKNOWN).any() or not table.keyframe.any():
        return None
    pts, first_of = np.unique(table.pts[shown], return_index=True)  # of equal times only one frame can be seen
    shown = shown[first_of]
    decodable = shown >= np.flatnonzero(table.keyframe)[0]
    if not decodable.any():
        return None
    index = _assemble(path, info, table, shown[decodable], pts[decodable], by_order=False)
    index = replace(index, lost=int((~decodable).sum()))
    return _agreed(path, index)


def _agreed(path: Path, index: FrameIndex) -> FrameIndex | None:
    """Decode the beginning; drop undecodable frames before the first that shows, give up on any other difference."""
    _, stop = index.unit_frames(0)
    limit = int(index.pts[stop - 1])
    with contextlib.closing(UnitDecoder(path, index)) as decoder:
        # An open GOP's last packet is the next unit's keyframe: not counted here.
        out = (f.pts for f in decoder.raw(0) if f.pts is None or f.pts <= limit)
        seen = list(itertools.islice(out, min(_PROBED_FRAMES, stop)))
    if not seen or None in seen:
        return None
    lead = int(np.searchsorted(index.pts, seen[0] or 0))
    promised = index.pts[lead : min(lead + _PROBED_FRAMES, stop)]
    return _trimmed(index, lead, len(index)) if promised.tolist() == seen else None


def _from_decoding(path: Path, info: VideoInfo, table: PacketTable) -> FrameIndex:
    """The index as the decoder tells it."""
    times: list[int | None] = []
    ends = []
    errors = 0
    container, stream = open_video(path)
    with container:
        for sent, packet in enumerate(itertools.chain(PacketFeed(container, stream), [None]), 1):
            try:
                frames = stream.codec_context.decode(packet)
            except (FFmpegError, EOFError):
                errors += 1
                continue
            times += [frame.pts for frame in frames]
            ends += [min(sent, len(table))] * len(frames)
        if not times:
            raise no_frames(path, stream)
    known = [time for time in times if time is not None]
    ordered = len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known))
    # Where the display times are wrong or missing, frames are counted, which only works from the start.
    pts = np.array(known if ordered else _times_by_order(known, len(times), info, table), np.int64)
    stops = np.array(ends, np.int64)
    if ordered:
        timed = replace(table, keyframe=table.keyframe & (table.pts != UNKNOWN))
        index = _assemble(path, info, timed, stops - 1, pts, by_order=False, ends=stops)
    else:
        index = _assemble(path, info, table, np.zeros_like(stops), pts, by_order=True, ends=stops)
    return replace(index, lost=errors)


def _times_by_order(known: list[int], count: int, info: VideoInfo, table: PacketTable) -> list[int]:
    """Display times for frames whose own are wrong: the same times in order, else decoding times, else the rate."""
    for times in (sorted(set(known)), np.unique(table.dts[table.dts != UNKNOWN]).tolist()):
        if len(times) >= count:
            return times[:count]
    step = 1 / (info.average_rate or Fraction(25)) / info.time_base
    return [round(number * step) for number in range(count)]


def _assemble(
    path: Path,
    info: VideoInfo,
    table: PacketTable,
    shown: NDArray[np.int64],
    pts: NDArray[np.int64],
    *,
    by_order: bool,
    ends: NDArray[np.int64] | None = None,
) -> FrameIndex:
    duration = int(table.duration[shown[-1]])
    if duration <= 0 or by_order:
        nominal = 1 / (info.average_rate or Fraction(25)) / info.time_base
        duration = int(pts[-1] - pts[-2]) if len(pts) > 1 else max(1, round(nominal))
    return FrameIndex(
        info=info,
        pts=pts,
        last_duration=duration,
        units=plan_units(table, shown, pts, shown + 1 if ends is None else ends),
        packets=table,
        by_order=by_order,
        lost=0,
        notes=info.notes,
        file_size=path.stat().st_size,
    )


def _with_losses(path: Path, index: FrameIndex) -> FrameIndex:
    """Drop frames at the end of a damaged file that do not decode, and say what is missing."""
    if index.packets.damaged and not index.by_order:
        last_good = -1
        with contextlib.closing(UnitDecoder(path, index)) as decoder:
            for unit in reversed(range(len(index.units))):
                last_good = max((number for number, _ in decoder.frames(unit)), default=-1)
                if last_good >= 0:
                    break
        if last_good < 0:
            raise InputError(f"{path}: none of its {len(index)} frames can be decoded; copy or download it again")
        index = _trimmed(index, 0, last_good + 1)
        claimed = index.info.frame_count or 0
        unread = max(0, claimed - len(index.packets))  # packets the header lists but the file no longer holds
        index = replace(index, lost=index.lost + unread)
    if not index.lost and not index.packets.damaged:
        return index
    note = f"damaged or cut off: {len(index)} frames can be read"
    if index.lost:
        note += f", {index.lost} of {len(index) + index.lost} are lost"
    return replace(index, notes=(*index.notes, note))


def _trimmed(index: FrameIndex, first: int, stop: int) -> FrameIndex:
    """The index without the frames outside [first, stop)."""
    if (first, stop) == (0, len(index)):
        return index
    units = index.units.copy()
    units[:, 2] = np.maximum(units[:, 2] - first, 0)
    ends = np.append(units[1:, 2], len(index) - first)
    units = units[(ends > units[:, 2]) & (units[:, 2] < stop - first)]
    return replace(
        index,
        pts=index.pts[first:stop],
        units=units,
        last_duration=int(index.durations[stop - 1]),
        lost=index.lost + len(index) - (stop - first),
    )
