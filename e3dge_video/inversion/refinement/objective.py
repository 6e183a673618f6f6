"""How far a reconstruction is from its picture: what test-time optimisation lowers (§4.4, Eqs. 16 to 18).

Every figure is one per frame and sees that frame alone, so that a frame's result does not depend on its company.
Letters: B batch, S side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from e3dge_video.inversion.painting import eroded, solid
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.models.perceptual import PerceptualDistance

#: Side that LPIPS and the recogniser see, pixels.
_METRIC_SIDE = 256
#: Pyramid levels that the stand-in for LPIPS looks at.
_LEVELS = 3


@dataclass(frozen=True)
class ObjectiveWeights:
    """Weights of the terms: the paper's."""

    image: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1


class Objective:
    """Masked L2, perceptual distance and identity of a picture and its reconstruction.

    Args:
        weights: Of the terms.
        perceptual: LPIPS; None: `structure_distance` stands in for it.
        recognizer: The identity term's network; None: there is no such term.
    """

    def __init__(
        self,
        weights: ObjectiveWeights | None = None,
        perceptual: PerceptualDistance | None = None,
        recognizer: FaceRecognizer | None = None,
    ) -> None:
        self.weights = weights or ObjectiveWeights()
        self.perceptual, self.recognizer = perceptual, recognizer

    def __call__(self, image: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """[B]

        Args:
            image: In [-1, 1]. [B, 3, S, S]
            truth: In [-1, 1]. [B, 3, S, S]
            weight: How much each pixel counts; the background, where nothing may be learned, counts 0. [B, 1, S, S]
        """
        loss = self.weights.image * weighted_mean((image - truth).square(), weight)
        if self.perceptual is None:
            loss = loss + self.weights.perceptual * structure_distance(image, truth, weight)
        if self.perceptual is None and self.recognizer is None:
            return loss
        mask = weight.clamp(0, 1)
        shown, wanted = (_metric_side(mask * values) for values in (image, truth))
        if self.perceptual is not None:
            loss = loss + self.weights.perceptual * self.perceptual(shown, wanted)
        if self.recognizer is not None:
            alike = (self.recognizer(shown) * self.recognizer(wanted)).sum(dim=1)
            loss = loss + self.weights.identity * (1 - alike)
        return loss


def objective_terms(*, perceptual: bool, recognizer: bool) -> list[str]:
    """What an objective with these networks measures, for people; a stand-in says what it stands for."""
    return [
        "L2",
        "LPIPS"
        if perceptual
        else "differences of neighbouring pixels (stands in for LPIPS, whose weights are not here)",
        *(["identity"] if recognizer else ["no identity term (the recogniser's weights are not here)"]),
    ]


def structure_distance(image: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Where edges run and how strong they are, at several scales: differences of neighbouring pixels, L1. [B]

    Unlike L2 it is not content with a blurred face, and unlike it it does not care for the light.
    """
    total = image.new_zeros(len(image))
    difference = image - truth
    for level in range(_LEVELS):
        if level:
            difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
        across = weighted_mean((difference[..., 1:] - difference[..., :-1]).abs(), weight[..., 1:] * weight[..., :-1])
        along = weighted_mean(
            (difference[..., 1:, :] - difference[..., :-1, :]).abs(), weight[..., 1:, :] * weight[..., :-1, :]
        )
        total = total + across + along
    return total / _LEVELS


def head_weight(alpha: Tensor, matte: Tensor) -> Tensor:
    """Where a picture and a head are compared: both are there beyond doubt. Nothing else may be learned.

    Args:
        alpha: Opacity of the rendered head. [B, 1, R, R]
        matte: Foreground of the picture, 0..1. [B, 1, S, S]

    Returns:
        0..1. [B, 1, S, S]
    """
    alpha = F.interpolate(alpha, matte.shape[-2:], mode="bilinear", align_corners=False)
    return eroded(solid(alpha), 5) * matte


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of a picture's numbers, each pixel weighted. [B, C, H, W], [B, 1, H, W] → [B]"""
    total = weight.flatten(1).sum(dim=1) * values.shape[1]
    return (values * weight).flatten(1).sum(dim=1) / total.clamp_min(1e-6)


def _metric_side(image: Tensor) -> Tensor:
    if image.shape[-1] == _METRIC_SIDE:
        return image
    return F.interpolate(image, (_METRIC_SIDE,) * 2, mode="bilinear", align_corners=False, antialias=True)
