"""The worker that holds the model: stages `observe` (encoders) and `portrait` (rendering)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import Camera, pinhole_intrinsics
from e3dge_video.geometry.views import View, view_cameras
from e3dge_video.inversion.editing import Edit, apply_edits
from e3dge_video.inversion.inverter import EditedHead, Inversion, Inverter, Picture
from e3dge_video.inversion.load import load_inverter
from e3dge_video.inversion.settling import compose
from e3dge_video.io.images import to_array, to_tensor
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.options import NoFace

#: Frames per batch. Batches stand on the absolute frame grid and are always full (the last frame is repeated), because
#: the last bits of a result depend on the batch size.
BATCH = 8

#: 16-bit depth: code = round((depth − offset) / scale), 0 where there is no head.
DEPTH_OFFSET, DEPTH_SCALE = 1.5, 1.0 / 32768


@dataclass(frozen=True)
class SetupModel:
    """Load the inverter.

    Attributes:
        model: Folder of the bundle.
        device: Where the networks run.
        files: SHA-256 of the bundle's files: a changed model is another result.
    """

    model: Path
    device: str
    files: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> Inverter:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        return load_inverter(str(self.model), device=self.device)


@dataclass(frozen=True)
class Observe:
    """E0's code and E_ξ's camera of every frame, alone."""

    setup: SetupModel

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Inverter, crops: Payload, track: Payload) -> Payload:
        device = tools.expression.device
        latents, poses = [], []
        for part, count in _batches(len(chunk)):
            image = to_tensor(np.asarray(crops["crops"])[part]).to(device)
            landmarks = torch.from_numpy(np.asarray(track["landmarks"])[part]).to(device)
            seen = tools.observe(image, landmarks)
            latents.append(seen.latents[:count].cpu())
            poses.append(seen.camera.cam2world[:count].cpu())
        return {"latents": torch.cat(latents).numpy(), "cam2world": torch.cat(poses).numpy()}


@dataclass(frozen=True)
class Portrait:
    """Every frame inverted, edited and rendered from every view.

    Attributes:
        setup: The model.
        edits: Edits with their strength over time.
        views: Views to render.
        times_s: Time of each frame of the clip, seconds.
        no_face: What frames without a face show.
    """

    setup: SetupModel
    edits: tuple[Edit, ...]
    views: tuple[View, ...]
    times_s: tuple[float, ...]
    no_face: NoFace

    @torch.inference_mode()
    def __call__(self, chunk: Chunk, tools: Inverter, crops: Payload, track: Payload, settled: Payload) -> Payload:
        parts: list[dict[str, NDArray]] = []
        for part, count in _batches(len(chunk)):
            made = self._batch(chunk, tools, crops, track, settled, part)
            parts.append({name: value[:count] for name, value in made.items()})
        results = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        self._without_face(results, np.asarray(track["run"]) < 0, np.asarray(crops["crops"]))
        return results

    def _batch(
        self, chunk: Chunk, inverter: Inverter, crops: Payload, track: Payload, settled: Payload, part: NDArray[np.intp]
    ) -> dict[str, NDArray]:
        def tensor(payload: Payload, name: str) -> Tensor:
            return torch.from_numpy(np.asarray(payload[name])[part]).to(inverter.expression.device)

        image = to_tensor(np.asarray(crops["crops"])[part]).to(inverter.expression.device)
        anchors = torch.tensor(np.asarray(settled["anchors"])).to(inverter.expression.device)
        latents = compose(anchors[tensor(settled, "anchor")], tensor(settled, "expression"), inverter.expression)
        camera = Camera(
            tensor(settled, "cam2world"), pinhole_intrinsics(settled_focal(settled)).repeat(len(part), 1, 1)
        )
        camera = camera.to(image.device)
        inversion = inverter.invert(image, tensor(track, "landmarks"), latents, camera)
        times = [self.times_s[chunk.start + int(k)] for k in part]
        edited = self._edited(inverter, inversion, times)
        results = _coarse(inversion, image)
        for number, view in enumerate(self.views):
            target = view_cameras(view, camera.to("cpu"), torch.tensor(times)).to(image.device)
            results |= _pictures(inverter.synthesize(inversion, target, edited), number)
            results[f"camera_{number}"] = target.to_eg3d().cpu().numpy()
        return results

    def _edited(self, inverter: Inverter, inversion: Inversion, times: list[float]) -> EditedHead | None:
        strengths = [{edit.name: edit.strength(t) for edit in self.edits} for t in times]
        if not any(strength for wanted in strengths for strength in wanted.values()):
            return None
        return inverter.edit(inversion, apply_edits(inversion.latents, inverter.directions, strengths))

    def _without_face(self, results: dict[str, NDArray], missing: NDArray[np.bool_], crops: NDArray[np.uint8]) -> None:
        """Frames without a face hold what their stand-in shows, or show the plain crop, or nothing."""
        if self.no_face == "hold" or not missing.any():
            return
        for number in range(len(self.views)):
            results[f"rgb_{number}"][missing] = crops[missing] if self.no_face == "pass" else 0
            results[f"depth_{number}"][missing] = 0


def settled_focal(settled: Payload) -> float:
    """Focal length of a chunk's cameras, divided by the image size."""
    return float(np.asarray(settled["focal"]))


def _batches(count: int) -> list[tuple[NDArray[np.intp], int]]:
    """Indices of full batches, the last frame repeated, and how many of each batch are real."""
    return [
        (np.minimum(np.arange(first, first + BATCH), count - 1), min(BATCH, count - first))
        for first in range(0, count, BATCH)
    ]


def _coarse(inversion: Inversion, image: Tensor) -> dict[str, NDArray]:
    """The global reconstruction over grey, and how far it is from the picture where the head is."""
    coarse = inversion.coarse
    shown = 2 * (coarse.color + 0.5 * (1 - coarse.alpha)) - 1
    weight = coarse.alpha * inversion.lifted.matte
    error = ((shown - image).abs().mean(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    lifted = (inversion.lifted.confidence * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return {
        "coarse": to_array(shown),
        "coarse_mae": error.nan_to_num().cpu().numpy(),
        "lifted_share": lifted.nan_to_num().cpu().numpy(),
    }


def _pictures(picture: Picture, number: int) -> dict[str, NDArray]:
    code = ((picture.depth - DEPTH_OFFSET) / DEPTH_SCALE).round().clamp(1, 65535)
    depth = torch.where(picture.alpha > 0.5, code, 0).to(torch.int32)
    return {f"rgb_{number}": to_array(picture.image), f"depth_{number}": depth[:, 0].cpu().numpy().astype(np.uint16)}
