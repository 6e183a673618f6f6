"""Train the local branch: E1 and the FiLM head on the source view (§4.2), E_ADA and the fusion on two views (§4.3).

E0, E_ξ and G are frozen. The coarse reconstruction, and with it Δ, stands at the camera that E_ξ predicts, as it will
when a video is inverted; what is drawn is compared at the true camera (§4.4). In two-view training each picture of a
pair is drawn from the other one's camera with its own codes, and compared with the other picture. Pairs may also be of
a head and an edit of it: each picture is then drawn with its codes moved by exactly that edit (§4.3).

What the pictures are and what they are compared by is a source of pairs and a loss: rendered heads for the starter, a
frozen generator's own for the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.detail import View, changed_share, detail_toward, edited_source, encode_source, seen_from
from e3dge_video.inversion.portrait import Observation
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.training.local_losses import Drawn, HeadTerms, LocalLoss, PaperTerms, Truth
from e3dge_video.training.teacher import TeacherConfig, fitted
from e3dge_video.training.view_pairs import PairConfig, PairSource, ViewPairs
from e3dge_video.training.workers import device_of, placed


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
class StepConfig:
    """What one step draws."""

    heads: int = 2  # of each step, two views each
    #: "source": every picture is drawn from its own camera (E1 alone); "both": half from its own, half from the other's
    #: of the pair; "swapped": all from the other's, as the paper's cycle.
    #: "lifted": as "swapped", and what counts is the picture with what the lift adds (`lifted_stage.py`).
    views: Literal["source", "both", "swapped", "lifted"] = "both"
    #: Camera of the coarse reconstruction: E_ξ's, or the true one.
    camera: Literal["predicted", "true"] = "predicted"
    #: Codes are moved toward the mean head at random, by up to this share: they then fit a picture as badly as the code
    #: of a real face does, and the branch learns residuals as large as those. 0: codes as E0 gives them.
    misfit: float = 0.0
    evaluate_heads: int = 16


@dataclass(frozen=True)
class LocalStageConfig(StepConfig, HeadTerms):
    """The starter's stage: rendered heads, and how the terms weigh."""

    pairs: PairConfig = field(default_factory=PairConfig)
    #: Pairs of a head and its edit (`train heads --pairs`), and in which share of the steps they are drawn.
    edits: PairConfig = field(default_factory=lambda: PairConfig(edits=True))
    edit_share: float = 0.0


@dataclass(frozen=True)
class TaughtLocalConfig(StepConfig, PaperTerms):
    """The paper's stage: a generator's own heads. Batches are those of one process."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    #: Learning rates of parts over the loop's: encoder (E1), film_head, aligner (E_ADA), fusion, discriminator. 0: kept
    #: as it is, its statistics as well. The paper trains all alike; E3DGE's release had {film_head: 0.2, aligner: 2} in
    #: 2D alignment, then {aligner: 0, film_head: 0.2, fusion: 2}.
    rates: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Inverted:
    """Pictures, their codes, and what is missing of them; everything without gradients."""

    latents: Tensor
    planes: Planes
    residual: Tensor
    view: View


@dataclass(frozen=True)
class Moved:
    """The same with the codes moved by the edit of their pair, as the pictures' own cameras see them.

    Attributes:
        latents: Moved codes.
        planes: Their heads.
        view: Their global reconstruction.
    """

    latents: Tensor
    planes: Planes
    view: View


@dataclass(frozen=True)
class Shown:
    """Both pictures of a pair, drawn from "source" or "novel" cameras, or as each other's "edited" heads.

    Attributes:
        view: Which.
        image: What was drawn. [2, 3, S, S]
        truth: What should be. [2, 3, S, S]
        alpha: Opacity of the head in `truth`. [2, 1, S, S]
        seen: Where the inverted pictures show what the global reconstruction has there. [2, 1, S, S]
        changed: Where the edit puts something else; None: there is none. [2, 1, S, S]
    """

    view: str
    image: Tensor
    truth: Tensor
    alpha: Tensor
    seen: Tensor
    changed: Tensor | None = None


class TwoViews:
    """Pairs as a frozen global model reconstructs them, with local detail or without.

    Args:
        model: E0, E_ξ and G, in evaluation mode, their statistics included.
        predicted: Whether the coarse reconstruction stands at E_ξ's camera; else at the true one.
    """

    def __init__(self, model: GlobalModel, *, predicted: bool = True) -> None:
        self.model, self.predicted = model, predicted

    @torch.no_grad()
    def invert(self, pairs: ViewPairs, toward_mean: Tensor | None = None) -> Inverted:
        """Codes of both pictures of each pair, and what their global reconstructions lack.

        Args:
            pairs: P heads, two views each.
            toward_mean: How far each head's codes are moved toward the mean head, 0..1; None: not at all. [P]
        """
        model, image, landmarks = self.model, pairs.image.flatten(0, 1), pairs.landmarks.flatten(0, 1)
        observed = model.observe(image, landmarks)
        latents = observed.latents
        if toward_mean is not None:
            latents = nearer_to_mean(model.generator, latents, toward_mean)
        camera = observed.camera if self.predicted else pairs.camera
        planes = model.generator.planes(latents)
        coarse = model.generator.render(planes, camera).float()
        view = model.view(coarse, camera)
        residual = model.residual(image, model.foreground(image, landmarks), coarse, view)
        return Inverted(latents, planes, residual, view)

    @torch.no_grad()
    def moved(self, inverted: Inverted, pairs: ViewPairs) -> Moved:
        """Codes of both pictures of each pair, moved by exactly what turns their head into the other's."""
        generator = self.model.generator
        latents = inverted.latents + pairs.edit_of(generator)
        planes, camera = generator.planes(latents), inverted.view.camera
        return Moved(latents, planes, self.model.view(generator.render(planes, camera).float(), camera))

    def draw(
        self, branch: LocalBranch, inverted: Inverted, pairs: ViewPairs, toward: Tensor, moved: Moved | None = None
    ) -> Drawn:
        """Every picture of the pairs, from the camera of the one that it goes toward.

        Args:
            branch: Local detail.
            inverted: The pictures.
            pairs: What they are.
            toward: Number of the other picture for each of them. [2P]
            moved: Their edits, to be drawn instead.
        """
        generator, camera, head = self.model.generator, pairs.camera[toward], moved or inverted
        with torch.no_grad():
            coarse = generator.render(head.planes, camera).float()
            target = self.model.view(coarse, camera)
        if moved is None:
            source = encode_source(branch, inverted.residual, inverted.view)
        else:
            source = edited_source(branch, inverted.residual, inverted.view, moved.view)
        detail = detail_toward(branch, inverted.residual, source, target)
        rendered = generator.render(head.planes, camera, modulation=detail).float()
        whole = generator.upsample(rendered, head.latents).float()
        aligned = None if detail.aligned_residual is None else detail.aligned_residual.float()
        return Drawn(fitted(whole, pairs.truth.shape[-1]), whole, rendered.rgb, coarse, target, aligned)

    @torch.no_grad()
    def pictures(self, pair: ViewPairs, branch: LocalBranch | None) -> list[Shown]:
        """Both pictures of one pair from their own cameras, then from each other's; of an edit, as each other's head.

        Args:
            pair: One pair.
            branch: Local detail; None: the global reconstruction.
        """
        model, inverted, made, size = self.model, self.invert(pair), [], pair.truth.shape[-1]
        moved = self.moved(inverted, pair) if pair.edited else None
        head = moved or inverted
        for view, order in {"edited": [1, 0]}.items() if moved else {"source": [0, 1], "novel": [1, 0]}.items():
            toward = torch.tensor(order, device=pair.truth.device)
            camera = pair.camera[toward]
            if branch is None:
                rendered = model.generator.render(head.planes, camera).float()
                image = fitted(model.generator.upsample(rendered, head.latents), size)
                target = model.view(rendered, camera)
            else:
                drawn = self.draw(branch, inverted, pair, toward, moved)
                image, target = drawn.image, drawn.view
            changed, seen = None, seen_from(inverted.view, target, by_depth=True)
            seen = F.interpolate(seen.float(), (size, size), mode="nearest") > 0
            if moved is not None:
                before = model.view(model.generator.render(inverted.planes, camera).float(), camera)
                changed = F.interpolate(changed_share(before, target), (size, size)) > 0.5
            made.append(Shown(view, image, pair.truth[0][order], pair.alpha[0][order], seen, changed))
        return made


def nearer_to_mean(generator: Generator, latents: Tensor, share: Tensor) -> Tensor:
    """Codes of both pictures of P pairs, moved toward the mean head by a share of each pair. [2P, L, W], [P]"""
    return latents.lerp(
        generator.mean_latents.to(latents).expand_as(latents), share.to(latents).repeat_interleave(2).view(-1, 1, 1)
    )


class LocalStage:
    """Local branch on a frozen global model.

    Args:
        model: E0, E_ξ and G, in evaluation mode, their statistics included.
        branch: What is trained.
        pairs: Pictures.
        loss: What they are compared by.
        config: What one step draws.
        rates: Learning rates of parts over the loop's, 1 unless given; 0: not trained.
        edits: Pairs of heads and their edits, if the branch is to learn from those, too.
        edit_share: In which share of the steps.

    Raises:
        ConfigError: A rate of a part that there is not, or below 0.
    """

    def __init__(
        self,
        model: GlobalModel,
        branch: LocalBranch,
        pairs: PairSource,
        loss: LocalLoss,
        config: StepConfig,
        rates: Mapping[str, float] | None = None,
        edits: PairSource | None = None,
        edit_share: float = 0.0,
    ) -> None:
        self.edits, self.edit_share = edits, edit_share
        self.views = TwoViews(model, predicted=config.camera == "predicted")
        self.branch, self.pairs, self.loss, self.config, self.rates = branch, pairs, loss, config, rates or {}
        parts = self._parts()
        for name, rate in self.rates.items():
            if name not in parts or rate < 0:
                raise ConfigError(
                    f"stage.rates.{name} = {rate:g}: expected a number of at least 0 for one of {', '.join(parts)}"
                )
        self.kept = [parts[name].requires_grad_(False) for name, rate in self.rates.items() if rate == 0]

    def modules(self) -> dict[str, nn.Module]:
        return {"local": self.branch, **self.loss.modules()}

    def parameters(self) -> Iterator[nn.Parameter]:
        for _, group in self.groups():
            yield from group

    def groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        found: dict[float, list[nn.Parameter]] = {}
        for name, part in self._parts().items():
            found.setdefault(self.rates.get(name, 1.0), []).extend(part.parameters())
        return [(rate, group) for rate, group in found.items() if rate > 0]

    def _parts(self) -> dict[str, nn.Module]:
        """What may have a rate of its own."""
        return {**dict(self.branch.named_children()), **self.loss.modules()}

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config, branch = self.config, self.branch
        branch.train()
        for part in self.kept:
            part.eval()
        source = self.pairs
        if self.edits is not None and rng.random() < self.edit_share:
            source = self.edits
        edited, pairs = source is not self.pairs, placed(source.draw(config.heads, rng, step=step), device_of(branch))
        share = config.misfit * torch.from_numpy(rng.random(config.heads)) if config.misfit else None
        inverted = self.views.invert(pairs, share)
        own = torch.arange(len(inverted.latents))
        swap, toward = own ^ 1, own  # the two views of a head lie side by side
        if config.views == "swapped" or edited:
            toward = swap
        elif config.views == "both":  # one picture of each head goes to the other's camera, the other stays
            toward = torch.where(own % 2 == int(rng.integers(2)), swap, own)
        toward = toward.to(device_of(branch))
        moved = self.views.moved(inverted, pairs) if edited else None
        drawn = self.views.draw(branch, inverted, pairs, toward, moved)
        with torch.autocast(drawn.image.device.type, enabled=False):
            return self.loss(drawn, _truth(pairs, toward, drawn.neural.shape[-1]), step)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Absolute errors with and without local detail: at the source's view, at the other one, and of edits."""
        branch = modules["local"]
        assert isinstance(branch, LocalBranch)
        figures: dict[str, list[float]] = {}
        sheets: list[NDArray[np.uint8]] = []
        for pairs in (self.pairs,) if self.edits is None else (self.pairs, self.edits):
            rows = [self._compared(branch, pairs.held_out(k), figures) for k in range(self.config.evaluate_heads)]
            sheets.append(np.concatenate(rows[:8], axis=0))
        return {name: float(np.mean(values)) for name, values in figures.items()}, np.concatenate(sheets, axis=1)

    def _compared(self, branch: LocalBranch, pair: ViewPairs, figures: dict[str, list[float]]) -> NDArray[np.uint8]:
        """Errors of one pair, put beside those in `figures`; and its pictures side by side."""
        pair = placed(pair, device_of(branch))
        columns = [pair.image[0, 0]]
        for kind in ("global", "local"):
            for shown in self.views.pictures(pair, None if kind == "global" else branch):
                head = shown.alpha > 0.5
                error = ((shown.image - shown.truth).abs() * head).sum() / (3 * head.sum())
                figures.setdefault(f"{kind}_{shown.view}", []).append(float(error))
                columns += [shown.truth[0], shown.image[0]] if kind == "global" else [shown.image[0]]
        return np.concatenate([to_array(column) for column in columns], axis=1)


def _truth(pairs: ViewPairs, toward: Tensor, size: int) -> Truth:
    """What pictures should be, and before super-resolution; reduced, where that is not known."""
    image = pairs.truth.flatten(0, 1)[toward]
    whole = image if pairs.whole is None else pairs.whole.flatten(0, 1)[toward]
    if pairs.neural is not None:
        return Truth(image, whole, pairs.neural.flatten(0, 1)[toward])
    return Truth(image, whole, F.interpolate(image, (size, size), mode="area"))
