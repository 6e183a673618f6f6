"""The paper's four metrics (§7.2) of pictures of heads, by the networks that are at hand."""

from __future__ import annotations

import logging

from torch import Tensor

from e3dge_video.evaluation.likeness import masked_error, person_similarity
from e3dge_video.evaluation.metrics import structural_similarity
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.training.image_losses import ImageLossConfig, image_losses
from e3dge_video.training.losses import structural_distance

log = logging.getLogger(__name__)


class HeadJudge:
    """MAE, SSIM, LPIPS and identity where a head is, or what stands in for the latter two.

    Args:
        model: Its E0 stands in for a missing recogniser.
    """

    def __init__(self, model: Inverter) -> None:
        self.model = model
        loss = image_losses(ImageLossConfig())
        self.perceptual, self.recognizer = loss.perceptual, loss.recognizer
        log.info("perceptual and identity metrics: %s", loss.description)

    def __call__(self, image: Tensor, truth: Tensor, head: Tensor, landmarks: Tensor) -> dict[str, float]:
        """Means over a batch.

        Args:
            image: Pictures in [-1, 1]; what is not head does not count. [B, 3, S, S]
            truth: What they should be. [B, 3, S, S]
            head: Where heads are, 0 or 1. [B, 1, S, S]
            landmarks: 68 points in crop coordinates 0..1. [B, 68, 2]

        Returns:
            MAE (range 2, on the head), SSIM over black, LPIPS or `features` (our structural features, lower is better),
            identity or `E0` (cosine of E0's codes less their mean).
        """
        image, truth = (value * head + head - 1 for value in (image, truth))
        figures = {
            "MAE": masked_error(image, truth, head),
            "SSIM": float(structural_similarity(image, truth).mean()),
        }
        if self.perceptual is None:
            figures["features"] = float(structural_distance(image, truth).mean())
        else:
            figures["LPIPS"] = float(self.perceptual(image, truth).mean())
        kind, alike = person_similarity(self.model, self.recognizer, image, truth, landmarks)
        return figures | {kind: alike}
