"""What editing directions do, against the same edits of procedural heads rendered exactly.

An edit of a procedural head moves one attribute and nothing else (`heads/edits.py`), so every direction has a truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.evaluation.exact_heads import exact_view
from e3dge_video.evaluation.starter import OWN_ATTRIBUTES, drawn_heads
from e3dge_video.geometry.cameras import Camera
from e3dge_video.heads.edits import edit
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.training.directions import RECIPES
from e3dge_video.training.head_views import HeadViews

#: Side of the exact renders, and of the pictures that changes are compared in, pixels.
_RENDERED, _COMPARED = 128, 64


@dataclass(frozen=True)
class EditAccuracy:
    """One direction at the strength that takes its recipe's low end to the high one; attributes in spreads.

    Attributes:
        exact: Change of its own attribute in exact renders of the edit.
        code: The same drawn by the generator from exact codes: what it can show at all.
        own: The same by the direction.
        leak: Mean absolute change of all attributes that it should leave alone, by the direction.
        exact_leak: The same in exact renders: what the reader takes for a change, though there is none.
        correlation: Between the picture's change and the exact one, over all pixels, mean over heads.
        gain: How strong the change is: its least-squares share of the exact one.
        changes: Change of every attribute by the direction. [A]
    """

    exact: float
    code: float
    own: float
    leak: float
    exact_leak: float
    correlation: float
    gain: float
    changes: tuple[float, ...]


@torch.no_grad()
def edit_accuracy(
    inverter: Inverter, reader: AttributeNet, data: HeadViews, name: str, rows: Sequence[int]
) -> EditAccuracy:
    """Of one direction, on heads that nothing was trained on, from near-frontal cameras."""
    recipe, generator = RECIPES[name], inverter.generator
    ends = [np.stack([edit(data.z[row], name, strength) for row in rows]) for strength in (recipe.low, recipe.high)]
    camera = Camera.from_eg3d(torch.from_numpy(data.cameras[list(rows), 0]))
    exact = [_exact(end, data.cameras[list(rows), 0]) for end in ends]
    low, high = (generator.map(torch.from_numpy(end)) for end in ends)
    codes = {"low": low, "high": high, "moved": low + inverter.directions[name] / recipe.step}
    drawn = {key: drawn_heads(generator, latents, camera) for key, latents in codes.items()}
    read = {key: reader.standardised(image) for key, image in drawn.items()}
    true_change = (reader.standardised(exact[1]) - reader.standardised(exact[0])).mean(dim=0)
    code_change, change = ((read[key] - read["low"]).mean(dim=0) for key in ("high", "moved"))
    own = OWN_ATTRIBUTES.get(name, ())
    others = [k for k, attribute in enumerate(data.attribute_names) if attribute not in own]
    first = list(data.attribute_names).index(own[0]) if own else None
    wanted, made = (exact[1] - exact[0]).flatten(1), (drawn["moved"] - drawn["low"]).flatten(1)
    gain = (wanted * made).sum(dim=1) / wanted.square().sum(dim=1).clamp_min(1e-9)
    return EditAccuracy(
        exact=nan if first is None else float(true_change[first]),
        code=nan if first is None else float(code_change[first]),
        own=nan if first is None else float(change[first]),
        leak=float(change[others].abs().mean()),
        exact_leak=float(true_change[others].abs().mean()),
        correlation=float(F.cosine_similarity(wanted, made).mean()),
        gain=float(gain.mean()),
        changes=tuple(float(value) for value in change),
    )


@torch.no_grad()
def strength_curve(
    inverter: Inverter,
    reader: AttributeNet,
    data: HeadViews,
    name: str,
    rows: Sequence[int],
    strengths: Sequence[float],
) -> list[float]:
    """Mean change of an edit's own attribute, in spreads, at each strength; heads as they are."""
    first = list(data.attribute_names).index(OWN_ATTRIBUTES[name][0])
    latents = inverter.generator.map(torch.from_numpy(data.z[list(rows)]))
    camera = Camera.from_eg3d(torch.from_numpy(data.cameras[list(rows), 0]))

    def read(strength: float) -> float:
        image = drawn_heads(inverter.generator, latents + strength * inverter.directions[name], camera)
        return float(reader.standardised(image)[:, first].mean())

    before = read(0.0)
    return [read(strength) - before for strength in strengths]


def linearity(strengths: Sequence[float], changes: Sequence[float]) -> float:
    """Share of the changes' variance that a straight line through the origin explains, R²; 1 is linear."""
    x, y = np.asarray(strengths), np.asarray(changes)
    slope = (x * y).sum() / (x * x).sum()
    return float(1 - ((y - slope * x) ** 2).sum() / (y**2).sum())


def _exact(codes: NDArray[np.floating], cameras: NDArray[np.floating]) -> Tensor:
    """Exact renders over grey. [B, Z], [B, 25] → [B, 3, 64, 64]"""
    images = [exact_view(z, camera, _RENDERED).image for z, camera in zip(codes, cameras, strict=True)]
    return F.interpolate(torch.cat(images), (_COMPARED, _COMPARED), mode="area")
