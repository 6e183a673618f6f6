"""A made-up tiny EG3D checkpoint under the official names: options, tensors, and the pickle that holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from e3dge_video.models.fir import make_filter
from tests.support.official_pickle import EasyDict, network, write_pickle

RENDERING = {
    "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "superresolution_noise_mode": "none",
    "depth_resolution": 6,
    "depth_resolution_importance": 5,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": [0, 0, 0.2],
    "c_gen_conditioning_zero": False,
    "density_reg": 0.25,
    "gpc_reg_prob": 0.8,
}
INIT: dict[str, Any] = {
    "z_dim": 8,
    "c_dim": 25,
    "w_dim": 6,
    "img_resolution": 128,
    "img_channels": 3,
    "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2},
    "rendering_kwargs": RENDERING,
    "sr_kwargs": {"channel_base": 32768},
    "channel_base": 1024,
    "channel_max": 4,
    "num_fp16_res": 0,
    "conv_clamp": None,
}


#: What the official training gives its discriminator.
DISCRIMINATOR_INIT: dict[str, Any] = {
    "c_dim": 25,
    "img_resolution": 128,
    "img_channels": 3,
    "channel_base": 512,
    "channel_max": 4,
    "num_fp16_res": 4,
    "conv_clamp": 256,
    "disc_c_noise": 0,
    "block_kwargs": {"freeze_layers": 0},
    "mapping_kwargs": {"num_layers": 3},
    "epilogue_kwargs": {"mbstd_group_size": 2},
}


def foreign_state() -> dict[str, Tensor]:
    """The official layout, written out: 256 px planes of 32 channels whatever the other sizes are."""
    state: dict[str, Tensor] = {"dataset_label_std": torch.zeros(25)}

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(outputs, inputs), torch.randn(outputs)

    def layer(name: str, inputs: int, outputs: int, size: int) -> None:
        linear(f"{name}.affine", 6, inputs)
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(outputs, inputs, 3, 3), torch.randn(outputs)
        state[f"{name}.noise_const"], state[f"{name}.noise_strength"] = torch.randn(size, size), torch.randn([])
        state[f"{name}.resample_filter"] = make_filter()

    def block(name: str, inputs: int, outputs: int, size: int, image: int) -> None:
        if inputs:
            layer(f"{name}.conv0", inputs, outputs, size)
        else:
            state[f"{name}.const"] = torch.randn(outputs, size, size)
        layer(f"{name}.conv1", outputs, outputs, size)
        linear(f"{name}.torgb.affine", 6, outputs)
        state[f"{name}.torgb.weight"], state[f"{name}.torgb.bias"] = (
            torch.randn(image, outputs, 1, 1),
            torch.randn(image),
        )
        state[f"{name}.resample_filter"] = make_filter()

    linear("backbone.mapping.embed", 25, 6)
    linear("backbone.mapping.fc0", 14, 6)
    linear("backbone.mapping.fc1", 6, 6)
    state["backbone.mapping.w_avg"] = torch.randn(6)
    for level, size in enumerate((4, 8, 16, 32, 64, 128, 256)):
        block(f"backbone.synthesis.b{size}", 4 if level else 0, 4, size, 96)
    linear("decoder.net.0", 32, 64)
    linear("decoder.net.2", 64, 33)
    block("superresolution.block0", 32, 128, 64, 3)
    block("superresolution.block1", 128, 64, 128, 3)
    state["superresolution.resample_filter"] = make_filter()
    return state


def foreign_discriminator(size: int = 128, channels: int = 4) -> dict[str, Tensor]:
    """The dual discriminator of pictures of this size, as many channels everywhere."""
    state: dict[str, Tensor] = {"resample_filter": make_filter()}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(shape)
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0])

    for level in range(size.bit_length() - 1, 2, -1):
        block = f"b{1 << level}"
        if 1 << level == size:
            layer(f"{block}.fromrgb", channels, 6, 1, 1)
        layer(f"{block}.conv0", channels, channels, 3, 3)
        layer(f"{block}.conv1", channels, channels, 3, 3)
        layer(f"{block}.skip", channels, channels, 1, 1, bias=False)
        for part in ("", ".conv0", ".conv1", ".skip"):
            state[f"{block}{part}.resample_filter"] = make_filter()
    layer("b4.conv", channels, channels + 1, 3, 3)
    layer("b4.fc", channels, 16 * channels)
    layer("b4.out", channels, channels)
    layer("mapping.embed", channels, 25)
    for number in range(3):
        layer(f"mapping.fc{number}", channels, channels)
    return state


def official_file(
    tensors: dict[str, Tensor] | None = None,
    *,
    legacy: bool = False,
    discriminator: dict[str, Tensor] | None = None,
    discriminator_class: str = "DualDiscriminator",
    discriminator_init: dict[str, Any] | None = None,
    **init: Any,
) -> bytes:
    """An official network pickle of these tensors (`foreign_state` by default); `init` changes its arguments."""
    attributes = {"_init_kwargs": EasyDict({**INIT, **init}), "rendering_kwargs": EasyDict(RENDERING)}
    generator = network(
        foreign_state() if tensors is None else tensors, legacy=legacy, neural_rendering_resolution=16, **attributes
    )
    judge = network(
        foreign_discriminator() if discriminator is None else discriminator,
        name=discriminator_class,
        legacy=legacy,
        _init_kwargs=EasyDict({**DISCRIMINATOR_INIT, **(discriminator_init or {})}),
    )
    data = {"class_name": "training.dataset.ImageFolderDataset", "path": "/data/sets/heads.zip", "resolution": 128}
    return write_pickle({"training_set_kwargs": data, "G": generator, "D": judge, "G_ema": generator})
