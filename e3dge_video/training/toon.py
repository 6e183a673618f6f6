"""`train toon`: the paper's toonification of a model bundle (§7.5) on a folder of cartoon faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from e3dge_video.config.load import to_mapping
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.inversion.load import encoder_body_of, generator_of, load_inverter
from e3dge_video.models.generators.base import Generator
from e3dge_video.models.projected_discriminator import ProjectedDiscriminator
from e3dge_video.training.judges import first_judge
from e3dge_video.training.loop import LoopConfig, begin, train
from e3dge_video.training.runs import load_weights
from e3dge_video.training.toon_pictures import read_toon_pictures
from e3dge_video.training.toon_stage import ToonConfig, ToonStage
from e3dge_video.weights.bundle import TOON_FILE, BundleSpec, ToonSpec, extend_bundle, read_bundle, require_encoders
from e3dge_video.weights.catalog import find_bundle

log = logging.getLogger(__name__)

#: A generator that leaves places emptier than this draws heads alone.
_SOLID = 0.5


@dataclass(frozen=True)
class ToonRun:
    """`train toon`.

    Attributes:
        model: Name or folder of the model bundle that learns to draw cartoons.
        pictures: Folder of cartoon faces.
        style: What they look like, in words; `models info` shows it.
        licence: Licence of the result.
        outline: Whether the style has a line around the head, which is then drawn in every view.
        discriminator: Folder of an earlier such run whose discriminator goes on; None: it begins as the one that G was
            trained against, if the bundle holds it, otherwise as one that looks at pictures through the model's E0. It
            learns alone for `stage.warm_up` steps, which come before the generator's own.
    """

    pictures: Path
    model: str = "starter"
    style: str = "cartoons"
    licence: str = "that of the model and of the pictures"
    outline: bool = False
    discriminator: Path | None = None
    stage: ToonConfig = field(default_factory=ToonConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=460,
            learning_rate=2.5e-3,
            warmup_steps=1,
            decay_from=1.0,
            betas=(0.0, 0.99),
            gradient_clip=0.0,
            ema_half_life=20,
        )
    )


def train_toon(run: ToonRun, folder: Path) -> dict[str, float]:
    """Fine-tune G on cartoons, and write `folder/bundle`: the model with a toon part.

    Raises:
        ConfigError: The folder of pictures or the model cannot be used for this.
    """
    begin(run.loop)
    base = find_bundle(run.model)
    bundle = read_bundle(base, discriminator=True)
    require_encoders(base, bundle.spec)
    photo, generator = generator_of(bundle), generator_of(bundle)
    assert isinstance(generator, nn.Module) and isinstance(photo, nn.Module)
    generator.requires_grad_(True)
    matte = load_inverter(str(base)).matte if draws_heads_alone(photo) else None
    with torch.no_grad():
        pictures = read_toon_pictures(run.pictures, bundle.spec.resolution, bundle.spec.crop, matte)
    first = first_judge(bundle)
    discriminator = first.network or ProjectedDiscriminator(*encoder_body_of(bundle))
    origin = first.origin if first.network else "one that looks at pictures through the model's E0"
    if run.discriminator is not None:
        earlier = {"discriminator": _earlier_discriminator(run.discriminator)}
        load_weights(discriminator, earlier, "discriminator", run.discriminator)
        origin = "that of an earlier run"
    log.info("the discriminator begins as %s", origin)
    stage = ToonStage(generator, discriminator, pictures.images, run.stage)
    notes = {"first discriminator": origin}
    figures = train(stage, run.loop, folder, resolved=to_mapping(run) | first.options, notes=notes)
    averages = torch.load(folder / "averaged.pt", map_location="cpu", weights_only=True)
    provenance = {
        "pictures": len(pictures.images),
        "aligned": pictures.aligned,
        **notes,
        "options": {"stage": to_mapping(run.stage), "loop": to_mapping(run.loop)},
        "figures": figures,
    }
    spec = ToonSpec(run.style, run.licence, run.outline)
    add_toon(base, folder / "bundle", photo.state_dict(), averages["generator"], spec, provenance)
    return figures | {"pictures": float(len(pictures.images)), "aligned": float(pictures.aligned)}


def add_toon(
    base: Path,
    folder: Path,
    photo: Mapping[str, Tensor],
    toon: Mapping[str, Tensor],
    spec: ToonSpec,
    provenance: Mapping[str, Any],
) -> BundleSpec:
    """Write a bundle again with the cartoon drawing copy of its generator; returns the new specification.

    Args:
        base: The bundle.
        folder: Where to; the same folder gets it added.
        photo: G's tensors.
        toon: The same tensors of the copy.
        spec: What it draws.
        provenance: Where it comes from.
    """
    return extend_bundle(
        base, folder, {TOON_FILE: differing(photo, toon)}, toon=spec, provenance={"toon": dict(provenance)}
    )


def differing(photo: Mapping[str, Tensor], toon: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `toon` that are others than those of `photo`.

    Raises:
        ModelError: Names or shapes are not the same, or nothing differs.
    """
    if photo.keys() != toon.keys() or any(photo[key].shape != value.shape for key, value in toon.items()):
        raise ModelError("the toon run's generator is not of the model's kind; fine-tune the model's own generator")
    changed = {key: value for key, value in toon.items() if not torch.equal(photo[key], value)}
    if not changed:
        raise ModelError("the toon run's generator is the model's own: nothing was trained")
    return changed


@torch.no_grad()
def draws_heads_alone(generator: Generator) -> bool:
    """Whether a generator leaves the surroundings of a head empty: the emptiest places around its mean head tell."""
    rows = generator.latent_shape[0]
    mean = generator.mean_latents
    latents = (mean if mean.ndim == 2 else mean.expand(rows, -1))[None]
    alpha = generator.render(generator.planes(latents), generator.frontal_camera()).alpha[0, 0]
    return float(alpha.flatten().quantile(0.02)) < _SOLID


def _earlier_discriminator(folder: Path) -> dict[str, Tensor]:
    path = folder / "averaged.pt"
    if not path.is_file():
        raise ConfigError(f"{folder}: no finished toon run (averaged.pt) here, whose discriminator could go on")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["discriminator"]
    return weights
