"""Stages of `--refine clip`: one generator tuned to the person of the whole clip.

```
 settle ─► choose ─► collect ─► gather ─► tune1 ─► tune2 ─► … ─► refined ─► portrait
           frames    their      all of    one round each,        codes and
           that      crops      them      in the worker that     weights for
           differ               together  holds the model        every chunk
```
All of the clip's key frames are tuned on together: the rounds' work is done in chunk 0, the others are empty. A round
is what a stopped run repeats at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from e3dge_video.faces.pose import camera_angles
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.refinement.key_frames import between_key_frames, choose_key_frames, detail_region
from e3dge_video.inversion.refinement.load import MetricFiles, load_objective
from e3dge_video.inversion.refinement.personalization import (
    CODES,
    OWN_CODES,
    OWN_POSES,
    KeyFrames,
    OwnOffsets,
    PersonalizationConfig,
    Personalizer,
    TuningState,
)
from e3dge_video.inversion.refinement.registration import moved
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload
from e3dge_video.pipelines.stages.arrays import joined
from e3dge_video.pipelines.stages.batches import frame_cameras, frame_images, frame_latents, rows
from e3dge_video.pipelines.stages.setup import SetupModel

_MOMENTS = ("values", "first", "second")


@dataclass(frozen=True)
class ChooseKeyFrames:
    """Which frames to tune on. Runs in the driver.

    Attributes:
        count: How many.
    """

    count: int

    def __call__(self, chunks: Sequence[Chunk], settled: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        run, scene = joined(track, "run", "scene").values()
        poses = joined(settled, "cam2world", "expression")
        numbers, scene = np.unique(scene, return_inverse=True)
        angles, expression = camera_angles(poses["cam2world"]), poses["expression"].astype(np.float64)
        chosen = choose_key_frames(angles, expression, np.where(run >= 0, scene, -1), self.count)
        per_chunk = []
        for chunk in chunks:
            inside = chosen[(chosen >= chunk.start) & (chosen < chunk.stop)]
            per_chunk.append({"place": inside - chunk.start, "scene": scene[inside], "scenes": np.array(len(numbers))})
        return BarrierResult(per_chunk, {"key_frames": chosen.tolist()})


@dataclass(frozen=True)
class CollectKeyFrames:
    """What is learned from, of one chunk: compact, and kept."""

    setup: SetupModel

    def __call__(
        self, chunk: Chunk, tools: Inverter, chosen: Payload, crops: Payload, track: Payload, settled: Payload
    ) -> Payload:
        place = np.asarray(chosen["place"])
        # One by one: the last bits of a product depend on how many rows it has, and chunks may have any number of them.
        latents = [frame_latents(settled, place[k : k + 1], tools) for k in range(len(place))]
        none = frame_latents(settled, place[:0], tools)
        return {
            "crops": np.asarray(crops["crops"])[place],
            "landmarks": np.asarray(track["landmarks"])[place],
            "latents": torch.cat([none, *latents]).cpu().numpy(),
            "cam2world": np.asarray(settled["cam2world"])[place],
            "scene": np.asarray(chosen["scene"]),
            "scenes": np.asarray(chosen["scenes"]),
        }


@dataclass(frozen=True)
class GatherKeyFrames:
    """All key frames to chunk 0. Runs in the driver."""

    def __call__(self, chunks: Sequence[Chunk], collected: Sequence[Payload]) -> BarrierResult:
        parts = list(collected)
        together = joined(parts, "crops", "landmarks", "latents", "cam2world", "scene")
        first = {**together, "scenes": np.asarray(parts[0]["scenes"])}
        return BarrierResult([first, *({} for _ in chunks[1:])])


@dataclass(frozen=True)
class Tune:
    """One round of tuning.

    Attributes:
        setup: The model; for the key, the worker has it.
        config: Schedule.
        metrics: Networks of the objective.
    """

    setup: SetupModel
    config: PersonalizationConfig
    metrics: MetricFiles

    def __call__(self, chunk: Chunk, tools: Inverter, frames: Payload, before: Payload | None = None) -> Payload:
        if chunk.index > 0:
            return {}
        objective = load_objective(self.metrics, self.setup.device)
        tuner = Personalizer(tools.generator, self._key_frames(tools, frames), objective, self.config)
        state = tuner.begin() if before is None else _state(before, self.setup.device)
        with torch.enable_grad():
            return _payload(tuner.round(state))

    @torch.no_grad()
    def _key_frames(self, inverter: Inverter, frames: Payload) -> KeyFrames:
        every = np.arange(len(np.asarray(frames["scene"])))
        image, landmarks = frame_images(frames, every, inverter), rows(frames["landmarks"], every, inverter)
        size = image.shape[-1]
        # One by one: the same bits for any number of them.
        foreground = [inverter.foreground(image[k : k + 1], landmarks[k : k + 1]) for k in every]
        return KeyFrames(
            image=image,
            matte=torch.cat(foreground),
            detail=detail_region(landmarks, size).to(image),
            latents=rows(frames["latents"], every, inverter),
            camera=frame_cameras(frames, every, inverter),
            scene=rows(frames["scene"], every, inverter).long(),
            scenes=int(np.asarray(frames["scenes"])),
            resolution=inverter.neural_resolution,
        )


@dataclass(frozen=True)
class ShareTuned:
    """The person's generator and codes for every chunk, in the form in which `settle` gives them. Runs in the driver.

    Attributes:
        own_offsets: What becomes of the key frames' own offsets.
    """

    own_offsets: OwnOffsets

    def __call__(
        self,
        chunks: Sequence[Chunk],
        tuned: Sequence[Payload],
        settled: Sequence[Payload],
        track: Sequence[Payload],
        chosen: Sequence[Payload],
    ) -> BarrierResult:
        state = _state(tuned[0], "cpu")
        weights = safetensors.torch.save({name: value.contiguous() for name, value in state.weights.items()})
        numbers = np.unique(np.concatenate([part["scene"] for part in track]))
        moves = state.values[CODES].numpy()
        value: dict[str, Any] = {"steps": state.step, "loss_before": state.losses[0], "loss_after": state.losses[-1]}
        own: dict[str, NDArray] = {}
        if self.own_offsets == "interpolate":
            key_frames = np.concatenate([np.asarray(c["place"]) + k.start for k, c in zip(chunks, chosen, strict=True)])
            own = _interpolated(state, key_frames, settled, track)
        if "cam2world" in own:
            value["angles"] = camera_angles(own["cam2world"])
        per_chunk = []
        for chunk, payload, part in zip(chunks, settled, track, strict=True):
            present = np.searchsorted(numbers, np.unique(part["scene"]))
            anchors = (np.asarray(payload["anchors"]) + moves[present]).astype(np.float32)
            rows_own = {name: values[chunk.start : chunk.stop] for name, values in own.items()}
            per_chunk.append({**payload, "anchors": anchors, "generator": weights, **rows_own})
        return BarrierResult(per_chunk, value)


def _interpolated(
    state: TuningState, key_frames: NDArray[np.intp], settled: Sequence[Payload], track: Sequence[Payload]
) -> dict[str, NDArray]:
    """What the key frames' own offsets make of every frame: `offset` of its code, its camera. [N, ...]"""
    whole = joined(track, "scene", "time_s", "source")
    made: dict[str, NDArray] = {}

    def every(name: str) -> NDArray[np.float64]:
        found = between_key_frames(state.values[name].numpy(), key_frames, whole["time_s"], whole["scene"])
        return found[whole["source"]]

    if OWN_CODES in state.values:
        made["offset"] = every(OWN_CODES).astype(np.float32)
    if OWN_POSES in state.values:
        cam2world = torch.from_numpy(joined(settled, "cam2world")["cam2world"].astype(np.float64))
        pose = every(OWN_POSES)
        camera = moved(
            Camera(cam2world, torch.eye(3, dtype=torch.float64).repeat(len(pose), 1, 1)), torch.from_numpy(pose)
        )
        made["cam2world"] = camera.cam2world.numpy().astype(np.float32)
    return made


def _payload(state: TuningState) -> dict[str, NDArray]:
    arrays: dict[str, NDArray] = {"step": np.array(state.step), "losses": np.array(state.losses)}
    for kind in _MOMENTS:
        arrays |= {f"{kind}.{name}": value.cpu().numpy() for name, value in getattr(state, kind).items()}
    return arrays


def _state(payload: Payload, device: str) -> TuningState:
    tables = {
        kind: {
            name.removeprefix(f"{kind}."): torch.tensor(np.asarray(value), device=device)
            for name, value in payload.items()
            if name.startswith(f"{kind}.")
        }
        for kind in _MOMENTS
    }
    losses = tuple(float(loss) for loss in np.asarray(payload["losses"]))
    return TuningState(int(np.asarray(payload["step"])), losses=losses, **tables)
