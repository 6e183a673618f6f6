"""Stage `settle`: codes and cameras of single frames made one moving person. Runs in the driver, tiny data.

Identity is shared over a scene, expression is smoothed, and the camera is the one that lays the settled head's own 3D
points over the landmarks: a camera regressed from pixels shrinks the yaw of real faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.faces.pose import camera_angles, fit_camera
from e3dge_video.faces.smoothing import smooth_cameras, smooth_values
from e3dge_video.inversion.load import Settler, load_settler
from e3dge_video.inversion.settling import anchor_frames, compose, expression_coefficients, scene_anchor
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload
from e3dge_video.pipelines.core.threads import limit_threads, own_thread_counts
from e3dge_video.pipelines.stages.arrays import joined
from e3dge_video.pipelines.stages.clip import CHUNK_GRID


@dataclass(frozen=True)
class Settle:
    """One identity per scene, cameras by landmarks, both smooth.

    Attributes:
        model: Folder of the bundle.
        files: SHA-256 of its files.
        smooth_s: Window of the sliding mean, seconds; 0 turns it off.
    """

    model: Path
    files: tuple[tuple[str, str], ...]
    smooth_s: float

    def __call__(self, chunks: Sequence[Chunk], observed: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        with own_thread_counts():
            limit_threads(1)  # the same last bits whatever the driver's process is set to
            return self._settled(chunks, observed, track)

    def _settled(self, chunks: Sequence[Chunk], observed: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        settler = load_settler(self.model)
        names = ("time_s", "run", "scene", "source", "landmarks")
        times_s, run, scene, source, landmarks = joined(track, *names).values()
        silhouette_jaw = bool(np.asarray(track[0]["silhouette_jaw"]))
        anchors = {
            int(s): _anchor(observed, chunks, np.flatnonzero((scene == s) & (run >= 0))) for s in np.unique(scene)
        }
        expression = self._smooth(self._expression(settler, chunks, observed, scene, anchors), times_s, run)
        initial = joined(observed, "cam2world")["cam2world"].astype(np.float64)
        points = self._points(settler, scene, anchors, expression)
        fit = fit_camera(points, landmarks, initial=initial, silhouette_jaw=silhouette_jaw)
        raw = np.where((run >= 0)[:, None, None], fit.cam2world, np.nan)
        smooth = smooth_cameras(raw, times_s, run, self.smooth_s) if self.smooth_s > 0 else raw
        cam2world = smooth[source].astype(np.float32)  # frames without a face take their stand-in's
        per_chunk = [
            _payload(anchors, scene[part], expression[source[part]], cam2world[part])
            for part in (slice(chunk.start, chunk.stop) for chunk in chunks)
        ]
        value = {
            "angles_regressed": camera_angles(initial),
            "angles_fitted": camera_angles(fit.cam2world),
            "angles": camera_angles(cam2world),
            "residual": fit.residual,
            "landmarks": landmarks,
        }
        return BarrierResult(per_chunk, value)

    def _expression(
        self,
        settler: Settler,
        chunks: Sequence[Chunk],
        observed: Sequence[Payload],
        scene: NDArray[np.int64],
        anchors: dict[int, Tensor],
    ) -> NDArray[np.float64]:
        """Where each frame stands in the expression subspace. [N, K]"""
        rows = []
        for chunk, payload in zip(chunks, observed, strict=True):
            codes = np.asarray(payload["latents"])
            # In blocks on the absolute grid: the last bits of a product depend on how many rows it has.
            for first in range(0, len(chunk), CHUNK_GRID):
                latents = torch.tensor(codes[first : first + CHUNK_GRID])
                begin = chunk.start + first
                anchor = torch.stack([anchors[int(s)] for s in scene[begin : begin + len(latents)]])
                rows.append(expression_coefficients(latents, anchor, settler.expression).double().numpy())
        return np.concatenate(rows)

    def _smooth(
        self, expression: NDArray[np.float64], times_s: NDArray[np.float64], run: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        # Lips and lids move fast: they get half of the window that crop and camera have.
        if self.smooth_s <= 0:
            return expression
        smooth = smooth_values(expression, times_s, run, self.smooth_s / 2)
        return np.where((run >= 0)[:, None], smooth, expression)

    def _points(
        self,
        settler: Settler,
        scene: NDArray[np.int64],
        anchors: dict[int, Tensor],
        expression: NDArray[np.float64],
        block: int = 256,
    ) -> NDArray[np.float64]:
        """3D landmarks of every frame's settled head. [N, 68, 3]"""
        points = []
        for first in range(0, len(scene), block):
            part = slice(first, first + block)
            anchor = torch.stack([anchors[int(s)] for s in scene[part]])
            latents = compose(anchor, torch.from_numpy(expression[part]).float(), settler.expression)
            with torch.inference_mode():
                points.append(settler.face_points(latents).double().numpy())
        return np.concatenate(points)


def _anchor(observed: Sequence[Payload], chunks: Sequence[Chunk], frames: NDArray[np.intp]) -> Tensor:
    """The code that a scene's frames share."""
    wanted = frames[anchor_frames(len(frames))]
    codes = []
    for chunk, payload in zip(chunks, observed, strict=True):
        inside = wanted[(wanted >= chunk.start) & (wanted < chunk.stop)] - chunk.start
        if len(inside):
            codes.append(torch.tensor(np.asarray(payload["latents"])[inside]))
    return scene_anchor(torch.cat(codes))


def _payload(
    anchors: dict[int, Tensor],
    scene: NDArray[np.int64],
    expression: NDArray[np.float64],
    cam2world: NDArray[np.float32],
) -> dict[str, NDArray]:
    present = np.unique(scene)
    return {
        "anchors": torch.stack([anchors[int(s)] for s in present]).numpy(),
        "anchor": np.searchsorted(present, scene),
        "expression": expression.astype(np.float32),
        "cam2world": cam2world,
    }
