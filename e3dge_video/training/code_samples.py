"""Codes drawn at random with their pictures, for people or a classifier to score: the first step to linear boundaries.

```
samples.json   which generator, how many, how drawn
codes.npz      a code in W of each part of the generator's codes: `w`; for StyleSDF `renderer` and `decoder`  [N, W]
images.csv     the pictures' names, to which columns of scores can be added
00000.png …    the heads from the front
```
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from e3dge_video.config.generators import CodePart
from e3dge_video.errors import ConfigError, InputError
from e3dge_video.inversion.load import generator_of
from e3dge_video.io import atomic
from e3dge_video.io.images import read_image, to_array, write_png
from e3dge_video.weights.bundle import GENERATOR_FILE, read_bundle, read_spec
from e3dge_video.weights.catalog import find_bundle

INDEX_FILE = "images.csv"
_INFO_FILE, _CODES_FILE = "samples.json", "codes.npz"


@dataclass(frozen=True)
class Drawing:
    """What decides the samples.

    Attributes:
        model: Name of the bundle.
        generator: SHA-256 of its generator.
        seed: Of the random z.
        truncation: 1 draws codes as they come, 0 only the mean.
    """

    model: str
    generator: str
    seed: int
    truncation: float


@dataclass(frozen=True)
class CodeSamples:
    """A folder of samples, read.

    Attributes:
        folder: Where it lies.
        drawing: How they were drawn.
        codes: By the parts' prefixes. [N, W] each
    """

    folder: Path
    drawing: Drawing
    codes: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(next(iter(self.codes.values())))

    @property
    def images(self) -> list[str]:
        """Names of the pictures."""
        return [_image_name(number) for number in range(len(self))]

    def pictures(self, batch: int = 8) -> Iterator[NDArray[np.uint8]]:
        """The pictures, some at a time. [B, H, H, 3]"""
        names = self.images
        for first in range(0, len(names), batch):
            yield np.stack([read_image(self.folder / name) for name in names[first : first + batch]])


def key_of(part: CodePart) -> str:
    """Name of a part's codes in the file."""
    return part.prefix.rstrip("_") or "w"


@torch.inference_mode()
def draw_samples(
    model: str, folder: Path, *, count: int, seed: int = 0, truncation: float = 0.7, device: str = "cpu", batch: int = 8
) -> CodeSamples:
    """Draw codes and render them from the front; a stopped call goes on, a larger count adds to what is there.

    Args:
        model: Name or folder of a model bundle.
        folder: Where the samples go.
        count: How many.
        seed: Of the random z.
        truncation: 1 draws codes as they come, 0 only the mean; less makes better pictures of less variety.
        device: Where the generator runs.
        batch: Pictures at a time.

    Raises:
        ModelError: No such bundle.
        ConfigError: The folder holds other samples.
        InputError: It cannot be written.
    """
    bundle_folder = find_bundle(model)
    bundle = read_bundle(bundle_folder)
    spec, generator = bundle.spec, generator_of(bundle).to(device)
    drawing = Drawing(spec.name, spec.files[GENERATOR_FILE], seed, truncation)
    if (folder / _INFO_FILE).exists():
        former = read_samples(folder)
        if former.drawing != drawing:
            raise ConfigError(
                f"--out {folder}: holds samples of {former.drawing.model}, seed {former.drawing.seed}, truncation "
                f"{former.drawing.truncation:g}; choose another folder, or these options"
            )
        count = max(count, len(former))
    # Rows of z do not depend on their number. Whole batches, whatever is asked for or missing: a picture's last bits
    # may depend on its company.
    z = np.random.default_rng(seed).normal(size=(math.ceil(count / batch) * batch, generator.z_dim)).astype(np.float32)
    batches = [generator.map(part, truncation=truncation) for part in torch.from_numpy(z).to(device).split(batch)]
    latents = torch.cat(batches)[:count].cpu().numpy()
    codes = {part.prefix: latents[:, part.first, : part.width] for part in spec.generator.code_parts}
    samples = CodeSamples(folder, drawing, codes)
    stored = io.BytesIO()
    arrays: Any = {key_of(part): codes[part.prefix] for part in spec.generator.code_parts}
    np.savez(stored, **arrays)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(folder / _CODES_FILE, stored.getvalue())
        atomic.write_bytes(folder / INDEX_FILE, "\n".join(["image", *samples.images, ""]).encode())
        atomic.write_bytes(folder / _INFO_FILE, (json.dumps(asdict(drawing), indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); check the folder") from error
    missing = {number for number, name in enumerate(samples.images) if not (folder / name).is_file()}
    camera = generator.frontal_camera()
    with tqdm(total=count, initial=count - len(missing), unit="picture", desc=folder.name, disable=None) as bar:
        for number, part in enumerate(batches):
            wanted = sorted(missing.intersection(range(number * batch, (number + 1) * batch)))
            if not wanted:
                continue
            images = to_array(generator.synthesize(part, camera))
            for k in wanted:
                write_png(folder / _image_name(k), images[k - number * batch])
                bar.update()
    return samples


def read_samples(folder: Path) -> CodeSamples:
    """Read a folder of samples; the pictures stay where they are.

    Raises:
        InputError: It is none, or damaged.
    """
    try:
        drawing = Drawing(**json.loads((folder / _INFO_FILE).read_text(encoding="utf-8")))
        with np.load(folder / _CODES_FILE, allow_pickle=False) as stored:
            codes = {"" if key == "w" else f"{key}_": np.asarray(stored[key], np.float32) for key in stored.files}
    except FileNotFoundError:
        raise InputError(f"{folder}: holds no samples; `e3dge-video train directions sample` draws some") from None
    except Exception as error:  # a damaged archive can raise anything
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder}: its samples cannot be read ({reason}); draw them again") from error
    return CodeSamples(folder, drawing, codes)


def check_generator(samples: CodeSamples, model: str) -> Path:
    """The bundle's folder, if the samples are of its generator.

    Raises:
        ModelError: No such bundle.
        ConfigError: They are of another one.
    """
    folder = find_bundle(model)
    if read_spec(folder).files[GENERATOR_FILE] != samples.drawing.generator:
        raise ConfigError(
            f"{samples.folder}: its samples are of {samples.drawing.model}'s generator, not of {model}'s; boundaries "
            "serve only the generator they were found for"
        )
    return folder


def write_scores(path: Path, samples: CodeSamples, scores: dict[str, NDArray[np.float32]]) -> None:
    """Write a table of scores: one row for each picture, one column for each attribute."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *scores])
    for number, name in enumerate(samples.images):
        writer.writerow([name, *(f"{values[number]:.6g}" for values in scores.values())])
    try:
        atomic.write_bytes(path, text.getvalue().encode())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); check the folder") from error


def _image_name(number: int) -> str:
    return f"{number:05d}.png"
