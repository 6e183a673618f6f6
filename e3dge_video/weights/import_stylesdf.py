"""StyleSDF checkpoints: full models, pretrained renderers, generators fine-tuned to toons; and E3DGE's boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from e3dge_video.config.stylesdf import AFHQ_512, FFHQ_1024, StyleSDFConfig
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights.boundaries import Boundary, assembled
from e3dge_video.weights.bundle import EDITS_FILE, GENERATOR_FILE, BundleSpec, EditSpec
from e3dge_video.weights.convert_stylesdf import (
    MEAN_SAMPLES,
    ignored_keys,
    image_discriminator_config,
    image_discriminator_to_native,
    stylesdf_config,
    stylesdf_to_native,
)
from e3dge_video.weights.foreign import ForeignFile, checked_floats, tensor_groups
from e3dge_video.weights.importer import Converted, Importer
from e3dge_video.weights.public_files import published_as

LICENCE = "as its publisher says; the official StyleSDF weights: CC BY-NC-SA 4.0, non-commercial"
_SIGN = "renderer.network."
_GROUPS = ("g_ema", "")
_VIEW_HEAD = "final_conv.conv."  # only the volume discriminator has it
#: Published models of animals. No tensor tells the crop and the cameras of a training set; all others saw FFHQ.
_ANIMALS = {"stylesdf-afhq512", "stylesdf-afhq-renderer"}

_NORMALS = "the boundaries' normals, once"
#: What E3DGE's boundaries do, and the strengths that its release uses.
_KNOWN_EDITS = {
    "bangs": EditSpec(f"more fringe: {_NORMALS}", (-1.5, 2.0)),
    "smiling": EditSpec(f"more smile: {_NORMALS}", (-1.4, 1.5)),
    "no_beard": EditSpec(f"less beard: {_NORMALS}", (-1.5, 1.5)),
    "young": EditSpec(f"younger (below 0: older): {_NORMALS}", (-2.0, 2.0)),
}
_UNSTABLE_EDITS = {"eyeglasses"}
_UNSTABLE = "an edit that E3DGE's authors found unstable and do not load"
_NO_DECODER = "boundaries of the decoder's codes, which this model does not have"


def _recognises(file: ForeignFile) -> bool:
    return generator_group(file) is not None


def generator_group(file: ForeignFile) -> str | None:
    """Name of the state dictionary that is an averaged StyleSDF generator's."""
    if file.kind not in ("torch file", "safetensors file"):
        return None
    groups = tensor_groups(file.values)
    return next((name for name in _GROUPS if any(key.startswith(_SIGN) for key in groups.get(name, ()))), None)


def has_view_head(network: object) -> bool:
    """Whether what stands in a checkpoint is a volume discriminator, which also tells from where a face is seen."""
    return isinstance(network, Mapping) and any(str(key).startswith(_VIEW_HEAD) for key in network)


def _convert(files: Sequence[ForeignFile], boundaries: Mapping[str, Boundary], discriminator: bool) -> Converted:
    models = [file for file in files if _recognises(file)]
    if surplus := [*models[1:], *(file for file in files if file not in models)]:
        raise ModelError(f"{surplus[0].path}: is not used; a StyleSDF model is one checkpoint file")
    model = models[0]
    group, published, source = generator_group(model), published_as(model.path), str(model.path)
    assert group is not None
    animals = published is not None and published.name in _ANIMALS
    tensors = checked_floats(tensor_groups(model.values)[group], source)
    try:
        config = stylesdf_config(tensors, viewpoint=(AFHQ_512 if animals else FFHQ_1024).viewpoint)
        native = stylesdf_to_native(tensors, config)
    except (ModelError, ConfigError) as error:
        raise ModelError(f"{source}: {error}") from error
    generator = StyleSDF(config)
    generator.load_state_dict(native)
    directions, edits, left_out = _edits(boundaries, config)
    converted = Converted(
        spec=BundleSpec(
            name="",
            backbone="stylesdf",
            licence=LICENCE if published is None else f"{published.licence}; read it: {published.terms}",
            resolution=config.image_resolution,
            neural_resolution=config.resolution,
            crop="afhq" if animals else "ffhq",
            generator=config,
            edits=edits,
            provenance={
                "project": "StyleSDF",
                "published_as": None if published is None else published.name,
                "mean_codes": f"measured from {MEAN_SAMPLES} random z; the checkpoint holds none",
            },
        ),
        tensors={GENERATOR_FILE: native} | ({EDITS_FILE: directions} if directions else {}),
        generator=generator.eval().requires_grad_(False),
        used=len(native) - 1,  # all but the mean codes
        ignored=_rest(model.values, group) | ignored_keys(tensors) | left_out,
    )
    return with_image_discriminator(converted, model, "d") if discriminator else converted


def with_image_discriminator(converted: Converted, file: ForeignFile, entry: str) -> Converted:
    """A model with the image discriminator that stands in a file under a name.

    Raises:
        ModelError: There is none, or it is not whole, or judges pictures of another size.
    """
    stored, source = tensor_groups(file.values).get(entry), f"{file.path}: {entry}"
    if stored is None or has_view_head(stored):
        raise ModelError(
            f"{file.path}: holds no image discriminator ({entry}), which only full models have; import the model "
            "without --discriminator"
        )
    tensors = {key.removeprefix("module."): value for key, value in checked_floats(stored, source).items()}
    try:
        native = image_discriminator_to_native(tensors)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    return converted.judged_by(image_discriminator_config(native), native, file.path, entry, ignored_keys(tensors))


def _rest(values: Mapping[str, Any], group: str) -> dict[str, list[str]]:
    """What else stands in a checkpoint, by the reason for leaving it out."""
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        if name == group or (not group and isinstance(value, Tensor)):
            continue
        reason = "no part of the averaged generator"
        if name == "g":
            reason = "the generator before averaging"
        elif name == "d" and isinstance(value, Mapping):
            reason = "the image discriminator, which only training needs; --discriminator keeps it"
            if has_view_head(value):
                reason = "the volume discriminator with its view head, which nothing here uses"
        found.setdefault(reason, []).append(name)
    return found


def _edits(
    boundaries: Mapping[str, Boundary], config: StyleSDFConfig
) -> tuple[dict[str, Tensor], dict[str, EditSpec], dict[str, list[str]]]:
    """Directions [L, W] by attribute, how each may be used, and what is left out by the reason for it.

    One strength moves both: `renderer_ATTRIBUTE` all rows of the field, `decoder_ATTRIBUTE` all rows of the decoder.
    """
    directions: dict[str, Tensor] = {}
    edits: dict[str, EditSpec] = {}
    left_out: dict[str, list[str]] = {}
    for attribute in _attributes(boundaries, with_decoder=config.decoder is not None):
        renderer, decoder = f"renderer_{attribute}", f"decoder_{attribute}"
        own = boundaries[renderer].use is not None  # found here, not published
        if attribute in _UNSTABLE_EDITS and not own:
            left_out.setdefault(_UNSTABLE, []).extend(name for name in (renderer, decoder) if name in boundaries)
            continue
        if config.decoder is None and decoder in boundaries:
            left_out.setdefault(_NO_DECODER, []).append(decoder)
        directions[attribute], edits[attribute] = assembled(boundaries, attribute, config)
        if attribute in _KNOWN_EDITS and not own:
            edits[attribute] = _KNOWN_EDITS[attribute]
    return directions, edits, left_out


def _attributes(boundaries: Mapping[str, Boundary], *, with_decoder: bool) -> list[str]:
    """The attributes that the boundaries are for, each whole."""
    found = set()
    for name, boundary in boundaries.items():
        part, _, attribute = name.partition("_")
        if part not in ("renderer", "decoder") or not attribute:
            raise ModelError(
                f"{boundary.folder}: boundary {name} is for other codes than StyleSDF's, whose boundaries are called "
                "renderer_ATTRIBUTE and decoder_ATTRIBUTE"
            )
        needed = {"renderer", "decoder"} if with_decoder else {"renderer"}
        if missing := {f"{needs}_{attribute}" for needs in needed} - boundaries.keys():
            raise ModelError(
                f"{boundary.folder}: boundary {name} has no {min(missing)} beside it; an edit moves the renderer's "
                "codes and the decoder's"
            )
        found.add(attribute)
    return sorted(found)


STYLESDF_IMPORTER = Importer("StyleSDF", _recognises, _convert)
