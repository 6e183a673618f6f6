"""Train the local branch: E1 and the FiLM head on the source view (§4.2), E_ADA and the fusion on two views (§4.3).

E0, E_ξ and G are frozen. The coarse reconstruction, and with it Δ, stands at the camera that E_ξ predicts, as it will
when a video is inverted; what is drawn is compared at the true camera (§4.4). In two-view training each picture of a
pair is drawn from the other one's camera with its own codes, and compared with the other picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.detail import SourceDetail, View, detail_toward, encode_source
from e3dge_video.inversion.portrait import Observation
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.training.picture_losses import contrast_error, difference_error
from e3dge_video.training.view_pairs import PairConfig, PairSource, ViewPairs


class GlobalModel(Protocol):
    """The frozen part: what turns pictures into codes and cameras, and shows the local branch what it needs."""

    @property
    def generator(self) -> Generator:
        """G."""

    def observe(self, image: Tensor, landmarks: Tensor) -> Observation:
        """Codes and cameras of pictures."""

    def foreground(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """Where pictures show the head."""

    def view(self, rendered: RenderOutput, camera: Camera) -> View:
        """A global reconstruction as the local branch sees it."""

    def residual(self, image: Tensor, foreground: Tensor, rendered: RenderOutput, view: View) -> Tensor:
        """Δ of pictures."""


@dataclass(frozen=True)
class LocalStageConfig:
    """What one step draws, and how the terms weigh."""

    pairs: PairConfig = field(default_factory=PairConfig)
    heads: int = 2  # of each step, two views each
    #: "source": every picture is drawn from its own camera (E1 alone); "both": half from its own, half from the other's
    #: of the pair.
    views: Literal["source", "both"] = "both"
    #: Camera of the coarse reconstruction: E_ξ's, or the true one.
    camera: Literal["predicted", "true"] = "predicted"
    image_weight: float = 1.0
    neural_weight: float = 0.5  # on the picture before super-resolution
    contrast_weight: float = 2.0
    edge_weight: float = 0.5
    alignment_weight: float = 1.0  # on E_ADA's residual
    evaluate_heads: int = 16


@dataclass(frozen=True)
class _Inverted:
    """Pictures, their codes, and what is missing of them; everything without gradients."""

    latents: Tensor
    planes: Planes
    residual: Tensor
    view: View


class LocalStage:
    """Local branch on a frozen global model."""

    def __init__(self, model: GlobalModel, branch: LocalBranch, pairs: PairSource, config: LocalStageConfig) -> None:
        self.model, self.branch, self.pairs, self.config = model, branch, pairs, config

    def modules(self) -> dict[str, nn.Module]:
        return {"local": self.branch}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.branch.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config, branch = self.config, self.branch
        branch.train()
        pairs = self.pairs.draw(config.heads, rng)
        inverted = self._invert(pairs)
        count = len(inverted.latents)
        swap = torch.arange(count) ^ 1  # the two views of a head lie side by side
        toward = torch.arange(count)
        if config.views == "both":  # one picture of each head goes to the other's camera, the other stays
            toward = torch.where(torch.arange(count) % 2 == int(rng.integers(2)), swap, toward)
        image, neural, aligned, seen = self._draw(branch, inverted, pairs.camera[toward])
        truth = pairs.truth.flatten(0, 1)[toward]
        small = F.interpolate(truth, neural.shape[-2:], mode="area")
        losses = {
            "image": config.image_weight * (image - truth).abs().mean(),
            "neural": config.neural_weight * (neural - small).abs().mean(),
            "edges": config.edge_weight * difference_error(image, truth),
            "contrast": config.contrast_weight * contrast_error(image, truth),
        }
        if aligned is not None:
            alpha = F.interpolate(seen.alpha, aligned.shape[-2:], mode="bilinear", align_corners=False)
            missing = alpha * (F.interpolate(truth, aligned.shape[-2:], mode="area") - _large(seen.rgb, aligned))
            losses["alignment"] = config.alignment_weight * (aligned - missing).abs().mean()
        return losses

    @torch.no_grad()
    def _invert(self, pairs: ViewPairs) -> _Inverted:
        model, image, landmarks = self.model, pairs.image.flatten(0, 1), pairs.landmarks.flatten(0, 1)
        observed = model.observe(image, landmarks)
        camera = observed.camera if self.config.camera == "predicted" else pairs.camera
        planes = model.generator.planes(observed.latents)
        coarse = _in_full(model.generator.render(planes, camera))
        view = model.view(coarse, camera)
        residual = model.residual(image, model.foreground(image, landmarks), coarse, view)
        return _Inverted(observed.latents, planes, residual, view)

    def _draw(
        self, branch: LocalBranch, inverted: _Inverted, camera: Camera
    ) -> tuple[Tensor, Tensor, Tensor | None, RenderOutput]:
        """Pictures from these cameras, before super-resolution too, E_ADA's residual, and the global reconstruction."""
        generator = self.model.generator
        with torch.no_grad():
            coarse = _in_full(generator.render(inverted.planes, camera))
            target = self.model.view(coarse, camera)
        source: SourceDetail = encode_source(branch, inverted.residual, inverted.view)
        detail = detail_toward(branch, inverted.residual, source, target)
        rendered = _in_full(generator.render(inverted.planes, camera, modulation=detail))
        image = generator.upsample(rendered, inverted.latents)
        return image, rendered.rgb, detail.aligned_residual, coarse

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        branch = modules["local"]
        assert isinstance(branch, LocalBranch)
        figures: dict[str, list[float]] = {}
        rows: list[NDArray[np.uint8]] = []
        for k in range(self.config.evaluate_heads):
            one = self.pairs.held_out(k)
            inverted, truth = self._invert(one), one.truth[0]
            columns = [one.image[0, :1]]
            for name, order in (("source", [0, 1]), ("novel", [1, 0])):
                image, _, _, coarse = self._draw(branch, inverted, one.camera[torch.tensor(order)])
                plain = self.model.generator.upsample(coarse, inverted.latents)
                # The truth stands on black; outside the head nothing is judged.
                wanted = truth[order]
                head = (wanted > -0.98).any(dim=1, keepdim=True)
                for kind, made in (("global", plain), ("local", image)):
                    error = ((made - wanted).abs() * head).sum() / (3 * head.sum())
                    figures.setdefault(f"{kind}_{name}", []).append(float(error))
                columns += [wanted[:1], plain[:1], image[:1]]
            if k < 8:
                rows.append(np.concatenate([to_array(column[0]) for column in columns], axis=1))
        return {name: float(np.mean(values)) for name, values in figures.items()}, np.concatenate(rows, axis=0)


def _in_full(rendered: RenderOutput) -> RenderOutput:
    """In full precision: half precision cannot be resized with antialiasing."""
    return replace(rendered, **{name: value.float() for name, value in vars(rendered).items()})


def _large(values: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(values, like.shape[-2:], mode="bilinear", align_corners=False)
