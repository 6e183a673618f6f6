"""Folders of editing directions as InterfaceGAN writes them: the normal of one attribute's boundary per file.

```
ATTRIBUTE/boundary.npy   the normal [1, W]; for StyleSDF renderer_ATTRIBUTE and decoder_ATTRIBUTE
ATTRIBUTE/edit.json      beside it, if it was found here: how far strength 1 goes along it, unit, limits, layers
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.weights.bundle import EditSpec

_FILE, _USE_FILE = "boundary.npy", "edit.json"
_MAX_FILES, _MAX_USE_BYTES = 1000, 100_000
#: InterfaceGAN's own range; what a boundary bears depends on the attribute and was not looked at here.
_DEFAULT_EDIT = EditSpec("the boundary's normal, once", (-3.0, 3.0))


@dataclass(frozen=True)
class BoundaryUse:
    """What `edit.json` says.

    Attributes:
        step: Strength 1 is so many normals.
        edit: How the edit may be used.
        figures: How it was found.
    """

    step: float
    edit: EditSpec
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Boundary:
    """Where one attribute changes in W.

    Attributes:
        direction: The boundary's normal, towards more of the attribute. [W]
        folder: The folder that was given, for messages.
        use: How it is used, if that is known.
    """

    direction: Tensor
    folder: Path
    use: BoundaryUse | None = None


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
        found[name] = Boundary(direction, folder, _read_use(path.with_name(_USE_FILE)))
    return found


def assembled(boundaries: Mapping[str, Boundary], attribute: str, config: GeneratorConfig) -> tuple[Tensor, EditSpec]:
    """The edit of an attribute from its boundaries: in each part of a code, every row moves alike.

    Args:
        boundaries: All boundaries; those of the attribute in every part of the code must be among them.
        attribute: The attribute.
        config: The generator that they are for.

    Returns:
        Direction [L, W], and how it may be used.

    Raises:
        ModelError: A boundary belongs to codes of another width, or is for layers that there are not.
    """
    direction, edit = torch.zeros(config.latent_shape), _DEFAULT_EDIT
    for part in config.code_parts:
        name = part.prefix + attribute
        boundary = boundaries[name]
        if len(boundary.direction) != part.width:
            raise ModelError(
                f"{boundary.folder}: boundary {name} is {len(boundary.direction)} wide, but this generator's codes are "
                f"{part.width} wide; boundaries serve only the generator they were found for"
            )
        step = 1.0 if boundary.use is None else boundary.use.step
        direction[part.first : part.stop, : part.width] = step * boundary.direction
        edit = edit if boundary.use is None else boundary.use.edit
    if edit.layers is not None:
        first, stop = edit.layers
        if not 0 <= first < stop <= len(direction):
            raise ModelError(
                f"{boundary.folder}: {name} is for layers {first}-{stop - 1}, this generator has 0-{len(direction) - 1}"
            )
    return on_layers(direction, edit), edit


def on_layers(direction: Tensor, edit: EditSpec) -> Tensor:
    """A direction [L, W] that moves only the layers of the edit."""
    first, stop = edit.layers or (0, len(direction))
    inside = torch.arange(len(direction))
    return torch.where(((inside >= first) & (inside < stop))[:, None], direction, 0)


def write_boundaries(
    folder: Path,
    directions: Mapping[str, Tensor],
    edits: Mapping[str, EditSpec],
    config: GeneratorConfig,
    figures: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write edits as a boundary folder, which `models import` reads.

    Args:
        folder: Where; made if need be, former boundaries of these names are replaced.
        directions: One for each attribute, in all rows, whatever its layers. [L, W] each
        edits: How each may be used.
        config: The generator that they are for.
        figures: How each was found.

    Raises:
        ModelError: A direction is not the same in all rows of a part, or the folder cannot be written.
    """
    for attribute, direction in directions.items():
        for part in config.code_parts:
            rows = direction[part.first : part.stop, : part.width]
            step = float(rows[0].norm())
            if not step or not torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-4, atol=1e-6):
                raise ModelError(f"{folder}: {attribute} does not move the layers alike, as one boundary does")
            target = folder / (part.prefix + attribute)
            use = BoundaryUse(step, edits[attribute], dict(figures.get(attribute, {})))
            try:
                target.mkdir(parents=True, exist_ok=True)
                np.save(target / _FILE, (rows[:1] / step).numpy())
                (target / _USE_FILE).write_text(json.dumps(to_mapping(use), indent=1) + "\n")
            except OSError as error:
                raise ModelError(f"{target}: cannot be written ({error.strerror}); check the folder") from error


def _read_use(path: Path) -> BoundaryUse | None:
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _MAX_USE_BYTES:
            raise ValueError(f"larger than {_MAX_USE_BYTES} bytes")
        use = from_mapping(BoundaryUse, dict(json.loads(path.read_text(encoding="utf-8"))), source=path.name)
    except (OSError, ValueError, TypeError, RecursionError, ConfigError) as error:
        raise ModelError(f"{path}: cannot be read as an edit's JSON ({error})") from error
    numbers = (use.step, *use.edit.limits)
    if not np.isfinite(numbers).all() or use.step <= 0 or use.edit.limits[0] >= use.edit.limits[1]:
        raise ModelError(f"{path}: step and limits must be finite, the step above 0, the limits rising")
    return use
