"""A made-up tiny StyleSDF checkpoint under the official names: tensors, and the file that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from e3dge_video.models.fir import make_filter


class Foreign(dict[str, Tensor]):
    """An official state dictionary in the making."""

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = torch.randn(outputs, inputs), torch.randn(outputs)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, *, w_dim: int) -> None:
        self.linear(f"{name}.conv.modulation", w_dim, inputs)
        self[f"{name}.conv.weight"] = torch.randn(1, outputs, inputs, kernel, kernel)
        self[f"{name}.bias"] = torch.randn(1, outputs, 1, 1)
        if kernel == 3:
            self[f"{name}.noise.weight"] = torch.randn(1)
            self[f"{name}.activate.bias"] = torch.randn(outputs)


def foreign_renderer(*, width: int = 6, depth: int = 2) -> Foreign:
    """A volume renderer."""
    state = Foreign()
    for layer in range(3):
        state.linear(f"style.{layer}", width, width)
    state["renderer.sigmoid_beta"] = torch.tensor([0.1])
    layers = [f"pts_linears.{layer}" for layer in range(depth)]
    for name in (*layers, "views_linears"):
        inputs = {"pts_linears.0": 3, "views_linears": width + 3}.get(name, width)
        state.linear(f"renderer.network.{name}", inputs, width)
        state.linear(f"renderer.network.{name}.gamma", width, width)
        state.linear(f"renderer.network.{name}.beta", width, width)
    state.linear("renderer.network.rgb_linear", width, 3)
    state.linear("renderer.network.sigma_linear", width, 1)
    return state


def foreign_state(*, width: int = 6, depth: int = 2, w_dim: int = 7, channels: tuple[int, ...] = (5, 4, 3)) -> Foreign:
    """The renderer, and a decoder from 8 px on, which doubles the size for each of the channels but the first."""
    state = foreign_renderer(width=width, depth=depth)
    for layer, inputs in ((1, width), (2, w_dim)):
        state.linear(f"decoder.style.{layer}", inputs, w_dim)
    state.conv("decoder.conv1", width, channels[0], 3, w_dim=w_dim)
    state.conv("decoder.to_rgb1", channels[0], 3, 1, w_dim=w_dim)
    for level, (inputs, outputs) in enumerate(pairwise(channels)):
        state.conv(f"decoder.convs.{2 * level}", inputs, outputs, 3, w_dim=w_dim)
        state[f"decoder.convs.{2 * level}.conv.blur.kernel"] = make_filter() * 4
        state.conv(f"decoder.convs.{2 * level + 1}", outputs, outputs, 3, w_dim=w_dim)
        state.conv(f"decoder.to_rgbs.{level}", outputs, 3, 1, w_dim=w_dim)
        state[f"decoder.to_rgbs.{level}.upsample.kernel"] = make_filter() * 4
    for index in range(2 * len(channels) - 1):
        size = 8 << ((index + 1) // 2)
        state[f"decoder.noises.noise_{index}"] = torch.randn(1, 1, size, size)
    return state


def foreign_image_discriminator(channels: tuple[int, ...] = (3, 4, 5)) -> Foreign:
    """16 px: 3, 4, 5 channels at 16, 8, 4 px; or others from the largest size down to 4 px."""
    state, last = Foreign(), channels[-1]
    state["convs.0.0.weight"], state["convs.0.1.bias"] = torch.randn(channels[0], 3, 1, 1), torch.randn(channels[0])
    for level, (inputs, outputs) in enumerate(pairwise(channels), start=1):
        state[f"convs.{level}.conv1.0.weight"] = torch.randn(inputs, inputs, 3, 3)
        state[f"convs.{level}.conv1.1.bias"] = torch.randn(inputs)
        state[f"convs.{level}.conv2.0.kernel"] = state[f"convs.{level}.skip.0.kernel"] = make_filter()
        state[f"convs.{level}.conv2.1.weight"] = torch.randn(outputs, inputs, 3, 3)
        state[f"convs.{level}.conv2.2.bias"] = torch.randn(outputs)
        state[f"convs.{level}.skip.1.weight"] = torch.randn(outputs, inputs, 1, 1)
    state["final_conv.0.weight"], state["final_conv.1.bias"] = torch.randn(last, last + 1, 3, 3), torch.randn(last)
    state.linear("final_linear.0", 16 * last, last)
    state.linear("final_linear.1", last, 1)
    return state


def foreign_volume_discriminator() -> Foreign:
    """8 px: 4, 5, 5 channels at 8, 4, 2 px."""
    state = Foreign()
    state["convs.0.conv.weight"], state["convs.0.activation.bias"] = torch.randn(4, 3, 1, 1), torch.randn(4)
    for level, inputs in enumerate((4, 5), start=1):
        for conv, channels in (("conv1", inputs), ("conv2", 5)):
            state[f"convs.{level}.{conv}.conv.conv.weight"] = torch.randn(5, channels + 2, 3, 3)
            state[f"convs.{level}.{conv}.activation.bias"] = torch.randn(5)
    state["convs.1.skip.conv.weight"], state["convs.1.skip.conv.bias"] = torch.randn(5, 4, 1, 1), torch.randn(5)
    state["final_conv.conv.weight"], state["final_conv.conv.bias"] = torch.randn(3, 5, 2, 2), torch.randn(3)
    return state


def official_file(
    path: Path, state: Mapping[str, Tensor] | None = None, discriminator: Mapping[str, Tensor] | None = None
) -> Path:
    """An official full model with this averaged generator (`foreign_state` by default), or a pretrained renderer, each
    with the discriminator that goes with it unless another one is given.
    """
    state = foreign_state() if state is None else state
    noises = [value for key, value in state.items() if key.startswith("decoder.noises.")]
    if discriminator is None and noises:
        size = max(noise.shape[-1] for noise in noises)
        discriminator = foreign_image_discriminator((3, 4, 5, *[5] * size.bit_length())[: size.bit_length() - 2])
    elif discriminator is None:
        discriminator = foreign_volume_discriminator()
    before = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save({"g": before, "d": dict(discriminator), "g_ema": dict(state)}, path)
    return path
