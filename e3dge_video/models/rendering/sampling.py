"""Where along each ray the volume is looked at: stratified samples, then more where the first found something.

Mildenhall et al., "NeRF", 2020, sections 4 and 5.2, with EG3D's details. Letters: B batch, N rays, S coarse and F fine
samples. A "draw" is a uniform number in [0, 1): all randomness enters through draws, so that a rendering can be
repeated exactly, in any block size and on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RayDraws:
    """The random numbers of one rendering.

    Attributes:
        coarse: Position of each coarse sample in its stratum. [B, N, S], or [1, 1, S] for the same on all rays
        fine: Where the fine samples' cumulative weight is inverted. [B, N, F], or [1, 1, F]
    """

    coarse: Tensor
    fine: Tensor

    @staticmethod
    def regular(coarse: int, fine: int, *, device: torch.device | None = None) -> RayDraws:
        """The same for every ray and every call: middles of the strata, evenly spaced weights."""
        return RayDraws(
            torch.full((1, 1, coarse), 0.5, device=device), torch.linspace(0, 1, fine, device=device)[None, None]
        )

    @staticmethod
    def random(
        shape: tuple[int, int],
        coarse: int,
        fine: int,
        *,
        random: torch.Generator | None = None,
        device: torch.device | None = None,
    ) -> RayDraws:
        """Independent draws for `shape` = (B, N) rays."""
        return RayDraws(
            torch.rand((*shape, coarse), generator=random, device=device),
            torch.rand((*shape, fine), generator=random, device=device),
        )


def stratified_depths(near: Tensor | float, far: Tensor | float, draws: Tensor, *, disparity: bool = False) -> Tensor:
    """One depth in each of S strata; the last may lie up to one stratum beyond `far`, as in EG3D.

    Args:
        near: First depth, of each ray or of all. [B, N, 1] or a number
        far: Last depth before the jitter. [B, N, 1] or a number
        draws: [B, N, S] or [1, 1, S]
        disparity: Space the samples evenly in 1 / depth.

    Returns:
        Increasing depths, broadcast from the arguments. [B, N, S] or [1, 1, S]
    """
    samples = draws.shape[-1]
    if disparity:
        t = torch.linspace(0, 1, samples, device=draws.device) + draws * (1 / (samples - 1))
        return 1 / (1 / near * (1 - t) + 1 / far * t)
    stratum = (far - near) / (samples - 1)
    if isinstance(near, Tensor) or isinstance(far, Tensor):
        edges = near + torch.arange(samples, device=draws.device) / (samples - 1) * (far - near)
    else:  # rounded as EG3D rounds it: the field may be steep
        edges = torch.linspace(near, far, samples, device=draws.device)
    return edges + draws * stratum


def even_depths(near: float, far: float, samples: int, *, device: torch.device | None = None) -> Tensor:
    """Evenly spaced depths, the first at `near`, the last at `far`. [1, 1, S]"""
    t = torch.linspace(0, 1, samples, device=device)
    return (near * (1 - t) + far * t)[None, None]


def offset_depths(near: float, far: float, samples: int, *, device: torch.device | None = None) -> Tensor:
    """The near ends of S equal strata, which `shift_depths` may move together (StyleSDF, eq. 3). [1, 1, S]"""
    t = torch.linspace(0, 1 - 1 / samples, samples, device=device)
    return (near * (1 - t) + far * t)[None, None]


def shift_depths(depths: Tensor, draws: Tensor) -> Tensor:
    """Move all samples of a ray together by part of their spacing. [1, 1, S], draws [B, N, 1] → [B, N, S]"""
    return depths + draws * (depths[..., 1:2] - depths[..., :1])


def scatter_depths(depths: Tensor, draws: Tensor) -> Tensor:
    """Move each sample anywhere between the middles towards its neighbours; the outermost only inwards (NeRF, eq. 2).

    Args:
        depths: Increasing. [1, 1, S]
        draws: [B, N, S]

    Returns:
        [B, N, S]
    """
    middles = (depths[..., 1:] + depths[..., :-1]) * 0.5
    lower = torch.cat([depths[..., :1], middles], dim=-1)
    upper = torch.cat([middles, depths[..., -1:]], dim=-1)
    return lower + (upper - lower) * draws


@torch.no_grad()
def importance_depths(depths: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Depths distributed like the coarse weights, slightly blurred and never quite zero. Carries no gradient.

    The weights are blurred by a maximum and a mean over neighbours (Barron et al., "Mip-NeRF", 2021, section 3.1). Bins
    are the middles between coarse depths; the outermost weights are dropped, so the last bin is never reached.

    Args:
        depths: Coarse depths. [B, N, S]
        weights: Of the S − 1 intervals between them. [B, N, S − 1]
        draws: [B, N, F] or [1, 1, F]

    Returns:
        Unsorted depths. [B, N, F]
    """
    padded = F.pad(weights, (1, 1))  # weights are not negative, so zeros never win
    peaks = torch.maximum(padded[..., 1:], padded[..., :-1])
    blurred = (peaks[..., 1:] + peaks[..., :-1]) * 0.5 + 0.01
    middles = (depths[..., 1:] + depths[..., :-1]) * 0.5
    return invert_cdf(middles, blurred[..., 1:-1], draws)


def invert_cdf(bins: Tensor, weights: Tensor, draws: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Samples of a piecewise constant density.

    Args:
        bins: Edges; only the first K + 1 are used. [..., at least K + 1]
        weights: Of the K bins, not normalised. [..., K]
        draws: In [0, 1]. [..., F], leading sizes may be 1
        eps: Added to every weight; a bin of less probability counts as 1, which keeps its samples at its left edge.

    Returns:
        [..., F]
    """
    density = weights + eps
    density = density / density.sum(dim=-1, keepdim=True)
    cdf = F.pad(density.cumsum(dim=-1), (1, 0))
    draws = draws.expand(*cdf.shape[:-1], draws.shape[-1]).contiguous()
    right = torch.searchsorted(cdf, draws, right=True)
    left = (right - 1).clamp_(min=0)
    right = right.clamp_(max=weights.shape[-1])
    cdf_left = cdf.gather(-1, left)
    width = cdf.gather(-1, right).sub_(cdf_left)
    width = torch.where(width < eps, 1.0, width)
    bin_left = bins.gather(-1, left)
    return bin_left + (draws - cdf_left) / width * (bins.gather(-1, right) - bin_left)
