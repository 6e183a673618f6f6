"""Losses at points where their value is known by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from e3dge_video.training.losses import (
    AdversarialWeights,
    discriminator_loss,
    eikonal_loss,
    generator_loss,
    minimal_surface_loss,
    r1_penalty,
    sphere_distance,
    structural_distance,
    structural_features,
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


def test_adversarial_weights_are_the_papers() -> None:
    weights = AdversarialWeights()
    assert (weights.generator, weights.discriminator, weights.r1) == (0.01, 0.01, 10)


def picture(seed: int = 0, size: int = 64) -> torch.Tensor:
    """A smooth random picture in [-1, 1]."""
    noise = torch.randn(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (size, size), mode="bicubic").tanh()


def test_structural_distance_sees_structure_and_not_light() -> None:
    image = picture()
    assert float(structural_distance(image, image)) == 0
    brighter, flatter = structural_distance(image, 0.9 * image + 0.1), structural_distance(image, 0.6 * image)
    blurred = structural_distance(image, F.avg_pool2d(image, 5, 1, 2, count_include_pad=False))
    shifted = structural_distance(image, image.roll(2, dims=3))
    other = structural_distance(image, picture(1))
    assert float(brighter) < 1e-3 and float(flatter) < 0.02
    assert 0.05 < float(blurred) < float(other) and 0.2 < float(shifted) < float(other)
    assert 1.5 < float(other) < 2.5
    assert float(structural_distance(image, -image)) > 2.5  # edges the other way round


def test_structural_distance_leads_back_to_the_picture() -> None:
    truth = picture()
    image = picture(1).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = structural_distance(image, truth).sum()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3


def test_flat_pictures_have_no_structure_and_a_finite_gradient() -> None:
    image = torch.full((1, 3, 32, 32), 0.3, requires_grad=True)
    noise = 1e-3 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    distance = structural_distance(image, image.detach() + noise)
    distance.sum().backward()
    assert float(distance.detach()) < 0.1 and image.grad is not None and torch.isfinite(image.grad).all()


def test_structural_features_by_hand() -> None:
    """A step of brightness: one direction of edges, strong as what is around it."""
    image = -torch.ones(1, 3, 32, 32)
    image[..., 16:] = 1
    finest = structural_features(image)[0][0]
    assert len(structural_features(image)) == 3  # 32, 16 and 8 px
    right, below = finest[0], finest[3]
    assert float(right[10, 14]) > 1 and float(right[10, 2]) == 0
    assert below.abs().max() == 0
    assert finest.view(4, 3, 30, 30)[:, 1:].abs().max() == 0  # grey has no colour
