"""Facts about the render mesh that every head shares: materials, shader inputs, thickness of hair and cloth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from e3dge_video.heads import shading
from e3dge_video.heads.assets import PARTS
from e3dge_video.heads.clothes import NECK_AXIS_Z, neckline
from e3dge_video.heads.hair_recipes import recipe
from e3dge_video.heads.paint import hair_on_skin
from e3dge_video.heads.paint_layers import (
    LAYER,
    MM,
    Charts,
    azimuth_degrees,
    load_layers,
    scalp_distance,
    vertex_charts,
)
from e3dge_video.heads.shape import HeadShape, load_shape
from e3dge_video.heads.spec import HeadSpec

#: Edges of the upper and the lower lid of the eye at +x, inner to outer corner, base-mesh vertices.
_UPPER_LID = (6850, 11485, 11484, 11483, 11465, 11466, 11467, 11468, 11469, 11470, 11472)
_LOWER_LID = (6850, 6837, 6834, 6831, 6828, 6825, 6820, 6817, 11472)

#: Nothing further from the middle than this is drawn: a tri-plane's box is ±0.5.
BOX = 0.498


@dataclass(frozen=True)
class HeadTemplate:
    """Shared facts; R render vertices, T render triangles, N coarse vertices.

    Attributes:
        material: Material of each render triangle. [T]
        attributes: Shader inputs that do not change from head to head. [R, 4]
        socket: Render vertices of the eye sockets' lining. [S]
        eyes: Per eye, image left first: render vertices, coarse vertices, (upper, lower) lid landmarks.
        lid_edges: Per eye, image left first: coarse vertices along the upper and the lower lid.
        blocking_triangles: Coarse triangles that cast soft shadow. [B, 3]
    """

    material: NDArray[np.int8]
    attributes: NDArray[np.float32]
    socket: NDArray[np.int64]
    eyes: tuple[tuple[NDArray[np.int64], NDArray[np.int64], tuple[list[int], list[int]]], ...]
    lid_edges: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    blocking_triangles: NDArray[np.int32]
    _scalp: NDArray[np.float32]
    _scalp_azimuth: NDArray[np.float32]
    _height: NDArray[np.float32]
    _beards: NDArray[np.float32]
    _outer: NDArray[np.bool_]
    _neck_azimuth: NDArray[np.float32]
    _bumps: NDArray[np.float32]
    _ears: NDArray[np.float32]

    def thickness(self, spec: HeadSpec) -> NDArray[np.float32]:
        """How far hair, beard and cloth lift the surface off the skin, world units. [N]"""
        style = recipe(spec)
        scalp = hair_on_skin(spec)
        cap = 0.0
        if style is not None:
            cap = style.cap
        elif spec.hair.style == "buzz":
            cap = 1.6
        temple = np.exp(-(((self._scalp_azimuth - 34) / 15) ** 2)) + 0.45 * np.clip(
            (40 - self._scalp_azimuth) / 30, 0, 1
        )
        above = np.clip((self._height - 0.10) / 0.1, 0, 1)
        inside = self._scalp - scalp["recession"] * (0.35 + 1.6 * temple * above)
        inside = inside - scalp["crown"] * 0.16 * np.clip((self._height - 0.225) / 0.05, 0, 1)
        rise = max(6.0, 0.5 * cap) * MM
        covered = np.clip((inside + 1.0 * MM) / rise, 0, 1)
        lift = cap * MM * np.sqrt(covered) * (1.0 - 0.35 * scalp["fade"] * np.clip((0.27 - self._height) / 0.1, 0, 1))
        if spec.hair.style == "afro":
            lift *= 0.86 + 0.28 * self._bumps
        beard = spec.beard
        if beard.style in ("moustache", "goatee", "full"):
            use = {"moustache": (1.0, 0.0, 0.0), "goatee": (1.0, 1.0, 0.0), "full": (1.0, 1.0, 1.0)}[beard.style]
            field = (self._beards * np.array(use)).max(1)
            length = (1.2 + 7.5 * beard.length**1.5) if beard.style != "moustache" else 1.2 + 2.0 * beard.length
            chin = 1.0 + 1.3 * self._beards[:, 1] * (beard.style != "moustache") * beard.length
            lift = np.maximum(lift, length * MM * field * chin * (1 - 0.55 * self._beards[:, 0]))
        cloth = neckline(spec.clothing, self._neck_azimuth) - self._height
        lift = np.maximum(lift, 3.4 * MM * np.clip((cloth + 2 * MM) / (5 * MM), 0, 1) * (self._height < -0.1))
        return (lift * self._outer).astype(np.float32)

    def flatten_ears(self, spec: HeadSpec, coarse: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ears laid against the head where long hair covers them. [N, 3]"""
        style = recipe(spec)
        if style is None or not style.covers_ears:
            return coarse
        flat = coarse.copy()
        for side in (-1.0, 1.0):
            ear = (self._ears > 0) & (np.sign(coarse[:, 0]) == side)
            root = np.abs(coarse[ear, 0]).min()
            beyond = np.abs(coarse[ear, 0]) - root
            flat[ear, 0] = side * (root + beyond * (1 - 0.72 * self._ears[ear]))
        return flat


@lru_cache(maxsize=1)
def load_template() -> HeadTemplate:
    """The shared facts, found once per process."""
    return build_template(load_shape())


def build_template(shape: HeadShape) -> HeadTemplate:
    """Find materials and shader inputs on the mean head."""
    charts = vertex_charts(shape)
    layers = load_layers(False)
    rest = shape.refine(shape.mean)
    values = np.zeros((len(rest), 4), np.float32)
    painted = charts.head | charts.body
    values[painted, :2] = layers.vertex_texel[painted]
    part = shape.triangle_part
    material = np.full(len(shape.triangles), shading.SKIN, np.int8)
    material[charts.mouth[shape.triangles].all(1)] = shading.MOUTH
    material[charts.socket[shape.triangles].all(1)] = shading.SOCKET
    material[part == PARTS.index("eye")] = shading.EYE
    material[np.isin(part, [PARTS.index("upper_teeth"), PARTS.index("lower_teeth")])] = shading.TEETH
    material[part == PARTS.index("tongue")] = shading.TONGUE

    eyes = _place_eyes(shape, rest, values)
    _place_mouth(shape, charts, rest, values, material)

    # The same fields on the coarse mesh.
    count = len(shape.mean)
    first = np.zeros(count, np.int64)
    coarse_of = shape.source < count
    first[shape.source[coarse_of]] = np.flatnonzero(coarse_of)
    atlas_row = np.zeros(layers.size[0] * layers.size[1], np.int64)
    atlas_row[layers.texels] = np.arange(len(layers.texels))
    texel = np.round(layers.vertex_texel[first]).astype(int)
    texel = texel[:, 1].clip(0, layers.size[0] - 1) * layers.size[1] + texel[:, 0].clip(0, layers.size[1] - 1)
    at_vertex = layers.values[atlas_row[texel]].astype(np.float32) / 255
    outer = painted[first] & (shape.coarse_part == 0)
    scalp = scalp_distance(shape.mean)
    ears = at_vertex[:, LAYER["scalp"]] * 255 - 128
    scalp = np.where(
        painted[first] & charts.head[first], np.minimum(scalp, np.maximum(ears, -20) * 0.5 * MM + 30 * MM), -1.0
    )
    scalp = np.where(ears < -20, np.minimum(scalp, -5 * MM), scalp)
    lips_open = charts.mouth[first] | charts.socket[first]
    blocking = shape.coarse_triangles[
        (shape.coarse_part[shape.coarse_triangles] == 0).all(1) & ~lips_open[shape.coarse_triangles].all(1)
    ]
    phase = shape.mean / (9 * MM)
    bumps = 0.5 + 0.25 * (
        np.sin(phase[:, 0] * 1.3 + 2 * np.sin(phase[:, 1])) + np.sin(phase[:, 2] * 1.1 + phase[:, 1] * 1.7)
    )
    return HeadTemplate(
        material=material,
        attributes=values,
        socket=np.flatnonzero(charts.socket),
        eyes=eyes,
        lid_edges=_lid_edges(shape),
        blocking_triangles=np.ascontiguousarray(blocking),
        _scalp=scalp.astype(np.float32),
        _scalp_azimuth=azimuth_degrees(shape.mean).astype(np.float32),
        _height=shape.mean[:, 1],
        _beards=at_vertex[:, [LAYER["moustache"], LAYER["goatee"], LAYER["full_beard"]]] * outer[:, None],
        _outer=outer,
        _neck_azimuth=np.arctan2(shape.mean[:, 0], shape.mean[:, 2] - NECK_AXIS_Z).astype(np.float32),
        _bumps=bumps.astype(np.float32),
        _ears=_coarse_ears(shape, first),
    )


def _place_eyes(
    shape: HeadShape, rest: NDArray[np.float32], values: NDArray[np.float32]
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], tuple[list[int], list[int]]], ...]:
    """Directions on the resting eyeballs into `values`; see `HeadTemplate.eyes` for the result."""
    eyes = []
    for left in (False, True):
        chosen = np.flatnonzero((shape.part == PARTS.index("eye")) & ((rest[:, 0] > 0) == left))
        coarse = np.flatnonzero((shape.coarse_part == PARTS.index("eye")) & (shape.assets.left_eye == left))
        direction = rest[chosen] - shape.mean[coarse].mean(0)
        values[chosen, :3] = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        lids = ([43, 44], [46, 47]) if left else ([37, 38], [40, 41])
        eyes.append((chosen, coarse, lids))
    return tuple(eyes)


def _place_mouth(
    shape: HeadShape,
    charts: Charts,
    rest: NDArray[np.float32],
    values: NDArray[np.float32],
    material: NDArray[np.int8],
) -> None:
    """Places on the rows of teeth and depths in the mouth into `values`; roots of teeth are hidden in `material`."""
    mouth_z = shape.landmarks(shape.mean)[62, 2]
    for name, root in (("upper_teeth", 0.35), ("lower_teeth", 0.55)):
        chosen = np.flatnonzero(shape.part == PARTS.index(name))
        place = rest[chosen]
        front = place[:, 2].max()
        values[chosen, 0] = np.arctan2(place[:, 0], place[:, 2] - (front - 0.072))
        low, high = place[:, 1].min(), place[:, 1].max()
        toward_edge = (high - place[:, 1]) if name == "upper_teeth" else (place[:, 1] - low)
        values[chosen, 1] = toward_edge / (high - low)
        values[chosen, 2] = np.clip((front - 0.012 - place[:, 2]) / 0.09, 0, 1)
        # The rows reach far into the gums, where they would pierce the chin of an open jaw.
        inside_gum = (values[shape.triangles, 1] < root).all(axis=1)
        material[(shape.triangle_part == PARTS.index(name)) & inside_gum] = shading.HIDDEN
    for vertices, span in ((charts.mouth, 0.10), (shape.part == PARTS.index("tongue"), 0.13)):
        index = np.flatnonzero(vertices)
        values[index, 0] = np.clip(1.0 - (mouth_z - rest[index, 2]) / span, 0.04, 1.0) ** 1.3


def _lid_edges(shape: HeadShape) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """Coarse vertices along the lids' edges, image-left eye first."""
    row_of = {int(base): i for i, base in enumerate(shape.assets.base_index)}
    upper, lower = (np.array([row_of[i] for i in ids]) for ids in (_UPPER_LID, _LOWER_LID))
    base = shape.assets.vertices
    mirror = cKDTree(base).query(base * np.array([-1, 1, 1]))[1]
    return (mirror[upper], mirror[lower]), (upper, lower)


def _coarse_ears(shape: HeadShape, first: NDArray[np.int64]) -> NDArray[np.float32]:
    """How much a coarse vertex belongs to an ear, 0..1. [N]"""
    import cv2

    mask = cv2.GaussianBlur(shape.assets.ears, (0, 0), 4.0)
    uv = shape.uv[first]
    row = np.clip(((1 - uv[:, 1]) * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    column = np.clip((uv[:, 0] * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    return np.where(shape.coarse_part == 0, mask[row, column] / 255.0, 0.0).astype(np.float32)
