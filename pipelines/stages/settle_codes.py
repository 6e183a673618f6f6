"""Stage `settle` of a model without 3D landmarks and a basis of expression, such as the paper's (§7.3).

Nothing tells what of a code is identity, and no points of the head are there to fit: codes and predicted cameras are
smoothed alike, by a sliding mean within each run of frames. Runs in the driver, tiny data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from e3dge_video.faces.pose import camera_angles
from e3dge_video.faces.smoothing import smooth_cameras, smooth_values
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload
from e3dge_video.pipelines.core.threads import limit_threads, own_thread_counts
from e3dge_video.pipelines.stages.arrays import joined


@dataclass(frozen=True)
class SettleCodes:
    """Sliding means of codes and cameras.

    Attributes:
        smooth_s: Window of the mean, seconds; 0 turns it off.
        pivot: Point that the model's cameras look at, world units.
    """

    smooth_s: float
    pivot: tuple[float, float, float]

    def __call__(self, chunks: Sequence[Chunk], observed: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        with own_thread_counts():
            limit_threads(1)  # the same last bits whatever the driver's process is set to
            return self._settled(chunks, observed, track)

    def _settled(self, chunks: Sequence[Chunk], observed: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        run, times_s, source = joined(track, "run", "time_s", "source").values()
        latents, initial = (values.astype(np.float64) for values in joined(observed, "latents", "cam2world").values())
        seen = run >= 0
        cameras = np.where(seen[:, None, None], initial, np.nan)
        codes = np.where(seen[:, None], latents.reshape(len(latents), -1), np.nan)
        if self.smooth_s > 0:
            cameras = smooth_cameras(cameras, times_s, run, self.smooth_s, pivot=self.pivot)
            # Lips and lids move fast: codes get half of the window that crop and camera have.
            codes = smooth_values(codes, times_s, run, self.smooth_s / 2)
        # Frames without a face take their stand-in's.
        cam2world = cameras[source].astype(np.float32)
        smooth = codes.reshape(latents.shape)[source].astype(np.float32)
        per_chunk = [
            {"latents": smooth[chunk.start : chunk.stop], "cam2world": cam2world[chunk.start : chunk.stop]}
            for chunk in chunks
        ]
        value = {"angles_regressed": camera_angles(initial), "angles": camera_angles(cam2world)}
        return BarrierResult(per_chunk, value)
