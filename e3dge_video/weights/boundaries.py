"""Folders of editing directions as InterfaceGAN writes them: the normal of one attribute's boundary per file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Boundary:
    """Where one attribute changes in W.

    Attributes:
        direction: The boundary's normal, towards more of the attribute. [W]
        folder: The folder that was given, for messages.
    """

    direction: Tensor
    folder: Path


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


def read_boundaries(folder: Path) -> dict[str, Boundary]:
    """Boundaries by attribute, the folder's names in lower case.

    Raises:
        ModelError: No such folder, or a file that is no direction.
    """
    found: dict[str, Boundary] = {}
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
        found[name] = Boundary(direction, folder)
    return found


def repeated(boundaries: Mapping[str, Boundary], name: str, rows: int, width: int) -> Tensor:
    """A direction in W as one in W+: each of its rows moves alike. [rows, width]

    Args:
        boundaries: All boundaries.
        name: The one that is meant.
        rows: Rows of the codes that it moves.
        width: Their width.

    Raises:
        ModelError: It belongs to codes of another width.
    """
    boundary = boundaries[name]
    if len(boundary.direction) != width:
        raise ModelError(
            f"{boundary.folder}: boundary {name} is {len(boundary.direction)} wide, but this generator's codes are "
            f"{width} wide; boundaries serve only the generator they were found for"
        )
    return boundary.direction.expand(rows, -1).clone()


def boundary_edit() -> EditSpec:
    """How an imported boundary may be used."""
    return EditSpec("the boundary's normal, once", _LIMITS)
