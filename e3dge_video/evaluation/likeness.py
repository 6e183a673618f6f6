"""How alike two pictures of a person are where it counts, and whether they show the same person."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.evaluation.metrics import identity_similarity, structural_similarity
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer

#: Side of the crops that the recogniser takes, pixels.
_RECOGNIZED = 256


def masked_error(image: Tensor, truth: Tensor, weight: Tensor) -> float:
    """MAE, of a range of 2, each pixel weighted. [B, 3, S, S] twice, [B, 1, S, S]"""
    error = (image - truth).abs().mean(dim=1, keepdim=True)
    return float((error * weight).sum() / weight.sum().clamp_min(1e-6))


def masked_similarity(image: Tensor, truth: Tensor, weight: Tensor) -> float:
    """SSIM of what the weight leaves, within its bounding box. [1, 3, S, S] twice, [1, 1, S, S]"""
    rows, columns = (torch.nonzero((weight[0, 0] > 0.5).any(dim=d))[:, 0] for d in (1, 0))
    box = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    mask = (weight > 0.5).float()
    return float(structural_similarity((image * mask)[box], (truth * mask)[box]))


def person_similarity(
    model: Inverter, recognizer: FaceRecognizer | None, image: Tensor, truth: Tensor, landmarks: Tensor
) -> tuple[str, float]:
    """Whether two batches of pictures show the same people: what measured it, and the mean.

    Args:
        model: Its E0 stands in for a missing recogniser: cosine of the codes less their mean.
        image: [B, 3, S, S]
        truth: [B, 3, S, S]
        landmarks: 68 points in crop coordinates 0..1. [B, 68, 2]

    Returns:
        "identity" or "E0", and a cosine.
    """
    if recognizer is not None:
        size = (_RECOGNIZED, _RECOGNIZED)
        crops = (F.interpolate(x, size, mode="bilinear", antialias=True) for x in (image, truth))
        return "identity", float(identity_similarity(recognizer, *crops).mean())
    mean = model.encoder.mean_latents
    shown, wanted = ((model.observe(x, landmarks).latents - mean).flatten(1) for x in (image, truth))
    return "E0", float(F.cosine_similarity(shown, wanted).mean())
