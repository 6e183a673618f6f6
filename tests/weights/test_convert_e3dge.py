"""Official E3DGE parameter names → ours, on made-up checkpoints whose tensors are one number each, expanded."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.models.encoders.hybrid import HybridEncoders
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.weights.convert_e3dge import (
    IGNORED,
    IGNORED_ENTRIES,
    e3dge_config,
    e3dge_parameters,
    e3dge_to_native,
    recognizer_to_native,
)
from tests.support.e3dge_checkpoint import (
    HEAD,
    Foreign,
    foreign_aligner,
    foreign_encoder,
    foreign_fusion,
    foreign_local,
    foreign_recognizer,
)

Checkpoint = dict[str, Any]


@cache
def networks() -> dict[str, Foreign]:
    return {
        "encoder": foreign_encoder(),
        "netLocal": foreign_local(batch_norm=False),
        "grid_align": foreign_aligner(),
        "Fuse_sft_block": foreign_fusion(),
    }


def checkpoint(*without: str, batch_norm: bool = False) -> Checkpoint:
    """A runner's checkpoint."""
    entries: Checkpoint = {key: Foreign(network) for key, network in networks().items() if key not in without}
    if batch_norm:
        entries["netLocal"] = foreign_local(batch_norm=True)
    return entries | {"iter": 5, "discriminator": {"x": torch.zeros(1)}, "optimizer_g_optimizer": {"state": {}}}


def converted(entries: Checkpoint) -> dict[str, Tensor]:
    foreign = e3dge_parameters(entries)
    return e3dge_to_native(foreign, e3dge_config(foreign))


@pytest.mark.parametrize(
    ("without", "batch_norm", "expected"),
    [
        ((), False, ("hybrid", "instance", "residual")),
        (("Fuse_sft_block",), False, ("aligned", "instance", "residual")),
        (("Fuse_sft_block",), True, ("aligned", "batch", "linear")),
        (("Fuse_sft_block", "netLocal", "grid_align"), False, ("none", "instance", "residual")),
    ],
)
def test_every_key_is_used_or_ignored_for_a_reason(
    without: tuple[str, ...], batch_norm: bool, expected: tuple[str, ...]
) -> None:
    foreign = e3dge_parameters(checkpoint(*without, batch_norm=batch_norm))
    config = e3dge_config(foreign)
    assert (config.field_rows, config.field_width, config.decoder_rows, config.decoder_width) == (4, 12, 4, 20)
    assert (config.local, config.stem_norm, config.film_head) == expected
    native = e3dge_to_native(foreign, config)
    with torch.device("meta"):
        network = HybridEncoders(config)
    network.load_state_dict(native, assign=True)  # strict
    taken = {value.data_ptr() for value in native.values()}
    unused = {key for key, value in foreign.items() if value.data_ptr() not in taken}
    assert unused == {key for key in foreign if any(re.fullmatch(pattern, key) for pattern in IGNORED)}
    counters = sum(key.endswith(".num_batches_tracked") for key in native)
    assert len(native) - counters == len(foreign) - len(unused)


def test_every_reason_to_ignore_applies() -> None:
    foreign = e3dge_parameters(checkpoint())
    assert all(any(re.fullmatch(pattern, key) for key in foreign) for pattern in IGNORED)
    assert all(any(re.fullmatch(pattern, entry) for entry in checkpoint()) for pattern in IGNORED_ENTRIES)


def test_renaming_keeps_values() -> None:
    foreign, native = e3dge_parameters(checkpoint()), converted(checkpoint())
    for ours, theirs in {
        "global_encoder.body.stem.1.running_var": "encoder.input_layer.1.running_var",
        "global_encoder.body.stages.0.2.residual.3.weight": "encoder.body.2.res_layer.3.weight",
        "global_encoder.body.stages.1.0.shortcut.0.weight": "encoder.body.3.shortcut_layer.0.weight",
        "global_encoder.body.stages.2.13.residual.5.gate.2.weight": "encoder.body.20.res_layer.5.fc2.weight",
        "global_encoder.body.stages.3.0.residual.5.gate.0.weight": "encoder.body.21.res_layer.5.fc1.weight",
        "global_encoder.laterals.1.bias": "encoder.latlayer128.bias",
        "global_encoder.field_heads.3.convs.6.weight": "encoder.styles_pigan.3.convs.12.weight",
        "global_encoder.decoder_head.linear.weight": "encoder.styles_stylegan.0.linear.weight",
        "local.encoder.residual_stem.norms.1.bias": "netLocal.residual_conv.1.conv.3.bias",
        "local.encoder.depth_stem.convs.0.weight": "netLocal.depth_conv.1.conv.2.weight",
        "local.encoder.filter.blocks.0.shortcut.0.weight": "netLocal.image_filter.conv2.downsample.0.weight",
        "local.encoder.filter.stacks.2.hourglass.up.convs.1.weight": "netLocal.image_filter.m2.b3_2.conv2.weight",
        "local.encoder.filter.stacks.0.hourglass.inner.inner.norms.2.bias": (
            "netLocal.image_filter.m0.b2_plus_1.bn3.bias"
        ),
        "local.encoder.filter.stacks.3.output.bias": "netLocal.image_filter.l3.bias",
        "local.encoder.filter.stacks.1.features_back.bias": "netLocal.image_filter.bl1.bias",
        "local.film_head.mlp.linear1.weight": f"netLocal.{HEAD}.fc_1.weight",
        "local.aligner.down.2.0.residual.1.weight": "grid_align.conv_layer4.0.res_layer.1.weight",
        "local.aligner.up.0.1.shortcut.1.bias": "grid_align.dconv_layer1.1.shortcut_layer.1.bias",
        "local.fusion.joint.linear0.weight": "Fuse_sft_block.encode_enc.fc_0.weight",
        "local.fusion.shift.2.bias": "Fuse_sft_block.shift.2.bias",
    }.items():
        assert torch.equal(native[ours], foreign[theirs]), ours


def test_prefixes_of_parallel_training_and_missing_counters_do_not_matter() -> None:
    entries = checkpoint()
    for name in networks():
        entries[name] = {
            f"module.{key}": value for key, value in entries[name].items() if not key.endswith("num_batches_tracked")
        }
    plain, other = converted(checkpoint()), converted(entries)
    assert plain.keys() == other.keys() and all(torch.equal(plain[key], other[key]) for key in plain)


def spoiled(entry: str, key: str, value: Tensor) -> Callable[[Checkpoint], None]:
    return lambda entries: entries[entry].update({key: value})


def without(entry: str, pattern: str) -> Callable[[Checkpoint], None]:
    def change(entries: Checkpoint) -> None:
        entries[entry] = {key: value for key, value in entries[entry].items() if not re.match(pattern, key)}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("encoder"), r"no entry `encoder` \(found Fuse_sft_block, .*\)"),
        (lambda c: c.clear(), r"no entry `encoder` \(found nothing\)"),
        (lambda c: c.update(generator={}), "unknown entry `generator`"),
        (lambda c: c.update(grid_align=torch.zeros(3)), "entry `grid_align` is not a network's parameters"),
        (lambda c: c.update(encoder={"iter": 3}), "entry `encoder` is not a network's parameters"),
        (lambda c: c.pop("grid_align"), r"\d+ missing \(local.aligner"),
        (lambda c: c.pop("netLocal"), r"\d+ missing \(local.encoder"),
        (without("encoder", "styles_stylegan"), "styles_stylegan.0.linear.bias is missing"),
        (without("encoder", r"body\.23\."), r"missing \(global_encoder.body.stages.3.2"),
        (without("netLocal", r"image_filter\.m3\."), r"missing \(local.encoder.filter.stacks.3.hourglass"),
        (
            spoiled("encoder", "body.24.res_layer.0.weight", torch.zeros(512)),
            r"1 unknown \(global_encoder.body.24.residual.0.weight\)",
        ),
        (
            spoiled("encoder", "latlayer64.bias", torch.zeros(3)),
            r"1 misshapen \(global_encoder.laterals.0.bias \(3,\) instead of \(512,\)\)",
        ),
        (
            spoiled("netLocal", f"{HEAD}.fc_1.bias", torch.zeros(512)),
            r"1 misshapen \(local.film_head.mlp.linear1.bias \(512,\) instead of \(24,\)\)",
        ),
        (
            spoiled("Fuse_sft_block", "scale.0.bias", torch.full([256], torch.nan)),
            r"1 not finite \(local.fusion.scale.0.bias\)",
        ),
    ],
)
def test_a_wrong_checkpoint_gets_one_line(change: Callable[[Checkpoint], Any], message: str) -> None:
    entries = checkpoint()
    change(entries)
    with pytest.raises(ModelError, match=message) as caught:
        converted(entries)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_recognizer() -> None:
    foreign = foreign_recognizer()
    native = recognizer_to_native(foreign)
    with torch.device("meta"):
        network = FaceRecognizer()
    network.load_state_dict(native, assign=True)  # strict
    assert torch.equal(native["output_norm.running_mean"], foreign["output_layer.4.running_mean"])
    del foreign["output_layer.3.bias"]
    with pytest.raises(ModelError, match=r"IR-SE50 weights: not whole: 1 missing \(linear.bias\)"):
        recognizer_to_native(foreign)
