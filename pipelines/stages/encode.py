"""Stage `encode`: pictures of one chunk → closed-GOP segments of every output file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e3dge_video.io.segments import H264, LosslessGray16, encode_segment
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.stages.clip import Indexes
from e3dge_video.pipelines.stages.depth import EG3D_DEPTH, DepthCode, colored_depth
from e3dge_video.pipelines.stages.panels import side_by_side

#: compare.mp4 has five times the pixels of the others and is only looked at: as good and as large, twice as fast.
_LARGE = H264(preset="veryfast")


@dataclass(frozen=True)
class Encode:
    """Segments of all output files, and the small results that go with them.

    Attributes:
        saved: Number of views that become files of their own. View 1 is shown in compare.mp4, saved or not.
        captions: Names of the panels of compare.mp4.
        depth: How depths are stored.
    """

    saved: int
    captions: tuple[str, ...]
    depth: DepthCode = EG3D_DEPTH

    def __call__(self, chunk: Chunk, tools: Indexes, pictures: Payload, crops: Payload) -> Payload:
        index = tools.of(chunk.params)
        first = chunk.params.first + chunk.start
        part = slice(first, first + len(chunk))
        pts, durations, rate = index.pts[part], index.durations[part], index.rate.limit_denominator(1001)

        def encoded(frames: NDArray, encoding: H264 | LosslessGray16) -> bytes:
            return encode_segment(frames, pts, durations, index.time_base, encoding, first_frame=chunk.start, rate=rate)

        rgb = [np.asarray(pictures[f"rgb_{n}"]) for n in range(max(self.saved, 2))]
        codes = [np.asarray(pictures[f"depth_{n}"]) for n in range(self.saved)]
        colored = [colored_depth(depth, self.depth) for depth in codes]
        result: dict[str, np.ndarray | bytes] = {}
        for n in range(self.saved):
            result[f"rgb_{n}"] = encoded(rgb[n], H264())
            result[f"depth_{n}"] = encoded(colored[n], H264())
            result[f"exact_{n}"] = encoded(codes[n], LosslessGray16())
        # Input │ global reconstruction │ result │ other view │ depth
        panels = [np.asarray(crops["crops"]), np.asarray(pictures["coarse"]), rgb[0], rgb[1], colored[0]]
        result["compare"] = encoded(side_by_side(panels, self.captions), _LARGE)
        for name in ("camera_0", "coarse_mae", "lifted_share"):
            result[name] = np.asarray(pictures[name])
        return result
