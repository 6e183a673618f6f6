"""The check image of a generator: a fixed code from the frontal camera, and figures that tell it from another one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.generators.base import Generator
from e3dge_video.weights.bundle import CheckFigures

_TRUNCATION = 0.7  # a picture worth looking at
_SIDE = 4
#: How far a field's mean may be from the stored one; machines and thread counts differ by some 1e-5.
TOLERANCE = 5e-3


@torch.no_grad()
def check_image(generator: Generator) -> Tensor:
    """Render the check image; the same on every machine but for rounding. [3, H, H]"""
    width = generator.z_dim
    # Quantiles of the normal distribution in a fixed order: no random generator, whose numbers may change.
    order = (torch.arange(width, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2)) % 1
    z = torch.erfinv((2 * order.argsort() + 1) / width - 1).float()[None] * math.sqrt(2)
    latents = generator.map(z, truncation=_TRUNCATION)
    return generator.synthesize(latents, generator.frontal_camera())[0]


def check_figures(image: Tensor) -> CheckFigures:
    """Figures of a check image [3, H, H]."""
    fields = F.adaptive_avg_pool2d(image[None], _SIDE)[0]
    return CheckFigures(tuple(round(float(value), 5) for value in fields.permute(1, 2, 0).flatten()))


def largest_difference(image: Tensor, figures: CheckFigures) -> float:
    """Largest absolute difference between an image's fields and stored figures; infinite if they are not as many."""
    ours = check_figures(image).fields
    if len(ours) != len(figures.fields):
        return math.inf
    difference = max(abs(a - b) for a, b in zip(ours, figures.fields, strict=True))
    return math.inf if math.isnan(difference) else difference
