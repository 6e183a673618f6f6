"""The EG3D reference numbers: where they lie, how to read them, what counts as equal.

Without E3DGE_GOLDEN the committed subset is used, with it the full set; a case that only the full set has is skipped.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.weights.convert_eg3d import eg3d_config, eg3d_to_native

COMMITTED = Path(__file__).parent / "data"
FULL = Path(os.environ["E3DGE_GOLDEN"]) / "eg3d" if os.environ.get("E3DGE_GOLDEN") else None
DATA = FULL if FULL is not None and FULL.is_dir() else COMMITTED

TOLERANCES = {
    name: entry["require"]
    for name, entry in json.loads((COMMITTED / "TOLERANCES.json").read_text()).items()
    if isinstance(entry, dict)
}


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a reference file; skips the test if only the full set has it."""
    path = DATA / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{name} is only in the full reference set; set E3DGE_GOLDEN to its folder")
    return load_file(path)


@cache
def metadata(name: str) -> dict[str, str]:
    """What the file says about itself: truncation, noise mode, resolution."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return dict(file.metadata())


@cache
def generator(name: str) -> EG3D:
    """The reference generator `ffhq512`, `afhq512`, `cars128` or `cars128_auto`, in evaluation mode."""
    path = DATA / f"{name}.config.json"
    if not path.exists():
        pytest.skip(f"{name} is only in the full reference set; set E3DGE_GOLDEN to its folder")
    description = json.loads(path.read_text())
    config = eg3d_config(description["init_kwargs"])
    weights = description.get("weights", f"{name}.state_fp16.safetensors").removesuffix(".safetensors")
    state = {key: value.float() for key, value in tensors(weights).items()}
    model = EG3D(config)
    model.load_state_dict(eg3d_to_native(state, config))
    return model.eval().requires_grad_(False)


@cache
def parts(name: str) -> dict[str, dict[str, Any]]:
    """Operation and arguments of each isolated case in a part file."""
    return json.loads((COMMITTED / "parts.json").read_text())[name]


def part_cases(name: str, *operations: str) -> list[str]:
    """Cases of a part file that are about one of these operations."""
    return [case for case, entry in parts(name).items() if entry.get("op") in operations]


def state_of(file: str, case: str) -> dict[str, Tensor]:
    """Parameters of an isolated layer under their official names."""
    prefix = f"{case}.state."
    return {key.removeprefix(prefix): value for key, value in tensors(file).items() if key.startswith(prefix)}


def hashgrid(shape: tuple[int, ...], salt: int) -> Tensor:
    """The reference's reproducible pattern in [-1, 1]."""
    primes = (1299709, 7919, 104729, 15485863)
    total = sum(axis * prime for axis, prime in zip(np.indices(shape).astype(np.int64), primes, strict=False))
    return torch.from_numpy((np.mod(total + salt, 1009) / 504.5 - 1).astype(np.float32))


def close(ours: Tensor, reference: Tensor, tolerance: float, what: str) -> None:
    """Fail unless the largest absolute difference is within the tolerance."""
    assert ours.shape == reference.shape, f"{what}: {tuple(ours.shape)} against {tuple(reference.shape)}"
    error = float((ours.detach().double() - reference.double()).abs().max())
    assert error <= tolerance, f"{what}: largest difference {error:.2e}, allowed {tolerance:.0e}"


def part_close(ours: Tensor, reference: Tensor) -> None:
    """The tolerance of the isolated parts."""
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((ours - reference).norm() / reference.norm())
