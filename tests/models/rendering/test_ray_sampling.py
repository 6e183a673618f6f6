"""Samples along rays against slow loops, and the distributions they must have."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from e3dge_video.models.rendering.sampling import (
    RayDraws,
    even_depths,
    importance_depths,
    invert_cdf,
    offset_depths,
    scatter_depths,
    shift_depths,
    stratified_depths,
)


def test_strata_hold_one_sample_each() -> None:
    draws = torch.rand(2, 50, 9)
    depths = stratified_depths(1.0, 3.0, draws)
    stratum = 2.0 / 8
    for i in range(9):
        assert bool((depths[..., i] >= 1.0 + i * stratum - 1e-6).all())
        assert bool((depths[..., i] <= 1.0 + (i + 1) * stratum + 1e-6).all())


def test_bounds_of_each_ray_equal_common_bounds() -> None:
    draws = torch.rand(2, 5, 7)
    near, far = torch.full((2, 5, 1), 1.5), torch.full((2, 5, 1), 4.0)
    torch.testing.assert_close(stratified_depths(near, far, draws), stratified_depths(1.5, 4.0, draws))


def test_disparity_is_even_in_inverse_depth() -> None:
    inverse = 1 / stratified_depths(0.5, 4.0, torch.zeros(1, 1, 9), disparity=True)
    steps = inverse.diff(dim=-1)
    torch.testing.assert_close(steps, steps.mean().expand_as(steps))


def slow_inverse(bins: list[float], weights: list[float], draw: float, eps: float) -> float:
    total = sum(weight + eps for weight in weights)
    reached = 0.0
    for i, weight in enumerate(weights):
        share = (weight + eps) / total
        if draw < reached + share:
            return bins[i] + (draw - reached) / share * (bins[i + 1] - bins[i])
        reached += share
    return bins[len(weights)]


def test_inverse_cdf_is_the_loop() -> None:
    random = torch.Generator().manual_seed(3)
    bins = torch.rand(4, 8, generator=random).double().sort(dim=-1).values
    weights = torch.rand(4, 7, generator=random).double() + 0.05
    draws = torch.rand(4, 30, generator=random).double() * 0.999
    ours = invert_cdf(bins, weights, draws)
    for ray in range(4):
        expected = [slow_inverse(bins[ray].tolist(), weights[ray].tolist(), u, 1e-5) for u in draws[ray].tolist()]
        torch.testing.assert_close(ours[ray], torch.tensor(expected, dtype=torch.float64))


def slow_importance(depths: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """One ray at a time: blur, drop the ends, invert."""
    result = []
    for d, w, u in zip(depths.tolist(), weights.tolist(), draws.tolist(), strict=True):
        peaks = [max(w[max(i - 1, 0) : i + 1]) for i in range(len(w) + 1)]
        blurred = [(peaks[i] + peaks[i + 1]) / 2 + 0.01 for i in range(len(w))]
        middles = [(a + b) / 2 for a, b in itertools.pairwise(d)]
        result.append([slow_inverse(middles, blurred[1:-1], draw, 1e-5) for draw in u])
    return torch.tensor(result)


def test_importance_depths_are_the_loop() -> None:
    depths = stratified_depths(1.0, 2.0, torch.rand(1, 6, 12))
    weights, draws = torch.rand(1, 6, 11), torch.rand(1, 6, 20) * 0.99
    ours = importance_depths(depths, weights, draws)
    torch.testing.assert_close(ours[0], slow_importance(depths[0], weights[0], draws[0]), rtol=1e-4, atol=1e-4)


def test_importance_depths_follow_the_weights_and_carry_no_gradient() -> None:
    depths = stratified_depths(0.0, 1.0, torch.full((1, 1, 41), 0.5)).requires_grad_()
    weights = torch.zeros(1, 1, 40)
    weights[..., 25] = 1.0
    fine = importance_depths(depths, weights.requires_grad_(), torch.rand(1, 1, 4000))
    assert not fine.requires_grad
    # One interval of weight 1, blurred to 1/2, 1, 1/2, over a floor of 0.01 in the 38 inner bins.
    # Bins lie half a sample before the intervals whose weights they take.
    near = (fine - depths[..., 25]).abs() < 1.5 / 40
    assert float(near.float().mean()) == pytest.approx(2.03 / 2.38, abs=0.03)
    assert bool((fine >= depths.amin()).all()) and bool((fine <= depths.amax()).all())


def test_shared_draws_equal_repeated_draws() -> None:
    depths = stratified_depths(1.0, 2.0, torch.rand(2, 6, 12))
    weights = torch.rand(2, 6, 11)
    draws = RayDraws.regular(12, 5).fine
    assert torch.equal(
        importance_depths(depths, weights, draws), importance_depths(depths, weights, draws.expand(2, 6, -1))
    )


def test_random_draws_come_from_the_generator() -> None:
    first, again, other = (RayDraws.random((2, 3), 4, 5, random=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.coarse, again.coarse) and torch.equal(first.fine, again.fine)
    assert not torch.equal(first.coarse, other.coarse)
    assert first.coarse.shape == (2, 3, 4) and first.fine.shape == (2, 3, 5)


def test_shifted_samples_stay_within_their_strata() -> None:
    depths = offset_depths(1.0, 3.0, 8)
    moved = shift_depths(depths, torch.rand(2, 50, 1))
    for i in range(8):
        assert bool((moved[..., i] >= 1 + i * 0.25 - 1e-6).all() and (moved[..., i] <= 1 + (i + 1) * 0.25 + 1e-6).all())
    torch.testing.assert_close(moved.diff(dim=-1), torch.full((2, 50, 7), 0.25))


def test_scattered_samples_stay_between_the_middles() -> None:
    depths, draws = even_depths(1.0, 3.0, 5), torch.rand(2, 50, 5)
    assert depths.flatten().tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    moved = scatter_depths(depths, draws)
    edges = [1.0, 1.25, 1.75, 2.25, 2.75, 3.0]
    for i, (lower, upper) in enumerate(itertools.pairwise(edges)):
        torch.testing.assert_close(moved[..., i], lower + (upper - lower) * draws[..., i])
