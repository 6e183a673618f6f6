"""The mean head as a field that hair can grow around: signed distance, roots on the scalp, and the way to other heads.

Everything is computed once on the mean head. Hair grows there and is carried to a person's head by a smooth warp that
follows the displacement of the skin, so styles need no knowledge of anybody's shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from e3dge_video.heads.assets import cached_arrays
from e3dge_video.heads.lighting import directions
from e3dge_video.heads.mesh import vertex_normals
from e3dge_video.heads.paint_layers import AXIS_Z, MM, azimuth_degrees, scalp_distance, vertex_charts
from e3dge_video.heads.shape import HeadShape, load_shape

#: World size of one cell of the distance field, and its origin.
FIELD_CELL = 0.0135
FIELD_ORIGIN = np.array((-0.60, -0.66, -0.55), np.float32)
_FIELD_SHAPE = (90, 90, 72)
#: Centre from which roots are spread over the scalp.
_SCALP_CENTRE = np.array((0.0, 0.16, AXIS_Z))
_ROOT_DIRECTIONS = 1900


@dataclass(frozen=True)
class HairField:
    """Fixed facts about the mean head.

    Attributes:
        distance: Signed distance to the skin, positive outside. [X, Y, Z]
        roots, root_normals: Places on the scalp where strands can start. [N, 3]
        inside: Distance of each root inside the ordinary hairline. [N]
        azimuth: |azimuth| of each root, degrees from the front. [N]
        layer: A fixed number in 0..1 for each root, evenly spread: its place between the inner and the outer layer. [N]
        variation: Two more fixed numbers in 0..1 for each root. [N, 2]
        control: Coarse vertices that carry the warp. [C]
        control_position: Their place on the mean head. [C, 3]
    """

    distance: NDArray[np.float32]
    roots: NDArray[np.float32]
    root_normals: NDArray[np.float32]
    inside: NDArray[np.float32]
    azimuth: NDArray[np.float32]
    layer: NDArray[np.float32]
    variation: NDArray[np.float32]
    control: NDArray[np.int32]
    control_position: NDArray[np.float32]


@numba.njit(cache=True, fastmath=True, inline="always")
def sample_distance(field: NDArray[np.float32], x: float, y: float, z: float) -> float:
    """Trilinear look-up of the distance field; far outside it is large."""
    fx, fy, fz = (
        (x - FIELD_ORIGIN[0]) / FIELD_CELL,
        (y - FIELD_ORIGIN[1]) / FIELD_CELL,
        (z - FIELD_ORIGIN[2]) / FIELD_CELL,
    )
    ix, iy, iz = int(fx), int(fy), int(fz)
    if fx < 0 or fy < 0 or fz < 0 or ix >= field.shape[0] - 1 or iy >= field.shape[1] - 1 or iz >= field.shape[2] - 1:
        return 0.2
    tx, ty, tz = fx - ix, fy - iy, fz - iz
    low = (field[ix, iy, iz] * (1 - tx) + field[ix + 1, iy, iz] * tx) * (1 - ty)
    low += (field[ix, iy + 1, iz] * (1 - tx) + field[ix + 1, iy + 1, iz] * tx) * ty
    high = (field[ix, iy, iz + 1] * (1 - tx) + field[ix + 1, iy, iz + 1] * tx) * (1 - ty)
    high += (field[ix, iy + 1, iz + 1] * (1 - tx) + field[ix + 1, iy + 1, iz + 1] * tx) * ty
    return low * (1 - tz) + high * tz


@lru_cache(maxsize=1)
def load_field() -> HairField:
    """The field, from the cache or built on first use (some ten seconds)."""
    return cached_arrays("hair_field", HairField, lambda: build_field(load_shape()))


def build_field(shape: HeadShape) -> HairField:
    """Distance field, roots and warp controls of the mean head."""
    fine = shape.refine(shape.mean)
    charts = vertex_charts(shape)
    # Ears are left out: they would push all hair outwards by their width.
    ears = _sample_ears(shape)
    outer = (charts.head | charts.body) & ~ears
    triangles = shape.triangles[outer[shape.triangles].all(1)]
    normals = vertex_normals(fine, triangles)
    distance = _signed_distance(fine, triangles, normals)

    spread = directions(_ROOT_DIRECTIONS).astype(np.float64)
    reach = np.linspace(0.55, 0.05, 400)
    places = _SCALP_CENTRE + reach[:, None, None] * spread
    along = _sample_many(distance, places.reshape(-1, 3)).reshape(len(reach), -1)
    first = np.argmax(along < 0.0, axis=0)
    roots = places[first, np.arange(len(spread))]
    inside = scalp_distance(roots)
    near_ear = (np.abs(roots[:, 0]) > 0.185) & (roots[:, 1] < 0.15) & (roots[:, 2] > -0.13) & (roots[:, 2] < 0.09)
    kept = (inside > -2 * MM) & (first > 0) & ~near_ear
    roots = roots[kept].astype(np.float32)
    golden = np.arange(len(roots))
    control = _control_vertices(shape)
    return HairField(
        distance=distance,
        roots=roots,
        root_normals=_gradients(distance, roots).astype(np.float32),
        inside=inside[kept].astype(np.float32),
        azimuth=azimuth_degrees(roots).astype(np.float32),
        layer=((golden * 0.754877666) % 1.0).astype(np.float32),
        variation=np.stack([(golden * 0.569840290) % 1.0, (golden * 0.380291) % 1.0], axis=1).astype(np.float32),
        control=control,
        control_position=shape.mean[control],
    )


def _sample_ears(shape: HeadShape) -> NDArray[np.bool_]:
    """Whether a render vertex belongs to an ear. [R]"""
    mask = shape.assets.ears
    row = np.clip(((1 - shape.uv[:, 1]) * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    column = np.clip((shape.uv[:, 0] * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    return mask[row, column] > 60


def _signed_distance(
    vertices: NDArray[np.float32], triangles: NDArray[np.int32], normals: NDArray[np.float32]
) -> NDArray[np.float32]:
    corners = vertices[triangles]
    samples = np.concatenate([vertices[np.unique(triangles)], corners.mean(1), 0.5 * (corners[:, 0] + corners[:, 1])])
    sample_normals = np.concatenate(
        [
            normals[np.unique(triangles)],
            normals[triangles].mean(1),
            0.5 * (normals[triangles[:, 0]] + normals[triangles[:, 1]]),
        ]
    )
    axes = [FIELD_ORIGIN[k] + FIELD_CELL * np.arange(_FIELD_SHAPE[k]) for k in range(3)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near, index = cKDTree(samples).query(cells, k=3, workers=1)
    offset = cells[:, None] - samples[index]
    side = (offset * sample_normals[index]).sum(-1).mean(1)
    signed = np.where(side >= 0, near[:, 0], -near[:, 0])
    # Beneath the cut through the shoulders everything is inside.
    field = signed.reshape(_FIELD_SHAPE).astype(np.float32)
    return gaussian_filter(field, 0.8).astype(np.float32)


def _sample_many(field: NDArray[np.float32], points: NDArray[np.floating]) -> NDArray[np.float64]:
    from scipy.ndimage import map_coordinates

    return map_coordinates(field, ((points - FIELD_ORIGIN) / FIELD_CELL).T, order=1, mode="nearest")


def _gradients(field: NDArray[np.float32], points: NDArray[np.floating]) -> NDArray[np.float64]:
    step = 1.2 * FIELD_CELL
    difference = np.stack(
        [_sample_many(field, points + step * axis) - _sample_many(field, points - step * axis) for axis in np.eye(3)],
        axis=1,
    )
    return difference / np.maximum(np.linalg.norm(difference, axis=1, keepdims=True), 1e-9)


def _control_vertices(shape: HeadShape) -> NDArray[np.int32]:
    """Some two hundred coarse skin vertices, evenly spread by farthest-point selection."""
    outer = np.zeros(len(shape.mean), bool)
    corner = np.unique(shape.assets.quads[shape.assets.quad_part == 0])
    outer[corner] = True
    u = np.zeros(len(shape.mean))
    v = np.zeros(len(shape.mean))
    u[shape.assets.quads.reshape(-1)] = shape.assets.quad_uv.reshape(-1, 2)[:, 0]
    v[shape.assets.quads.reshape(-1)] = shape.assets.quad_uv.reshape(-1, 2)[:, 1]
    candidates = np.flatnonzero(outer & (u > 0.2) & (v > 0.14))
    points = shape.mean[candidates]
    chosen = [int(points[:, 1].argmax())]
    gap = np.linalg.norm(points - points[chosen[0]], axis=1)
    for _ in range(219):
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return candidates[chosen].astype(np.int32)


@numba.njit(cache=True, fastmath=True)
def warp(
    points: NDArray[np.float32], control: NDArray[np.float32], displacement: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Points moved by the inverse-distance-weighted displacement of the control points. [P, 3], [C, 3], [C, 3]"""
    moved = np.empty_like(points)
    for i in range(points.shape[0]):
        total, mx, my, mz = 0.0, 0.0, 0.0, 0.0
        for j in range(control.shape[0]):
            dx, dy, dz = points[i, 0] - control[j, 0], points[i, 1] - control[j, 1], points[i, 2] - control[j, 2]
            square = dx * dx + dy * dy + dz * dz + 4e-4
            w = 1.0 / (square * square * square)
            total += w
            mx += w * displacement[j, 0]
            my += w * displacement[j, 1]
            mz += w * displacement[j, 2]
        moved[i, 0] = points[i, 0] + mx / total
        moved[i, 1] = points[i, 1] + my / total
        moved[i, 2] = points[i, 2] + mz / total
    return moved
