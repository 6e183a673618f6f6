"""The cartoon of a head: the same person with exaggerated features and plain paint, from the same latent code.

A cartoon is a head like any other: its spec is that of the person with larger eyes, a smaller nose and jaw and nothing
on the skin that a draughtsman would leave out, so hair, glasses and landmarks follow by themselves. What remains is to
paint without fine texture (`plain_layers`) and to shade in flat tones (`toon_shading`, `outlines`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.assets import SHAPE_TARGETS
from e3dge_video.heads.paint_layers import LAYER, PaintLayers, load_layers
from e3dge_video.heads.spec import HeadSpec

#: What a cartoon adds to the person's shape, and how much of the person's own deviation it keeps.
_SHAPE: dict[str, float] = {
    "eye_size": 4.2, "eye_opening": 1.0, "eye_spacing": 0.35, "eye_bags": -0.4, "eye_fold": 0.3,
    "nose_width": -0.5, "nose_depth": -0.35, "nose_length": -0.35, "nose_volume": -0.7, "nose_nostrils": -0.5,
    "chin_width": -0.7, "chin_height": -0.5, "jaw_bones": -0.8, "head_triangular": 0.3, "mouth_width": -0.1,
    "neck_width": -0.45, "forehead_height": 0.3, "head_fat": 0.15, "cheek_volume": 0.35, "head_round": 0.2,
    "brow_height": 0.5, "lip_upper": -0.2, "lip_lower": -0.1,
}  # fmt: skip
_SHAPE_NAMES = tuple(SHAPE_TARGETS)
_ADDED = np.array([_SHAPE.get(name, 0.0) for name in _SHAPE_NAMES], np.float32)
#: A cartoon overstates what is a person's own.
_OVERSTATED = 1.15
_LIDS = 1.5
#: Middle of the head, world units.
MIDDLE = (0.0, 0.11, -0.04)
#: How much the eyes grow beyond what the mesh's own targets give, and between which distances from their middle that
#: ends, world units.
_EYES, _EYE_REACH = 1.20, (0.045, 0.085)

#: Layers of fine texture, and the even value that stands in for each, 0..255.
_EVEN = {
    "lip_lines": 128, "brow_hair": 150, "stubble_dots": 150, "streaks": 128, "mottle": 128, "pores": 128, "fuzz": 150,
    "spots": 0, "dark_circle": 0,
}  # fmt: skip


def cartoon(spec: HeadSpec) -> HeadSpec:
    """The person as a cartoon would draw them, in the same pose, light and mood."""
    targets = _OVERSTATED * spec.phenotype.targets + _ADDED
    feminine = spec.phenotype.gender
    skin, brows, makeup, expression = spec.skin, spec.brows, spec.makeup, spec.expression
    # The lids of larger eyes have further to go.
    lids = {name: _LIDS * getattr(expression, name) for name in ("blink_left", "blink_right")}
    return replace(
        spec,
        phenotype=replace(spec.phenotype, targets=targets.astype(np.float32)),
        # Skin is plain, but wrinkles are lines, and lines are what is drawn; curls lie flat (wave below 0).
        skin=replace(skin, mottling=0.0, gloss=0.0, age_spots=0.0, dark_circles=0.0, wrinkles=0.6 * skin.wrinkles),
        eyes=replace(spec.eyes, redness=0.0, lashes=0.25 + 0.75 * feminine),
        brows=replace(brows, density=1.0, thickness=0.35 + 0.65 * brows.thickness),
        makeup=replace(makeup, eyeliner=max(makeup.eyeliner, 0.3 + 0.4 * feminine), eyeshadow=0.6 * makeup.eyeshadow),
        hair=replace(spec.hair, clumps=2.4, contrast=0.0, grey=0.0, wave=-0.25),
        clothing=replace(spec.clothing, pattern=float(spec.clothing.pattern > 0.5)),
        expression=replace(expression, brow_up=0.6 * expression.brow_up, **lids),
    )


def enlarge_eyes(
    vertices: NDArray[np.float32], eyeballs: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Vertices with everything around the eyes grown about the front of the eyeballs, which grow into the head. [N, 3]

    Args:
        vertices: The face. [N, 3]
        eyeballs: Vertices of either eyeball.
    """
    moved = vertices.copy()
    low, high = _EYE_REACH
    for chosen in eyeballs:
        front = vertices[chosen].mean(0)
        front[2] = vertices[chosen, 2].max()
        away = vertices - front
        t = np.clip((np.hypot(away[:, 0], away[:, 1]) - low) / (high - low), 0, 1)
        share = (1 - t * t * (3 - 2 * t)) * (away[:, 2] > -0.2)
        moved += (_EYES - 1) * share[:, None] * away
    return moved.astype(np.float32)


def rounded_normals(vertices: NDArray[np.float32], normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normals for the light of a cartoon, halfway to a ball's: its shadows follow the head, not each fold. [N, 3]"""
    away = vertices - np.array(MIDDLE, np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    on_head = np.clip((vertices[:, 1:2] + 0.22) / 0.08, 0, 1)
    rounded = normals + (1.3 * on_head) * away
    return (rounded / np.linalg.norm(rounded, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=2)
def plain_layers(half: bool) -> PaintLayers:
    """The paint layers without fine texture."""
    layers = load_layers(half)
    values = layers.values.copy()
    for name, value in _EVEN.items():
        values[:, LAYER[name]] = value
    # Shadow in the folds is drawn where it is deep, and nowhere else.
    cavity = values[:, LAYER["cavity"]].astype(np.float32)
    values[:, LAYER["cavity"]] = np.where(cavity < 100, 70, 255)
    return replace(layers, values=values)
