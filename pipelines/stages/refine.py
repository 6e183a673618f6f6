"""Stages `refine` and `refined`: P and P+C of every frame (§4.4), then smooth over time as `settle` left them.

Each frame is optimised alone, so its pose shakes by what the optimisation happened to like; the mean filter that went
over the fitted cameras goes over the adjusted ones as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from e3dge_video.faces.pose import camera_angles
from e3dge_video.faces.smoothing import smooth_cameras, smooth_values
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.refinement.frames import (
    POSE,
    POSE_AND_CODE,
    FrameRefinementConfig,
    quick,
    refine_frames,
)
from e3dge_video.inversion.refinement.load import MetricFiles, load_objective
from e3dge_video.inversion.refinement.objective import head_weight
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload
from e3dge_video.pipelines.options import RefineMode
from e3dge_video.pipelines.stages.arrays import joined
from e3dge_video.pipelines.stages.batches import batches, frame_cameras, frame_images, frame_latents, rows
from e3dge_video.pipelines.stages.setup import SetupModel


def frame_schedule(mode: RefineMode, device: str) -> FrameRefinementConfig:
    """The paper's schedule, or on a CPU one that takes seconds for a frame instead of minutes."""
    config = POSE_AND_CODE if mode == "pose+code" else POSE
    return quick(config) if device.startswith("cpu") else config


@dataclass(frozen=True)
class RefineFrames:
    """Pose, or pose and code, of every frame adjusted to its picture.

    Attributes:
        setup: The model; for the key, the worker has it.
        config: Schedule.
        metrics: Networks of the objective.
    """

    setup: SetupModel
    config: FrameRefinementConfig
    metrics: MetricFiles

    def __call__(self, chunk: Chunk, tools: Inverter, crops: Payload, track: Payload, settled: Payload) -> Payload:
        made: list[dict[str, NDArray]] = []
        objective = load_objective(self.metrics, self.setup.device)
        for part, count in batches(len(chunk)):
            image, latents = frame_images(crops, part, tools), frame_latents(settled, part, tools)
            camera = frame_cameras(settled, part, tools)
            with torch.no_grad():
                foreground = tools.foreground(image, rows(track["landmarks"], part, tools))
                planes = tools.generator.planes(latents)
                alpha = tools.generator.render(planes, camera, resolution=tools.neural_resolution).alpha
                weight = head_weight(alpha, foreground)
            found = refine_frames(
                tools.generator, image, weight, latents, camera, objective, tools.neural_resolution, self.config
            )
            results = {
                "cam2world": found.camera.cam2world,
                "loss": torch.stack([found.loss_before, found.loss_after], dim=1),
                "steps": found.steps,
            }
            if self.config.code_lr > 0:
                results["offset"] = found.offset
            made.append({name: value[:count].detach().cpu().numpy() for name, value in results.items()})
        return {name: np.concatenate([part[name] for part in made]) for name in made[0]}


@dataclass(frozen=True)
class Refined:
    """Adjusted poses and codes, smooth, in the form in which `settle` gives them. Runs in the driver.

    Attributes:
        smooth_s: Window of the sliding mean, seconds; 0 turns it off.
    """

    smooth_s: float

    def __call__(
        self,
        chunks: Sequence[Chunk],
        refined: Sequence[Payload],
        settled: Sequence[Payload],
        track: Sequence[Payload],
    ) -> BarrierResult:
        run, times, source = joined(track, "run", "time_s", "source").values()
        offsets = ("offset",) if "offset" in refined[0] else ()
        adjusted = joined(refined, "cam2world", "loss", "steps", *offsets)
        found = adjusted["cam2world"].astype(np.float64)
        raw = np.where((run >= 0)[:, None, None], found, np.nan)
        smooth = smooth_cameras(raw, times, run, self.smooth_s) if self.smooth_s > 0 else raw
        cam2world = smooth[source].astype(np.float32)
        offset = None
        if offsets:
            offset = adjusted["offset"]
            flat = np.where((run >= 0)[:, None], offset.reshape(len(offset), -1).astype(np.float64), np.nan)
            flat = smooth_values(flat, times, run, self.smooth_s) if self.smooth_s > 0 else flat
            offset = flat[source].reshape(offset.shape).astype(np.float32)
        per_chunk = []
        for chunk, payload in zip(chunks, settled, strict=True):
            part = slice(chunk.start, chunk.stop)
            own = {**payload, "cam2world": cam2world[part]}
            per_chunk.append(own if offset is None else {**own, "offset": offset[part]})
        loss = adjusted["loss"][run >= 0]
        value = {
            "angles_refined": camera_angles(found),
            "angles": camera_angles(cam2world),
            "loss_before": float(loss[:, 0].mean()),
            "loss_after": float(loss[:, 1].mean()),
            "steps": float(adjusted["steps"][run >= 0].mean()),
        }
        return BarrierResult(per_chunk, value)
