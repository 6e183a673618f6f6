"""The E3DGE reference numbers: where they lie, how to read them, what counts as equal.

Without E3DGE_GOLDEN the committed subset is used, with it the full set. Every tensor of a file that is not an input has
to be reproduced, under its own name: what a file holds decides what is tested, and computed.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from e3dge_video.models.fir import make_filter

COMMITTED = Path(__file__).parent / "data"
FULL = Path(os.environ["E3DGE_GOLDEN"]) / "e3dge" if os.environ.get("E3DGE_GOLDEN") else None
DATA = FULL if FULL is not None and FULL.is_dir() else COMMITTED

#: Largest difference in standard deviations of a tensor: of one module, and behind a chain of several.
MODULE, CHAIN = 1e-4, 1e-3
_VALUES: dict[str, Callable[[float, float, np.ndarray], np.ndarray]] = {
    "affine": lambda a, b, n: a + b * n,
    "abs": lambda a, b, n: a + b * np.abs(n),
    "fan": lambda a, b, n: a + b * n / np.sqrt(np.prod(n.shape[1:])),
}


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a reference file."""
    return load_file(DATA / f"{name}.safetensors")


def outputs(name: str, inputs: str = "") -> list[str]:
    """Names of a file's tensors but those that `inputs` matches."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return [key for key in file.keys() if not re.fullmatch(inputs, key)]  # noqa: SIM118


@cache
def description(name: str) -> dict[str, Any]:
    """Names, shapes, rules and statistics of formula-filled networks."""
    return json.loads((DATA / f"{name}.json").read_text())


def generator_shapes(network: str) -> dict[str, list[int]]:
    """Parameters of StyleSDF's full-size networks, which its own reference lists."""
    folder = DATA.parent / "stylesdf" if DATA is FULL else COMMITTED.parents[1] / "stylesdf" / "data"
    return json.loads((folder / "full_1024_formula.json").read_text())[network]


def stored(file: str, key: str, values: Mapping[str, Tensor]) -> Tensor:
    """What the reference stores of our tensor: all of it, its first numbers, or every n-th one."""
    name, _, part = key.rpartition(".")
    if part == "first":
        return values[name].flatten()[: len(tensors(file)[key])]
    if part == "strided":
        return values[name].flatten()[:: description(file)["summaries"][name]["stride"]]
    return values[key]


def close(key: str, ours: Tensor, reference: Tensor, tolerance: float, *, spread: float | None = None) -> None:
    """Fail unless every number is within `tolerance` standard deviations, of the reference or as given."""
    assert ours.shape == reference.shape, f"{key}: {tuple(ours.shape)} against {tuple(reference.shape)}"
    reference = reference.double()
    if spread is None:
        spread = float(reference.std()) if reference.numel() > 1 else float(reference.abs())
    worst = float((ours.detach().double() - reference).abs().max())
    if os.environ.get("E3DGE_SHOW"):
        print(f"ERR {key} {worst / max(spread, 1e-30):.2e} of {tolerance:.0e}  abs {worst:.2e}")
    assert worst <= tolerance * spread, f"{key}: off by {worst / spread:.1e} standard deviations, allowed {tolerance:g}"


def formula_noise(key: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers that a name gives."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)


def formula_input(name: str, *shape: int) -> Tensor:
    """The reference's input of that name, as plain standard normal numbers."""
    return torch.from_numpy(formula_noise(f"input.{name}", shape)).float()


def formula_state(
    shapes: Mapping[str, Sequence[int]], rules: Iterable[Sequence[Any]], *, prefix: str = "", skip: str = "(?!)"
) -> dict[str, Tensor]:
    """Official parameters, made by the reference's formula: see README.md of the full set.

    Args:
        shapes: By key.
        rules: Pattern, number of axes (left out in the generators' rules), kind and two numbers.
        prefix: In front of each key where the formula looks at it.
        skip: Keys to leave out.
    """
    state = {}
    for key, shape in shapes.items():
        if not re.match(skip, key):
            kind, a, b = _rule(prefix + key, len(shape), rules)
            if kind == "keep":
                state[key] = 4 * make_filter() if shape else torch.tensor(0)
            else:
                state[key] = torch.from_numpy(_VALUES[kind](a, b, formula_noise(prefix + key, shape))).float()
    return state


def _rule(key: str, axes: int, rules: Iterable[Sequence[Any]]) -> Sequence[Any]:
    for pattern, *wanted, kind, a, b in rules:
        if re.search(pattern, key) and wanted in ([], [None], [axes]):
            return kind, a, b
    raise KeyError(key)
