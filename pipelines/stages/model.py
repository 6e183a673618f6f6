"""The worker that holds the model: stages `observe` (encoders) and `portrait` (rendering)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.views import View, view_cameras
from e3dge_video.inversion.editing import Edit, apply_edits, edit_steps
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.portrait import Reconstruction
from e3dge_video.io.images import to_array
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.options import NoFace
from e3dge_video.pipelines.stages.batches import Model, batches, frame_cameras, frame_images, frame_latents, rows
from e3dge_video.pipelines.stages.depth import EG3D_DEPTH, DepthCode
from e3dge_video.pipelines.stages.setup import SetupModel


@dataclass(frozen=True)
class Observe:
    """E0's code and E_ξ's camera of every frame, alone.

    Attributes:
        setup: The model; for the key, the worker has it.
    """

    setup: SetupModel

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Model, crops: Payload, track: Payload) -> Payload:
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
        depth: How depths are stored.
    """

    setup: SetupModel
    edits: tuple[Edit, ...]
    orthogonal: bool
    views: tuple[View, ...]
    no_face: NoFace
    depth: DepthCode = EG3D_DEPTH

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Model, crops: Payload, track: Payload, settled: Payload) -> Payload:
        made = []
        if "generator" in settled:  # the person's own
            assert isinstance(tools, Inverter), "only it can be tuned to a person"
            tools = tools.with_weights(safetensors.torch.load(bytes(settled["generator"])))
        for part, count in batches(len(chunk)):
            batch = self._batch(tools, crops, track, settled, part)
            made.append({name: value[:count] for name, value in batch.items()})
        results = {name: np.concatenate([batch[name] for batch in made]) for name in made[0]}
        self._without_face(results, np.asarray(track["run"]) < 0, np.asarray(crops["crops"]))
        return results

    def _batch(
        self, inverter: Model, crops: Payload, track: Payload, settled: Payload, part: NDArray[np.intp]
    ) -> dict[str, NDArray]:
        image = frame_images(crops, part, inverter)
        latents = frame_latents(settled, part, inverter)
        camera = frame_cameras(settled, part, inverter)
        times = [float(time) for time in np.asarray(track["time_s"])[part]]

        inversion = inverter.invert(image, camera, landmarks=rows(track["landmarks"], part, inverter), latents=latents)
        edited = self._edited(inverter, inversion, times)
        results = _coarse(inverter.reconstruction(inversion), image)
        for number, view in enumerate(self.views):
            # Cameras are worked out on the CPU: the same ones whatever the device.
            target = view_cameras(view, camera.to("cpu"), torch.tensor(times), inverter.orbit)
            seen_from = inversion.camera if view.kind == "input" else target.to(image.device)
            picture = inverter.synthesize(inversion, seen_from, edited)
            results[f"rgb_{number}"] = to_array(picture.image)
            results[f"depth_{number}"] = depth_codes(picture.depth, picture.alpha, self.depth)
            results[f"camera_{number}"] = target.to_eg3d().numpy()
        return results

    def _edited(self, inverter: Model, inversion: Any, times: list[float]) -> Any:
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


def _coarse(shown: Reconstruction, image: Tensor) -> dict[str, NDArray]:
    """The global reconstruction, and how far it is from the picture where it counts."""

    def mean(values: Tensor) -> NDArray[np.float32]:
        total = (values * shown.weight).sum(dim=(1, 2, 3)) / shown.weight.sum(dim=(1, 2, 3))
        return np.asarray(total.nan_to_num().cpu().numpy(), np.float32)

    lifted = np.full(len(image), np.nan, np.float32) if shown.lifted is None else mean(shown.lifted)
    error = (shown.image - image).abs().mean(dim=1, keepdim=True)
    return {"coarse": to_array(shown.image), "coarse_mae": mean(error), "lifted_share": lifted}


def depth_codes(depth: Tensor, alpha: Tensor, stored: DepthCode = EG3D_DEPTH) -> NDArray[np.uint16]:
    """16-bit codes of distances along the rays, 0 where the head covers less than half. [B, 1, S, S] → [B, S, S]"""
    code = ((depth - stored.offset) / stored.scale).round().clamp(1, 65535)
    return torch.where(alpha > 0.5, code, 0)[:, 0].to(torch.int32).cpu().numpy().astype(np.uint16)
