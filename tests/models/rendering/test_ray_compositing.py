"""Weights and sums along rays against slow loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from e3dge_video.models.rendering.compositing import (
    composite,
    expected_depth,
    interval_weights,
    point_weights,
    sample_weights,
    sdf_extinction,
)


def slow_weights(densities: list[float], depths: list[float]) -> list[float]:
    passing, weights = 1.0, []
    for i in range(len(depths) - 1):
        mean = (densities[i] + densities[i + 1]) / 2
        alpha = 1 - math.exp(-math.log1p(math.exp(mean - 1)) * (depths[i + 1] - depths[i]))
        weights.append(alpha * passing)
        passing *= 1 - alpha + 1e-10
    return weights


def test_weights_are_the_loop() -> None:
    densities = torch.randn(1, 5, 9, dtype=torch.float64) * 5
    depths = torch.rand(1, 5, 9, dtype=torch.float64).sort(dim=-1).values * 3
    ours = interval_weights(densities, depths)
    for ray in range(5):
        expected = slow_weights(densities[0, ray].tolist(), depths[0, ray].tolist())
        torch.testing.assert_close(ours[0, ray], torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0, 200), shift=st.floats(-100, 100), seed=st.integers(0, 10_000))
def test_weights_are_never_negative_and_sum_to_at_most_one(scale: float, shift: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    densities = torch.randn(1, 8, 24, generator=random) * scale + shift
    depths = torch.rand(1, 8, 24, generator=random).sort(dim=-1).values * 4
    weights = interval_weights(densities, depths)
    assert bool((weights >= 0).all())
    assert bool((weights.sum(dim=-1) <= 1 + 1e-5).all())


def test_uniform_fog_obeys_beer_and_lambert() -> None:
    depths = torch.linspace(0, 2, 33, dtype=torch.float64)[None, None]
    weights = interval_weights(torch.full_like(depths, 1.5), depths)
    extinction = math.log1p(math.exp(0.5))
    assert float(weights.sum()) == pytest.approx(1 - math.exp(-2 * extinction), abs=1e-6)


def test_an_opaque_wall_is_seen_at_its_depth() -> None:
    depths = torch.linspace(1, 3, 201, dtype=torch.float64)[None, None]
    densities = torch.where(depths >= 2, 1e4, -1e3)
    weights = interval_weights(densities, depths)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert float(expected_depth(weights, depths)) == pytest.approx(2, abs=0.011)


def test_sample_weights_give_the_sum_of_interval_means() -> None:
    weights, values = torch.rand(2, 3, 7), torch.randn(2, 3, 8, 4)
    direct = (weights[..., None] * (values[:, :, 1:] + values[:, :, :-1]) / 2).sum(dim=2)
    torch.testing.assert_close(composite(values, sample_weights(weights)), direct, rtol=1e-4, atol=1e-5)


def test_depth_of_nothing_is_infinite() -> None:
    assert bool(torch.isposinf(expected_depth(torch.zeros(1, 1, 3), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))))


def test_gradients() -> None:
    densities = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    depths = (torch.arange(5.0, dtype=torch.float64) + torch.rand(1, 2, 5).double() * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(interval_weights, (densities, depths))
    assert torch.autograd.gradcheck(lambda a, b: expected_depth(interval_weights(a, b), b), (densities, depths))


@pytest.mark.parametrize("force_background", [True, False])
def test_point_weights_are_the_loop(force_background: bool) -> None:
    extinction = torch.rand(1, 5, 9, dtype=torch.float64) * 10
    lengths = torch.rand(1, 5, 9, dtype=torch.float64) * 0.2
    ours = point_weights(extinction, lengths, force_background=force_background)
    for ray in range(5):
        passing = 1.0
        for i in range(9):
            alpha = 1 - math.exp(-float(extinction[0, ray, i] * lengths[0, ray, i]))
            last = force_background and i == 8
            assert float(ours[0, ray, i]) == pytest.approx(passing if last else alpha * passing, abs=1e-8)
            passing *= 1 - alpha


def test_extinction_of_a_distance() -> None:
    beta = torch.tensor(0.1)
    values = sdf_extinction(torch.tensor([-10.0, 0.0, 10.0]), beta)
    torch.testing.assert_close(values, torch.tensor([10.0, 5.0, 0.0]))
