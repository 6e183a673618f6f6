"""Activations that have a fast form."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from e3dge_video.models.activations import softplus


def test_softplus() -> None:
    x = torch.cat([torch.linspace(-120, 120, 10001), torch.tensor([-1e30, 1e30, -torch.inf, torch.inf])])
    expected = F.softplus(x.double())
    torch.testing.assert_close(softplus(x.clone()).double(), expected, rtol=1e-6, atol=6e-7)


def test_softplus_has_a_gradient_and_then_keeps_its_input() -> None:
    x = torch.linspace(-30, 30, 61, requires_grad=True)
    [slope] = torch.autograd.grad(softplus(x * 1.0).sum(), x)
    torch.testing.assert_close(slope, torch.sigmoid(x.detach()))


def test_softplus_in_half_precision_is_that_of_full_precision_rounded() -> None:
    x = torch.linspace(-12, 12, 999).bfloat16().requires_grad_()
    result = softplus(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), F.softplus(x.float()), rtol=2**-8, atol=1e-6)
    [slope] = torch.autograd.grad(result.sum(), x)
    torch.testing.assert_close(slope.float(), torch.sigmoid(x.detach().float()), rtol=2**-7, atol=1e-6)


def test_softplus_can_be_differentiated_twice() -> None:
    x = torch.linspace(-6, 6, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(softplus, x)
