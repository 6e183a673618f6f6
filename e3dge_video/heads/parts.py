"""What is added to the bare head: eyeballs, lashes, glasses, collars. Each is a `Part` of triangles with a material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from e3dge_video.heads import shading
from e3dge_video.heads.clothes import NECK_AXIS_Z, neckline
from e3dge_video.heads.hair_field import FIELD_CELL, FIELD_ORIGIN, HairField
from e3dge_video.heads.mesh import vertex_normals
from e3dge_video.heads.paint import linear
from e3dge_video.heads.paint_layers import MM
from e3dge_video.heads.spec import Clothing, Glasses


@dataclass(frozen=True)
class Part:
    """A piece of mesh with one material.

    Attributes:
        vertices, normals: World units. [N, 3]
        triangles: [T, 3]
        attributes: See `shading.shade`. [N, 4]
        material: One of the constants of `shading`.
        blocks_light: Whether it casts soft shadow.
    """

    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    triangles: NDArray[np.int32]
    attributes: NDArray[np.float32]
    material: int
    blocks_light: bool = False


def _grid_triangles(rows: int, columns: int, closed_columns: bool) -> NDArray[np.int32]:
    """Triangles of a grid of vertices, row-major; closed if the last column joins the first."""
    last = columns if closed_columns else columns - 1
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(last), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = (r + 1) * columns + c, (r + 1) * columns + (c + 1) % columns
    return np.stack([a, b, e, a, e, d], -1).reshape(-1, 3).astype(np.int32)


def tube(
    path: NDArray[np.floating],
    radius: NDArray[np.floating] | float,
    colour: NDArray[np.floating],
    material: int,
    *,
    closed: bool,
    sides: int = 6,
    flatten: float = 1.0,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Part:
    """A tube along a path; `flatten` scales it across `up`. Colour is linear RGB and gloss. [P, 3], [P] or one, [4]"""
    path = np.asarray(path, np.float64)
    tangent = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    second = np.array(up) - tangent * (tangent @ np.array(up))[:, None]
    second /= np.maximum(np.linalg.norm(second, axis=1, keepdims=True), 1e-9)
    first = np.cross(second, tangent)
    angle = np.arange(sides) * 2 * np.pi / sides + np.pi / sides
    radius = np.broadcast_to(np.asarray(radius, np.float64), (len(path),))
    unit = first[:, None] * np.cos(angle)[None, :, None] + second[:, None] * np.sin(angle)[None, :, None]
    offset = first[:, None] * np.cos(angle)[None, :, None] + flatten * second[:, None] * np.sin(angle)[None, :, None]
    vertices = (path[:, None] + offset * radius[:, None, None]).reshape(-1, 3)
    triangles = _grid_triangles(len(path), sides, True)
    if closed:
        start = np.arange(sides)
        following = (start + 1) % sides
        last = (len(path) - 1) * sides
        seam = np.stack([last + start, last + following, following, last + start, following, start], -1).reshape(-1, 3)
        triangles = np.concatenate([triangles, seam.astype(np.int32)])
    attributes = np.broadcast_to(np.asarray(colour, np.float32), (len(vertices), 4)).copy()
    return Part(
        vertices.astype(np.float32), unit.reshape(-1, 3).astype(np.float32), triangles, attributes, material, True
    )


def glasses(spec: Glasses, landmarks: NDArray[np.float32], brow_z: float) -> list[Part]:
    """Spectacles fitted to eyes, bridge and ears of the neutral face.

    Args:
        landmarks: 68 points of the neutral face. [68, 3]
        brow_z: Foremost depth of the brows, which the frame clears.
    """
    if spec.style == "none":
        return []
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    sun, thin = spec.style == "sunglasses", spec.style == "thin"
    half_distance = 0.5 * float(right[0] - left[0])
    middle = 0.5 * (left + right)
    bridge = landmarks[27]
    half_gap = (7.5 + 1.5 * spec.size) * MM
    half_width = (22.5 + 3.0 * spec.size + 2.5 * sun) * MM
    half_height = half_width * (0.76 + 0.10 * spec.roundness + 0.07 * spec.height + 0.06 * sun)
    centre_x = max(half_gap + half_width, half_distance * 0.97)
    half_width = max(half_width, centre_x - half_gap)
    centre_y = float(middle[1]) - 2.5 * MM - 2.0 * MM * spec.height
    front = max(float(bridge[2]) + 2.0 * MM, brow_z - 1.0 * MM, float(middle[2]) + 12 * MM)
    exponent = 2.15 + 2.4 * (0.5 - 0.5 * spec.roundness)
    radius = (1.1 + 0.5 * spec.thickness) * MM if thin else (1.7 + 1.5 * spec.thickness + 0.2 * sun) * MM
    colour = np.array([*linear(spec.colour), 0.55 if thin else 0.35], np.float32)

    def bend(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points on the curved, slightly tilted front."""
        z = front - 1.15 * x**2 + 0.10 * (y - centre_y)
        return np.stack([x, y, z], axis=-1)

    angle = np.arange(40) * 2 * np.pi / 40
    cos, sin = np.cos(angle), np.sin(angle)
    rim_x = np.sign(cos) * np.abs(cos) ** (2 / exponent) * half_width
    rim_y = np.sign(sin) * np.abs(sin) ** (2 / exponent) * half_height
    rim_y = rim_y * np.where(rim_y > 0, 0.94, 1.0)
    parts: list[Part] = []
    rings = np.array([0.0, 0.6, 1.0])
    for side in (-1.0, 1.0):
        path = bend(side * (centre_x + rim_x), centre_y + rim_y)
        parts.append(tube(path, radius, colour, shading.PLAIN, closed=True, flatten=1.0 if thin else 1.3))
        lens_x = side * (centre_x + rings[:, None] * rim_x[None])
        lens_y = centre_y + rings[:, None] * rim_y[None]
        vertices = bend(lens_x, lens_y).reshape(-1, 3)
        triangles = _grid_triangles(len(rings), len(angle), True)
        if side < 0:
            triangles = triangles[:, ::-1]
        normals = np.zeros_like(vertices)
        normals[:, 0], normals[:, 1], normals[:, 2] = 2.3 * vertices[:, 0], 0.5 * (vertices[:, 1] - centre_y), 1.0
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        material = shading.DARK_LENS if sun else shading.CLEAR_LENS
        parts.append(
            Part(
                vertices.astype(np.float32), normals.astype(np.float32), np.ascontiguousarray(triangles),
                np.zeros((len(vertices), 4), np.float32), material, sun,
            )
        )  # fmt: skip
        hinge = bend(
            np.array([side * (centre_x + half_width + 0.4 * radius)]), np.array([centre_y + 0.45 * half_height])
        )[0]
        ear = landmarks[16 if side > 0 else 0]
        ear_x = side * max(abs(float(ear[0])) + 3.0 * MM, abs(hinge[0]) + 1 * MM)
        ear_y = max(float(ear[1]) + 8 * MM, centre_y - 2 * MM)
        t = np.linspace(0, 1, 9)
        temple = np.stack(
            [
                hinge[0] + (ear_x - hinge[0]) * np.minimum(t * 1.8, 1.0) ** 0.8,
                hinge[1] + (ear_y - hinge[1]) * t,
                hinge[2] + (float(ear[2]) - 0.035 - hinge[2]) * t,
            ],
            axis=1,
        )
        parts.append(
            tube(
                temple,
                radius * (0.8 if thin else 0.85),
                colour,
                shading.PLAIN,
                closed=False,
                up=(0, 1, 0),
                flatten=1.0 if thin else 1.7,
            )
        )
    t = np.linspace(-1, 1, 9)
    gap = centre_x - half_width
    bridge_path = bend(t * (gap + 0.5 * radius), centre_y + 0.30 * half_height + 2.2 * MM * (1 - t**2))
    bridge_path[:, 2] += 1.5 * MM * (1 - t**2)
    parts.append(tube(bridge_path, radius, colour, shading.PLAIN, closed=False))
    return parts


def lashes(
    upper: NDArray[np.float32], lower: NDArray[np.float32], eye_centre: NDArray[np.float32], amount: float, side: float
) -> Part:
    """Lashes of one eye as a soft wedge along each lid's edge.

    Args:
        upper, lower: Lid edges from the inner to the outer corner. [M, 3]
        eye_centre: Centre of the eyeball. [3]
        amount: 0 short to 1 long and dense.
        side: +1 for the eye at +x, -1 for the other.
    """
    vertices, attributes, triangles, start = [], [], [], 0
    for edge, upward, length, density in (
        (upper, 1.0, (3.2 + 4.4 * amount) * MM, 0.82 + 0.16 * amount),
        (lower, -1.0, (1.0 + 1.5 * amount) * MM, 0.25 + 0.25 * amount),
    ):
        places = np.interp(np.linspace(0, 1, 17), np.linspace(0, 1, len(edge)), np.arange(len(edge)))
        low = np.floor(places).astype(int).clip(0, len(edge) - 2)
        line = edge[low] + (edge[low + 1] - edge[low]) * (places - low)[:, None]
        tangent = np.gradient(line, axis=0)
        tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
        radial = line - eye_centre
        radial /= np.linalg.norm(radial, axis=1, keepdims=True)
        away = np.cross(radial, tangent) * side * upward
        share = np.linspace(0, 1, 17)
        reach = length * (0.35 + 0.65 * np.sin(np.pi * np.clip(0.12 + 0.72 * share, 0, 1))) * (0.75 + 0.5 * share)
        fan = tangent * (0.75 * (share - 0.42))[:, None]
        direction = 0.65 * radial + 0.65 * away + fan
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        root = line + 0.25 * MM * radial
        middle = root + direction * (0.5 * reach)[:, None]
        tip = root + (direction + 0.35 * away) * reach[:, None]
        vertices.append(np.concatenate([root, middle, tip]))
        fade = np.clip(np.minimum(share, 1.06 - share) * 7, 0, 1)
        opacity = np.concatenate([density * fade, 0.75 * density * fade, 0.10 * density * fade])
        attributes.append(
            np.stack(
                [0.012 * np.ones_like(opacity), 0.010 * np.ones_like(opacity), 0.009 * np.ones_like(opacity), opacity],
                1,
            )
        )
        triangles.append(_grid_triangles(3, 17, False) + start)
        start += 51
    stacked = np.concatenate(vertices).astype(np.float32)
    normals = np.zeros_like(stacked)
    normals[:, 2] = 1
    return Part(
        stacked, normals, np.concatenate(triangles), np.concatenate(attributes).astype(np.float32), shading.LASH
    )


def _around_neck(
    field: HairField, azimuth: NDArray[np.floating], height: NDArray[np.floating], offset: NDArray[np.floating] | float
) -> NDArray[np.float64]:
    """Points at given azimuths and heights, `offset` outside the skin. [A, 3]"""
    reach = np.linspace(0.05, 0.5, 160)
    points = np.stack(
        [
            reach[:, None] * np.sin(azimuth)[None],
            np.broadcast_to(height, (len(reach), len(azimuth))),
            NECK_AXIS_Z + reach[:, None] * np.cos(azimuth)[None],
        ],
        axis=-1,
    )
    distance = map_coordinates(
        field.distance, ((points - FIELD_ORIGIN) / FIELD_CELL).reshape(-1, 3).T, order=1, mode="nearest"
    )
    outside = distance.reshape(len(reach), -1) > np.broadcast_to(offset, azimuth.shape)[None]
    first = np.argmax(outside, axis=0)
    return points[first, np.arange(len(azimuth))]


def collar(spec: Clothing, field: HairField) -> list[Part]:
    """Collar or seam of the clothes around the mean head's neck; the caller warps it to the person."""
    azimuth = np.linspace(-np.pi, np.pi, 64, endpoint=False)
    height = neckline(spec, azimuth)
    colour = np.array([*linear(spec.colour), 0.0], np.float32)
    if spec.style == "shirt":
        return _shirt_collar(spec, field)
    if spec.style == "turtleneck":
        rows = []
        for rise, offset in ((-0.05, 5.0), (-0.02, 6.5), (0.0, 7.0), (0.006, 5.5), (0.0, 3.0), (-0.03, 1.0)):
            rows.append(_around_neck(field, azimuth, height + rise, offset * MM))
        return [_sheet(np.stack(rows), colour, True, False)]
    if spec.style == "hoodie":
        back = 0.5 - 0.5 * np.cos(azimuth)
        radius = (3.5 + 14.0 * back**0.6) * MM
        path = _around_neck(field, azimuth, height - 0.004 + 0.016 * back, radius * 0.8)
        return [tube(path, radius, colour, shading.CLOTH, closed=True, sides=10, flatten=0.85, up=(0, 1, 0))]
    band = np.array([*(linear(spec.colour) * (0.85 if spec.pattern < 0.3 else 1.0)), 0.0], np.float32)
    if spec.pattern >= 0.3:
        band[:3] = linear(spec.second_colour)
    path = _around_neck(field, azimuth, height, 2.2 * MM)
    return [tube(path, 3.0 * MM, band, shading.CLOTH, closed=True, sides=6, flatten=2.2, up=(0, 1, 0))]


def _shirt_collar(spec: Clothing, field: HairField) -> list[Part]:
    """A stand around the neck and a leaf folded over it, open in front."""
    opening = 0.20 + 0.06 * spec.neckline
    azimuth = np.linspace(opening, 2 * np.pi - opening, 57)
    front = np.clip(1 - np.minimum(azimuth - opening, 2 * np.pi - opening - azimuth) / 0.6, 0, 1)
    base = neckline(
        spec,
        np.where(azimuth > np.pi, azimuth - 2 * np.pi, azimuth) * 0
        + np.clip(np.abs(np.pi - azimuth), 0, np.pi) * -1
        + np.pi,
    )
    base = np.maximum(base, -0.31)
    fold = base + 0.052 - 0.012 * front
    colour = np.array([*linear(spec.colour), 0.0], np.float32)
    colour[:3] = np.clip(colour[:3] * 1.06, 0, 0.9)
    rows = [
        _around_neck(field, azimuth, base - 0.02, 2.5 * MM),
        _around_neck(field, azimuth, fold - 0.006, 4.0 * MM),
        _around_neck(field, azimuth, fold, 6.0 * MM),
        _around_neck(field, azimuth, fold - 0.008, 8.5 * MM),
        _around_neck(field, azimuth, base + 0.004 - 0.03 * front, 9.5 * MM),
        _around_neck(field, azimuth, base - 0.016 - 0.062 * front, (9.0 + 2 * front) * MM),
    ]
    return [_sheet(np.stack(rows), colour, False, True)]


def _sheet(rows: NDArray[np.floating], colour: NDArray[np.float32], closed: bool, outward_last: bool) -> Part:
    """A cloth surface through rows of points, its outside towards the last rows or towards the first. [R, C, 3]"""
    vertices = rows.reshape(-1, 3).astype(np.float32)
    triangles = np.ascontiguousarray(
        _grid_triangles(rows.shape[0], rows.shape[1], closed)[:, :: -1 if outward_last else 1]
    )
    normals = vertex_normals(vertices, triangles)
    return Part(vertices, normals, triangles, np.broadcast_to(colour, (len(vertices), 4)).copy(), shading.CLOTH, True)
