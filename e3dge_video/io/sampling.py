"""A few frames from anywhere in a video: contact sheets, a look into a data set.

decord serves such scattered requests with a small interface and is tried first where it can be trusted: plain mp4 or
mkv, every packet shown, 8-bit SDR with square upright pixels. It runs in a process of its own, because it reads ahead
without bound and can spin forever on files that promise too many frames; and its answer counts only if the number of
frames and every timestamp agree with the index. In every other case `VideoReader` gives the frames, always right.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e3dge_video.io.index import FrameIndex
from e3dge_video.io.indexing import build_index
from e3dge_video.io.reader import OK, Frame, VideoReader

logger = logging.getLogger(__name__)

_PATIENCE_S = 20.0
_TOLERANCE_S = 1e-3  # decord gives times as float32 seconds
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")

_DECORD_PROGRAM = """
import io, json, sys
import decord, numpy
reader = decord.VideoReader(sys.argv[1], num_threads=1)
wanted = json.loads(sys.argv[2])
times = numpy.array([reader.get_frame_timestamp(i)[0] for i in wanted])
sink = io.BytesIO()
numpy.savez(sink, count=len(reader), times=times, rgb=reader.get_batch(wanted).asnumpy())
sys.stdout.buffer.write(sink.getvalue())
"""


def sample_frames(path: Path, numbers: Sequence[int], index: FrameIndex | None = None) -> list[Frame]:
    """Frames by number, in the order asked, as they are shown."""
    index = build_index(path) if index is None else index
    beyond = [number for number in numbers if not 0 <= number < len(index)]
    if beyond:
        raise IndexError(f"{path}: frame {beyond[0]} asked of {len(index)}")
    pictures = _by_decord(path, numbers, index) if numbers and _is_plain(index) else None
    if pictures is not None:
        return [Frame(n, rgb, int(index.pts[n]), OK) for n, rgb in zip(numbers, pictures, strict=True)]
    with VideoReader(path, index) as reader:
        found = {n: next(reader.iterate(n, n + 1)) for n in sorted(set(numbers))}
    return [found[number] for number in numbers]


def _is_plain(index: FrameIndex) -> bool:
    """Whether decord shows the same frames, the same way up."""
    info = index.info
    display = info.display
    as_stored = display.size == display.coded_size and display.rotation_deg == 0 and not display.mirrored
    whole = not (index.by_order or index.lost or index.packets.damaged or index.packets.hidden.any())
    usual = info.container in _CONTAINERS and info.pixel_format in _PIXEL_FORMATS
    return whole and as_stored and usual and not info.colour.needs_mapping and len(index) == len(index.packets)


def _by_decord(path: Path, numbers: Sequence[int], index: FrameIndex) -> NDArray[np.uint8] | None:
    """The frames as decord sees them, or None if there is any reason for doubt. [n, H, W, 3]"""
    if importlib.util.find_spec("decord") is None:
        return None
    command = [sys.executable, "-c", _DECORD_PROGRAM, str(path), json.dumps([int(n) for n in numbers])]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=True).stdout
        with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            count, times, rgb = int(arrays["count"]), arrays["times"], arrays["rgb"]
    except (subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
        logger.debug("%s: decord does not answer (%s)", path, error)
        return None
    expected = np.array([float(index.time(number)) for number in numbers])
    width, height = index.info.size
    if (
        count != len(index)
        or rgb.shape != (len(numbers), height, width, 3)
        or np.abs(times - expected).max() > _TOLERANCE_S
    ):
        logger.debug("%s: decord disagrees with the frame index", path)
        return None
    pictures: NDArray[np.uint8] = rgb
    return pictures
