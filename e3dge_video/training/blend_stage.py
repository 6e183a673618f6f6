"""Train the residual blend: what may be shown of a picture's residual from elsewhere, and under an edit.

Pairs of views, the second one plain or of the head with an edit (opened mouth, closed eyes, smile, glasses, age, …).
All that stands before the blend is frozen, so its inputs are made once, stored in the run's folder, and learned from
many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from e3dge_video.errors import ConfigError
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.lifting import Change, LiftReading, blended
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.residual_blender import ResidualBlender, shares
from e3dge_video.training.picture_losses import contrast_error, difference_error
from e3dge_video.training.view_pairs import HeadViewPairs, PairConfig, ViewPairs


@dataclass(frozen=True)
class BlendStageConfig:
    """Examples, and how the terms weigh."""

    views: PairConfig = field(default_factory=PairConfig)  # pairs of views alone
    edits: PairConfig = field(default_factory=lambda: PairConfig(edits=True))  # pairs of a view and an edit's
    examples: int = 800  # pairs of each kind, each seen both ways
    held_out: int = 48  # further pairs of each kind
    batch: int = 8
    color_weight: float = 1.0
    edge_weight: float = 0.5
    #: How strong detail is around a place, wherever exactly it runs: without it, what two views cannot place alike to
    #: the pixel would be averaged away.
    contrast_weight: float = 1.0
    #: Further weight where an edit puts something new: mouths and eyes fill few pixels.
    replaced_weight: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Inputs of the blend at half the pictures' size, and what should come out; fp16 in memory.

    Attributes:
        features: [N, 17, h, h]
        weights: Trust in what was seen at a place, and at its mirror image. [N, 2, h, h]
        residuals: Seen, mirrored, continued. [N, 9, h, h]
        base: The head without residual, straight colours in 0..1. [N, 3, h, h]
        truth: What it should look like. [N, 3, h, h]
        judged: Where both show the head. [N, 1, h, h]
    """

    features: Tensor
    weights: Tensor
    residuals: Tensor
    base: Tensor
    truth: Tensor
    judged: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: Tensor | slice) -> Examples:
        return Examples(**{name: value[index].float() for name, value in vars(self).items()})


class BlendStage:
    """The residual blend on frozen everything else.

    Args:
        model: The inverter that the blend will serve.
        blender: What is trained.
        config: Sizes and weights.
        folder: Keeps the examples.
    """

    def __init__(self, model: Inverter, blender: ResidualBlender, config: BlendStageConfig, folder: Path) -> None:
        self.model, self.blender, self.config = model, blender, config
        sources = {"views": HeadViewPairs(config.views), "edits": HeadViewPairs(config.edits)}
        self.train, self.test = ({k: self._prepared(k, part, s, folder) for k, s in sources.items()} for part in (0, 1))

    def modules(self) -> dict[str, nn.Module]:
        return {"blender": self.blender}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.blender.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config = self.config
        kind = ("views", "edits")[step % 2]
        examples = self.train[kind]
        batch = examples[torch.from_numpy(rng.choice(len(examples), config.batch, replace=False))]
        if rng.random() < 0.5:
            batch = Examples(**{name: value.flip(-1) for name, value in vars(batch).items()})
        made = self._shown(self.blender, batch)
        weight = batch.judged * (1 + config.replaced_weight * batch.features[:, 16:17].clamp(0, 1))
        return {
            f"{kind}_color": config.color_weight * ((made - batch.truth).abs() * weight).mean(),
            f"{kind}_edges": config.edge_weight * difference_error(made * batch.judged, batch.truth * batch.judged),
            f"{kind}_contrast": config.contrast_weight
            * contrast_error(made * batch.judged, batch.truth * batch.judged),
        }

    @staticmethod
    def _shown(blender: ResidualBlender | None, batch: Examples) -> Tensor:
        """Heads with their residual as a blend shows it; without one, as the plain lift does."""
        weight, mirror_weight = batch.weights.split(1, dim=1)
        seen, mirrored, continued = batch.residuals.split(3, dim=1)
        if blender is None:
            return batch.base + torch.lerp(continued, seen, weight)
        mix = shares(blender.logits(batch.features), weight, mirror_weight, torch.ones_like(weight))
        return batch.base + blended(mix, seen, mirrored, continued)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        blender = modules["blender"]
        assert isinstance(blender, ResidualBlender)
        figures: dict[str, float] = {}
        rows: list[NDArray[np.uint8]] = []
        for kind, examples in self.test.items():
            sums = {(name, where): np.zeros(2) for name in ("lift", "blend") for where in ("", "_hidden", "_replaced")}
            for first in range(0, len(examples), 8):
                batch = examples[slice(first, first + 8)]
                pictures = {"lift": self._shown(None, batch), "blend": self._shown(blender, batch)}
                regions = {
                    "": batch.judged,
                    "_hidden": batch.judged * (batch.weights[:, :1] < 0.3),
                    "_replaced": batch.judged * (batch.features[:, 16:17] > 0.3),
                }
                for name, picture in pictures.items():
                    error = 2 * (picture - batch.truth).abs().mean(dim=1, keepdim=True)  # in the range -1..1
                    for where, region in regions.items():
                        sums[name, where] += float((error * region).sum()), float(region.sum())
                if first < 16:
                    shown = (batch.base, pictures["lift"], pictures["blend"], batch.truth)
                    sheet = [2 * (p * batch.judged + 0.5 * (1 - batch.judged)) - 1 for p in shown]
                    rows += [np.concatenate([to_array(p[k]) for p in sheet], axis=1) for k in range(0, len(batch), 2)]
            figures |= {f"{kind}_{name}{where}": float(s / max(n, 1)) for (name, where), (s, n) in sums.items()}
        half = len(rows) // 2
        return figures, np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)

    def _prepared(self, kind: str, part: int, source: HeadViewPairs, folder: Path) -> Examples:
        """Examples of the run's folder, made if they are not there; `part` 1 is what training must not see."""
        count = (self.config.examples, self.config.held_out)[part]
        path = folder / f"{kind}_{('train', 'test')[part]}.safetensors"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([self.config.seed, part])
            made = [
                vars(self._examples(source.draw(1, rng) if part == 0 else source.held_out(k)))
                for k in tqdm(range(count), desc=path.stem, unit="pair")
            ]
            temporary = path.with_suffix(".tmp")
            joined = {name: torch.cat([one[name] for one in made]).half().contiguous() for name in made[0]}
            temporary.write_bytes(save(joined))
            temporary.replace(path)
        examples = Examples(**load_file(path))
        if len(examples) != 2 * count:
            raise ConfigError(f"{path}: holds {len(examples)} examples, not {2 * count}; choose another output folder")
        return examples

    @torch.no_grad()
    def _examples(self, pairs: ViewPairs) -> Examples:
        """Both ways of one pair."""
        model, image, landmarks = self.model, pairs.image[0], pairs.landmarks[0]
        observed = model.observe(image, landmarks)
        camera, other = observed.camera, pairs.camera[torch.tensor([1, 0])]
        planes = model.generator.planes(observed.latents)
        coarse = model.layer(planes, observed.latents, camera)
        lifted = model.lift.lift(image, model.foreground(image, landmarks), coarse, camera)
        edited, change = observed.latents, None
        if pairs.edited:
            edited = edited + pairs.edit_of(model.generator)
            planes = model.generator.planes(edited)
            change = Change.between(coarse, model.layer(planes, edited, camera))
        target = model.layer(planes, edited, other)
        return _example(model.lift.read(lifted, target, other, change), pairs.truth[0].flip(0), pairs.alpha[0].flip(0))


def _example(reading: LiftReading, truth: Tensor, alpha: Tensor) -> Examples:
    target, half = reading.target, (lambda values: F.avg_pool2d(values, 2))
    return Examples(
        features=reading.features(),
        weights=half(torch.cat([reading.weight, reading.mirror_weight], dim=1)),
        residuals=half(torch.cat([reading.seen, reading.mirrored, reading.continued], dim=1)),
        base=half(target.color / target.alpha.clamp_min(0.5)),
        truth=half((truth + 1) / 2 / alpha.clamp_min(0.5)),
        judged=half(((alpha > 0.98) & (target.alpha > 0.8)).float()),
    )
