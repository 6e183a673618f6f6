"""The worker that holds the model: stages `observe` (encoders) and `portrait` (rendering)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import EG3D_FOCAL, Camera, pinhole_intrinsics
from e3dge_video.geometry.views import View, view_cameras
from e3dge_video.inversion.editing import Edit, apply_edits, edit_steps
from e3dge_video.inversion.inverter import EditedHead, Inversion, Inverter
from e3dge_video.io.images import to_array
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.options import NoFace
from e3dge_video.pipelines.stages.batches import batches, frame_images, frame_latents, rows
from e3dge_video.pipelines.stages.depth import DEPTH_OFFSET, DEPTH_SCALE
from e3dge_video.pipelines.stages.setup import SetupModel


@dataclass(frozen=True)
class Observe:
    """E0's code and E_ξ's camera of every frame, alone.

    Attributes:
        setup: The model; for the key, the worker has it.
    """

    setup: SetupModel

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Inverter, crops: Payload, track: Payload) -> Payload:
        latents, poses = [], []
        for part, count in batches(len(chunk)):
            landmarks = rows(track["landmarks"], part, tools)
            seen = tools.observe(frame_images(crops, part, tools), landmarks)
            latents.append(seen.latents[:count].cpu())
            poses.append(seen.camera.cam2world[:count].cpu())
        return {"latents": torch.cat(latents).numpy(), "cam2world": torch.cat(poses).numpy()}


@dataclass(frozen=True)
class Portrait:
    """Every frame inverted, edited and rendered from every view.

    Attributes:
        setup: The model; for the key, the worker has it.
        edits: Edits with their strength over time.
        orthogonal: Whether each edit leaves alone what those before it move along.
        views: Views to render.
        no_face: What frames without a face show.
    """

    setup: SetupModel
    edits: tuple[Edit, ...]
    orthogonal: bool
    views: tuple[View, ...]
    no_face: NoFace

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Inverter, crops: Payload, track: Payload, settled: Payload) -> Payload:
        made = []
        if "generator" in settled:  # the person's own
            tools = tools.with_weights(safetensors.torch.load(bytes(settled["generator"])))
        for part, count in batches(len(chunk)):
            batch = self._batch(tools, crops, track, settled, part)
            made.append({name: value[:count] for name, value in batch.items()})
        results = {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}
        self._without_face(results, np.asarray(track["run"]) < 0, np.asarray(crops["crops"]))
        return results

    def _batch(
        self, inverter: Inverter, crops: Payload, track: Payload, settled: Payload, part: NDArray[np.intp]
    ) -> dict[str, NDArray]:
        image = frame_images(crops, part, inverter)
        latents = frame_latents(settled, part, inverter)
        cam2world = rows(settled["cam2world"], part, inverter)
        camera = Camera(cam2world, pinhole_intrinsics(EG3D_FOCAL).to(cam2world).repeat(len(part), 1, 1))
        times = [float(time) for time in np.asarray(track["time_s"])[part]]

        inversion = inverter.invert(image, camera, landmarks=rows(track["landmarks"], part, inverter), latents=latents)
        edited = self._edited(inverter, inversion, times)
        results = _coarse(inversion, image)
        for number, view in enumerate(self.views):
            # Cameras are worked out on the CPU: the same ones whatever the device.
            target = view_cameras(view, camera.to("cpu"), torch.tensor(times))
            picture = inverter.synthesize(inversion, target.to(image.device), edited)
            results[f"rgb_{number}"] = to_array(picture.image)
            results[f"depth_{number}"] = depth_codes(picture.depth, picture.alpha)
            results[f"camera_{number}"] = target.to_eg3d().numpy()
        return results

    def _edited(self, inverter: Inverter, inversion: Inversion, times: list[float]) -> EditedHead | None:
        latents, strengths = inversion.latents, [[edit.strength(time) for edit in self.edits] for time in times]
        wanted = torch.tensor(strengths)
        if wanted.any():
            steps = edit_steps(self.edits, inverter.directions, orthogonal=self.orthogonal)
            latents = apply_edits(latents, steps, wanted.to(steps))
        if self.setup.toon:
            return inverter.toonify(inversion, latents)
        return None if latents is inversion.latents else inverter.edit(inversion, latents)

    def _without_face(self, results: dict[str, NDArray], missing: NDArray[np.bool_], crops: NDArray[np.uint8]) -> None:
        """Frames without a face hold what their stand-in shows, or show the plain crop, or nothing."""
        if self.no_face == "hold" or not missing.any():
            return
        for number in range(len(self.views)):
            results[f"rgb_{number}"][missing] = crops[missing] if self.no_face == "pass" else 0
            results[f"depth_{number}"][missing] = 0


def _coarse(inversion: Inversion, image: Tensor) -> dict[str, NDArray]:
    """The global reconstruction over grey, and how far it is from the picture where the head is."""
    coarse = inversion.coarse
    shown = 2 * (coarse.color + 0.5 * (1 - coarse.alpha)) - 1
    weight = coarse.alpha * inversion.lifted.matte

    def mean_on_head(values: Tensor) -> NDArray[np.float32]:
        mean = (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
        return np.asarray(mean.nan_to_num().cpu().numpy(), np.float32)

    return {
        "coarse": to_array(shown),
        "coarse_mae": mean_on_head((shown - image).abs().mean(dim=1, keepdim=True)),
        "lifted_share": mean_on_head(inversion.lifted.confidence),
    }


def depth_codes(depth: Tensor, alpha: Tensor) -> NDArray[np.uint16]:
    """16-bit codes of distances along the rays, 0 where the head covers less than half. [B, 1, S, S] → [B, S, S]"""
    code = ((depth - DEPTH_OFFSET) / DEPTH_SCALE).round().clamp(1, 65535)
    return torch.where(alpha > 0.5, code, 0)[:, 0].to(torch.int32).cpu().numpy().astype(np.uint16)
