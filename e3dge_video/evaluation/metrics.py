"""How far two pictures are from each other. All images are RGB in [-1, 1]; every figure is one per image. [B]

Letters: B batch, H and W size of the images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.encoders.ir_se50 import FaceRecognizer

#: Standard deviation of SSIM's window, pixels.
_SSIM_SIGMA = 1.5


def mean_absolute_error(image: Tensor, truth: Tensor) -> Tensor:
    """MAE, of a range of 2. [B, 3, H, W], [B, 3, H, W] → [B]"""
    return (image - truth).abs().flatten(1).mean(dim=1)


def mean_squared_error(image: Tensor, truth: Tensor) -> Tensor:
    """MSE, the paper's L2 (Eq. 16). [B, 3, H, W], [B, 3, H, W] → [B]"""
    return (image - truth).square().flatten(1).mean(dim=1)


def peak_signal_to_noise(image: Tensor, truth: Tensor) -> Tensor:
    """PSNR in decibels. [B, 3, H, W], [B, 3, H, W] → [B]"""
    return -10 * torch.log10(mean_squared_error(image, truth) / 4)  # as for a range of 1


def structural_similarity(image: Tensor, truth: Tensor, *, window: int = 11, data_range: float = 2.0) -> Tensor:
    """SSIM (Wang et al., "Image Quality Assessment", 2004): Gaussian window, reflected edges.

    Args:
        image: [B, 3, H, W]
        truth: [B, 3, H, W]
        window: Side of the window, pixels, odd.
        data_range: What the two stabilising constants refer to; 2 is the true range of our images.

    Returns:
        At most 1. [B]
    """
    offsets = torch.arange(window, dtype=image.dtype, device=image.device) - window // 2
    taps = torch.exp(-offsets.square() / (2 * _SSIM_SIGMA**2))
    taps = taps / taps.sum()
    kernel = torch.outer(taps, taps).expand(image.shape[1], 1, -1, -1)

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(F.pad(values, [window // 2] * 4, mode="reflect"), kernel, groups=values.shape[1])

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = blurred(image), blurred(truth)
    var_a, var_b = blurred(image.square()) - mean_a.square(), blurred(truth.square()) - mean_b.square()
    covariance = blurred(image * truth) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return similarity.flatten(1).mean(dim=1)


def reported_similarity(image: Tensor, truth: Tensor) -> Tensor:
    """The figure that the paper's tables call SSIM: (1 + SSIM) / 2, windows of 5 px, constants for a range of 1.

    A reported 0.77 is an SSIM of 0.54. [B, 3, H, W], [B, 3, H, W] → [B]
    """
    return (1 + structural_similarity(image, truth, window=5, data_range=1.0)) / 2


def identity_similarity(recognizer: FaceRecognizer, image: Tensor, truth: Tensor) -> Tensor:
    """Cosine between the recogniser's vectors of crops of 256 px (Eq. 18). [B, 3, 256, 256] twice → [B]"""
    return (recognizer(image) * recognizer(truth)).sum(dim=1)
