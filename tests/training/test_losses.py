"""Losses at points where their value is known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from e3dge_video.training.losses import (
    discriminator_loss,
    eikonal_loss,
    generator_loss,
    minimal_surface_loss,
    r1_penalty,
    sphere_distance,
    viewpoint_loss,
)


def test_adversarial_losses() -> None:
    zero, sure = torch.zeros(3, 1), torch.full((3, 1), 50.0)
    assert float(discriminator_loss(zero, zero)) == pytest.approx(2 * math.log(2))
    assert float(discriminator_loss(sure, -sure)) < 1e-6 and float(discriminator_loss(-sure, sure)) > 99
    assert float(generator_loss(zero)) == pytest.approx(math.log(2))
    assert float(generator_loss(sure)) < 1e-6


def test_r1_is_the_mean_squared_gradient_and_can_be_trained_on() -> None:
    image = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(3, 4, 4, requires_grad=True)
    penalty = r1_penalty((image * weight).flatten(1).sum(dim=1, keepdim=True), image)
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


def test_distance_losses() -> None:
    gradient = torch.tensor([[3.0, 0.0, 4.0], [0.0, 1.0, 0.0]])
    assert float(eikonal_loss(gradient)) == pytest.approx(8.0)
    assert float(minimal_surface_loss(torch.tensor([0.0, -0.02]))) == pytest.approx((1 + math.exp(-2)) / 2)
    torch.testing.assert_close(sphere_distance(torch.tensor([[0.0, 0.06, 0.08]]), 0.06), torch.tensor([0.04]))


def test_viewpoint_loss_is_quadratic_near_and_linear_far() -> None:
    viewpoint = torch.zeros(1, 2)
    assert float(viewpoint_loss(torch.tensor([[0.2, 0.0]]), viewpoint)) == pytest.approx(0.01)
    assert float(viewpoint_loss(torch.tensor([[3.0, 0.0]]), viewpoint)) == pytest.approx(1.25)
