"""EG3D checkpoints: the official pickles, and their tensors in a torch or safetensors file with options beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.load import from_mapping, to_mapping
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.weights.boundaries import Boundary, assembled
from e3dge_video.weights.bundle import EDITS_FILE, GENERATOR_FILE, BundleSpec
from e3dge_video.weights.convert_eg3d import (
    IGNORED,
    discriminator_config,
    discriminator_to_native,
    eg3d_config,
    eg3d_to_native,
    ignored_keys,
)
from e3dge_video.weights.foreign import ForeignFile, checked_floats, tensor_groups
from e3dge_video.weights.importer import Converted, Importer
from e3dge_video.weights.state import ignored_by_reason

LICENCE = "as its publisher says; the official EG3D weights: NVIDIA Source Code License, non-commercial"
_SIGN = "backbone.synthesis."
_GROUPS = ("G_ema", "g_ema", "")  # the averaged generator comes first
_NOT_TAKEN = {
    "G": "the generator before averaging",
    "D": "the discriminator, which only training needs; --discriminator keeps it",
    "augment_pipe": "augmentation, which only training needs",
}
#: Sizes above these are no EG3D generator's, and a file could make the check image endless with them.
_LARGEST = {"depth_resolution": 1024, "depth_resolution_importance": 1024, "neural_rendering_resolution": 1024}
_MOST_LAYERS = 64


def _recognises(file: ForeignFile) -> bool:
    return file.pickle is not None or _generator_group(file) is not None


def _generator_group(file: ForeignFile) -> str | None:
    """Name of the state dictionary that is an EG3D generator's."""
    groups = tensor_groups(file.values)
    return next((name for name in _GROUPS if any(key.startswith(_SIGN) for key in groups.get(name, ()))), None)


def _convert(files: Sequence[ForeignFile], boundaries: Mapping[str, Boundary], discriminator: bool) -> Converted:
    models = [file for file in files if _recognises(file)]
    options = [file for file in files if file.kind == "options"]
    if surplus := [*models[1:], *options[1:], *(f for f in files if f not in models and f not in options)]:
        raise ModelError(
            f"{surplus[0].path}: is not used; an EG3D model is one network file, and one of options at most"
        )
    model = models[0]
    if model.pickle is not None:
        network = model.pickle.network("G_ema")
        tensors, init, attributes = network.tensors, network.init_kwargs, network.attributes
        ignored = {reason: [name] for name, reason in _NOT_TAKEN.items() if name in model.pickle.networks}
        facts: dict[str, Any] = {"class": network.class_name, "source_text_sha256": network.source_sha256}
        facts["training_set"] = _without_folders(model.pickle.training_set)
    else:
        group = _generator_group(model)
        assert group is not None
        tensors = tensor_groups(model.values)[group]
        init, attributes = _options(model, options)
        ignored, facts = _rest(model.values, group), {}
    source = str(model.path)
    tensors = checked_floats(tensors, source)
    try:
        config = _config(init, attributes)
        native = eg3d_to_native(tensors, config)
    except (ModelError, ConfigError) as error:
        raise ModelError(f"{source}: {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # what nonsense in the options leads to
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{source}: EG3D checkpoint: an option has a value that cannot be used ({reason})") from error
    edits = {name: assembled(boundaries, name, config) for name in boundaries}
    generator = EG3D(config)
    generator.load_state_dict(native)
    converted = Converted(
        spec=BundleSpec(
            name="",
            backbone="eg3d",
            licence=LICENCE,
            resolution=config.image_resolution,
            neural_resolution=config.resolution,
            crop="eg3d",
            generator=config,
            edits={name: use for name, (_, use) in edits.items()},
            provenance={"project": "EG3D", **facts},
        ),
        tensors={GENERATOR_FILE: native}
        | ({EDITS_FILE: {name: direction for name, (direction, _) in edits.items()}} if edits else {}),
        generator=generator.eval().requires_grad_(False),
        used=len(native),
        ignored=ignored | ignored_keys(tensors, config),
    )
    return _with_discriminator(converted, model) if discriminator else converted


def _with_discriminator(converted: Converted, model: ForeignFile) -> Converted:
    """The model with the discriminator of its file."""
    if model.pickle is None:
        stored, init = tensor_groups(model.values).get("D"), {}
    elif "D" in model.pickle.networks:
        network = model.pickle.network("D")
        stored, init = network.tensors, network.init_kwargs
        if network.class_name != "DualDiscriminator":
            raise ModelError(
                f"{model.path}: its discriminator is a {network.class_name}, only DualDiscriminator is supported; "
                "import the model without --discriminator"
            )
    else:
        stored = None
    if stored is None:
        raise ModelError(f"{model.path}: holds no discriminator (D); import the model without --discriminator")
    source = f"{model.path}: D"
    tensors = checked_floats(stored, source)
    try:
        # The same check of types that reading the bundle makes.
        config = from_mapping(DiscriminatorConfig, to_mapping(discriminator_config(tensors, init)))
        native = discriminator_to_native(tensors, config)
    except (ModelError, ConfigError) as error:
        raise ModelError(f"{source}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{source}: an option has a value that cannot be used ({error})") from error
    return converted.judged_by(config, native, model.path, "D", ignored_by_reason(tensors, IGNORED))


def _options(model: ForeignFile, options: Sequence[ForeignFile]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments and attributes of the generator, from the options file or from the checkpoint itself."""
    values = options[0].values if options else model.values
    init = values.get("init_kwargs")
    if not isinstance(init, Mapping):
        where = options[0].path if options else model.path
        raise ModelError(
            f"{where}: has no init_kwargs, the official generator's arguments, which say how its tensors are used; "
            "import the official pickle, or give a JSON file with them beside the tensors"
        )
    return dict(init), {key: value for key, value in values.items() if key != "init_kwargs"}


def _config(init: Mapping[str, Any], attributes: Mapping[str, Any]) -> EG3DConfig:
    rendering = {**init.get("rendering_kwargs", {}), **attributes.get("rendering_kwargs", {})}
    resolution = attributes.get("neural_rendering_resolution")
    sizes = {**rendering, "neural_rendering_resolution": resolution or 0}
    for name, most in _LARGEST.items():
        if sizes.get(name, 0) > most:
            raise ModelError(f"EG3D checkpoint: {name} = {sizes[name]}, more than the {most} that is supported")
    config = eg3d_config(init, rendering_kwargs=rendering, resolution=resolution)
    if config.mapping.layers > _MOST_LAYERS:
        raise ModelError(
            f"EG3D checkpoint: {config.mapping.layers} mapping layers, at most {_MOST_LAYERS} are supported"
        )
    # The same check of types that reading the bundle makes.
    return from_mapping(EG3DConfig, to_mapping(config), source="EG3D checkpoint")


def _rest(values: Mapping[str, Any], group: str) -> dict[str, list[str]]:
    """What else stands in a torch or safetensors file."""
    taken = {group, "init_kwargs", "rendering_kwargs", "neural_rendering_resolution"}
    rest = [key for key, value in values.items() if key not in taken and (group or not isinstance(value, Tensor))]
    return {"no part of the averaged generator": sorted(rest)} if rest else {}


def _without_folders(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a data set; of paths only the last name, since folders are somebody's own."""
    return {
        key: Path(value).name if key == "path" and isinstance(value, str) else value for key, value in options.items()
    }


EG3D_IMPORTER = Importer("EG3D", _recognises, _convert)
