"""Folders of editing directions as InterfaceGAN writes them: the normal of one attribute's boundary per file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.weights.bundle import EditSpec

_FILE = "boundary.npy"
_MAX_FILES = 1000
#: InterfaceGAN's own range; what a boundary bears depends on the attribute and was not looked at here.
_LIMITS = (-3.0, 3.0)


def boundary_files(folder: Path) -> list[Path]:
    """The files of a boundary folder: `ATTRIBUTE/boundary.npy`, or `boundary.npy` in a folder of one attribute.

    Raises:
        ModelError: There are none.
    """
    found = sorted([*folder.glob(_FILE), *folder.glob(f"*/{_FILE}")])
    if not found or len(found) > _MAX_FILES:
        raise ModelError(
            f"{folder}: has {len(found)} files ATTRIBUTE/{_FILE}; a folder can be imported if it holds such boundaries"
        )
    return found


def read_boundaries(folder: Path) -> dict[str, Tensor]:
    """Directions by attribute, the folder's names in lower case. [W] each

    Raises:
        ModelError: No such folder, or a file that is no direction.
    """
    found: dict[str, Tensor] = {}
    for path in boundary_files(folder):
        name = path.parent.resolve().name.lower()
        if name in found:
            raise ModelError(f"{path}: a second boundary called {name}; names must differ by more than their case")
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: no size is believed before it is there
        except Exception as error:  # a damaged file can raise anything
            reason = str(error).partition("\n")[0]
            raise ModelError(f"{path}: not a readable .npy file ({reason})") from error
        if values.ndim not in (1, 2) or values.size != values.shape[-1] or values.dtype.kind != "f":
            raise ModelError(f"{path}: a boundary is one row of floats, got {values.dtype} of shape {values.shape}")
        direction = torch.from_numpy(np.array(values, np.float32).reshape(-1))
        if not torch.isfinite(direction).all() or not direction.any():
            raise ModelError(f"{path}: has values that are NaN or infinite, or zeros only; it gives no direction")
        found[name] = direction
    return found


def same_for_all_rows(
    boundaries: Mapping[str, Tensor], latent_shape: tuple[int, int], source: str
) -> dict[str, Tensor]:
    """Directions in W as directions in W+: each row moves alike. [W] each → [L, W] each

    Args:
        boundaries: Directions by attribute.
        latent_shape: (L, W) of the generator.
        source: Where they come from, for messages.

    Raises:
        ModelError: They belong to a generator of another width.
    """
    rows, width = latent_shape
    for name, direction in boundaries.items():
        if len(direction) != width:
            raise ModelError(
                f"{source}: boundary {name} is {len(direction)} wide, but this generator's codes are {width} wide; "
                "boundaries serve only the generator they were found for"
            )
    return {name: direction.expand(rows, -1).clone() for name, direction in boundaries.items()}


def boundary_edit() -> EditSpec:
    """How an imported boundary may be used."""
    return EditSpec("the boundary's normal, once", _LIMITS)
