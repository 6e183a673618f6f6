"""EG3D's official options and parameter names → ours. Pure functions on plain values; no file is read here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.config.generators import (
    BackboneConfig,
    CameraConfig,
    DecoderConfig,
    EG3DConfig,
    MappingConfig,
    RaySamplingConfig,
    SuperResolutionConfig,
    VolumeConfig,
)
from e3dge_video.errors import ModelError
from e3dge_video.models.build import build_discriminator
from e3dge_video.models.fir import make_filter
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.weights.state import Rename, check_state, ignored_by_reason, renamed, shapes_of

#: Foreign parameters that we do not take over, and why.
IGNORED = {
    r"(.+\.)?resample_filter": "every layer holds the same low-pass filter, which is checked and built in here",
    r"dataset_label_std": "statistics of the training set; no forward pass reads them",
}
#: Ignored only if the options say `superresolution_noise_mode: none`, as all released models do.
IGNORED_WITHOUT_SR_NOISE = {
    r"superresolution\..+\.(noise_const|noise_strength)": "the super-resolution never adds noise",
}

#: Rendering options that do not change what a trained generator computes.
_TRAINING_ONLY = {
    "density_reg",
    "density_reg_p_dist",
    "reg_type",
    "gpc_reg_prob",
    "gpc_reg_fade_kimg",
    "image_resolution",
}
_REQUIRED_RENDERING = (
    "superresolution_module",
    "depth_resolution",
    "depth_resolution_importance",
    "ray_start",
    "ray_end",
    "box_warp",
)
_KNOWN_RENDERING = {
    *_TRAINING_ONLY,
    *_REQUIRED_RENDERING,
    "disparity_space_sampling",
    "clamp_mode",
    "superresolution_noise_mode",
    "decoder_lr_mul",
    "sr_antialias",
    "c_gen_conditioning_zero",
    "c_scale",
    "white_back",
    "avg_camera_radius",
    "avg_camera_pivot",
    "density_noise",
}
_KNOWN_INIT = {
    "z_dim",
    "c_dim",
    "w_dim",
    "img_resolution",
    "img_channels",
    "sr_num_fp16_res",
    "mapping_kwargs",
    "rendering_kwargs",
    "sr_kwargs",
    "channel_base",
    "channel_max",
    "fused_modconv_default",
    "num_fp16_res",
    "conv_clamp",
}
_KNOWN_DISCRIMINATOR_INIT = {
    "c_dim",
    "img_resolution",
    "img_channels",
    "architecture",
    "channel_base",
    "channel_max",
    "num_fp16_res",
    "conv_clamp",
    "cmap_dim",
    "disc_c_noise",  # disturbs the labels of training pictures; ours are exact
    "block_kwargs",
    "mapping_kwargs",
    "epilogue_kwargs",
}
_SR_MODULE = re.compile(r"(?:training\.superresolution\.)?SuperresolutionHybrid(8XDC|8X|4X|2X)")
_DISCRIMINATOR_CLAMP = 256.0  # the official class's own
_SR_CLAMP = 256.0  # what EG3D limits activations to whenever half precision was allowed, on any device

_LAYER_NAMES: list[Rename] = [
    (re.compile(r"\bb(\d+)\b"), lambda match: f"blocks.{int(math.log2(int(match[1]))) - 2}"),
    (re.compile(r"\bblock(\d)\b"), r"blocks.\1"),
    (re.compile(r"\bfc(\d+)\b"), r"layers.\1"),
    (re.compile(r"\bw_avg$"), "mean_latents"),
    (re.compile(r"\bnoise_const$"), "noise"),
    (re.compile(r"\bconst$"), "constant"),
    (re.compile(r"\baffine\b"), "style"),
    (re.compile(r"\btorgb\b"), "to_rgb"),
    (re.compile(r"\bfromrgb\b"), "from_rgb"),
    (re.compile(r"\bnet\.0\b"), "hidden"),
    (re.compile(r"\bnet\.2\b"), "output"),
]
_GENERATOR_NAMES: list[Rename] = [
    (re.compile(r"^backbone\.mapping\."), "mapping."),
    (re.compile(r"^backbone\.synthesis\."), "backbone."),
]


def eg3d_config(
    init_kwargs: Mapping[str, Any],
    *,
    rendering_kwargs: Mapping[str, Any] | None = None,
    resolution: int | None = None,
) -> EG3DConfig:
    """Our options from the official ones.

    Args:
        init_kwargs: Arguments the official generator was built with.
        rendering_kwargs: The generator's attribute of that name, which training may have changed; wins over the
            arguments' own.
        resolution: The generator's attribute `neural_rendering_resolution`; None: 64, its first value.
    """
    options = {**init_kwargs.get("rendering_kwargs", {}), **(rendering_kwargs or {})}
    _want_all(init_kwargs, ("z_dim", "c_dim", "w_dim"))
    _want_all(options, _REQUIRED_RENDERING)
    _refuse_unknown("option", set(init_kwargs) - _KNOWN_INIT)
    _refuse_unknown("rendering option", set(options) - _KNOWN_RENDERING)
    _want("img_channels", init_kwargs.get("img_channels", 3), {3})
    _want("clamp_mode", options.get("clamp_mode", "softplus"), {"softplus"})
    _want("density_noise", options.get("density_noise", 0), {0})
    _want("c_dim", init_kwargs["c_dim"], {0, 25})
    mapping = init_kwargs.get("mapping_kwargs", {})
    _refuse_unknown(
        "mapping option", set(mapping) - {"num_layers", "embed_features", "layer_features", "lr_multiplier"}
    )
    module = _SR_MODULE.fullmatch(options["superresolution_module"])
    if module is None:
        raise ModelError(
            f"EG3D checkpoint: super-resolution module {options['superresolution_module']!r} is not supported; "
            "known are SuperresolutionHybrid8XDC, 8X, 4X and 2X"
        )
    bounds = (options["ray_start"], options["ray_end"])
    if init_kwargs["c_dim"] == 0:
        conditioning = "none"
    else:
        conditioning = "zeroed" if options.get("c_gen_conditioning_zero", False) else "conditioned"
    return EG3DConfig(
        z_dim=init_kwargs["z_dim"],
        w_dim=init_kwargs["w_dim"],
        resolution=resolution or 64,
        mapping=MappingConfig(
            layers=mapping.get("num_layers", 8),
            lr_multiplier=mapping.get("lr_multiplier", 0.01),
            camera=conditioning,  # type: ignore[arg-type]
            camera_scale=options.get("c_scale", 1.0),
            camera_width=mapping.get("embed_features"),
            hidden_width=mapping.get("layer_features"),
        ),
        backbone=BackboneConfig(
            channel_base=init_kwargs.get("channel_base", 32768),
            channel_max=init_kwargs.get("channel_max", 512),
            clamp=init_kwargs.get("conv_clamp"),
        ),
        decoder=DecoderConfig(lr_multiplier=options.get("decoder_lr_mul", 1.0)),
        volume=VolumeConfig(box_warp=float(options["box_warp"]), white_back=options.get("white_back", False)),
        rays=RaySamplingConfig(
            coarse=options["depth_resolution"],
            fine=options["depth_resolution_importance"],
            near_far="auto" if bounds == ("auto", "auto") else bounds,
            disparity=options.get("disparity_space_sampling", False),
        ),
        superresolution=SuperResolutionConfig(
            kind=module[1],  # type: ignore[arg-type]
            clamp=_SR_CLAMP if init_kwargs.get("sr_num_fp16_res", 0) > 0 else None,
            antialias=options.get("sr_antialias", True),
            noise=options.get("superresolution_noise_mode", "none"),
        ),
        camera=CameraConfig(
            pivot=tuple(options.get("avg_camera_pivot", (0.0, 0.0, 0.0))),
            radius=options.get("avg_camera_radius", 2.7),
        ),
    )


def eg3d_to_native(foreign: Mapping[str, Tensor], config: EG3DConfig) -> dict[str, Tensor]:
    """Rename EG3D's parameters to ours. Every foreign key is used or listed in `IGNORED`.

    Args:
        foreign: State dictionary of the official generator (`G_ema`).
        config: What `eg3d_config` made of its options.
    """
    native = rename_layers(foreign, _ignored(config), _GENERATOR_NAMES)
    with torch.device("meta"):
        network = EG3D(config)
    check_state(
        native,
        shapes_of(network),
        complaint="EG3D checkpoint does not fit its own options",
        advice="is the file damaged, or not an EG3D generator?",
    )
    return native


def ignored_keys(foreign: Mapping[str, Tensor], config: EG3DConfig) -> dict[str, list[str]]:
    """Foreign keys that `eg3d_to_native` leaves out, by the reason for it."""
    return ignored_by_reason(foreign, _ignored(config))


def rename_layers(
    foreign: Mapping[str, Tensor],
    ignored: Mapping[str, str] = IGNORED,
    prefixes: Sequence[Rename] = (),
) -> dict[str, Tensor]:
    """Rename StyleGAN2 and EG3D layer parameters, wherever the layers stand; also serves the discriminator's."""
    native = {}
    for key, value in foreign.items():
        if any(re.fullmatch(pattern, key) for pattern in ignored):
            _check_filter(key, value)
            continue
        native[renamed(key, [*prefixes, *_LAYER_NAMES])] = value
    return native


def discriminator_config(foreign: Mapping[str, Tensor], init_kwargs: Mapping[str, Any]) -> DiscriminatorConfig:
    """Our options of the dual discriminator: sizes from the shapes of its parameters, the rest from the official ones.

    Args:
        foreign: State dictionary of the official discriminator (`D`).
        init_kwargs: Arguments it was built with; what they do not name is as the official class has it.

    Raises:
        ModelError: A parameter that tells a size is missing, or an option that is not supported.
    """
    _refuse_unknown("discriminator option", set(init_kwargs) - _KNOWN_DISCRIMINATOR_INIT)
    block, mapping, head = (init_kwargs.get(f"{part}_kwargs", {}) for part in ("block", "mapping", "epilogue"))
    _refuse_unknown("discriminator option", set(block) - {"freeze_layers", "fp16_channels_last"})
    _refuse_unknown("discriminator option", set(mapping) - {"num_layers", "embed_features", "layer_features"})
    _refuse_unknown("discriminator option", set(head) - {"mbstd_group_size", "mbstd_num_channels"})
    _want("img_channels", init_kwargs.get("img_channels", 3), {3})
    _want("architecture", init_kwargs.get("architecture", "resnet"), {"resnet"})
    _want("mbstd_num_channels", head.get("mbstd_num_channels", 1), {1})
    sizes = sorted({int(match[1]) for key in foreign if (match := re.match(r"b(\d+)\.", key))})
    if len(sizes) < 2 or sizes != [4 << level for level in range(len(sizes))]:
        raise ModelError("EG3D checkpoint: blocks b4, b8, … are missing among the discriminator's parameters")
    embedding = "mapping.embed.weight"
    layers = ["b4.conv", *(f"b{size}.conv0" for size in sizes[1:])]
    return DiscriminatorConfig(
        kind="dual",
        channels=tuple(_discriminator_shape(foreign, f"{layer}.bias")[0] for layer in layers),
        camera_dim=_discriminator_shape(foreign, embedding)[-1] if embedding in foreign else 0,
        mapping_layers=max(1, sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in foreign)),
        group=head.get("mbstd_group_size", 4),
        clamp=init_kwargs.get("conv_clamp", _DISCRIMINATOR_CLAMP),
    )


def discriminator_to_native(foreign: Mapping[str, Tensor], config: DiscriminatorConfig) -> dict[str, Tensor]:
    """Rename the parameters of EG3D's dual discriminator to ours. Every foreign key is used or listed in `IGNORED`.

    Args:
        foreign: State dictionary of the official discriminator (`D`).
        config: What `discriminator_config` made of it.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    last = int(math.log2(config.resolution))
    placed = {}
    for key, value in foreign.items():
        match = re.match(r"b(\d+)\.", key)
        if match and match[1] == "4":
            head = key.replace("b4.fc.", "b4.hidden.").replace("b4.out.", "b4.output.")
            placed[head.replace("b4.", "head.", 1)] = value
        elif match:
            place = last - int(math.log2(int(match[1])))
            placed[f"blocks.{place}.{key[match.end() :]}"] = value
        else:
            placed[key] = value
    native = rename_layers(placed)
    with torch.device("meta"):
        network = build_discriminator(config)
    check_state(
        native,
        shapes_of(network),
        complaint="EG3D checkpoint: not a whole discriminator",
        advice="is the file damaged, or not EG3D's dual discriminator?",
    )
    return native


def _ignored(config: EG3DConfig) -> dict[str, str]:
    return IGNORED | (IGNORED_WITHOUT_SR_NOISE if config.superresolution.noise == "none" else {})


def _check_filter(key: str, value: Tensor) -> None:
    if not key.endswith("resample_filter"):
        return
    built_in = make_filter()
    if value.shape != built_in.shape or not torch.allclose(value.float(), built_in, atol=1e-6):
        raise ModelError(f"EG3D checkpoint: {key} is not the filter [1, 3, 3, 1]; no other one is supported")


def _want_all(options: Mapping[str, Any], names: Iterable[str]) -> None:
    missing = [name for name in names if name not in options]
    if missing:
        raise ModelError(f"EG3D checkpoint: option {', '.join(missing)} is missing; is this an EG3D generator?")


def _discriminator_shape(foreign: Mapping[str, Tensor], key: str) -> torch.Size:
    if key not in foreign or foreign[key].ndim == 0:
        raise ModelError(f"EG3D checkpoint: the discriminator's {key} is missing; is the file damaged?")
    return foreign[key].shape


def _refuse_unknown(kind: str, names: set[str]) -> None:
    if names:
        raise ModelError(
            f"EG3D checkpoint: unknown {kind} {', '.join(sorted(names))}; "
            "it may change the images, so nothing is guessed"
        )


def _want(name: str, value: Any, allowed: set[Any]) -> None:
    if value not in allowed:
        raise ModelError(
            f"EG3D checkpoint: {name} = {value!r} is not supported, only {' or '.join(map(repr, sorted(allowed)))}"
        )
