"""Full batches on the frame grid, and a chunk's payloads as tensors on the model's device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import Camera, pinhole_intrinsics
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.portrait import PortraitModel
from e3dge_video.inversion.settling import compose
from e3dge_video.io.images import to_tensor
from e3dge_video.pipelines.core.spec import Payload

#: Any inverter.
Model = PortraitModel[Any, Any]

#: Frames per batch. Batches stand on the absolute frame grid and are always full (the last frame is repeated), because
#: the last bits of a result depend on the batch size.
BATCH = 8


def batches(count: int) -> list[tuple[NDArray[np.intp], int]]:
    """Indices of full batches, the last frame repeated, and how many of each batch are real."""
    return [
        (np.minimum(np.arange(first, first + BATCH), count - 1), min(BATCH, count - first))
        for first in range(0, count, BATCH)
    ]


def frame_images(crops: Payload, part: NDArray[np.intp], inverter: Model) -> Tensor:
    """Some of a chunk's crops, on the model's device. [B, 3, S, S]"""
    return to_tensor(np.asarray(crops["crops"])[part]).to(inverter.device)


def frame_latents(settled: Payload, part: NDArray[np.intp], inverter: Model) -> Tensor:
    """Codes of some of a chunk's frames, as they were settled or refined. [B, L, W]"""
    if "latents" in settled:
        latents = rows(settled["latents"], part, inverter)
    else:
        assert isinstance(inverter, Inverter), "only its codes are kept as anchors and expression"
        anchors = rows(settled["anchors"], np.asarray(settled["anchor"])[part], inverter)
        latents = compose(anchors, rows(settled["expression"], part, inverter), inverter.expression)
    return latents + rows(settled["offset"], part, inverter) if "offset" in settled else latents


def frame_cameras(settled: Payload, part: NDArray[np.intp], inverter: Model) -> Camera:
    """Cameras of some of a chunk's frames, as they were settled or refined."""
    cam2world = rows(settled["cam2world"], part, inverter)
    return Camera(cam2world, pinhole_intrinsics(inverter.orbit.focal).to(cam2world).repeat(len(part), 1, 1))


def rows(values: np.ndarray | bytes, part: NDArray[np.integer], inverter: Model) -> Tensor:
    """Some rows of an array, on the model's device; copied, so that its place in memory is always aligned alike."""
    return torch.tensor(np.asarray(values)[part], device=inverter.device)
