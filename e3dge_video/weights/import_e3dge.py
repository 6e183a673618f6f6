"""E3DGE's runner checkpoints: encoders, which become a model together with files of StyleSDF.

A runner's checkpoint holds neither the generator nor what tells a picture's camera. The generator is a full StyleSDF
model, for the toon encoder the one fine-tuned to toons; the camera comes from the volume discriminator, which lies
beside a pretrained volume renderer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from e3dge_video.config.encoders import HybridConfig, HybridEncodersConfig
from e3dge_video.config.stylesdf import StyleSDFConfig
from e3dge_video.errors import ModelError
from e3dge_video.weights.boundaries import Boundary
from e3dge_video.weights.bundle import ENCODER_FILE
from e3dge_video.weights.convert_e3dge import e3dge_config, e3dge_parameters, e3dge_to_native, ignored_keys
from e3dge_video.weights.convert_stylesdf import volume_discriminator_channels, volume_discriminator_to_native
from e3dge_video.weights.foreign import ForeignFile, checked_floats, tensor_groups
from e3dge_video.weights.import_stylesdf import LICENCE as STYLESDF_LICENCE
from e3dge_video.weights.import_stylesdf import (
    STYLESDF_IMPORTER,
    generator_group,
    has_view_head,
    with_image_discriminator,
)
from e3dge_video.weights.importer import Converted, Importer
from e3dge_video.weights.public_files import PublicFile, published_as

LICENCE = "as their publisher says; the official E3DGE weights: S-Lab License 1.0, non-commercial"
_SIGN = "styles_pigan."
#: What stands beside a volume discriminator.
_BESIDE_VIEWPOINTS = {
    "g_ema": "the volume renderer; the generator is whole in its own file",
    "g": "the volume renderer before averaging",
}


def _recognises(file: ForeignFile) -> bool:
    encoder = file.values.get("encoder")
    return isinstance(encoder, Mapping) and any(str(key).removeprefix("module.").startswith(_SIGN) for key in encoder)


@dataclass(frozen=True)
class _Files:
    """The files of a model, by what each is for."""

    runner: ForeignFile
    generator: ForeignFile
    viewpoints: ForeignFile


def _convert(files: Sequence[ForeignFile], boundaries: Mapping[str, Boundary], discriminator: bool) -> Converted:
    given = _sorted(files)
    generator = STYLESDF_IMPORTER.convert([given.generator], boundaries, False)
    assert isinstance(generator.spec.generator, StyleSDFConfig)
    config, encoders, left_out = _encoders(given, generator.spec.generator)
    viewpoints, beside = _viewpoints(given.viewpoints)
    runner, renderer = published_as(given.runner.path), published_as(given.viewpoints.path)
    spec = replace(
        generator.spec,
        licence=f"encoders: {_licence(runner, LICENCE)}. Generator: {generator.spec.licence}. "
        f"Camera: {_licence(renderer, STYLESDF_LICENCE)}",
        hybrid=HybridConfig(config, volume_discriminator_channels(viewpoints)),
        provenance={
            **generator.spec.provenance,
            "project": "E3DGE",
            "published_as": {
                "runner": runner and runner.name,
                "generator": generator.spec.provenance["published_as"],
                "viewpoints": renderer and renderer.name,
            },
        },
    )
    stored = {f"encoders.{key}": value for key, value in encoders.items()}
    stored |= {f"viewpoints.{key}": value for key, value in viewpoints.items()}
    counters = sum(key.endswith(".num_batches_tracked") for key in stored)  # our own: theirs are left out
    converted = replace(
        generator,
        spec=spec,
        tensors={**generator.tensors, ENCODER_FILE: stored},
        used=generator.used + len(stored) - counters,
        ignored=left_out | generator.ignored | beside,
    )
    return with_image_discriminator(converted, *_judge(given, spec.resolution)) if discriminator else converted


def _judge(given: _Files, resolution: int) -> tuple[ForeignFile, str]:
    """Where the discriminator stands: the runner's, which went on while E1 trained, if it judges whole pictures; the
    generator's own otherwise.
    """
    own = tensor_groups(given.runner.values).get("discriminator", {})
    levels = {match[1] for key in own if (match := re.match(r"(?:module\.)?convs\.(\d+)\.", key))}
    fits = not has_view_head(own) and 2 << len(levels) == resolution
    return (given.runner, "discriminator") if fits else (given.generator, "d")


def _sorted(files: Sequence[ForeignFile]) -> _Files:
    """The files by what each is for.

    Raises:
        ModelError: One is missing, or not used.
    """
    runners = [file for file in files if _recognises(file)]
    generators = [file for file in files if _is_whole_generator(file)]
    viewpoints = [file for file in files if file not in generators and has_view_head(file.values.get("d"))]
    used = [*runners[:1], *generators[:1], *viewpoints[:1]]
    if surplus := [file for file in files if file not in used]:
        raise ModelError(
            f"{surplus[0].path}: is not used; an E3DGE model is one runner's checkpoint, one full StyleSDF generator "
            "and one volume renderer with its discriminator"
        )
    missing = [] if generators else ["its generator (ffhq1024x1024.pt of StyleSDF; for toons Toonify400_1024x1024.pt)"]
    if not viewpoints:
        missing.append("the volume discriminator that tells a picture's camera (ffhq_vol_renderer.pt of StyleSDF)")
    if missing:
        raise ModelError(
            f"{runners[0].path}: holds E3DGE's encoders alone; give {' and '.join(missing)} in the same command"
        )
    return _Files(runners[0], generators[0], viewpoints[0])


def _is_whole_generator(file: ForeignFile) -> bool:
    group = generator_group(file)
    return group is not None and any(key.startswith("decoder.") for key in tensor_groups(file.values)[group])


def _encoders(
    given: _Files, generator: StyleSDFConfig
) -> tuple[HybridEncodersConfig, dict[str, Tensor], dict[str, list[str]]]:
    """Sizes and tensors of the encoders, and what else stands in the runner's checkpoint by the reason to leave it."""
    source = str(given.runner.path)
    try:
        foreign = e3dge_parameters(given.runner.values)
        config = e3dge_config(foreign)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    decoder = generator.decoder
    codes = (config.field_rows, config.field_width, config.decoder_rows, config.decoder_width)
    wanted = (generator.field_rows, generator.siren.width, generator.decoder_rows, decoder.w_dim if decoder else 0)
    if codes != wanted:
        raise ModelError(
            f"{source}: gives codes of {_sizes(codes)}, but the generator {given.generator.path} takes "
            f"{_sizes(wanted)}; give the generator that these encoders were trained for"
        )
    left_out = ignored_keys(foreign, given.runner.values)
    dead = {key for keys in left_out.values() for key in keys}
    taken = checked_floats({key: value for key, value in foreign.items() if key not in dead}, source)
    try:
        return config, e3dge_to_native(taken, config), left_out
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error


def _sizes(codes: tuple[int, int, int, int]) -> str:
    return "{} × {} (field) and {} × {} (decoder)".format(*codes)


def _viewpoints(file: ForeignFile) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Tensors of the volume discriminator, and what stands beside it in the file by the reason to leave it."""
    beside: dict[str, list[str]] = {}
    for name in sorted(file.values.keys() - {"d"}):
        reason = _BESIDE_VIEWPOINTS.get(name, "no part of the volume discriminator")
        beside.setdefault(reason, []).append(f"{file.path.name}: {name}")
    tensors = checked_floats(tensor_groups(file.values).get("d", {}), str(file.path))
    try:
        return volume_discriminator_to_native(tensors), beside
    except ModelError as error:
        raise ModelError(f"{file.path}: {error}") from error


def _licence(published: PublicFile | None, otherwise: str) -> str:
    return otherwise if published is None else f"{published.licence}; read it: {published.terms}"


E3DGE_IMPORTER = Importer("E3DGE", _recognises, _convert)
