"""Stage `encode`: pictures of one chunk → closed-GOP segments of every output file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.io.index import FrameIndex
from e3dge_video.io.segments import H264, LosslessGray16, encode_segment
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.options import ClipParams
from e3dge_video.pipelines.stages.model import DEPTH_OFFSET, DEPTH_SCALE

#: Depths between which depth.mp4 is coloured, world units: the same for all clips, so that colours can be compared.
#: A head stands from the nose tip (about 2.35 from the camera) to the back of the shoulders.
DEPTH_RANGE = (2.3, 3.0)

#: Height of the line of names above the panels of compare.mp4, pixels.
CAPTION_HEIGHT = 24


class Indexes:
    """Frame indexes that a worker has read."""

    def __init__(self) -> None:
        self._indexes: dict[Path, FrameIndex] = {}

    def of(self, clip: ClipParams) -> FrameIndex:
        """The clip's index."""
        if clip.index not in self._indexes:
            self._indexes.clear()
            self._indexes[clip.index] = FrameIndex.from_bytes(clip.index.read_bytes())
        return self._indexes[clip.index]


@dataclass(frozen=True)
class Encode:
    """Segments of all output files.

    Attributes:
        saved: Number of views that become files of their own.
        beside: Number of the view shown beside the result in compare.mp4.
        captions: Names of the panels of compare.mp4.
    """

    saved: int
    beside: int
    captions: tuple[str, ...]

    def __call__(self, chunk: Chunk, tools: Indexes, pictures: Payload, crops: Payload) -> Payload:
        index = tools.of(chunk.params)
        first = chunk.params.first + chunk.start
        part = slice(first, first + len(chunk))
        pts, durations, rate = index.pts[part], index.durations[part], index.rate.limit_denominator(1001)

        def encoded(frames: NDArray, encoding: H264 | LosslessGray16) -> bytes:
            return encode_segment(frames, pts, durations, index.time_base, encoding, first_frame=chunk.start, rate=rate)

        result: dict[str, np.ndarray | bytes] = {}
        for number in range(self.saved):
            depth = np.asarray(pictures[f"depth_{number}"])
            result[f"rgb_{number}"] = encoded(np.asarray(pictures[f"rgb_{number}"]), H264())
            result[f"depth_{number}"] = encoded(colored_depth(depth), H264())
            result[f"exact_{number}"] = encoded(depth, LosslessGray16())
        result["compare"] = encoded(self._compare(pictures, np.asarray(crops["crops"])), H264())
        for name in ("coarse_mae", "lifted_share", *(f"camera_{n}" for n in range(self.saved))):
            result[name] = np.asarray(pictures[name])
        return result

    def _compare(self, pictures: Payload, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Input │ global reconstruction │ result │ new view │ depth, with a line of names above. [n, H, 5 S, 3]"""
        panels = [
            crops,
            np.asarray(pictures["coarse"]),
            np.asarray(pictures["rgb_0"]),
            np.asarray(pictures[f"rgb_{self.beside}"]),
            colored_depth(np.asarray(pictures["depth_0"])),
        ]
        row = np.concatenate(panels, axis=2)
        line = caption_line(self.captions, crops.shape[2])
        return np.concatenate([np.broadcast_to(line, (len(row), *line.shape)), row], axis=1)


def colored_depth(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16-bit depth in colours (near is warm) over one fixed range; black where there is no head. [n, S, S] → RGB"""
    near, far = DEPTH_RANGE
    depth = codes.astype(np.float32) * DEPTH_SCALE + DEPTH_OFFSET
    shade = np.round(255 * np.clip((far - depth) / (far - near), 0, 1)).astype(np.uint8)
    colors = np.stack([cv2.applyColorMap(frame, cv2.COLORMAP_TURBO)[..., ::-1] for frame in shade])
    return np.where(codes[..., None] > 0, colors, 0).astype(np.uint8)


def caption_line(captions: tuple[str, ...], width: int) -> NDArray[np.uint8]:
    """Names of panels of equal width, on dark grey. [CAPTION_HEIGHT, len(captions) · width, 3]"""
    line = np.full((CAPTION_HEIGHT, width * len(captions), 3), 24, np.uint8)
    for number, text in enumerate(captions):
        place = (number * width + 6, CAPTION_HEIGHT - 8)
        cv2.putText(line, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (225, 225, 225), 1, cv2.LINE_AA)
    return line
