"""What a trained part stands on: the networks that it was trained behind, told by digests of their tensors.

A run's checkpoint keeps them. The run goes on behind no others, and `train pack` puts its part beside no others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.paper import PaperInverter
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.checkpoints import CHECKPOINT_FILE
from e3dge_video.weights.bundle import compact

log = logging.getLogger(__name__)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors as bundles keep them, in half precision: a run's and its bundle's have the same."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        value = compact(tensors[name].detach()).contiguous().cpu()
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def digests(**parts: nn.Module | Generator) -> dict[str, str]:
    """The digest of each network."""
    return {name: digest(part.state_dict()) for name, part in parts.items() if isinstance(part, nn.Module)}


def foundation_of(model: Inverter | PaperInverter) -> dict[str, str]:
    """Of what local detail is trained behind: G, E0, what tells the camera, and the starter's matte."""
    if isinstance(model, PaperInverter):
        return digests(generator=model.generator, **dict(model.observer.named_children()))
    return digests(generator=model.generator, encoder=model.encoder, pose_encoder=model.pose_encoder, matte=model.matte)


def check_foundation(run: Path, present: Mapping[str, str]) -> None:
    """Refuse a part that was trained behind other networks than those it is put beside.

    Args:
        run: Folder of the part's run. Bundles, and runs of versions that did not note it, do not tell; that is logged.
        present: Digests of the networks that it is put beside.

    Raises:
        ConfigError: Which ones are others.
    """
    checkpoint = run / CHECKPOINT_FILE
    state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True) if checkpoint.exists() else {}
    told: Mapping[str, str] | None = state.get("foundation")
    if told is None:
        log.warning("%s: does not tell which networks its part was trained behind; taken as it is", run)
        return
    if others := [name for name, value in told.items() if present.get(name) != value]:
        raise ConfigError(
            f"{run}: was trained behind another {' and '.join(others)} than that of the model it is packed into; pack "
            "it into the model that it was trained behind, or train it further behind this one (init=…)"
        )
