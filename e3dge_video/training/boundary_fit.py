"""Linear boundaries of attributes in W, from scores of sampled pictures (InterfaceGAN).

Shen et al., "InterFaceGAN: Interpreting the Disentangled Face Representation Learned by GANs", 2020: the codes with the
highest and the lowest scores are told apart by a hyperplane, whose normal is the direction of the edit; made orthogonal
to the normals of other attributes, it leaves those alone (conditional manipulation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from torch import Tensor

from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.errors import ConfigError, InputError
from e3dge_video.training.code_samples import CodeSamples, key_of
from e3dge_video.training.scores import Scores
from e3dge_video.weights.bundle import EditSpec

_FEWEST = 10  # codes on each side


@dataclass(frozen=True)
class FitOptions:
    """How boundaries are fitted.

    Attributes:
        extremes: Share of the scored samples taken from either end; a score of two values is taken whole.
        held_out: Share of those that the accuracy is measured on.
        strictness: Inverse weight of the penalty on the normal, for codes scaled to a mean variance of 1. Small: the
            normal comes close to the difference of the two means; large: to the widest margin.
        seed: Of the split.
    """

    extremes: float = 0.1
    held_out: float = 0.3
    strictness: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.extremes <= 0.5:
            raise ConfigError(f"--extremes {self.extremes:g}: expected a share above 0, at most 0.5")


@dataclass(frozen=True)
class FittedEdits:
    """Edits from boundaries.

    Attributes:
        directions: A step of strength 1 of each attribute, in all rows. [L, W] each
        edits: How each may be used.
        figures: How each was found: samples on either side, accuracy on held-out ones, correlation with the scores.
    """

    directions: dict[str, Tensor]
    edits: dict[str, EditSpec]
    figures: dict[str, dict[str, Any]]


def fit_boundaries(
    samples: CodeSamples,
    scores: Scores,
    config: GeneratorConfig,
    options: FitOptions | None = None,
    *,
    against: Mapping[str, Sequence[str]] | None = None,
    layers: tuple[int, int] | None = None,
) -> FittedEdits:
    """Fit one edit for each attribute, in each part of the codes alone.

    Strength 1 is the standard deviation of all samples along the normal; the limits are where their outermost hundredth
    begins on either side, counted from their mean.

    Args:
        samples: The codes.
        scores: By attribute one for each sample, NaN where there is none. [N] each
        config: The generator.
        options: How.
        against: Attribute → others whose boundaries it is made orthogonal to.
        layers: Rows [first, stop) that the edits may move; None: all.

    Raises:
        InputError: Too few scores, or all alike.
        ConfigError: `against` names an attribute without scores, or one that is the same.
    """
    options, against = options or FitOptions(), dict(against or {})
    for name, others in against.items():
        if unknown := [other for other in (name, *others) if other not in scores]:
            raise ConfigError(f"--against {name}: there are no scores of {unknown[0]}; there are {', '.join(scores)}")
    directions = {name: torch.zeros(config.latent_shape) for name in scores}
    figures: dict[str, dict[str, Any]] = {name: {} for name in scores}
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in scores}
    for part in config.code_parts:
        codes = samples.codes[part.prefix].astype(np.float64)
        normals, accuracies = {}, {}
        for name, values in scores.items():
            normals[name], accuracies[name], count = _normal(codes, values, options, name)
            figures[name] |= {"scored": int(np.isfinite(values).sum()), "low": count[0], "high": count[1]}
        for name, values in scores.items():
            others = against.get(name, ())
            normal = _conditioned(normals[name], [normals[other] for other in others], name, others)
            places = (codes - codes.mean(axis=0)) @ normal
            scored = np.isfinite(values)
            correlation = float(np.corrcoef(places[scored], values[scored])[0, 1])
            if not correlation > 0:
                raise InputError(f"{name}: its boundary does not tell the scores; score more pictures, or better")
            step = float(places.std())
            low, high = np.quantile(places, [0.01, 0.99]) / step
            spans[name].append((float(low), float(high)))
            directions[name][part.first : part.stop, : part.width] = torch.from_numpy(step * normal).float()
            figures[name][key_of(part)] = {
                "held_out_accuracy": round(accuracies[name], 4),
                "correlation": round(correlation, 4),
                "own_share": round(float(normal @ normals[name]), 4),
            }
    unit = "one standard deviation of random codes along the boundary's normal"
    edits = {
        name: EditSpec(
            unit + (f", {', '.join(against[name])} left alone" if against.get(name) else ""),
            (round(max(low for low, _ in ends), 2), round(min(high for _, high in ends), 2)),
            layers,
        )
        for name, ends in spans.items()
    }
    return FittedEdits(directions, edits, figures)


def _normal(
    codes: NDArray[np.float64], scores: NDArray[np.float32], options: FitOptions, name: str
) -> tuple[NDArray[np.float64], float, tuple[int, int]]:
    """Unit normal of the boundary [W], balanced accuracy on held-out extremes, numbers of low and high samples."""
    low, high = _extremes(scores, options.extremes)
    if min(len(low), len(high)) < _FEWEST:
        values = scores[np.isfinite(scores)]
        if len(values) and values.min() == values.max():
            raise InputError(f"{name}: all {len(values)} scores are {values[0]:g}; a boundary needs two classes")
        raise InputError(
            f"{name}: {len(low)} low and {len(high)} high scores; a boundary needs {_FEWEST} of each, better hundreds: "
            "score more pictures or raise --extremes"
        )
    rows, labels = np.concatenate([low, high]), np.repeat([0, 1], [len(low), len(high)])
    known, tested, known_labels, tested_labels = train_test_split(
        rows, labels, test_size=options.held_out, random_state=options.seed, stratify=labels
    )
    # One scale for all axes: it makes the penalty's weight mean the same for every generator and turns no direction.
    mean, scale = codes.mean(axis=0), float(np.sqrt(codes.var(axis=0).mean()))
    classifier = LogisticRegression(C=options.strictness, class_weight="balanced", max_iter=2000)
    classifier.fit((codes[known] - mean) / scale, known_labels)
    guessed = classifier.predict((codes[tested] - mean) / scale)
    normal = classifier.coef_[0] / np.linalg.norm(classifier.coef_[0])
    return normal, float(balanced_accuracy_score(tested_labels, guessed)), (len(low), len(high))


def _extremes(scores: NDArray[np.float32], share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Samples with the lowest and the highest scores; equal scores go together."""
    values = scores[np.isfinite(scores)]
    if not len(values):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    below, above = np.quantile(values, [share, 1 - share])
    if below < above:
        return np.flatnonzero(scores <= below), np.flatnonzero(scores >= above)
    # One score fills both ends, such as the 0 of something rare: it goes to the side that is its own.
    if below == values.min():
        return np.flatnonzero(scores <= below), np.flatnonzero(scores > below)
    if below == values.max():
        return np.flatnonzero(scores < below), np.flatnonzero(scores >= below)
    return np.flatnonzero(scores < below), np.flatnonzero(scores > below)


def _conditioned(
    normal: NDArray[np.float64], others: Sequence[NDArray[np.float64]], name: str, names: Sequence[str]
) -> NDArray[np.float64]:
    """The normal without what it shares with others, of unit length again."""
    if not others:
        return normal
    basis, _ = np.linalg.qr(np.stack(others, axis=1))
    rest = normal - basis @ (basis.T @ normal)
    length = float(np.linalg.norm(rest))
    if length < 0.05:
        raise ConfigError(f"--against {name}={','.join(names)}: nothing of {name} is left; they are the same")
    return np.asarray(rest / length)
