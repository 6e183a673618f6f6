"""Convolutions with fewer multiplications against those with all of them, in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.winograd import suits_winograd, winograd_conv2d


def nothing(block: Tensor, noise: Tensor | None) -> Tensor:
    return block


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (12, 300), (36, 28), (64, 64)])
@pytest.mark.parametrize(("batch", "kinds"), [(1, 1), (3, 1), (2, 2)])
def test_it_is_the_convolution(height: int, width: int, batch: int, kinds: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 20, height, width, generator=random)
    kernels = torch.randn(kinds, 24, 20, 3, 3, generator=random) / (20 * 9) ** 0.5
    ours = winograd_conv2d(x.contiguous(memory_format=torch.channels_last), kernels, nothing)
    expected = torch.cat(
        [F.conv2d(x[i : i + 1].double(), kernels[i % kinds].double(), padding=1) for i in range(batch)]
    )
    assert float((ours - expected).abs().max()) < 1e-5  # results of about 1; the plain convolution errs by 1e-6
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("noises", [1, 2])
def test_finish_sees_every_result_with_its_noise(noises: int) -> None:
    x, kernels = torch.randn(2, 16, 40, 72), torch.randn(1, 8, 16, 3, 3) / 12
    bias, noise = torch.randn(8), torch.randn(noises, 1, 40, 72)
    ours = winograd_conv2d(x, kernels, lambda block, part: F.relu(block + part + bias), noise=noise)
    expected = F.relu(F.conv2d(x, kernels[0], padding=1) + noise + bias[:, None, None])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_where_it_is_used() -> None:
    x, weight = torch.zeros(1, 64, 16, 16), torch.zeros(64, 64, 3, 3)
    assert suits_winograd(x, weight)
    assert not suits_winograd(x.requires_grad_(), weight)
    with torch.no_grad():
        assert suits_winograd(x, weight)
    x = x.detach()
    assert not suits_winograd(x, weight.clone().requires_grad_())
    assert not suits_winograd(x[..., 2:], weight)  # no whole tiles
    assert not suits_winograd(x[..., 8:, 8:], weight)  # too few pixels
    assert not suits_winograd(x, torch.zeros(64, 64, 1, 1))
    assert not suits_winograd(x[:, :32], weight[:, :32])
    assert not suits_winograd(x.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits_winograd(x, weight)
