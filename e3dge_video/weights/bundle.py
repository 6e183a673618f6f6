"""Model bundles: `model.json` and safetensors files; architecture comes from the bundle, never from flags.

```
model.json               format, networks' sizes, camera and crop convention, licence, provenance, SHA-256 of each file
generator.safetensors    G
encoder.safetensors      E0, E_ξ, 3D landmarks, matte
edits.safetensors        one direction per attribute, and the basis of expression
detail.safetensors       optional: E1, E_ADA, fusion, FiLM head; the learned part of the lift
toon.safetensors         optional: the tensors of G that differ in its cartoon drawing copy
discriminator.safetensors  optional: what G was trained against, for adversarial training alone
```

An imported generator may stand alone: without encoders it can be rendered, but no video can be inverted with it. With
E3DGE's released encoders for StyleSDF, encoder.safetensors holds those and the volume discriminator instead; with the
paper's E0 trained on the generator's own heads, that E0 and its E_ξ.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from e3dge_video.config.backbones import BACKBONES, GeneratorConfig
from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.encoders import GlobalEncoderConfig, HybridConfig, LocalBranchConfig, MatteConfig, PSPConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError, ModelError

FORMAT = 1
GENERATOR_FILE, ENCODER_FILE, EDITS_FILE = "generator.safetensors", "encoder.safetensors", "edits.safetensors"
DETAIL_FILE, TOON_FILE = "detail.safetensors", "toon.safetensors"
DISCRIMINATOR_FILE = "discriminator.safetensors"


@dataclass(frozen=True)
class EditSpec:
    """How a direction may be used.

    Attributes:
        unit: What strength 1 means, in words.
        limits: Strengths within which results were looked at and found sensible, or that codes drawn at random span.
        layers: Rows [first, stop) of W+ that the direction moves, and no others; None: all.
    """

    unit: str
    limits: tuple[float, float]
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class CheckFigures:
    """What the check image (`weights/check_image.py`) looked like when the bundle was made.

    Attributes:
        fields: Means over 4 × 4 equal fields of the image: red, green, blue of the first field, then of the next,
            row by row; nominally in [-1, 1].
    """

    fields: tuple[float, ...]


@dataclass(frozen=True)
class ToonSpec:
    """The cartoon drawing copy of G, fine-tuned while the encoders stayed (§7.5).

    Attributes:
        style: What its cartoons look like, in words.
        licence: Licence of its tensors.
        outline: Whether a line is to be drawn around the head in every view; G itself cannot.
    """

    style: str
    licence: str
    outline: bool = False


@dataclass(frozen=True)
class BundleSpec:
    """Everything in `model.json`.

    Attributes:
        name: Name of the model.
        backbone: Which generator: a name in `BACKBONES`.
        licence: SPDX name or a sentence; shown by `models info` and in every report.
        resolution: Side of the pictures it makes, pixels.
        neural_resolution: Side of the volume rendering, pixels.
        crop: Crop convention of its pictures; "eg3d", "ffhq" or "afhq".
        generator: Sizes of G, of the kind that `backbone` names.
        encoder: Sizes of E0; None: the bundle has no encoders.
        matte: Sizes of the matte network; None: as above.
        hybrid: Sizes of E3DGE's released encoders for StyleSDF, which stand in the place of the former two; None: it
            has none.
        psp: Sizes of the paper's E0, trained with its E_ξ on heads of this generator; None: it has none.
        local: Sizes of the local branch; None: it has none, or it stands in `hybrid`.
        blend: Widths of the learned part of the lift; None: it has none.
        edits: Attributes that can be edited.
        toon: What the cartoon drawing copy of G is; None: there is none.
        discriminator: Sizes of the discriminator that G was trained against; None: the bundle does not hold it.
        provenance: Data, commands, seeds and figures that made it.
        files: SHA-256 of each weight file.
        check: What its check image looks like; None: not recorded.
    """

    name: str
    backbone: str
    licence: str
    resolution: int
    neural_resolution: int
    crop: str
    generator: GeneratorConfig
    encoder: GlobalEncoderConfig | None = None
    matte: MatteConfig | None = None
    hybrid: HybridConfig | None = None
    psp: PSPConfig | None = None
    local: LocalBranchConfig | None = None
    blend: tuple[int, ...] | None = None
    edits: dict[str, EditSpec] = field(default_factory=dict)
    toon: ToonSpec | None = None
    discriminator: DiscriminatorConfig | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    check: CheckFigures | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if not isinstance(self.generator, BACKBONES[self.backbone]):
            raise ConfigError(f"backbone {self.backbone} does not go with a {type(self.generator).__name__}")
        rows = self.generator.latent_shape[0]
        for name, use in self.edits.items():
            if use.layers is not None and not 0 <= use.layers[0] < use.layers[1] <= rows:
                raise ConfigError(f"edits.{name}.layers = {list(use.layers)}: expected [first, stop] within 0…{rows}")


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk: its specification and the tensors of each file read, fp32."""

    folder: Path
    spec: BundleSpec
    tensors: dict[str, dict[str, Tensor]]


def read_spec(folder: Path) -> BundleSpec:
    """Read `model.json`.

    Raises:
        ModelError: Missing, unreadable, of a newer format or with unknown keys.
    """
    path = folder / "model.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: not a model bundle (no model.json); `e3dge-video models list` shows what is here"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise ModelError(f"{path}: bundle format {found}, this version reads format {FORMAT}")
    kind, options = BACKBONES.get(str(values.get("backbone"))), values.get("generator")
    if kind is None or not isinstance(options, dict):
        raise ModelError(
            f"{path}: has no options of a known generator (backbone {values.get('backbone')!r}); this version knows "
            f"{', '.join(BACKBONES)}"
        )
    try:
        generator = from_mapping(kind, options, source=str(path), prefix="generator.")
        spec = from_mapping(BundleSpec, {**values, "generator": generator}, source=str(path))
    except ConfigError as error:
        raise ModelError(str(error)) from error
    for title, part, file in (
        ("toon", spec.toon, TOON_FILE),
        ("discriminator", spec.discriminator, DISCRIMINATOR_FILE),
    ):
        if (part is None) == (file in spec.files):
            listed, told = ("lists", "says nothing of it") if part is None else ("does not list", "describes it")
            raise ModelError(f"{path}: {listed} {file}, but {told} under {title}")
    return spec


def require_encoders(folder: Path, spec: BundleSpec) -> None:
    """Refuse a bundle that is a generator alone.

    Raises:
        ModelError: As said.
    """
    if spec.psp is None and spec.hybrid is None and (spec.encoder is None or spec.matte is None):
        raise ModelError(
            f"{folder}: the model {spec.name} is a generator alone, without the encoders (E0, E_ξ) that videos need; "
            "choose a --model that has them, such as starter, or teach it some with `e3dge-video train global`"
        )


def require_starter_encoders(folder: Path, spec: BundleSpec) -> None:
    """Refuse a bundle that has no encoders, or others than the starter's kind: E0, E_ξ, 3D landmarks, matte.

    Raises:
        ModelError: As said.
    """
    require_encoders(folder, spec)
    if spec.psp is not None or spec.hybrid is not None:
        raise ModelError(
            f"{folder}: the model {spec.name} has the paper's encoders, without 3D landmarks and matte; from Python, "
            "e3dge_video.inversion.load.load_paper_inverter loads it"
        )


def require_toon(folder: Path, spec: BundleSpec) -> None:
    """Refuse a bundle that has no cartoon drawing copy of its generator.

    Raises:
        ModelError: As said.
    """
    if spec.toon is None:
        raise ModelError(
            f"{folder}: the model {spec.name} has no toon generator, which --toon needs; choose a --model that has "
            "one, such as starter, or train one with `e3dge-video train toon`"
        )


def read_bundle(folder: Path, *, verify: bool = True, discriminator: bool = False) -> Bundle:
    """Read a bundle with its tensors.

    Args:
        folder: The bundle.
        verify: Check every file read against its SHA-256.
        discriminator: Read the discriminator, too, if there is one. Whoever writes the tensors again needs it, and
            adversarial training; nothing else does.

    Raises:
        ModelError: Anything missing, damaged or changed.
    """
    spec = read_spec(folder)
    tensors = {}
    for name, digest in spec.files.items():
        if name == DISCRIMINATOR_FILE and not discriminator:
            continue
        path = folder / name
        if not path.is_file():
            raise ModelError(f"{path}: missing; the bundle {spec.name} is incomplete, install or import it again")
        if verify and sha256(path) != digest:
            raise ModelError(f"{path}: differs from the SHA-256 in model.json; the file is damaged or was changed")
        try:
            tensors[name] = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: not a readable safetensors file ({error})") from error
    return Bundle(folder, spec, tensors)


def write_bundle(
    folder: Path, spec: BundleSpec, tensors: Mapping[str, Mapping[str, Tensor]], *, exact: bool = False
) -> BundleSpec:
    """Write a bundle; returns the specification with the files' SHA-256.

    Args:
        exact: Keep fp32. Otherwise floats become fp16, except where a tensor has values beyond its range (variances of
            batch normalisation).

    Raises:
        ModelError: A weight is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _write_tensors(folder / name, values, exact=exact) for name, values in tensors.items()}
    return _write_spec(folder, replace(spec, files=files))


def extend_bundle(
    base: Path,
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    provenance: Mapping[str, Any],
    **parts: Any,
) -> BundleSpec:
    """Write a bundle again, its files byte for byte, and further ones; returns the new specification.

    Args:
        base: The bundle.
        folder: Where to; may be `base` itself.
        tensors: Tensors of the further files, kept as fp16 like the others.
        provenance: Added to what made the bundle.
        parts: What the further files are, in the terms of `BundleSpec`: toon, local, blend.
    """
    spec = read_bundle(base, discriminator=True).spec
    folder.mkdir(parents=True, exist_ok=True)
    for name in spec.files:
        if folder.resolve() != base.resolve():
            shutil.copyfile(base / name, folder / name)
    files = {name: _write_tensors(folder / name, values, exact=False) for name, values in tensors.items()}
    return _write_spec(
        folder,
        replace(spec, **parts, provenance={**spec.provenance, **provenance}, files={**spec.files, **files}),
    )


def _write_tensors(path: Path, values: Mapping[str, Tensor], *, exact: bool) -> str:
    """Write one file; returns its SHA-256."""
    stored = {k: (v if exact else compact(v)).contiguous().cpu() for k, v in values.items()}
    for key, value in stored.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{path.name}: {key} has values that are no finite numbers; the training went wrong")
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(save(stored))  # not save_file: its files are nobody else's to read, whatever the umask
    temporary.replace(path)
    return sha256(path)


def _write_spec(folder: Path, spec: BundleSpec) -> BundleSpec:
    temporary = folder / ".model.json.tmp"
    temporary.write_text(json.dumps(to_mapping(spec), indent=1) + "\n")
    temporary.replace(folder / "model.json")
    return read_spec(folder)


def compact(value: Tensor) -> Tensor:
    """The tensor in fp16 if that holds it, in fp32 otherwise; integers as they are."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if torch.isfinite(half).all() else value.float()


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_count(path: Path) -> tuple[int, int]:
    """Number of tensors and of values in a safetensors file, without loading it."""
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        values = sum(int(torch.tensor(file.get_slice(k).get_shape()).prod()) for k in keys)
    return len(keys), values
