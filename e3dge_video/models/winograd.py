"""3×3 convolutions with a quarter of the multiplications, on a CPU without gradients.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, F(4×4, 3×3): each tile of 6×6 inputs gives 4×4
outputs, and between two small linear transforms the convolution is one matrix product over the channels for each of the
36 places in a tile. Letters: B batch, I and O channels, H and W pixels, T tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.parallel import map_blocks, needs_gradient

#: Where the polynomials behind the algorithm are evaluated, besides ∞. The usual 0, ±1, ±2 round worse.
_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2), -math.sqrt(2))
#: Tiles transformed together: enough for the matrix products, few enough for the cache.
_BLOCK = 64

Finish = Callable[[Tensor, Tensor | None], Tensor]


def suits_winograd(x: Tensor, weight: Tensor) -> bool:
    """Whether convolving x [B, I, H, W] with weight [O, I, K, K] is faster this way, and allowed to be.

    With few channels the transforms of the image cost more than they save, with few pixels that of the kernels does.
    """
    outputs, inputs, size, _ = weight.shape
    height, width = x.shape[2:]
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and size == 3
        and height % 4 == width % 4 == 0
        and min(inputs, outputs) >= 64
        and height * width >= 2 * max(inputs, outputs)
        and not needs_gradient(x, weight)
        and not torch.is_autocast_enabled("cpu")  # half precision would lose what the differences of products need
    )


def winograd_conv2d(x: Tensor, kernels: Tensor, finish: Finish, *, noise: Tensor | None = None) -> Tensor:
    """Convolution with a margin of one zero, and what follows it, while its results are in the cache.

    Args:
        x: In channels-last memory; H and W are multiples of 4. [B, I, H, W]
        kernels: One for all images, or one each. [1 or B, O, I, 3, 3]
        finish: Pointwise function of a block of results [..., O] and, if given, of their noise [..., 1]; may overwrite
            the results.
        noise: Handed to `finish`. [1 or B, 1, H, W]

    Returns:
        In channels-last memory. [B, O, H, W]
    """
    batch, inputs, height, width = x.shape
    outputs = kernels.shape[1]
    to_tile, to_kernel, from_tile = (matrix.to(x) for matrix in _transforms())
    products = (to_kernel @ kernels.permute(0, 3, 4, 2, 1).flatten(3).flatten(1, 2)).unflatten(2, (inputs, outputs))
    images = x.permute(0, 2, 3, 1)
    result = x.new_empty(batch, height, width, outputs)
    tiles = _as_tiles(result)
    noise_tiles = None if noise is None else _as_tiles(noise.permute(0, 2, 3, 1))
    columns = min(width // 4, _BLOCK)
    rows = _BLOCK // columns

    def convolve(place: tuple[int, int, int]) -> None:
        image, top, left = place
        patches = _patches(images[image], top, left, rows, columns)  # [6, 6, rows, columns, I]
        shape = (4, 4, *patches.shape[2:4], outputs)
        block = torch.mm(to_tile, patches.reshape(36, -1)).view(36, -1, inputs)
        block = torch.bmm(block, products[image % len(products)])
        block = torch.mm(from_tile, block.view(36, -1)).view(shape)
        part = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
        around = None if noise_tiles is None else noise_tiles[image % len(noise_tiles)][part]
        tiles[image][part] = finish(block, around)

    places = itertools.product(range(batch), range(0, height // 4, rows), range(0, width // 4, columns))
    map_blocks(convolve, list(places), x.device)
    return result.permute(0, 3, 1, 2)


def _as_tiles(images: Tensor) -> Tensor:
    """[B, H, W, C] → a view of it as [B, 4, 4, H / 4, W / 4, C]"""
    return images.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).permute(0, 2, 4, 1, 3, 5)


def _patches(image: Tensor, top: int, left: int, rows: int, columns: int) -> Tensor:
    """Overlapping inputs of the tiles from (top, left) on, a view. [H, W, I] → [6, 6, up to rows, up to columns, I]"""
    height, width, inputs = image.shape
    rows, columns = min(rows, height // 4 - top), min(columns, width // 4 - left)
    first, last = 4 * top - 1, 4 * (top + rows) + 1
    start, end = 4 * left - 1, 4 * (left + columns) + 1
    margins = (0, 0, max(-start, 0), max(end - width, 0), max(-first, 0), max(last - height, 0))
    lines = F.pad(image[max(first, 0) : last, max(start, 0) : end], margins).contiguous()
    line, pixel, channel = lines.stride()
    return lines.as_strided((6, 6, rows, columns, inputs), (line, pixel, 4 * line, 4 * pixel, channel))


@cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of inputs [36, 36], kernels [36, 9] and products [16, 36], for both directions of the image at once.

    The Toom–Cook construction: a kernel and an output line are polynomials evaluated at the points; inputs take the
    transpose of interpolation, whose rows are the numerators of Lagrange's polynomials.
    """
    points = torch.tensor(_POINTS, dtype=torch.float64)
    powers = points[:, None] ** torch.arange(5)
    at_infinity = torch.eye(6, dtype=torch.float64)[-1:]
    numerators = [_monic([q for q in _POINTS if q != p]) for p in _POINTS]
    to_tile = torch.cat([F.pad(torch.stack(numerators), (0, 1)), _monic(_POINTS)[None]])
    denominators = torch.tensor([math.prod(p - q for q in _POINTS if q != p) for p in _POINTS], dtype=torch.float64)
    to_kernel = torch.cat([powers[:, :3] / denominators[:, None], at_infinity[:, 3:]])
    from_tile = torch.cat([powers[:, :4], at_infinity[:, 2:]]).t()
    to_tile, to_kernel, from_tile = (torch.kron(matrix, matrix).float() for matrix in (to_tile, to_kernel, from_tile))
    return to_tile, to_kernel, from_tile


def _monic(roots: list[float] | tuple[float, ...]) -> Tensor:
    """Coefficients, lowest power first, of the polynomial that has these roots. [len(roots) + 1]"""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        coefficients = F.pad(coefficients, (1, 0)) - root * F.pad(coefficients, (0, 1))
    return coefficients
