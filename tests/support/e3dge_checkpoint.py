"""Made-up E3DGE checkpoints under the official names: the networks of a runner, and the files that make a model.

The bodies have the official sizes, which no option changes; the codes are narrow: 4 rows of 12 and 4 of 20.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support import stylesdf_checkpoint

HEAD = "local_feat_to_tex_modulations_linear"


class Foreign(dict[str, Tensor]):
    """An official state dictionary in the making; every tensor holds another number and takes no memory."""

    def add(self, name: str, *shape: int) -> None:
        self[name] = torch.tensor(float(len(self) + 1)).expand(shape)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = False) -> None:
        self.add(f"{name}.weight", outputs, inputs, kernel, kernel)
        if bias:
            self.add(f"{name}.bias", outputs)

    def linear(self, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.add(f"{name}.weight", outputs, inputs)
        if bias:
            self.add(f"{name}.bias", outputs)

    def norm(self, name: str, channels: int, *, statistics: bool = False) -> None:
        self.add(f"{name}.weight", channels)
        self.add(f"{name}.bias", channels)
        if statistics:
            self.add(f"{name}.running_mean", channels)
            self.add(f"{name}.running_var", channels)
            self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def residual(self, name: str, inputs: int, outputs: int, *, squeeze: bool) -> None:
        if inputs != outputs:
            self.conv(f"{name}.shortcut_layer.0", inputs, outputs, 1)
            self.norm(f"{name}.shortcut_layer.1", outputs, statistics=True)
        self.norm(f"{name}.res_layer.0", inputs, statistics=True)
        self.conv(f"{name}.res_layer.1", inputs, outputs)
        self.add(f"{name}.res_layer.2.weight", outputs)
        self.conv(f"{name}.res_layer.3", outputs, outputs)
        self.norm(f"{name}.res_layer.4", outputs, statistics=True)
        if squeeze:
            self.conv(f"{name}.res_layer.5.fc1", outputs, outputs // 16, 1)
            self.conv(f"{name}.res_layer.5.fc2", outputs // 16, outputs, 1)

    def body(self) -> None:
        self.conv("input_layer.0", 3, 64)
        self.norm("input_layer.1", 64, statistics=True)
        self.add("input_layer.2.weight", 64)
        widths = [64] * 3 + [128] * 4 + [256] * 14 + [512] * 3
        for block, (inputs, outputs) in enumerate(zip([64, *widths], widths, strict=False)):
            self.residual(f"body.{block}", inputs, outputs, squeeze=True)

    def pyramid(self, name: str, inputs: int, outputs: int) -> None:
        sizes = ((inputs, outputs // 2), (outputs // 2, outputs // 4), (outputs // 4, outputs // 4))
        for number, (i, o) in enumerate(sizes, start=1):
            self.conv(f"{name}.conv{number}", i, o)
            self.norm(f"{name}.bn{number}", i)
        self.norm(f"{name}.bn4", inputs)
        if inputs != outputs:
            self.norm(f"{name}.downsample.0", inputs)
            self.conv(f"{name}.downsample.2", inputs, outputs, 1)


def foreign_encoder() -> Foreign:
    """E0 with 4 heads of width 12 for the field and 4 of width 20, three of them unused, for the decoder."""
    state = Foreign()
    state.body()
    for name, inputs in (("latlayer64", 64), ("latlayer128", 128), ("latlayer256", 256)):
        state.conv(name, inputs, 512, 1, bias=True)
    for family, heads, width in (("styles_pigan", 4, 12), ("styles_stylegan", 4, 20)):
        for head in range(heads):
            for level in range(7):
                state.conv(f"{family}.{head}.convs.{2 * level}", width if level else 512, width, bias=True)
            state.linear(f"{family}.{head}.linear", width, width)
    return state


def foreign_local(*, batch_norm: bool) -> Foreign:
    """E1 and the FiLM head, in the variant of the test scripts or in that of the training scripts."""
    state = Foreign()
    hourglass = "image_filter"
    state.conv(f"{hourglass}.conv1", 64, 64, 7, bias=True)
    state.norm(f"{hourglass}.bn1", 64)
    for name, inputs, outputs in (("conv2", 64, 128), ("conv3", 128, 128), ("conv4", 128, 256)):
        state.pyramid(f"{hourglass}.{name}", inputs, outputs)
    for stack in range(4):
        for part in ("b1_2", "b2_2", "b1_1", "b2_1", "b2_plus_1", "b3_1", "b3_2"):
            state.pyramid(f"{hourglass}.m{stack}.{part}", 256, 256)
        state.pyramid(f"{hourglass}.top_m_{stack}", 256, 256)
        state.norm(f"{hourglass}.bn_end{stack}", 256)
        for name in ("conv_last", "l", *(("bl", "al") if stack < 3 else ())):
            state.conv(f"{hourglass}.{name}{stack}", 256, 256, 1, bias=True)
    for name, inputs in (("residual_conv", 3), ("depth_conv", 1)):
        state.conv(f"{name}.0", inputs, 32)
        for norm, conv in ((0, 2), (3, 5)):
            state.norm(f"{name}.1.conv.{norm}", 32, statistics=batch_norm)
            state.conv(f"{name}.1.conv.{conv}", 32, 32)
        state.conv(f"{name}.2", 32, 32, 1)
    state.conv("downsample_channel_conv.conv", 512, 64, bias=True)
    state.norm("downsample_channel_conv.bn", 64)
    if batch_norm:
        state.linear(HEAD, 301, 24)
    else:
        state.linear(f"{HEAD}.fc_0", 301, 24)
        state.linear(f"{HEAD}.fc_1", 24, 24)
        state.linear(f"{HEAD}.shortcut", 301, 24, bias=False)
    return state


def foreign_aligner() -> Foreign:
    state = Foreign()
    state.conv("conv_layer1.0", 6, 16)
    state.norm("conv_layer1.1", 16, statistics=True)
    state.add("conv_layer1.2.weight", 16)
    stages = {"conv_layer2": (16, 32, 32, 32), "conv_layer3": (32, 48, 48, 48), "conv_layer4": (48, 64, 64, 64)}
    stages |= {"dconv_layer1": (112, 64, 32, 32), "dconv_layer2": (64, 32, 16, 16), "dconv_layer3": (32, 16, 3, 3)}
    for name, widths in stages.items():
        for block in range(3):
            state.residual(f"{name}.{block}", widths[block], widths[block + 1], squeeze=False)
    return state


def foreign_fusion() -> Foreign:
    state = Foreign()
    state.linear("encode_enc.fc_0", 513, 256)
    state.linear("encode_enc.fc_1", 256, 256)
    state.linear("encode_enc.shortcut", 513, 256, bias=False)
    for name in ("scale.0", "scale.2", "shift.0", "shift.2"):
        state.linear(name, 256, 256)
    return state


def foreign_recognizer() -> Foreign:
    """The face recogniser that the identity loss asks."""
    state = Foreign()
    state.body()
    state.norm("output_layer.0", 512, statistics=True)
    state.linear("output_layer.3", 512 * 7 * 7, 512)
    state.norm("output_layer.4", 512, statistics=True)
    return state


def filled(network: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same parameters with random numbers that keep a signal's size, half precision."""
    state = {}
    for name, value in network.items():
        if name.endswith(".num_batches_tracked"):
            state[name] = value
        elif value.ndim > 1:
            state[name] = (torch.randn(value.shape) / math.sqrt(math.prod(value.shape[1:]))).half()
        else:
            middle = 1.0 if name.endswith(("running_var", ".weight")) else 0.0
            state[name] = (middle + 0.05 * torch.randn(value.shape).clamp(-3, 3)).half()
    return state


def runner(*networks: str, batch_norm: bool = False) -> dict[str, Any]:
    """A runner's checkpoint with E0 and these networks of `netLocal`, `grid_align`, `Fuse_sft_block`."""
    made = {
        "encoder": foreign_encoder,
        "netLocal": lambda: foreign_local(batch_norm=batch_norm),
        "grid_align": foreign_aligner,
        "Fuse_sft_block": foreign_fusion,
    }
    entries: dict[str, Any] = {name: filled(made[name]()) for name in ("encoder", *networks)}
    return entries | {"iter": 5, "discriminator": {"x": torch.zeros(1)}, "optimizer_g_optimizer": {"state": {}}}


def write_generator(path: Path, *, toon: bool = False) -> Path:
    """The StyleSDF model that goes with it: 8 px, after its decoder 16 px. One fine-tuned to toons has `g_ema` only."""
    state = stylesdf_checkpoint.foreign_state(width=12, depth=3, w_dim=20, channels=(5, 4))
    if toon:
        torch.save({"g_ema": dict(state)}, path)
        return path
    return stylesdf_checkpoint.official_file(path, state)


def write_renderer(path: Path) -> Path:
    """The pretrained volume renderer that its volume discriminator comes with."""
    return stylesdf_checkpoint.official_file(path, stylesdf_checkpoint.foreign_renderer(width=12, depth=3))
