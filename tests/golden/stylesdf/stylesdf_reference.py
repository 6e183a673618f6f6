"""The StyleSDF reference numbers: where they lie, how to read them, what counts as equal.

Without E3DGE_GOLDEN the committed subset is used, with it the full set. Every tensor of a file that is not an input has
to be reproduced, under its own name: what a file holds decides what is tested.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.fir import make_filter
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights.convert_stylesdf import stylesdf_config, stylesdf_to_native

COMMITTED = Path(__file__).parent / "data"
FULL = Path(os.environ["E3DGE_GOLDEN"]) / "stylesdf" if os.environ.get("E3DGE_GOLDEN") else None
DATA = FULL if FULL is not None and FULL.is_dir() else COMMITTED

#: Absolute tolerances by name, first match wins, added to a relative one of 1e-4. What has no entry may differ by 1e-5
#: of its standard deviation. Sine layers multiply rounding by about 30 each: outputs of the field in 64 bit differ
#: from the reference, which was computed in 32 bit, by up to these amounts, so the reference is no better.
ABSOLUTE = [
    (r"eik\.eikonal", 3e-2),  # derivatives around 40
    (r".*raw_features.*", 2e-4),
    (r".*features.*", 1e-4),
    (r".*(sdf|raw_rgb).*", 5e-5),
    (r".*(rgb|thumb|act\.).*", 1e-4),  # images in [-1, 1]
]
RELATIVE = 1e-4


@cache
def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a reference file."""
    return load_file(DATA / f"{name}.safetensors")


def outputs(name: str, inputs: str) -> list[str]:
    """Names of a file's tensors but those that `inputs` matches."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return [key for key in file.keys() if not re.fullmatch(inputs, key)]  # noqa: SIM118


@cache
def description() -> dict[str, Any]:
    """Names, shapes, rules and statistics of the full-size networks."""
    return json.loads((DATA / "full_1024_formula.json").read_text())


def part_of(key: str, value: Tensor, reference: Tensor) -> Tensor:
    """What the reference stored of a tensor: `_b0` is one image of the batch, `.s4` every fourth pixel both ways.

    Of some tensors only the first images are stored, without a mark.
    """
    match = re.search(r"_b(\d)(\.s\d+)?$", key)
    value = value[int(match[1]) if match else 0 :][: len(reference)] if value.ndim else value
    if match := re.search(r"\.s(\d+)$", key):
        value = value[..., :: int(match[1]), :: int(match[1])]
    return value


def base_name(key: str) -> str:
    """A tensor's name without the marks that `part_of` reads."""
    return re.sub(r"(_b\d)?(\.s\d+)?$", "", key)


def close(key: str, ours: Tensor, reference: Tensor) -> None:
    """Fail unless every number is within its tolerance."""
    assert ours.shape == reference.shape, f"{key}: {tuple(ours.shape)} against {tuple(reference.shape)}"
    allowed, difference = tolerance(key, reference), (ours.detach().double() - reference.double()).abs()
    worst = float((difference / allowed).max())
    assert worst <= 1, f"{key}: largest difference {float(difference.max()):.2e}, {worst:.1f} times what is allowed"


def tolerance(key: str, reference: Tensor) -> Tensor:
    """Allowed difference of each number."""
    spread = float(reference.double().std()) if reference.numel() > 1 else float(reference.abs())
    absolute = next((value for pattern, value in ABSOLUTE if re.fullmatch(pattern, key)), 1e-5 * spread)
    return absolute + RELATIVE * reference.double().abs()


def camera_of(data: Mapping[str, Tensor]) -> Camera:
    """The cameras of a reference file, whose half field of view is 6 degrees."""
    return Camera.from_stylesdf(data["in.viewpoint"])


def generator_of(state: Mapping[str, Tensor]) -> StyleSDF:
    """A generator with an official state dictionary, in evaluation mode."""
    config = stylesdf_config(state)
    generator = StyleSDF(config)
    generator.load_state_dict(stylesdf_to_native(state, config))
    return generator.eval().requires_grad_(False)


def state_of(name: str) -> dict[str, Tensor]:
    """The official state dictionary that a file holds."""
    return {key.removeprefix("state."): value for key, value in tensors(name).items() if key.startswith("state.")}


def formula_state(network: str, *, rules: str, prefix: str = "", filter_gain: float = 1.0) -> dict[str, Tensor]:
    """The weights of a full-size network, made by the reference's formula: see README.md of the full set."""
    patterns = description()["formula_rules"][rules]
    values: dict[str, Callable[[float, float, np.ndarray], np.ndarray]] = {
        "affine": lambda a, b, n: a + b * n,
        "abs": lambda a, b, n: a + b * np.abs(n),
        "fan": lambda a, b, n: a + b * n / np.sqrt(np.prod(n.shape[1:])),
    }
    state = {}
    for key, shape in description()[network].items():
        kind, a, b = next(rule[1:] for rule in patterns if re.search(rule[0], prefix + key))
        if kind == "keep":
            state[key] = make_filter() * filter_gain
        else:
            state[key] = torch.from_numpy(values[kind](a, b, formula_noise(prefix + key, shape)).astype(np.float32))
    return state


def formula_noise(key: str, shape: list[int]) -> np.ndarray:
    """Standard normal numbers that a name gives."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
