"""L_rec: how far a reconstruction is from its picture (§6, Eqs. 16–18), with the networks that are at hand.

LPIPS and the identity loss need weights that others publish. Without them the loss is another one, and says so: its
parts carry the names of what they are, in the log, in checkpoints and in a bundle's provenance.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.errors import ModelError
from e3dge_video.evaluation.metrics import identity_similarity, mean_squared_error
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.models.perceptual import PerceptualDistance
from e3dge_video.training.losses import structural_distance
from e3dge_video.weights.metric_networks import load_perceptual, load_recognizer

log = logging.getLogger(__name__)
#: Side of the crops that the recogniser takes, pixels.
_RECOGNIZED = 256


@dataclass(frozen=True)
class ImageLossConfig:
    """λ1, λ2, λ3 of §6, and what computes the latter two. A weight of 0 leaves a part out."""

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1  # of faces only
    #: "auto": LPIPS as the paper has it (AlexNet) if its weights are at hand, else our structural features.
    perceptual_network: Literal["auto", "lpips-alex", "lpips-vgg", "features-ours"] = "auto"
    #: "auto": IR-SE50 if its weights are at hand, else no identity loss.
    identity_network: Literal["auto", "ir-se50"] = "auto"


class ImageLoss(nn.Module):
    """Weighted parts of L_rec. Holds the frozen networks; nothing of it is trained.

    Args:
        config: The weights.
        perceptual: LPIPS; None: our structural features.
        recognizer: Of the identity loss; None: no such loss.
        names: What the parts are, for people, by their names in the log.
    """

    def __init__(
        self,
        config: ImageLossConfig,
        perceptual: PerceptualDistance | None,
        recognizer: FaceRecognizer | None,
        names: dict[str, str],
    ) -> None:
        super().__init__()
        self.config, self.perceptual, self.recognizer, self.names = config, perceptual, recognizer, names
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Weighted losses by what they are: l2, lpips or features, identity.

        Args:
            image: Reconstruction. [B, 3, S, S]
            truth: What it should be. [B, 3, S, S]
        """
        config, image, truth = self.config, image.float(), truth.float()
        losses = {}
        if config.l2:
            losses["l2"] = config.l2 * mean_squared_error(image, truth).mean()
        if config.perceptual:
            if self.perceptual is None:
                losses["features"] = config.perceptual * structural_distance(image, truth).mean()
            else:
                losses["lpips"] = config.perceptual * self.perceptual(image, truth).mean()
        if self.recognizer is not None:
            crops = (F.interpolate(x, (_RECOGNIZED,) * 2, mode="area") for x in (image, truth))
            losses["identity"] = config.identity * (1 - identity_similarity(self.recognizer, *crops)).mean()
        return losses

    @property
    def description(self) -> str:
        """What its parts are, in one line."""
        return "; ".join(f"{part}: {what}" for part, what in self.names.items())


def image_losses(config: ImageLossConfig) -> ImageLoss:
    """L_rec with the networks that are at hand; what stands in for another one is logged as a warning.

    Raises:
        ModelError: A network is asked for by name that is not there.
    """
    names = {"l2": f"mean squared error × {config.l2:g}"} if config.l2 else {}
    perceptual = recognizer = None
    if config.perceptual:
        wanted = config.perceptual_network
        if wanted != "features-ours":
            try:
                perceptual = load_perceptual("vgg" if wanted == "lpips-vgg" else "alex")
            except ModelError as error:
                if wanted != "auto":
                    raise
                log.warning("image loss: our structural features stand in for LPIPS (%s)", error)
        used = "features-ours" if perceptual is None else "lpips-alex" if wanted == "auto" else wanted
        names["lpips" if perceptual is not None else "features"] = f"{used} × {config.perceptual:g}"
    if config.identity:
        try:
            recognizer = load_recognizer()
            names["identity"] = f"ir-se50 × {config.identity:g}"
        except ModelError as error:
            if config.identity_network != "auto":
                raise
            log.warning("image loss: no identity loss (%s)", error)
            names["identity"] = "none: the weights of ir-se50 are not there"
    return ImageLoss(config, perceptual, recognizer, names)
