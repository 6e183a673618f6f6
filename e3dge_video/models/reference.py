"""The generators' plain path: every operation of the papers by itself, on the whole image, in the order of the papers.

Reference of the fast path, which is what the generators themselves run: tests compare the two, and
`scripts/benchmark_generators.py` measures one against the other. Nothing else uses it. It borrows a generator's
parameters and copies nothing. Letters: B batch, C channels, N rays, S samples, L rows and W width of W+.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, camera_rays
from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.generators.base import Planes, RenderOutput
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.eg3d.triplane import PLANE_AXES
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from e3dge_video.models.rendering.compositing import interval_weights
from e3dge_video.models.rendering.sampling import RayDraws, importance_depths, stratified_depths
from e3dge_video.models.rendering.volume import ray_bounds
from e3dge_video.models.stylegan2 import SynthesisBlock, SynthesisLayer, ToRGB


class PlainEG3D:
    """An EG3D generator's path from latents to images, step by step."""

    def __init__(self, generator: EG3D) -> None:
        self.generator = generator

    def planes(self, latents: Tensor) -> Planes:
        """Latents [B, L, W] → planes, with each layer's own noise."""
        image, row = None, 0
        x: Tensor | None = None
        for block in cast(Iterable[SynthesisBlock], self.generator.backbone.blocks):
            x, image = _block(block, x, image, latents[:, row:])
            row += block.convolutions
        assert image is not None
        return Planes(image.unflatten(1, (3, -1)))

    def render(
        self, planes: Planes, camera: Camera, *, resolution: int | None = None, draws: RayDraws | None = None
    ) -> RenderOutput:
        """Three reads of each sample, both passes sorted together with their features, sums over the intervals."""
        config = self.generator.config
        size = resolution or config.resolution
        rays, count = camera_rays(camera, size), max(len(planes), len(camera))
        rays = Rays(rays.origins.expand(count, -1, -1), rays.directions.expand(count, -1, -1))
        planes = Planes(planes.values.expand(count, -1, -1, -1, -1))
        draws = draws or RayDraws.regular(config.rays.coarse, config.rays.fine, device=rays.origins.device)
        near, far = ray_bounds(rays, config.rays, config.volume.box_warp)

        def look(depths: Tensor) -> tuple[Tensor, Tensor]:
            points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
            density, features = self._field(planes, points.flatten(1, 2))
            return density.view(depths.shape), features.view(*depths.shape, -1)

        depths = stratified_depths(near, far, draws.coarse, disparity=config.rays.disparity)
        depths = depths.expand(*rays.origins.shape[:2], -1)
        density, features = look(depths)
        if config.rays.fine:
            fine_depths = importance_depths(depths, interval_weights(density, depths), draws.fine)
            fine_density, fine_features = look(fine_depths)
            depths, order = torch.cat([depths, fine_depths], dim=-1).sort(dim=-1)
            density = torch.cat([density, fine_density], dim=-1).gather(-1, order)
            features = torch.cat([features, fine_features], dim=-2)
            features = features.gather(-2, order[..., None].expand_as(features))
        weights = interval_weights(density, depths)[..., None]
        total = (weights * (features[..., 1:, :] + features[..., :-1, :]) / 2).sum(dim=-2)
        alpha = weights.sum(dim=-2)
        depth = (weights[..., 0] * (depths[..., 1:] + depths[..., :-1]) / 2).sum(dim=-1, keepdim=True) / alpha
        depth = depth.nan_to_num(nan=math.inf).clamp(depths.amin(), depths.amax())
        if config.volume.white_back:
            total = total + 1 - alpha
        total, depth, alpha = (
            values.transpose(1, 2).contiguous().unflatten(2, (size, size)) for values in (total * 2 - 1, depth, alpha)
        )
        return RenderOutput(total[:, :3], total, depth, alpha)

    def upsample(self, rendered: RenderOutput, latents: Tensor) -> Tensor:
        """Super-resolution. [B, 3, H, H]"""
        module = self.generator.superresolution
        if module is None:
            return rendered.rgb
        x, image = rendered.features, rendered.rgb
        if x.shape[-1] != module.config.input_size:
            x, image = (
                resize_bilinear(values, module.config.input_size, antialias=module.config.antialias)
                for values in (x, image)
            )
        for block in cast(Iterable[SynthesisBlock], module.blocks):
            x, image = _block(block, x, image, latents[:, -1:].expand(-1, 3, -1), noise=module.config.noise == "const")
        return image

    def synthesize(self, latents: Tensor, camera: Camera) -> Tensor:
        """Latents and cameras → final images. [B, 3, H, H]"""
        return self.upsample(self.render(self.planes(latents), camera), latents)

    def _field(self, planes: Planes, points: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, M, 1] and features [B, M, C] at world points [B, M, 3]."""
        volume, decoder = self.generator.config.volume, self.generator.decoder
        boxed = points * (2 / volume.box_warp)
        grids = torch.stack([boxed[..., axes] for axes in PLANE_AXES[volume.plane_axes]], dim=1)
        reads = F.grid_sample(planes.values.flatten(0, 1), grids.flatten(0, 1)[:, None], align_corners=False)
        mean = reads[:, :, 0].unflatten(0, (-1, 3)).mean(dim=1).transpose(1, 2)
        x = decoder.output(F.softplus(decoder.hidden(mean.flatten(0, 1)))).unflatten(0, mean.shape[:2])
        return x[..., :1], torch.sigmoid(x[..., 1:]) * (1 + 2 * 0.001) - 0.001


class PlainStyleSDF:
    """A StyleSDF generator's path from latents to images: all rays at once, then the decoder step by step."""

    def __init__(self, generator: StyleSDF) -> None:
        self.generator = generator

    def planes(self, latents: Tensor) -> Planes:
        """Latents [B, L, W] → codes of the field."""
        return self.generator.planes(latents)

    def render(self, planes: Planes, camera: Camera, *, resolution: int | None = None) -> SurfaceRender:
        """All rays in one block."""
        size = resolution or self.generator.config.resolution
        return self.generator.render(planes, camera, resolution=size, block=len(planes) * size**2)

    def upsample(self, rendered: RenderOutput, latents: Tensor) -> Tensor:
        """Super-resolution. [B, 3, H, H]"""
        decoder = self.generator.decoder
        if decoder is None:
            return rendered.rgb
        rows = self.generator.unpack(latents)[1]
        x = _layer(decoder.conv, rendered.features, rows[:, 0])
        image = _rgb(decoder.to_rgb, x, rows[:, 1])
        for level, block in enumerate(cast(Iterable[SynthesisBlock], decoder.blocks)):
            x, image = _block(block, x, image, rows[:, 2 * level + 1 :])
        return image

    def synthesize(self, latents: Tensor, camera: Camera) -> Tensor:
        """Latents and cameras → final images. [B, 3, H, H]"""
        return self.upsample(self.render(self.planes(latents), camera), latents)


def _block(
    block: SynthesisBlock, x: Tensor | None, image: Tensor | None, rows: Tensor, *, noise: bool = True
) -> tuple[Tensor, Tensor]:
    """A StyleGAN2 block of the "skip" architecture."""
    x = block.constant.expand(len(rows), -1, -1, -1) if x is None else _layer(block.conv0, x, rows[:, 0], noise=noise)
    x = _layer(block.conv1, x, rows[:, block.convolutions - 1], noise=noise)
    assert block.to_rgb is not None
    rgb = _rgb(block.to_rgb, x, rows[:, block.convolutions])
    if image is None:
        return x, rgb
    return x, rgb + (_filter_doubled(_insert_zeros(image), block.conv0.taps, 2, 1) if block.up else image)


def _layer(layer: SynthesisLayer, x: Tensor, w: Tensor, *, noise: bool = True) -> Tensor:
    """Modulated and demodulated convolution, one kernel for each image; noise, bias, leaky ReLU, gain and clamp."""
    kernels = layer.weight * layer.style(w)[:, None, :, None, None]
    kernels = kernels * (kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = _convolve(x, kernels, up=layer.up, taps=layer.taps)
    if noise and layer.noise is not None:
        assert layer.noise_strength is not None
        x = x + layer.noise * layer.noise_strength
    x = F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)
    return x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)


def _rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Modulated 1×1 convolution, bias and clamp."""
    kernels = layer.weight * (layer.style(w) * layer.weight_gain)[:, None, :, None, None]
    x = _convolve(x, kernels) + layer.bias[:, None, None]
    return x if layer.clamp is None else x.clamp(-layer.clamp, layer.clamp)


def _convolve(x: Tensor, kernels: Tensor, *, up: int = 1, taps: Tensor | None = None) -> Tensor:
    """Each image with its own kernel, as groups of one convolution. [B, I, H, W], [B, O, I, K, K] → [B, O, ...]"""
    batch, size = x.shape[0], kernels.shape[-1]
    kernels = kernels.expand(batch, -1, -1, -1, -1)
    x = x.reshape(1, -1, *x.shape[2:])
    if up == 1:
        x = F.conv2d(x, kernels.flatten(0, 1), padding=size // 2, groups=batch)
    else:
        x = F.conv_transpose2d(x, kernels.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        assert taps is not None
        x = _filter_doubled(x, taps, 1, 1)
    return x.unflatten(1, (batch, -1))[0]


def _insert_zeros(x: Tensor) -> Tensor:
    """Every pixel becomes the upper left of four, the others zero. [B, C, H, W] → [B, C, 2 H, 2 W]"""
    doubled = x.new_zeros(*x.shape[:2], x.shape[2], 2, x.shape[3], 2)
    doubled[:, :, :, 0, :, 0] = x
    return doubled.flatten(4, 5).flatten(2, 3)


def _filter_doubled(x: Tensor, taps: Tensor, before: int, after: int) -> Tensor:
    """Low-pass filter of an image whose size was doubled, with the gain that makes up for the zeros."""
    channels = x.shape[1]
    kernel = (taps * 4).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(x, (before, after, before, after)), kernel, groups=channels)
