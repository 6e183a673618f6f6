"""StyleGAN2 synthesis: modulated convolution, RGB layer, blocks and network.

Written from the papers (Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020, and "Training
Generative Adversarial Networks with Limited Data", 2020) and made numerically equal to the networks inside EG3D.
Letters: B batch, C channels, W width of a latent row, L rows of a W+ code.

The convolutions run in channels-last memory, which on a CPU makes large, narrow layers (and the depthwise low-pass
filters) 1.3 to 2 times faster, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from e3dge_video.config.generators import NoiseMode
from e3dge_video.models.activations import DEFAULT_GAINS, bias_act
from e3dge_video.models.fir import double2d, make_filter, resampling_conv2d
from e3dge_video.models.mapping import FullyConnected
from e3dge_video.models.parallel import needs_gradient
from e3dge_video.models.winograd import suits_winograd, winograd_conv2d

Architecture = Literal["skip", "resnet", "orig"]


def channels_last(x: Tensor) -> Tensor:
    """The same image with the channels of a pixel side by side in memory. [B, C, H, W]

    A single image may have any stride from one to the next, but convolutions recognise this memory by the usual one and
    copy it if they do not; torch's own `contiguous` leaves it as it is.
    """
    pixels = x.permute(0, 2, 3, 1).contiguous()
    return pixels.flatten().view(pixels.shape).permute(0, 3, 1, 2)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    taps: Tensor | None = None,
    up: int = 1,
    padding: int = 0,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused: bool | None = None,
    gain: float = 1.0,
) -> Tensor:
    """Convolution whose kernel is scaled per input channel by the style and, if asked, per output channel to unit norm.

    Args:
        x: Features. [B, I, H, W]
        weight: Kernel. [O, I, K, K]
        styles: Scale of each input channel; one row serves all images. [B or 1, I]
        noise: Added to the result. [B or 1, 1, H * up, W * up]
        taps: Low-pass filter for `up`. [4, 4]
        fused: True scales the kernels (one per style), False scales the activations before and after one shared
            convolution. None: fused for a single style, where it saves two passes over the images; with several, the
            grouped convolution would be slower than the passes.
        gain: Factor of the whole result, noise excluded; costs nothing here.
    """
    kinds = styles.shape[0]
    if fused is None:
        fused = kinds == 1
    if x.dtype == torch.float16 and demodulate:  # half precision would overflow: demodulation undoes both scales
        weight = weight / (math.sqrt(weight[0].numel()) * weight.abs().amax(dim=(1, 2, 3), keepdim=True))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = _output_scale(weight, styles, demodulate=demodulate, gain=gain)
    if not fused:
        x = x * styles.to(x.dtype)[:, :, None, None]
        x = resampling_conv2d(x, weight.to(x.dtype), taps=taps, up=up, padding=padding, flip_weight=flip_weight)
        if scale is None:
            return x if noise is None else x + noise.to(x.dtype)
        factor = scale.to(x.dtype)[:, :, None, None]
        return x * factor if noise is None else torch.addcmul(noise.to(x.dtype), x, factor)

    kernels = _scaled_kernels(weight, styles, scale)
    x = resampling_conv2d(
        x.flatten(0, 1)[None] if kinds > 1 else x,
        kernels.flatten(0, 1).to(x.dtype),
        taps=taps,
        up=up,
        padding=padding,
        groups=kinds,
        flip_weight=flip_weight,
    )
    x = x.unflatten(1, (kinds, -1))[0] if kinds > 1 else x
    return x if noise is None else x + noise.to(x.dtype)


def _output_scale(weight: Tensor, styles: Tensor, *, demodulate: bool, gain: float) -> Tensor | None:
    """Factor of each output channel, None for one. [B or 1, O]"""
    if demodulate:
        return (styles.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt() * gain
    return None if gain == 1.0 else styles.new_full([styles.shape[0], weight.shape[0]], gain)


def _scaled_kernels(weight: Tensor, styles: Tensor, scale: Tensor | None) -> Tensor:
    """A kernel for each style. [B or 1, O, I, K, K]"""
    kernels = weight * styles[:, None, :, None, None]
    return kernels if scale is None else kernels * scale[:, :, None, None, None]


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, noise, bias, leaky ReLU; enlarges by two if `up` is 2."""

    taps: Tensor
    noise: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        *,
        kernel: int = 3,
        up: int = 1,
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.clamp = clamp
        self.resolution = resolution
        self.style = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros([])) if use_noise else None
        self.register_buffer("noise", torch.randn(resolution, resolution) if use_noise else None)
        self.register_buffer("taps", make_filter(), persistent=False)

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        *,
        noise: NoiseMode = "const",
        random: torch.Generator | None = None,
        gain: float = 1.0,
        fused: bool | None = None,
    ) -> Tensor:
        """x [B, I, H, W], w [B, W] → [B, O, H * up, W * up]"""
        # The leaky ReLU commutes with positive factors, so its gain is applied to the small tensors before it.
        gain = gain * DEFAULT_GAINS["lrelu"]
        styles = self.style(w)
        image = self._noise(noise, x, gain, random)
        bias = self.bias * gain
        clamp = None if self.clamp is None else self.clamp * gain / DEFAULT_GAINS["lrelu"]
        if self.up == 1 and suits_winograd(x, self.weight) and not needs_gradient(styles, bias, image):

            def finish(block: Tensor, block_noise: Tensor | None) -> Tensor:
                block = block if block_noise is None else block.add_(block_noise)
                return bias_act(block, bias, dim=-1, activation="lrelu", gain=1.0, clamp=clamp, inplace=True)

            scale = _output_scale(self.weight, styles, demodulate=True, gain=gain)
            return winograd_conv2d(x, _scaled_kernels(self.weight, styles, scale), finish, noise=image)
        x = modulated_conv2d(
            x,
            self.weight,
            styles,
            noise=image,
            taps=self.taps,
            up=self.up,
            padding=self.weight.shape[-1] // 2,
            flip_weight=self.up == 1,
            fused=fused,
            gain=gain,
        )
        return bias_act(x, bias, activation="lrelu", gain=1.0, clamp=clamp, inplace=True)

    def _noise(self, mode: NoiseMode, x: Tensor, gain: float, random: torch.Generator | None) -> Tensor | None:
        if self.noise is None or self.noise_strength is None or mode == "none":
            return None
        if mode == "const":
            return (self.noise * (self.noise_strength * gain))[None, None]
        size = (x.shape[0], 1, self.resolution, self.resolution)
        return torch.randn(size, generator=random, device=x.device) * (self.noise_strength * gain)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to image channels, without demodulation or activation."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.style = FullyConnected(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [B, I, H, W], w [B or 1, W] → [B, O, H, W]"""
        styles = self.style(w) * self.weight_gain
        # In channels-last memory this is one matrix product per image, and scaling the small kernels costs nothing.
        kernels = (self.weight[:, :, 0, 0] * styles[:, None]).transpose(1, 2).expand(len(x), -1, -1)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        rgb = torch.baddbmm(self.bias.to(x.dtype), pixels, kernels.to(x.dtype))
        rgb = rgb.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return bias_act(rgb, clamp=self.clamp, inplace=True)


class ResampledConv(nn.Module):
    """Plain (not modulated) convolution with equalised learning rate, optional resampling, bias and activation."""

    taps: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.activation = activation
        self.up, self.down, self.clamp = up, down, clamp
        self.weight_gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.register_buffer("taps", make_filter(), persistent=False)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        """[B, I, H, W] → [B, O, H * up / down, W * up / down]"""
        x = resampling_conv2d(
            x,
            self.weight * self.weight_gain,
            taps=self.taps,
            up=self.up,
            down=self.down,
            padding=self.weight.shape[-1] // 2,
            flip_weight=self.up == 1,
        )
        clamp = None if self.clamp is None else self.clamp * gain
        gain = gain * DEFAULT_GAINS[self.activation]
        return bias_act(x, self.bias, activation=self.activation, gain=gain, clamp=clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution. Takes features and image of the resolution below, returns this one's.

    Args:
        inputs: Channels of the incoming features; 0 makes the first block, which starts from a learned constant.
        up: Whether the block doubles the size; super-resolution modules also have blocks that do not.
        last: The last block has an RGB layer in every architecture.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        *,
        up: bool = True,
        last: bool = False,
        architecture: Architecture = "skip",
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        factor = 2 if up else 1
        self.up = up
        self.first = inputs == 0
        if self.first:
            self.constant = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=factor, use_noise=use_noise, clamp=clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution, use_noise=use_noise, clamp=clamp)
        has_rgb = last or architecture == "skip"
        self.to_rgb = ToRGB(outputs, image_channels, w_dim, clamp=clamp) if has_rgb else None
        residual = architecture == "resnet" and not self.first
        self.skip = ResampledConv(inputs, outputs, 1, bias=False, up=factor) if residual else None

    @property
    def convolutions(self) -> int:
        """Latent rows that the 3×3 layers read; the RGB layer reads the row after them."""
        return 1 if self.first else 2

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        latents: Tensor,
        *,
        noise: NoiseMode = "const",
        random: torch.Generator | None = None,
        fused: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features and image at this block's resolution.

        Args:
            x: Features of the block below, None for the first block. [B, I, H, W]
            image: Sum of the RGB layers so far, at the size of x; never written to. [B, N, H, W]
            latents: The block's rows: its convolutions', then the RGB layer's. [B, 2 or 3, W]
        """
        rows = latents.unbind(dim=1)
        if self.first:
            x = self.constant.expand(latents.shape[0], -1, -1, -1)
            x = channels_last(x)
            x = self.conv1(x, rows[0], noise=noise, random=random, fused=fused)
        else:
            assert x is not None
            x = channels_last(x)
            half = math.sqrt(0.5) if self.skip is not None else 1.0
            shortcut = self.skip(x, gain=half) if self.skip is not None else None
            x = self.conv0(x, rows[0], noise=noise, random=random, fused=fused)
            x = self.conv1(x, rows[1], noise=noise, random=random, gain=half, fused=fused)
            x = x if shortcut is None else x + shortcut
        if image is not None and self.up:
            image = double2d(channels_last(image))
        if self.to_rgb is not None:
            rgb = self.to_rgb(x, rows[self.convolutions])
            image = rgb if image is None else image + rgb
        return x, image


class SynthesisNetwork(nn.Module):
    """W+ → image, one block for each power of two from 4 px.

    Args:
        channels: Feature channels at 4, 8, 16, ... px; their number sets the resolution.
    """

    def __init__(
        self,
        w_dim: int,
        image_channels: int,
        channels: Sequence[int],
        *,
        use_noise: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                inputs,
                outputs,
                w_dim,
                4 << level,
                image_channels,
                last=level == len(channels) - 1,
                use_noise=use_noise,
                clamp=clamp,
            )
            for level, (inputs, outputs) in enumerate(pairwise([0, *channels]))
        )
        self.latent_rows = 2 * len(channels)

    def forward(
        self,
        latents: Tensor,
        *,
        noise: NoiseMode = "const",
        random: torch.Generator | None = None,
        fused: bool | None = None,
    ) -> Tensor:
        """[B, L, W] → [B, N, H, W], in channels-last memory"""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for block in cast(Iterable[SynthesisBlock], self.blocks):
            taken = latents[:, row : row + block.convolutions + 1]
            x, image = block(x, image, taken, noise=noise, random=random, fused=fused)
            row += block.convolutions
        assert image is not None
        return image
