"""Put trained parts together into a model bundle, with where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from e3dge_video.config.encoders import GlobalEncoderConfig, LocalBranchConfig, MatteConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import (
    EDITS_FILE,
    ENCODER_FILE,
    EXPRESSION_KEY,
    GENERATOR_FILE,
    generator_of,
    load_inverter,
)
from e3dge_video.training.directions import DirectionConfig, edit_directions, expression_basis
from e3dge_video.training.foundations import check_foundation, digest, foundation_of
from e3dge_video.training.runs import averaged, load_generator_run, run_config
from e3dge_video.training.toon import add_toon
from e3dge_video.weights.bundle import (
    DETAIL_FILE,
    BundleSpec,
    ToonSpec,
    extend_bundle,
    read_bundle,
    read_spec,
    write_bundle,
)
from e3dge_video.weights.check_image import check_figures, check_image

_PARTS = ("generator", "landmarks", "encoder", "pose", "matte")


@dataclass(frozen=True)
class PackRun:
    """Which runs make the bundle.

    Attributes:
        name: Name of the bundle.
        licence: Licence of the weights.
        generator: Folder of the generator's last run.
        landmarks: Folder of the 3D landmarks' run.
        encoder: Folder of E0's and E_ξ's run.
        pose: Folder of an E_ξ's own run (`train pose`); None: that of E0's run.
        matte: Folder of the matte's run.
        directions: Sizes of the direction estimates.
        toon: Folder of the last run of G's cartoon drawing copy; None: the bundle has none.
        toon_style: What its cartoons look like, in words.
        toon_outline: Whether they have a line around the head.
        local: Folder of the local branch's last run; None: the bundle has none.
        blend: Folder of the run of the lift's learned part; None: the bundle has none.
        base: An existing bundle that is taken over as it is and only gets the parts from `toon` on; the runs of the
            others are not read.
        notes: Further provenance, in words.
    """

    name: str = "starter"
    licence: str = "CC0-1.0"
    generator: Path = Path("generator")
    landmarks: Path = Path("landmarks")
    encoder: Path = Path("encoder")
    pose: Path | None = None
    matte: Path = Path("matte")
    directions: DirectionConfig = field(default_factory=DirectionConfig)
    toon: Path | None = None
    toon_style: str = "cartoons"
    toon_outline: bool = False
    local: Path | None = None
    blend: Path | None = None
    base: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def pack(run: PackRun, folder: Path) -> BundleSpec:
    """Write the bundle; returns its specification.

    Raises:
        ConfigError: A run is missing, or was trained behind other networks, or a base without a run of a further part.
    """
    if run.base is not None:
        if run.toon is None and run.local is None and run.blend is None:
            raise ConfigError(
                "pack: base takes an existing bundle over to add parts; name a run of toon, local or blend"
            )
        return _extended(run, run.base, folder)
    generator = load_generator_run(run.generator)
    directions, edits = edit_directions(generator, run.directions)
    expression, share = expression_basis(generator, run.directions)
    encoder = averaged(run.encoder)
    if run.pose is not None:
        check_foundation(run.pose, {"encoder": digest(encoder["encoder"])})
    parts = {
        "encoder": encoder["encoder"],
        "pose_encoder": encoder["pose_encoder"] if run.pose is None else averaged(run.pose)["pose_encoder"],
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
            "runs": {part: history(getattr(run, part), part) for part in _PARTS if getattr(run, part) is not None},
        },
    )
    tensors = {
        GENERATOR_FILE: generator.state_dict(),
        ENCODER_FILE: {f"{part}.{k}": v for part, weights in parts.items() for k, v in weights.items()},
        EDITS_FILE: {**directions, EXPRESSION_KEY: expression},
    }
    write_bundle(folder, spec, tensors)
    return _extended(run, folder, folder)


def _extended(run: PackRun, base: Path, folder: Path) -> BundleSpec:
    """The bundle `base` with the parts that may be added, in `folder`."""
    notes = {} if run.base is None else run.notes
    detail: dict[str, Tensor] = {}
    parts: dict[str, Any] = {}
    made: dict[str, Any] = {}
    added = [part for part in (run.local, run.blend) if part is not None]
    if added:
        present = foundation_of(load_inverter(str(base)))
        for part in added:
            check_foundation(part, present)
    if run.local is not None:
        detail |= {f"local.{k}": v for k, v in averaged(run.local)["local"].items()}
        parts["local"] = from_mapping(LocalBranchConfig, run_config(run.local)["branch"])
        made["local"] = history(run.local, "local", told="detail")
    if run.blend is not None:
        detail |= {f"blender.{k}": v for k, v in averaged(run.blend)["blender"].items()}
        parts["blend"] = tuple(run_config(run.blend)["widths"])
        made["blend"] = history(run.blend, "blend", told="detail")
    if detail:
        bundle = read_bundle(base)
        kept = {
            k: v for k, v in bundle.tensors.get(DETAIL_FILE, {}).items() if k.partition(".")[0] not in _names(detail)
        }
        provenance = {"detail": {**bundle.spec.provenance.get("detail", {}), **notes, **made}}
        extend_bundle(base, folder, {DETAIL_FILE: {**kept, **detail}}, provenance=provenance, **parts)
        base = folder
    if run.toon is not None:
        photo = generator_of(read_bundle(base))
        assert isinstance(photo, nn.Module)
        provenance = {**notes, "run": history(run.toon, "generator", told=None)}
        toon = ToonSpec(run.toon_style, run.licence, run.toon_outline)
        add_toon(base, folder, photo.state_dict(), averaged(run.toon)["generator"], toon, provenance)
    return read_spec(folder)


def _names(tensors: dict[str, Tensor]) -> set[str]:
    """The parts that tensors belong to."""
    return {key.partition(".")[0] for key in tensors}


def history(folder: Path, part: str, *, told: str | None = "runs") -> dict[str, Any]:
    """Options and last figures of the run of a part and of those that it started from; of a bundle, what its provenance
    has in the section `told`, or its name and files alone.

    Paths are shortened to folder names, which mean something elsewhere too.
    """
    if (folder / "model.json").exists():
        spec = read_spec(folder)
        made = {} if told is None else spec.provenance.get(told, {}).get(part, {})
        return {"bundle": spec.name, "files": spec.files, **made}
    config = run_config(folder)
    figures: dict[str, Any] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "evaluation" in record:
            figures = {"step": record["step"], **{k: round(v, 4) for k, v in record["evaluation"].items()}}
    made = {"options": _shortened(config), "figures": figures}
    if config.get("init") is not None:
        made["started_from"] = history(Path(config["init"]), part, told=told)
    return made


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _shortened(v) for k, v in value.items()}
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return value
