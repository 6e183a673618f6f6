"""Density along a ray → weights → what the ray sees.

Max, "Optical models for direct volume rendering", 1995; EG3D integrates over the intervals BETWEEN samples and takes
density, depth and colour at their middles, StyleSDF (as NeRF) over the interval AFTER each sample. Letters: B batch,
N rays, S samples, C features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.precision import full_precision


def interval_weights(densities: Tensor, depths: Tensor) -> Tensor:
    """Share of each interval between neighbouring samples in what a ray sees.

    Args:
        densities: Raw densities: softplus(x − 1) of an interval's mean is its extinction per world unit. [B, N, S]
        depths: Increasing. [B, N, S]

    Returns:
        Not negative, sum at most 1. [B, N, S − 1]
    """
    lengths = depths[..., 1:] - depths[..., :-1]
    extinction = F.softplus((densities[..., 1:] + densities[..., :-1]) * 0.5 - 1)
    alpha = 1 - torch.exp(-extinction * lengths)
    # 1e-10 keeps the gradient of the product finite behind an opaque interval.
    passing = F.pad(1 - alpha[..., :-1] + 1e-10, (1, 0), value=1.0)
    return alpha * passing.cumprod(dim=-1)


def sample_weights(weights: Tensor) -> Tensor:
    """Weights of samples that give the same sum as interval weights give with the mean of each interval's two ends.

    Σ_i w_i (c_i + c_{i+1}) / 2 = Σ_j c_j (w_{j−1} + w_j) / 2, which needs the features in no particular order, and
    no copy of them. [..., S − 1] → [..., S]
    """
    return (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) * 0.5


def sdf_extinction(sdf: Tensor, beta: Tensor) -> Tensor:
    """Extinction per world unit of a signed distance, negative inside: sigmoid(−d / β) / β (StyleSDF, 2022).

    β > 0 is the softness of the surface: the smaller it is, the sharper. Any shape
    """
    return torch.sigmoid(-sdf / beta) / beta


def point_weights(extinction: Tensor, lengths: Tensor, *, force_background: bool = True) -> Tensor:
    """Share of each sample in what a ray sees, the sample standing for the interval that follows it (NeRF, eq. 3).

    Args:
        extinction: Per world unit. [B, N, S]
        lengths: World units from each sample to the next; the last one may be endless. [B, N, S]
        force_background: The last sample gets what the others leave, so that the sum is 1.

    Returns:
        [B, N, S]
    """
    alpha = 1 - torch.exp(-extinction * lengths)
    passing = F.pad(1 - alpha[..., :-1] + 1e-10, (1, 0), value=1.0)
    weights = alpha * passing.cumprod(dim=-1)
    if not force_background:
        return weights
    front = weights[..., :-1]
    return torch.cat([front, 1 - front.sum(dim=-1, keepdim=True)], dim=-1)


@full_precision
def composite(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum along each ray, background zero.

    Args:
        values: Features at the samples. [B, N, S, C]
        weights: Of the samples. [B, N, S]

    Returns:
        [B, N, C]
    """
    return (weights.unsqueeze(-2) @ values).squeeze(-2)


def expected_depth(weights: Tensor, depths: Tensor) -> Tensor:
    """Mean depth of what a ray sees; +inf where it sees nothing at all.

    Args:
        weights: Of the intervals. [B, N, S − 1]
        depths: Of the samples, increasing. [B, N, S]

    Returns:
        [B, N]
    """
    middles = (depths[..., 1:] + depths[..., :-1]) * 0.5
    total = weights.sum(dim=-1)
    seen = total > 0
    # Never divide by zero, not even where the result is thrown away: its gradient would be NaN.
    return torch.where(seen, (weights * middles).sum(dim=-1) / torch.where(seen, total, 1.0), torch.inf)
