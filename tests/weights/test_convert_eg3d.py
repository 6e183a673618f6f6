"""Official EG3D options and parameter names → ours, on a made-up tiny checkpoint."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from e3dge_video.errors import ModelError
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.weights.convert_eg3d import IGNORED, eg3d_config, eg3d_to_native, ignored_keys
from tests.support.eg3d_checkpoint import INIT, RENDERING, foreign_state


def test_every_key_is_used_or_ignored_for_a_reason() -> None:
    config, foreign = eg3d_config(INIT), foreign_state()
    native = eg3d_to_native(foreign, config)
    EG3D(config).load_state_dict(native)  # strict
    unused = {key for key, value in foreign.items() if not any(value is taken for taken in native.values())}
    silent = {key for key in unused if not any(re.fullmatch(pattern, key) for pattern in IGNORED)}
    assert silent == {key for key in foreign if key.startswith("superresolution.") and "noise" in key}
    assert len(native) + len(unused) == len(foreign)
    listed = ignored_keys(foreign, config)
    assert {key for keys in listed.values() for key in keys} == unused and all(" " in reason for reason in listed)


def test_renaming_keeps_values() -> None:
    foreign = foreign_state()
    native = eg3d_to_native(foreign, eg3d_config(INIT))
    for ours, theirs in {
        "mapping.embed.weight": "backbone.mapping.embed.weight",
        "mapping.layers.1.bias": "backbone.mapping.fc1.bias",
        "mapping.mean_latents": "backbone.mapping.w_avg",
        "backbone.blocks.0.constant": "backbone.synthesis.b4.const",
        "backbone.blocks.3.conv0.style.weight": "backbone.synthesis.b32.conv0.affine.weight",
        "backbone.blocks.6.conv1.noise": "backbone.synthesis.b256.conv1.noise_const",
        "backbone.blocks.6.to_rgb.style.bias": "backbone.synthesis.b256.torgb.affine.bias",
        "decoder.hidden.weight": "decoder.net.0.weight",
        "decoder.output.bias": "decoder.net.2.bias",
        "superresolution.blocks.1.conv0.weight": "superresolution.block1.conv0.weight",
    }.items():
        assert native[ours] is foreign[theirs], ours


def test_super_resolution_noise_is_kept_when_it_is_used() -> None:
    config = eg3d_config(INIT, rendering_kwargs={"superresolution_noise_mode": "const"})
    native = eg3d_to_native(foreign_state(), config)
    assert native["superresolution.blocks.0.conv1.noise"].shape == (64, 64)
    EG3D(config).load_state_dict(native)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("decoder.net.0.bias"), r"1 missing \(decoder.hidden.bias\)"),
        (lambda s: s.update({"decoder.net.4.bias": torch.zeros(1)}), r"1 unknown \(decoder.net.4.bias\)"),
        (
            lambda s: s.update({"decoder.net.0.bias": torch.zeros(7)}),
            r"1 misshapen \(decoder.hidden.bias \(7,\) instead of \(64,\)\)",
        ),
        (
            lambda s: s.update({"superresolution.block0.resample_filter": torch.eye(4) / 4}),
            r"superresolution.block0.resample_filter is not the filter \[1, 3, 3, 1\]",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(change: Any, message: str) -> None:
    state = foreign_state()
    change(state)
    with pytest.raises(ModelError, match=message) as caught:
        eg3d_to_native(state, eg3d_config(INIT))
    assert "\n" not in str(caught.value)


def test_options() -> None:
    config = eg3d_config(INIT, resolution=32)
    assert (config.z_dim, config.w_dim, config.resolution, config.image_resolution) == (8, 6, 32, 128)
    assert (config.rays.coarse, config.rays.fine, config.rays.near_far) == (6, 5, (2.25, 3.3))
    assert config.superresolution.kind == "2X" and config.superresolution.clamp == 256
    assert config.mapping.camera == "conditioned" and config.mapping.layers == 2
    assert config.camera.pivot == (0, 0, 0.2) and not config.volume.white_back
    assert config.volume.plane_axes == "released"


def test_a_missing_option_is_named() -> None:
    rendering = {name: value for name, value in RENDERING.items() if name != "box_warp"}
    with pytest.raises(ModelError, match="option box_warp is missing"):
        eg3d_config({**INIT, "rendering_kwargs": rendering})


def test_attributes_of_the_trained_generator_win_over_its_arguments() -> None:
    changed = {"ray_start": "auto", "ray_end": "auto", "white_back": True, "c_gen_conditioning_zero": True}
    config = eg3d_config(INIT, rendering_kwargs=changed)
    assert config.rays.near_far == "auto" and config.volume.white_back
    assert config.mapping.camera == "zeroed"
    assert eg3d_config({**INIT, "sr_num_fp16_res": 0}).superresolution.clamp is None
    assert eg3d_config({**INIT, "c_dim": 0}).mapping.camera == "none"


@pytest.mark.parametrize(
    ("init", "rendering", "message"),
    [
        ({}, {"tilt": 3}, "unknown rendering option tilt"),
        ({"wings": 2}, {}, "unknown option wings"),
        ({}, {"superresolution_module": "training.superresolution.Other"}, "module '.*Other' is not supported"),
        ({}, {"clamp_mode": "relu"}, "clamp_mode = 'relu' is not supported, only 'softplus'"),
        ({}, {"density_noise": 0.5}, "density_noise = 0.5 is not supported"),
        ({"c_dim": 3}, {}, "c_dim = 3 is not supported, only 0 or 25"),
        ({"mapping_kwargs": {"activation": "relu"}}, {}, "unknown mapping option activation"),
    ],
)
def test_options_that_are_not_understood_are_refused(
    init: dict[str, Any], rendering: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        eg3d_config({**INIT, **init}, rendering_kwargs=rendering)
