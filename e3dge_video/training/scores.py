"""Scores of sampled pictures: from a table that somebody filled in, or from a classifier."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from e3dge_video.errors import ConfigError, InputError, ModelError
from e3dge_video.inversion.load import EXPRESSION_KEY
from e3dge_video.io.images import to_tensor
from e3dge_video.training.code_samples import CodeSamples

Scores = dict[str, NDArray[np.float32]]


def check_attribute(name: str, source: str) -> str:
    """An attribute's name, if an edit can be called so.

    Raises:
        ConfigError: It cannot.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or name == EXPRESSION_KEY:
        raise ConfigError(
            f"{source}: {name!r} cannot be an edit's name; use small letters, digits and _, not {EXPRESSION_KEY}"
        )
    return name


def read_scores(path: Path, samples: CodeSamples, attributes: Sequence[str] = ()) -> Scores:
    """Read a table with the column `image` and one for each attribute; any numbers, more meaning more of it.

    Args:
        path: A CSV file; pictures may be missing and cells may be empty: they are not used.
        samples: What was scored.
        attributes: The columns that are wanted; none: all.

    Returns:
        By attribute one score for each sample, NaN where there is none. [N] each

    Raises:
        InputError: The file cannot be read, names a picture that there is not, or holds something else than numbers.
        ConfigError: A column is missing, or has a name that no edit can have.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check --scores") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if header.count("image") != 1 or len(set(header)) != len(header):
        raise InputError(f"{path}: its first line must name the columns: image,ATTRIBUTE,… each once")
    wanted = list(attributes) or [name for name in header if name != "image"]
    if missing := [name for name in wanted if name not in header]:
        raise ConfigError(f"{path}: has no column {missing[0]}; it has {', '.join(header)}")
    if not wanted:
        raise ConfigError(f"{path}: has no scores, only the column image; add a column for each attribute")
    scores = {check_attribute(name, str(path)): np.full(len(samples), np.nan, np.float32) for name in wanted}
    numbers = {name: number for number, name in enumerate(samples.images)}
    seen: set[str] = set()
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {rows.line_num}"
        if len(row) != len(header):
            raise InputError(f"{where}: has {len(row)} cells, the first line names {len(header)} columns")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        image = Path(cells["image"]).name
        if image not in numbers:
            raise InputError(f"{where}: {cells['image']!r} is no picture of {samples.folder}")
        if image in seen:
            raise InputError(f"{where}: {image} comes twice")
        seen.add(image)
        for name in wanted:
            if cells[name]:
                scores[name][numbers[image]] = _number(cells[name], f"{where}, column {name}")
    return scores


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {text!r} is no number")
    return value


@torch.inference_mode()
def classifier_scores(path: Path, samples: CodeSamples, attributes: Sequence[str], *, device: str = "cpu") -> Scores:
    """Let a TorchScript network score the pictures.

    Nothing of Python is executed in such a file, but its tensor operations are: use only files that you trust.

    Args:
        path: Network from pictures in [-1, 1] [B, 3, H, H] to scores [B, A] (or [B] for one), more meaning more of it.
        samples: What is scored.
        attributes: Names of the A scores, in order.
        device: Where the network runs.

    Raises:
        ModelError: No such network, or it gives something else.
    """
    for name in attributes:
        check_attribute(name, "--attributes")
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give a TorchScript network (torch.jit.save)")
    try:
        network: Any = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # a damaged file can raise anything
        raise ModelError(f"{path}: is no TorchScript network; save one with torch.jit.save") from error
    found = []
    with tqdm(total=len(samples), unit="picture", desc=path.name, disable=None) as bar:
        for pictures in samples.pictures():
            try:
                output = network(to_tensor(pictures).to(device))
            except Exception as error:
                reason = str(error).strip().rpartition("\n")[2]
                raise ModelError(
                    f"{path}: does not take pictures {list(pictures.shape[:0:-1])} in [-1, 1] ({reason})"
                ) from error
            expected = (len(pictures), len(attributes))
            if not isinstance(output, torch.Tensor) or output.numel() != math.prod(expected):
                shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
                raise ModelError(
                    f"{path}: gives {shape} for {expected[0]} pictures, expected {list(expected)}: one score for each "
                    f"of --attributes {','.join(attributes)}"
                )
            found.append(output.reshape(expected).float().cpu())
            bar.update(len(pictures))
    scores = torch.cat(found)
    if not torch.isfinite(scores).all():
        raise ModelError(f"{path}: gives scores that are NaN or infinite")
    return {name: scores[:, column].numpy() for column, name in enumerate(attributes)}
