"""Operations on pictures of heads: fill, flatten, average, and tell the head from its outline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.parallel import needs_gradient

#: An edit that changes a place by more than this, against its surroundings, puts something else there (colours: 0..2).
EDIT_THRESHOLD = 0.35


def solid(alpha: Tensor) -> Tensor:
    """How far a pixel is the head alone, of its opacity: 0 up to 0.7, 1 from 0.95."""
    return ((alpha - 0.7) / 0.25).clamp(0, 1)


def clean_rim(color: Tensor, alpha: Tensor) -> Tensor:
    """Colour of a head whose outline shows the head's own colour.

    Where a pixel is half head, half nothing, a super-resolution's colours follow its opacity only roughly; laid over
    another background that shows as a fringe. The outline takes the colours just inside instead.

    Args:
        color: RGB in 0..1, multiplied by alpha. [B, 3, S, S]
        alpha: Opacity. [B, 1, S, S]

    Returns:
        The same kind of colour, never above alpha. [B, 3, S, S]
    """
    trust = eroded(solid(alpha), 3)
    return alpha * push_pull((color / alpha.clamp_min(0.5)).clamp(0, 1), trust)


def dilated(values: Tensor, side: int) -> Tensor:
    """Greatest value in a square of odd side around each pixel, inside the image. [B, C, S, S]

    Without gradients by comparing shifted maps, rows, then columns: many times faster on a CPU than torch's pooling,
    and the same numbers.
    """
    if needs_gradient(values):
        return F.max_pool2d(values, side, 1, side // 2)
    for dim in (-2, -1):
        size, far = values.shape[dim], min(side // 2, values.shape[dim] - 1)
        greatest = values.clone(memory_format=torch.contiguous_format)
        for step in range(1, far + 1):
            for here, there in ((0, step), (step, 0)):
                part = greatest.narrow(dim, here, size - step)
                torch.maximum(part, values.narrow(dim, there, size - step), out=part)
        values = greatest
    return values


def eroded(values: Tensor, side: int) -> Tensor:
    """Least value in a square of odd side around each pixel, inside the image. [B, C, S, S]"""
    return -dilated(-values, side)


def box_mean(values: Tensor, side: int) -> Tensor:
    """Mean over a square of odd side around each pixel, inside the image. Rows, then columns: a wide one is cheap."""
    rows = F.avg_pool2d(values, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2), count_include_pad=False)


def against_surroundings(difference: Tensor) -> Tensor:
    """A change of colour less the change around each place. [B, C, S, S]

    Of a broad change of tone (greying hair, paler skin) little is left, of an opened mouth nearly all.
    """
    return difference - box_mean(difference, difference.shape[-1] // 4 | 1)


def standing_out(difference: Tensor) -> Tensor:
    """How much a change of colour differs from the change around it. [B, C, S, S] → [B, 1, S, S]"""
    return against_surroundings(difference).abs().mean(dim=1, keepdim=True)


def shifted_share(before: Tensor, after: Tensor) -> Tensor:
    """Share of a change of colour that a shift by 1/128 of the picture explains, 0..1. [B, C, S, S] → [B, 1, S, S]

    The light in an eye that moves by two pixels changes much and puts nothing new there. What is shifted has been near
    before, and what it covers is still near after: a lid that falls is like the skin beside it, but no eye is left.
    Faint changes (furrows) do not count: almost any is like something beside it.
    """
    change = (after - before).abs().mean(dim=1, keepdim=True)
    near_before, near_after = _least_differences(before, after)
    far = torch.maximum(near_before, near_after)
    clear = dilated(((change - 0.06) / 0.08).clamp(0, 1), 5)
    return F.avg_pool2d(clear * (1 - far / change.clamp_min(0.02)).clamp_min(0), 3, 1, 1)


def _least_differences(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Of each place of `after` to what `before` has within 1/128 of the picture, and the other way round. [B, 1, S, S]

    Each difference of a pixel and its neighbour serves both: the neighbour's neighbour, the other way, is the pixel.
    """
    size = before.shape[-1]
    reach = size // 128
    extent = size + 2 * reach
    here = F.pad(after, (reach,) * 4, mode="replicate")
    around = F.pad(before, (2 * reach,) * 4, mode="replicate")
    steps = sorted({round(reach * k / 2) for k in range(5)})  # the same seen from either end
    forth, back = [], []
    for y in steps:
        for x in steps:
            moved = (here - around[..., y : y + extent, x : x + extent]).abs_().mean(dim=1, keepdim=True)
            forth.append(moved[..., reach : reach + size, reach : reach + size])
            top, left = 2 * reach - y, 2 * reach - x
            back.append(moved[..., top : top + size, left : left + size])
    return torch.stack(forth).amin(dim=0), torch.stack(back).amin(dim=0)


def widened(change: Tensor) -> Tensor:
    """A change [B, 1, S, S] with the pixels beside it."""
    return F.avg_pool2d(dilated(change, 5), 5, 1, 2)


def replaced_share(change: Tensor, threshold: float) -> Tensor:
    """0 where a change is well below a threshold, 1 where it is well above, one half at it."""
    return torch.sigmoid(12 * (change / threshold - 1))


def flat_areas(image: Tensor, *, rounds: int = 2) -> Tensor:
    """A picture painted in flat areas with clear borders: Kuwahara's filter. [B, 3, S, S]

    Each pixel takes the mean of that one of the four squares beside it which varies least.
    """
    side = image.shape[-1] // 48 | 1
    half = side // 2
    for _ in range(rounds):
        mean = box_mean(image, side)
        spread = (box_mean(image.square(), side) - mean.square()).sum(dim=1, keepdim=True)
        stacked = F.pad(torch.cat([mean, spread], dim=1), (half,) * 4, mode="replicate")
        size = image.shape[-1]
        corners = [stacked[..., y : y + size, x : x + size] for y in (0, 2 * half) for x in (0, 2 * half)]
        image, least = corners[0][:, :3], corners[0][:, 3:]
        for corner in corners[1:]:
            better = corner[:, 3:] < least
            image = torch.where(better, corner[:, :3], image)
            least = torch.where(better, corner[:, 3:], least)
    return image


def contour(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The clear outline of a head whose rim is soft, and a line along it, just inside.

    Where a head ends is asked of its near and of its wider surroundings alike, so that a lone wisp of hair gets no
    outline of its own and a gap in the hair none either.

    Args:
        alpha: Opacity. [B, 1, S, S]

    Returns:
        Opacity that is 0 or 1 but for a pixel's width, and the line, 0..1, of some 2 px of 256. [B, 1, S, S] each
    """
    size = alpha.shape[-1]
    near, wide = (box_mean(box_mean(alpha, side), side) for side in (size // 36 | 1, size // 10 | 1))
    shape = F.pad((near + wide) / 2, (1, 1, 1, 1), mode="replicate")
    across = (shape[..., 1:-1, 2:] - shape[..., 1:-1, :-2]) / 2
    along = (shape[..., 2:, 1:-1] - shape[..., :-2, 1:-1]) / 2
    slope = (across.square() + along.square()).sqrt()
    flat = 2.56 / size  # a rim so soft has no place
    depth = (shape[..., 1:-1, 1:-1] - 0.5) / slope.clamp_min(flat)  # pixels into the head
    inside = (depth + 0.5).clamp(0, 1)
    line = inside * (size / 128 + 0.3 - depth).clamp(0, 1) * (slope / (2 * flat) - 0.5).clamp(0, 1)
    return inside, line


def push_pull(values: Tensor, weight: Tensor) -> Tensor:
    """Fill where the weight is small with a smooth continuation of where it is large (image pyramid).

    Args:
        values: Map. [B, C, S, S]
        weight: Trust, 0..1. [B, 1, S, S]

    Returns:
        Filled map, equal to `values` where the weight is one. [B, C, S, S]
    """
    size = values.shape[-1]
    if size % 2 or size <= 2:
        total = weight.sum(dim=(2, 3), keepdim=True)
        mean = (values * weight).sum(dim=(2, 3), keepdim=True) / total.clamp_min(1e-6)
        return torch.lerp(mean.expand_as(values), values, weight)
    total = F.avg_pool2d(weight, 2)
    below = F.avg_pool2d(values * weight, 2) / total.clamp_min(1e-6)
    # A coarse cell with any trusted pixel in it is itself trusted: weights saturate on the way down.
    filled = push_pull(below, (4 * total).clamp(0, 1))
    return torch.lerp(F.interpolate(filled, (size, size), mode="bilinear", align_corners=False), values, weight)
