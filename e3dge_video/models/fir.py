"""Resampling with finite impulse response filters, as StyleGAN2 does it, and convolutions that resample.

Padding is always (left, right, top, bottom) and may be negative (a crop); factors are one number or (horizontal,
vertical). A filter is a true convolution (mirrored kernel) unless `flip_filter` is set.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

#: Taps of the one low-pass filter that every StyleGAN2 and EG3D model uses.
BINOMIAL_TAPS = (1.0, 3.0, 3.0, 1.0)


def make_filter(taps: Sequence[float] = BINOMIAL_TAPS, *, device: torch.device | None = None) -> Tensor:
    """Outer product of the taps with sum 1. [K, K]"""
    line = torch.tensor(taps, dtype=torch.float32, device=device)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    taps: Tensor | None,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros (`up`), pad or crop, filter, keep every `down`-th pixel.

    Args:
        x: Images. [B, C, H, W]
        taps: Filter, [K] for a separable one or [Ky, Kx]; None for the identity.
        gain: Factor of the whole operation.
    """
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    left, right, top, bottom = _four(padding)
    if taps is None:
        taps = torch.ones(1, 1, device=x.device)
    if taps.ndim == 1:  # two cheaper passes
        across, along = taps[None, :], taps[:, None]
        gain = gain**0.5
        x = _filter(x, across, (up_x, 1), (down_x, 1), (left, right, 0, 0), flip_filter, gain)
        return _filter(x, along, (1, up_y), (1, down_y), (0, 0, top, bottom), flip_filter, gain)
    return _filter(x, taps, (up_x, up_y), (down_x, down_y), (left, right, top, bottom), flip_filter, gain)


def upsample2d(x: Tensor, taps: Tensor, *, up: int = 2, flip_filter: bool = False, gain: float = 1.0) -> Tensor:
    """Enlarge by `up`, aligned so that repeated use never shifts the image."""
    padding = [p for size in reversed(_size(taps)) for p in ((size + up - 1) // 2, (size - up) // 2)]
    return upfirdn2d(x, taps, up=up, padding=padding, flip_filter=flip_filter, gain=gain * up * up)


def double2d(x: Tensor) -> Tensor:
    """`upsample2d` by two with the binomial filter: bilinear interpolation of an image framed in zeros.

    The same numbers, by a kernel that is as fast in half precision as in full. [B, C, H, W] → [B, C, 2 H, 2 W]
    """
    framed = F.pad(x, (1, 1, 1, 1))
    return F.interpolate(framed, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def downsample2d(x: Tensor, taps: Tensor, *, down: int = 2) -> Tensor:
    """Shrink by `down` after filtering."""
    padding = [p for size in reversed(_size(taps)) for p in ((size - down + 1) // 2, (size - down) // 2)]
    return upfirdn2d(x, taps, down=down, padding=padding)


def filter2d(x: Tensor, taps: Tensor) -> Tensor:
    """Filter, keeping the size."""
    padding = [p for size in reversed(_size(taps)) for p in (size // 2, (size - 1) // 2)]
    return upfirdn2d(x, taps, padding=padding)


def resize_bilinear(x: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Resize to a square, with a low-pass filter when shrinking. [B, C, H, W] → [B, C, size, size]"""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


def resampling_conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    taps: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    groups: int = 1,
    flip_weight: bool = True,
) -> Tensor:
    """Convolution of an image that is first enlarged by `up` and whose result is then shrunk by `down`.

    Each case takes the cheapest of the equivalent orders (a transposed convolution before the filter, a strided
    convolution after it, 1×1 convolutions at the lower resolution).

    Args:
        x: Images. [B, groups * I, H, W]
        weight: Kernel. [O, I, K, K]
        padding: Of the convolution, at the enlarged size.
        flip_weight: True for the correlation that deep learning calls convolution, False for the true one.
    """
    kernel = weight.shape[-1]
    if up == 1 and down == 1:
        return F.conv2d(x, weight if flip_weight else weight.flip(2, 3), padding=padding, groups=groups)
    if taps is None:
        taps = torch.ones(1, 1, device=x.device)
    span = taps.shape[-1]
    before, after = padding, padding
    if up > 1:
        before, after = before + (span + up - 1) // 2, after + (span - up) // 2
    if down > 1:
        before, after = before + (span - down + 1) // 2, after + (span - down) // 2

    if up == 1:  # shrinking
        correlated = weight if flip_weight else weight.flip(2, 3)
        if kernel == 1:
            x = upfirdn2d(x, taps, down=down, padding=[before, after] * 2)
            return F.conv2d(x, correlated, groups=groups)
        return F.conv2d(upfirdn2d(x, taps, padding=[before, after] * 2), correlated, stride=down, groups=groups)

    if kernel == 1:  # enlarging
        x = upfirdn2d(F.conv2d(x, weight, groups=groups), taps, up=up, padding=[before, after] * 2, gain=up * up)
    else:
        # A transposed convolution is a true convolution of the zero-inserted image.
        mirrored = weight.flip(2, 3) if flip_weight else weight
        outputs, inputs = weight.shape[0] // groups, weight.shape[1]
        mirrored = mirrored.reshape(groups, outputs, inputs, kernel, kernel).transpose(1, 2).flatten(0, 1)
        before, after = before - (kernel - 1), after - (kernel - up)
        crop = max(min(-before, -after), 0)
        x = F.conv_transpose2d(x, mirrored, stride=up, padding=crop, groups=groups)
        x = upfirdn2d(x, taps, padding=[before + crop, after + crop] * 2, gain=up * up)
    return upfirdn2d(x, taps, down=down) if down > 1 else x


def _filter(
    x: Tensor,
    taps: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip: bool,
    gain: float,
) -> Tensor:
    channels = x.shape[1]
    rows, columns = taps.shape
    taps = (taps * gain).to(x.dtype)
    left, right, top, bottom = padding
    if up == (1, 1):
        kernel = (taps if flip else taps.flip(0, 1)).expand(channels, 1, rows, columns)
        if left == right >= 0 and top == bottom >= 0:
            return F.conv2d(x, kernel, stride=down[::-1], padding=(top, left), groups=channels)
        return F.conv2d(F.pad(x, padding), kernel, stride=down[::-1], groups=channels)
    # A transposed convolution yields the full response to (H - 1) * up + 1 pixels; cut or pad it to the one asked for.
    kernel = (taps.flip(0, 1) if flip else taps).expand(channels, 1, rows, columns)
    cut = (columns - 1 - left, columns - up[0] - right, rows - 1 - top, rows - up[1] - bottom)
    even = (min(cut[0], cut[1]), min(cut[2], cut[3]))
    even = (max(even[0], 0), max(even[1], 0))
    x = F.conv_transpose2d(x, kernel, stride=up[::-1], padding=even[::-1], groups=channels)
    rest = (even[0] - cut[0], even[0] - cut[1], even[1] - cut[2], even[1] - cut[3])
    x = F.pad(x, rest) if any(rest) else x
    return x if down == (1, 1) else x[:, :, :: down[1], :: down[0]]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def _four(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(value, int):
        return value, value, value, value
    if len(value) == 2:
        return value[0], value[0], value[1], value[1]
    left, right, top, bottom = value
    return left, right, top, bottom


def _size(taps: Tensor) -> tuple[int, int]:
    return (taps.shape[0], taps.shape[-1]) if taps.ndim == 2 else (taps.shape[0], taps.shape[0])
