"""Resampling against sums written out, and its gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from e3dge_video.models.fir import (
    downsample2d,
    filter2d,
    make_filter,
    resampling_conv2d,
    resize_bilinear,
    upfirdn2d,
    upsample2d,
)


def brute_force(x: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int, int, int], gain: float) -> Tensor:
    """Every output pixel as a sum over the filter, on an image with zeros inserted and padded by hand."""
    left, right, top, bottom = padding
    batch, channels, height, width = x.shape
    wide = torch.zeros(batch, channels, height * up, width * up, dtype=x.dtype)
    wide[:, :, ::up, ::up] = x
    rows, columns = height * up + top + bottom, width * up + left + right
    padded = torch.zeros(batch, channels, rows, columns, dtype=x.dtype)
    for i, j in itertools.product(range(rows), range(columns)):
        if 0 <= i - top < height * up and 0 <= j - left < width * up:
            padded[:, :, i, j] = wide[:, :, i - top, j - left]
    size = taps.shape[0]
    result = torch.zeros(batch, channels, (rows - size) // down + 1, (columns - size) // down + 1, dtype=x.dtype)
    for i, j in itertools.product(range(result.shape[2]), range(result.shape[3])):
        for a, b in itertools.product(range(size), range(size)):
            pixel = padded[:, :, i * down + size - 1 - a, j * down + size - 1 - b]
            result[:, :, i, j] += gain * taps[a, b] * pixel
    return result


@pytest.mark.parametrize(
    ("up", "down", "padding"),
    [(1, 1, (0, 0, 0, 0)), (2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1)), (3, 2, (4, -1, 0, 2)), (2, 1, (-1, 3, 1, -2))],
)
def test_upfirdn_is_the_written_out_sum(up: int, down: int, padding: tuple[int, int, int, int]) -> None:
    random = torch.Generator().manual_seed(up * 10 + down)
    x = torch.randn(2, 2, 5, 4, generator=random, dtype=torch.float64)
    taps = torch.randn(3, 3, generator=random, dtype=torch.float64)
    ours = upfirdn2d(x, taps, up=up, down=down, padding=padding, gain=1.5)
    torch.testing.assert_close(ours, brute_force(x, taps, up, down, padding, 1.5))


def test_a_separable_filter_is_its_outer_product() -> None:
    x, taps = torch.randn(1, 3, 9, 8), torch.randn(4)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        separable = upfirdn2d(x, taps, up=up, down=down, padding=(2, 1, 1, 2), gain=3.0)
        full = upfirdn2d(x, torch.outer(taps, taps), up=up, down=down, padding=(2, 1, 1, 2), gain=3.0)
        torch.testing.assert_close(separable, full, rtol=1e-4, atol=1e-4)


def test_constant_images_stay_constant_inside() -> None:
    x, taps = torch.full((1, 1, 8, 8), 0.7), make_filter()
    for y, size in ((upsample2d(x, taps), 16), (downsample2d(x, taps), 4), (filter2d(x, taps), 8)):
        assert y.shape[-1] == size
        torch.testing.assert_close(y[..., 2:-2, 2:-2], torch.full_like(y[..., 2:-2, 2:-2], 0.7))


def test_resampling_convolution_equals_its_three_steps() -> None:
    x, weight, taps = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), make_filter()
    wide = upfirdn2d(x, taps, up=2, padding=(3, 2, 3, 2), gain=4)  # filter's margin and the convolution's padding
    expected = torch.nn.functional.conv2d(wide, weight)
    ours = resampling_conv2d(x, weight, taps=taps, up=2, padding=1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("up", "down", "kernel"), [(2, 1, 3), (1, 2, 3), (2, 1, 1), (1, 2, 1), (1, 1, 3)])
def test_gradients(up: int, down: int, kernel: int) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    taps = make_filter().double()

    def operation(x: Tensor, weight: Tensor) -> Tensor:
        return resampling_conv2d(x, weight, taps=taps, up=up, down=down, padding=kernel // 2)

    assert torch.autograd.gradcheck(operation, (x, weight))


def test_resize_keeps_the_mean_when_shrinking() -> None:
    x = torch.randn(1, 2, 64, 64)
    torch.testing.assert_close(resize_bilinear(x, 16).mean(), x.mean(), atol=5e-3, rtol=0)
