"""Two-pass volume rendering of any field, in blocks of rays.

    rays ─► coarse depths ─► field ─► weights ─► fine depths ─► field ─┐
                               └───────────────────────────────────────┴─► sorted together ─► weights ─► sums

Local detail changes what samples look like, not how much they weigh: it is asked last, and only for the samples of each
ray that weigh most.

Letters: B batch, N rays, S coarse and F fine samples, K samples with detail, C features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from e3dge_video.config.generators import RaySamplingConfig
from e3dge_video.geometry.rays import Rays, box_limits
from e3dge_video.models.parallel import map_blocks
from e3dge_video.models.rendering.compositing import (
    composite,
    expected_depth,
    interval_weights,
    sample_weights,
)
from e3dge_video.models.rendering.sampling import RayDraws, importance_depths, stratified_depths


@dataclass(frozen=True)
class PointSamples:
    """What a field holds at points.

    Attributes:
        density: Raw, before the softplus of the renderer. [B, M, 1]
        features: The first three are the colour, nominally in [0, 1]. [B, M, C]
    """

    density: Tensor
    features: Tensor


@dataclass(frozen=True)
class RaySums:
    """What rays see.

    Attributes:
        features: In about [-1, 1]. [B, N, C]
        depth: Mean distance along the ray, world units. [B, N]
        alpha: Total weight: 0 empty, 1 opaque. [B, N]
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor


Field = Callable[[Tensor], PointSamples]  # points [B, M, 3] → PointSamples
Detail = Callable[[Tensor], Tensor]  # points [B, M, 3] → features that stand in the place of the field's [B, M, C]


_Values = TypeVar("_Values", Tensor, Tensor | float)
Bound = Tensor | float  # one for each ray [B, N, 1], or one for all


def ray_bounds(rays: Rays, config: RaySamplingConfig, box_side: float) -> tuple[Bound, Bound]:
    """First and last coarse depth of each ray.

    With "auto" bounds, rays that miss the box run from the smallest to the LARGEST ENTRY depth of those that hit it
    (EG3D's choice: their samples are outside the box anyway).
    """
    if config.near_far != "auto":
        return config.near_far
    near, far = box_limits(rays, box_side)
    hit = far > near
    if bool(hit.any()):
        entries = near[hit]
        near, far = torch.where(hit, near, entries.min()), torch.where(hit, far, entries.max())
    return near[..., None], far[..., None]


def render_rays(
    field: Field,
    rays: Rays,
    draws: RayDraws,
    config: RaySamplingConfig,
    *,
    box_side: float,
    white_back: bool = False,
    detail: Detail | None = None,
    block: int = 512,
) -> RaySums:
    """Render rays, `block` of them at a time to bound the memory; the block size does not change the result.

    `detail` is asked for the `config.detail` samples of each ray that weigh most; the others stay as the field says.

    Depths are clamped to the range of ALL sampled depths of the call, as in EG3D. That only shows where a ray sees
    nothing, which then is as far as the farthest sample of the call.
    """
    near, far = ray_bounds(rays, config, box_side)
    batch, count = rays.origins.shape[:2]
    step = max(1, block // batch)

    def render(start: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        part = slice(start, start + step)
        return _render_block(
            field,
            Rays(rays.origins[:, part], rays.directions[:, part]),
            _rays_of(near, part),
            _rays_of(far, part),
            RayDraws(_rays_of(draws.coarse, part), _rays_of(draws.fine, part)),
            config,
            detail,
        )

    parts = map_blocks(render, range(0, count, step), rays.origins.device)
    features, depth, alpha = (torch.cat(values, dim=1) for values in list(zip(*parts, strict=True))[:3])
    nearest = torch.stack([part[3] for part in parts]).amin()
    farthest = torch.stack([part[4] for part in parts]).amax()
    if white_back:
        features = features + (1 - alpha[..., None])
    return RaySums(features * 2 - 1, depth.clamp(nearest, farthest), alpha)


def merge_samples(
    depths: Tensor, densities: Tensor, more_depths: Tensor, more_densities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of both passes in the order of depth.

    Args:
        depths, densities: [B, N, S]
        more_depths, more_densities: [B, N, F]

    Returns:
        Sorted depths, their densities, and where each stood in the concatenation. Each [B, N, S + F]
    """
    merged, order = torch.cat([depths, more_depths], dim=-1).sort(dim=-1)
    return merged, torch.cat([densities, more_densities], dim=-1).gather(-1, order), order


def _render_block(
    field: Field,
    rays: Rays,
    near: Bound,
    far: Bound,
    draws: RayDraws,
    config: RaySamplingConfig,
    detail: Detail | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Features [B, N, C], unclamped depth and alpha [B, N], smallest and largest sampled depth []."""
    depths = stratified_depths(near, far, draws.coarse, disparity=config.disparity)
    depths = depths.expand(*rays.origins.shape[:2], -1)
    density, features = _look(field, rays, depths)
    weights = interval_weights(density, depths)
    if config.fine == 0:
        sampled, shares = depths, sample_weights(weights)
        looks = [(features, shares)]
    else:
        fine_depths = importance_depths(depths, weights, draws.fine)
        fine_density, fine_features = _look(field, rays, fine_depths)
        sampled = torch.cat([depths, fine_depths], dim=-1)
        depths, densities, order = merge_samples(depths, density, fine_depths, fine_density)
        weights = interval_weights(densities, depths)
        # The features stay where they are; their weights go back to them.
        shares = sample_weights(weights)
        shares = torch.zeros_like(shares).scatter(-1, order, shares)
        coarse_shares, fine_shares = shares.split([config.coarse, config.fine], dim=-1)
        looks = [(features, coarse_shares), (fine_features, fine_shares)]
    total = composite(*looks[0])
    for more in looks[1:]:
        total = total + composite(*more)
    if detail is not None:
        total = total + _gain(detail, rays, sampled, torch.cat([look for look, _ in looks], dim=2), shares, config)
    return total, expected_depth(weights, depths), weights.sum(dim=-1), depths.amin(), depths.amax()


def _gain(
    detail: Detail, rays: Rays, depths: Tensor, features: Tensor, shares: Tensor, config: RaySamplingConfig
) -> Tensor:
    """What local detail adds to the sums, from the samples that weigh most.

    Args:
        depths, shares: All samples of each ray. [B, N, S + F]
        features: What the field says of them. [B, N, S + F, C]

    Returns:
        [B, N, C]
    """
    heaviest, index = shares.topk(min(config.detail, shares.shape[-1]), dim=-1)
    batch, count, kept = index.shape
    points = rays.origins[:, :, None] + depths.gather(-1, index)[..., None] * rays.directions[:, :, None]
    plain = features.gather(2, index[..., None].expand(-1, -1, -1, features.shape[-1]))
    detailed = detail(points.reshape(batch, count * kept, 3)).view(batch, count, kept, -1)
    return composite(detailed - plain, heaviest)


def _look(field: Field, rays: Rays, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Density [B, N, S] and features [B, N, S, C] at depths [B, N, S]."""
    batch, count, samples = depths.shape
    points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
    seen = field(points.reshape(batch, count * samples, 3))
    return seen.density.view(batch, count, samples), seen.features.view(batch, count, samples, -1)


def _rays_of(values: _Values, part: slice) -> _Values:
    """Values of some rays; what all rays share stays as it is."""
    return values if isinstance(values, float) or values.shape[1] == 1 else values[:, part]
