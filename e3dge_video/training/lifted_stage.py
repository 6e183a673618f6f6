"""Train the local branch for what is shown in the end: the picture with the residual that the lift adds to it.

Alone, the branch learns to draw everything that it sees. Beneath the lift (`inversion/lifting.py`) much of that is
there already, sharper; what counts is the rest: the hidden side, places that the geometry misses, what an edit
uncovers. And what the branch draws at the picture's own view is missing from the residual that the lift carries to the
other one, which only training through both teaches it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.evaluation.likeness import masked_error
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.lifting import ResidualLift
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.training.local_losses import HeadTerms
from e3dge_video.training.local_stage import StepConfig, nearer_to_mean
from e3dge_video.training.view_pairs import PairSource, ViewPairs
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class LiftedPictures:
    """Each picture of some pairs, drawn as the other one of its pair.

    Attributes:
        finished: By kind of lift. [2P, 3, S, S]
        alone: Before the lift, over black. [2P, 3, S, S]
        truth: What they should be. [2P, 3, S, S]
        judged: Where both show nothing but the head, 0 or 1. [2P, 1, S, S]
    """

    finished: dict[str, Tensor]
    alone: Tensor
    truth: Tensor
    judged: Tensor


class LiftedStage:
    """Local branch on a frozen model, beneath its lift: the plain one and the learned one in turn.

    Args:
        model: Everything else, in evaluation mode, its statistics included.
        branch: What is trained.
        pairs: Two views of a head each.
        config: What one step draws.
        terms: How the terms weigh.
        edits: Pairs of heads and their edits, if the branch is to learn from those, too.
        edit_share: In which share of the steps.
    """

    def __init__(
        self,
        model: Inverter,
        branch: LocalBranch,
        pairs: PairSource,
        config: StepConfig,
        terms: HeadTerms,
        edits: PairSource | None = None,
        edit_share: float = 0.0,
    ) -> None:
        self.model, self.branch, self.pairs, self.config, self.terms = model, branch, pairs, config, terms
        self.edits, self.edit_share = edits, edit_share
        self.lifts = {"lift": ResidualLift()}
        if model.blender is not None:
            self.lifts["blend"] = ResidualLift(blender=model.blender)

    def modules(self) -> dict[str, nn.Module]:
        return {"local": self.branch}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.branch.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        self.branch.train()
        source = self.pairs
        if self.edits is not None and rng.random() < self.edit_share:
            source = self.edits
        pairs = placed(source.draw(self.config.heads, rng, step=step), device_of(self.branch))
        share = torch.from_numpy(self.config.misfit * rng.random(self.config.heads))
        kind = list(self.lifts)[step % len(self.lifts)]
        drawn = self.draw(self.branch, pairs, (kind,), share)
        with torch.autocast(drawn.truth.device.type, enabled=False):
            losses = self._compared(kind, drawn.finished[kind].float(), drawn, 1.0)
            return losses | self._compared("alone", drawn.alone, drawn, self.terms.alone_weight)

    def _compared(self, name: str, image: Tensor, drawn: LiftedPictures, weight: float) -> dict[str, Tensor]:
        image, truth = ((values + 1) * drawn.judged - 1 for values in (image, drawn.truth))
        return {f"{name}_{term}": weight * value for term, value in self.terms.of_pictures(image, truth).items()}

    def draw(
        self, branch: LocalBranch | None, pairs: ViewPairs, kinds: tuple[str, ...], toward_mean: Tensor | None = None
    ) -> LiftedPictures:
        """Every picture as the other one of its pair.

        Args:
            branch: Local detail; None: the lift alone.
            pairs: P pairs.
            kinds: By which lifts.
            toward_mean: How far each head's codes are moved toward the mean head, 0..1; None: not at all. [P]
        """
        model = self.model if branch is None else self.model.with_branch(branch)
        image, landmarks = pairs.image.flatten(0, 1), pairs.landmarks.flatten(0, 1)
        swap = torch.arange(len(image), device=image.device) ^ 1  # the two of a pair lie side by side
        with torch.no_grad():
            observed = model.observe(image, landmarks)
            latents = observed.latents.float()
            if toward_mean is not None:
                latents = nearer_to_mean(model.generator, latents, toward_mean)
            own = observed.camera if self.config.camera == "predicted" else pairs.camera
        inversion = model.invert(image, own, landmarks=landmarks, latents=latents)
        edited = model.edit(inversion, latents + pairs.edit_of(model.generator)) if pairs.edited else None
        camera = pairs.camera[swap]
        target = model.target(inversion, camera, edited)
        change = None if edited is None else edited.change
        finished = {kind: self.lifts[kind].render(inversion.lifted, target, camera, change)[0] for kind in kinds}
        alpha = pairs.alpha.flatten(0, 1)[swap]
        judged = ((alpha > 0.98) & (target.alpha > 0.8)).float()
        return LiftedPictures(finished, 2 * target.color - 1, pairs.truth.flatten(0, 1)[swap], judged)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Absolute errors by each lift, with the branch beneath and without: of the other view, and of edits."""
        branch = modules["local"]
        assert isinstance(branch, LocalBranch)
        figures: dict[str, list[float]] = {}
        rows: list[NDArray[np.uint8]] = []
        for source in (self.pairs,) if self.edits is None else (self.pairs, self.edits):
            for index in range(self.config.evaluate_heads):
                pair = placed(source.held_out(index), device_of(branch))
                view, pictures = "edited" if pair.edited else "novel", [pair.image[0, 0]]
                for name, beneath in (("", None), ("local_", branch)):
                    drawn = self.draw(beneath, pair, tuple(self.lifts))
                    for kind, finished in drawn.finished.items():
                        error = masked_error(finished, drawn.truth, drawn.judged)
                        figures.setdefault(f"{name}{kind}_{view}", []).append(error)
                        pictures.append(finished[0])
                if index < 6:
                    rows.append(np.concatenate([to_array(p) for p in (*pictures, drawn.truth[0])], axis=1))
        return {name: float(np.mean(values)) for name, values in figures.items()}, np.concatenate(rows)
