"""What the local branch is trained with: the terms of the starter, on rendered heads, and those of the paper.

Letters: B pictures, S their side, R that of a volume rendering.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.inversion.detail import View
from e3dge_video.models.discriminators import DualDiscriminator, ImageDiscriminator
from e3dge_video.models.generators.base import RenderOutput
from e3dge_video.training.image_losses import ImageLoss, ImageLossConfig
from e3dge_video.training.losses import AdversarialWeights, discriminator_loss, generator_loss, r1_penalty
from e3dge_video.training.picture_losses import contrast_error, difference_error
from e3dge_video.training.teacher import fitted


@dataclass(frozen=True)
class Drawn:
    """Pictures with local detail, from a step's cameras.

    Attributes:
        image: The final one, at the truth's size. [B, 3, S, S]
        whole: The same as it was drawn. [B, 3, H, H]
        neural: Before super-resolution. [B, 3, R, R]
        coarse: The global reconstruction from there.
        view: The same as the local branch sees it.
        aligned: What E_ADA made of the residual for the view; None without E_ADA. [B, 3, 256, 256]
    """

    image: Tensor
    whole: Tensor
    neural: Tensor
    coarse: RenderOutput
    view: View
    aligned: Tensor | None


@dataclass(frozen=True)
class Truth:
    """What they should be.

    Attributes:
        image: [B, 3, S, S]
        whole: The same at the generator's own size, if that is known. [B, 3, H, H]
        neural: Before super-resolution. [B, 3, R, R]
    """

    image: Tensor
    whole: Tensor
    neural: Tensor


class LocalLoss(Protocol):
    """Weighted losses of drawn pictures, and the networks that are trained with them."""

    def modules(self) -> dict[str, nn.Module]:
        """Networks that learn beside the branch, by name."""

    def __call__(self, drawn: Drawn, truth: Truth, step: int) -> dict[str, Tensor]:
        """Losses by name."""


@dataclass(frozen=True)
class HeadTerms:
    """Weights of the starter's terms."""

    image_weight: float = 1.0
    neural_weight: float = 0.5  # on the picture before super-resolution
    contrast_weight: float = 2.0
    edge_weight: float = 0.5
    alignment_weight: float = 1.0  # on E_ADA's residual
    alone_weight: float = 0.25  # on the picture before the lift, where the lifted one is what counts

    def of_pictures(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Weighted errors of pictures [B, 3, S, S]: colours, edges, contrast."""
        return {
            "image": self.image_weight * (image - truth).abs().mean(),
            "edges": self.edge_weight * difference_error(image, truth),
            "contrast": self.contrast_weight * contrast_error(image, truth),
        }


class HeadLoss:
    """The starter's: absolute errors, edges and contrast. Truth and reconstruction stand on black."""

    def __init__(self, terms: HeadTerms) -> None:
        self.terms = terms

    def modules(self) -> dict[str, nn.Module]:
        return {}

    def __call__(self, drawn: Drawn, truth: Truth, step: int) -> dict[str, Tensor]:
        terms = self.terms
        whole = terms.of_pictures(drawn.image, truth.image)
        raw = terms.neural_weight * (drawn.neural - truth.neural).abs().mean()
        losses = {"image": whole["image"], "neural": raw} | whole
        if drawn.aligned is not None:
            size = drawn.aligned.shape[-2:]
            alpha = F.interpolate(drawn.coarse.alpha, size, mode="bilinear", align_corners=False)
            shown = F.interpolate(drawn.coarse.rgb, size, mode="bilinear", align_corners=False)
            missing = alpha * (F.interpolate(truth.image, size, mode="area") - shown)
            losses["alignment"] = terms.alignment_weight * (drawn.aligned - missing).abs().mean()
        return losses


@dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial term (Eq. 22); what the teacher draws counts as real."""

    #: Of the discriminator at 4, 8, … px, if the generator's bundle does not hold its own: then it begins at random.
    channels: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)
    weights: AdversarialWeights = field(default_factory=AdversarialWeights)


@dataclass(frozen=True)
class PaperTerms:
    """Weights of the paper's terms (§6); defaults are those of faces."""

    image: ImageLossConfig = field(default_factory=ImageLossConfig)  # also of the picture before super-resolution
    alignment: float = 1.0  # on E_ADA's residual
    adversarial: AdversarialConfig | None = None


class PaperLoss:
    """L_rec of both pictures, L1 of the realigned residual, and an adversarial term if one is wanted.

    The discriminator sees pictures at its own size, reduced from what G draws, as it was trained to. One that judges
    the volume rendering besides, given the camera, gets that as well, and the camera that the pictures are drawn from.

    Generator side and discriminator step together: what judges does not learn from the term that fools it, and what it
    learns from does not reach the branch, so one optimiser over both sets of parameters does what two would.

    Args:
        terms: Weights.
        image_loss: L_rec.
        discriminator: What the adversarial term begins with, the generator's own; None: at random.
    """

    def __init__(
        self,
        terms: PaperTerms,
        image_loss: ImageLoss,
        discriminator: DualDiscriminator | ImageDiscriminator | None = None,
    ) -> None:
        self.terms, self.image_loss = terms, image_loss
        self.discriminator: DualDiscriminator | ImageDiscriminator | None = None
        if terms.adversarial is not None:
            self.discriminator = discriminator or ImageDiscriminator(terms.adversarial.channels)

    def modules(self) -> dict[str, nn.Module]:
        return {} if self.discriminator is None else {"discriminator": self.discriminator}

    def __call__(self, drawn: Drawn, truth: Truth, step: int) -> dict[str, Tensor]:
        losses = self.image_loss(drawn.image, truth.image)
        raw = self.image_loss(drawn.neural, truth.neural)
        losses |= {f"raw_{name}": value for name, value in raw.items()}
        if drawn.aligned is not None:
            side = drawn.aligned.shape[-1]
            missing = F.adaptive_avg_pool2d(truth.image, side) - drawn.view.picture
            losses["alignment"] = self.terms.alignment * (drawn.aligned - missing).abs().mean()
        return losses | dict(self._adversarial(drawn, truth, step))

    def _adversarial(self, drawn: Drawn, truth: Truth, step: int) -> Iterator[tuple[str, Tensor]]:
        if self.discriminator is None or self.terms.adversarial is None:
            return
        judge, weights = self.discriminator, self.terms.adversarial.weights
        label = drawn.view.camera.to_eg3d()
        fake, real = (
            (fitted(pictures.whole.float(), judge.resolution), pictures.neural.float()) for pictures in (drawn, truth)
        )
        judge.requires_grad_(False)
        yield "fool", weights.generator * generator_loss(judge(*fake, label))
        judge.requires_grad_(True)
        shown = [picture.detach() for picture in fake]
        yield "judge", weights.discriminator * discriminator_loss(judge(*real, label), judge(*shown, label))
        if step % weights.r1_every == 0:
            with torch.autocast(label.device.type, enabled=False):
                seen = [picture.detach().requires_grad_(True) for picture in real]
                penalty = r1_penalty(judge(*seen, label), *seen)
            yield "r1", 0.5 * weights.r1 * weights.r1_every * penalty
