"""Put trained parts together into a model bundle, with where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from e3dge_video.config.encoders import GlobalEncoderConfig, MatteConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import EDITS_FILE, ENCODER_FILE, EXPRESSION_KEY, GENERATOR_FILE, generator_of
from e3dge_video.training.directions import DirectionConfig, edit_directions, expression_basis
from e3dge_video.training.runs import averaged, load_generator_run, run_config
from e3dge_video.training.toon import add_toon
from e3dge_video.weights.bundle import BundleSpec, ToonSpec, read_bundle, read_spec, write_bundle
from e3dge_video.weights.check_image import check_figures, check_image

_PARTS = ("generator", "landmarks", "encoder", "matte")


@dataclass(frozen=True)
class PackRun:
    """Which runs make the bundle.

    Attributes:
        name: Name of the bundle.
        licence: Licence of the weights.
        generator: Folder of the generator's last run.
        landmarks: Folder of the 3D landmarks' run.
        encoder: Folder of E0's and E_ξ's run.
        matte: Folder of the matte's run.
        directions: Sizes of the direction estimates.
        toon: Folder of the last run of G's cartoon drawing copy; None: the bundle has none.
        toon_style: What its cartoons look like, in words.
        base: An existing bundle that is taken over as it is and only gets the toon part; the runs above are not read.
        notes: Further provenance, in words.
    """

    name: str = "starter"
    licence: str = "CC0-1.0"
    generator: Path = Path("generator")
    landmarks: Path = Path("landmarks")
    encoder: Path = Path("encoder")
    matte: Path = Path("matte")
    directions: DirectionConfig = field(default_factory=DirectionConfig)
    toon: Path | None = None
    toon_style: str = "cartoons"
    base: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def pack(run: PackRun, folder: Path) -> BundleSpec:
    """Write the bundle; returns its specification.

    Raises:
        ConfigError: A run is missing, or a base without a toon run.
    """
    if run.base is not None:
        if run.toon is None:
            raise ConfigError("pack: base takes an existing bundle over to add a toon part; give the toon run as well")
        return _with_toon(run, run.toon, run.base, folder)
    generator = load_generator_run(run.generator)
    directions, edits = edit_directions(generator, run.directions)
    expression, share = expression_basis(generator, run.directions)
    encoder = averaged(run.encoder)
    parts = {
        "encoder": encoder["encoder"],
        "pose_encoder": encoder["pose_encoder"],
        "face_points": averaged(run.landmarks)["face_points"],
        "matte": averaged(run.matte)["matte"],
    }
    spec = BundleSpec(
        name=run.name,
        backbone="eg3d",
        licence=run.licence,
        resolution=generator.config.image_resolution,
        neural_resolution=generator.config.resolution,
        crop="eg3d",
        generator=from_mapping(EG3DConfig, run_config(run.generator)["generator"]),
        encoder=from_mapping(GlobalEncoderConfig, run_config(run.encoder)["encoder"]),
        matte=from_mapping(MatteConfig, run_config(run.matte)["matte"]),
        edits=edits,
        check=check_figures(check_image(generator)),
        provenance={
            **run.notes,
            "expression_share": round(share, 4),
            "directions": to_mapping(run.directions) | {"edits": list(run.directions.edits)},
            "runs": {part: _history(getattr(run, part), part) for part in _PARTS},
        },
    )
    tensors = {
        GENERATOR_FILE: generator.state_dict(),
        ENCODER_FILE: {f"{part}.{k}": v for part, weights in parts.items() for k, v in weights.items()},
        EDITS_FILE: {**directions, EXPRESSION_KEY: expression},
    }
    spec = write_bundle(folder, spec, tensors)
    return spec if run.toon is None else _with_toon(run, run.toon, folder, folder)


def _with_toon(run: PackRun, toon: Path, base: Path, folder: Path) -> BundleSpec:
    """The bundle `base` and a toon run, in `folder`."""
    photo = generator_of(read_bundle(base))
    assert isinstance(photo, nn.Module)
    spec = ToonSpec(run.toon_style, run.licence)
    notes = {} if run.base is None else run.notes
    provenance = {**notes, "run": _history(toon, "generator", of_bundles=False)}
    return add_toon(base, folder, photo.state_dict(), averaged(toon)["generator"], spec, provenance)


def _history(folder: Path, part: str, *, of_bundles: bool = True) -> dict[str, Any]:
    """Options and last figures of the run of a part and of those that it started from; of a bundle, what it says of it,
    or its name and files alone.

    Paths are shortened to folder names, which mean something elsewhere too.
    """
    if (folder / "model.json").exists():
        spec = read_spec(folder)
        history = spec.provenance.get("runs", {}).get(part, {}) if of_bundles else {}
        return {"bundle": spec.name, "files": spec.files, **history}
    config = run_config(folder)
    figures: dict[str, Any] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "evaluation" in record:
            figures = {"step": record["step"], **{k: round(v, 4) for k, v in record["evaluation"].items()}}
    history = {"options": _shortened(config), "figures": figures}
    if config.get("init") is not None:
        history["started_from"] = _history(Path(config["init"]), part, of_bundles=of_bundles)
    return history


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _shortened(v) for k, v in value.items()}
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return value
