"""What can be painted on a skin, as fixed layers of an atlas: lips, brows, hairline, beard, wrinkles, redness, pores.

The layers are the same for everybody and follow every morph, because they live in the mesh's texture coordinates.
`paint.py` combines them with a person's numbers. Distances are world units of the mean head; one millimetre is `MM`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from e3dge_video.heads.mesh import vertex_normals
from e3dge_video.heads.noise import fractal_noise, value_noise
from e3dge_video.heads.raster import rasterize
from e3dge_video.heads.shape import HeadShape, load_shape

#: World units per millimetre on the mean head.
MM = 0.00265
#: Vertical axis of the head in the (x, z) plane, from which azimuths are measured.
AXIS_Z = -0.03
#: Atlas texels per unit of texture coordinate: the head's chart and the body's (clothes, neck).
_HEAD_DENSITY, _BODY_DENSITY = 1536.0, 700.0

LAYERS = (
    "lips", "lip_lines", "brow_along", "brow_across", "brow_hair", "scalp", "recession", "crown", "sides", "moustache",
    "goatee", "full_beard", "stubble_dots", "streaks", "mottle", "freckles", "spots", "redness", "dark_circle", "lid",
    "liner", "blush", "wrinkle_forehead", "wrinkle_eye", "wrinkle_mouth", "wrinkle_frown", "pores", "cavity", "fuzz",
    "hollow",
)  # fmt: skip
LAYER = {name: i for i, name in enumerate(LAYERS)}
#: Signed distances are stored as byte = 128 + distance / `DISTANCE_STEP`.
DISTANCE_STEP = 0.5 * MM


@dataclass(frozen=True)
class PaintLayers:
    """The painted layers at one resolution.

    Attributes:
        size: Height and width of the atlas.
        texels: Flat atlas index of each painted texel. [K]
        values: The layers, 0..255. [K, L] uint8
        position: Place on the mean head. [K, 3]
        is_body: Whether a texel belongs to the body's chart. [K]
        vertex_texel: Atlas coordinates (column, row) of the render vertices, texel centres at integers. [R, 2]
    """

    size: tuple[int, int]
    texels: NDArray[np.int32]
    values: NDArray[np.uint8]
    position: NDArray[np.float32]
    is_body: NDArray[np.bool_]
    vertex_texel: NDArray[np.float32]


@dataclass(frozen=True)
class Charts:
    """Which chart of the texture each render vertex of the skin belongs to. [R] each"""

    head: NDArray[np.bool_]
    body: NDArray[np.bool_]
    socket: NDArray[np.bool_]
    mouth: NDArray[np.bool_]


def vertex_charts(shape: HeadShape) -> Charts:
    """MakeHuman's charts by their place in the unit square."""
    skin = shape.part == 0
    u, v = shape.uv[:, 0], shape.uv[:, 1]
    return Charts(
        head=skin & (u >= 0.6) & (v >= 0.14),
        body=skin & (u >= 0.2) & (u < 0.6),
        socket=skin & (u < 0.2),
        mouth=skin & (u >= 0.6) & (v < 0.14),
    )


def hairline_height(azimuth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Height of the ordinary hairline at |azimuth| in degrees from the front."""
    degrees = (0, 12, 24, 34, 42, 50, 57, 63, 68, 73, 78, 84, 95, 110, 122, 140, 180)
    heights = (
        0.262, 0.263, 0.262, 0.249, 0.226, 0.182, 0.122, 0.062, 0.020, 0.010, 0.035, 0.105, 0.120, 0.075, 0.0,
        -0.06, -0.085,
    )  # fmt: skip
    return np.interp(azimuth, degrees, heights)


def azimuth_degrees(position: NDArray[np.floating]) -> NDArray[np.floating]:
    """|azimuth| around the head's axis, 0 at the nose, 180 at the back. [..., 3] → [...]"""
    return np.degrees(np.arctan2(np.abs(position[..., 0]), position[..., 2] - AXIS_Z))


def scalp_distance(position: NDArray[np.floating]) -> NDArray[np.floating]:
    """Signed distance inside the hairline, world units: positive on the scalp. [..., 3] → [...]"""
    azimuth = azimuth_degrees(position)
    radius = np.hypot(position[..., 0], position[..., 2] - AXIS_Z)
    step = 2.0
    slope = (hairline_height(azimuth + step) - hairline_height(np.maximum(azimuth - step, 0))) / (2 * np.radians(step))
    slope = slope / np.maximum(radius, 0.08)
    return (position[..., 1] - hairline_height(azimuth)) / np.sqrt(1 + slope**2)


@lru_cache(maxsize=2)
def load_layers(half: bool) -> PaintLayers:
    """The layers at full or half resolution, painted once per process."""
    return _halved(load_layers(False)) if half else build_layers(load_shape())


def build_layers(shape: HeadShape) -> PaintLayers:
    """Paint every layer once on the mean head."""
    charts = vertex_charts(shape)
    fine = shape.refine(shape.mean)
    vertex_texel, size = _atlas_layout(shape, charts)
    chart_triangle = (charts.head | charts.body)[shape.triangles].all(1)
    triangles = shape.triangles[chart_triangle]
    side = max(size)
    flat = np.concatenate([vertex_texel, np.ones((len(vertex_texel), 1), np.float32)], axis=1).astype(np.float32)
    depth = np.zeros((side, side), np.float32)
    seen = np.full((side, side), -1, np.int32)
    bary = np.zeros((side, side, 2), np.float32)
    rasterize(flat, triangles, np.ones(len(triangles), bool), side, depth, seen, bary)
    seen, bary = seen[: size[0], : size[1]], bary[: size[0], : size[1]]
    # Bilinear look-ups at chart borders need a rim of valid texels.
    distance, nearest = distance_transform_edt(seen < 0, return_indices=True)
    seen, bary = seen[tuple(nearest)], bary[tuple(nearest)]
    texels = np.flatnonzero(distance.reshape(-1) <= 3.0)
    corners = triangles[seen.reshape(-1)[texels]]
    weights = bary.reshape(-1, 2)[texels]
    weights = np.stack([1 - weights.sum(1), weights[:, 0], weights[:, 1]], axis=1)

    def spread(values: NDArray[np.floating]) -> NDArray[np.float32]:
        gathered = values[corners]
        return np.einsum("kc,kc...->k...", weights, gathered).astype(np.float32)

    position = spread(fine)
    uv = spread(shape.uv)
    is_body = charts.body[corners[:, 0]]
    values = _paint(shape, position, uv, is_body, spread(_openness(shape)))
    return PaintLayers(size, texels.astype(np.int32), values, position, is_body, vertex_texel)


def _atlas_layout(shape: HeadShape, charts: Charts) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Atlas coordinates of the render vertices: the head's chart left, the body's to its right."""
    texel = np.zeros((len(shape.uv), 2), np.float32)
    margin, column, height = 4.0, 4.0, 0.0
    for chosen, density in ((charts.head, _HEAD_DENSITY), (charts.body, _BODY_DENSITY)):
        uv = shape.uv[chosen]
        low, high = uv.min(0), uv.max(0)
        texel[chosen, 0] = (uv[:, 0] - low[0]) * density + column
        texel[chosen, 1] = (high[1] - uv[:, 1]) * density + margin
        column += float(high[0] - low[0]) * density + 2 * margin
        height = max(height, float(high[1] - low[1]) * density + 2 * margin)
    return texel, (int(np.ceil(height)) + 1, int(np.ceil(column)) + 1)


def _halved(full: PaintLayers) -> PaintLayers:
    """The layers averaged over two by two texels."""
    height, width = (full.size[0] + 1) // 2, (full.size[1] + 1) // 2
    row, column = full.texels // full.size[1] // 2, full.texels % full.size[1] // 2
    unique, inverse, counts = np.unique(row * width + column, return_inverse=True, return_counts=True)

    def average(values: NDArray[np.floating]) -> NDArray[np.float64]:
        total = np.zeros((len(unique), *values.shape[1:]))
        np.add.at(total, inverse, values)
        return total / counts.reshape(-1, *[1] * (values.ndim - 1))

    return PaintLayers(
        size=(height, width),
        texels=unique.astype(np.int32),
        values=np.round(average(full.values.astype(np.float32))).astype(np.uint8),
        position=average(full.position).astype(np.float32),
        is_body=average(full.is_body.astype(np.float32)) > 0.5,
        vertex_texel=((full.vertex_texel - 0.5) / 2).astype(np.float32),
    )


def _step(x: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    """Smooth step from 0 at `low` to 1 at `high` (falling when high < low)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _groove(distance: NDArray[np.floating], width_mm: float) -> NDArray[np.floating]:
    return np.exp(-((distance / (width_mm * MM)) ** 2))


def _crease(distance: NDArray[np.floating], width_mm: float) -> NDArray[np.floating]:
    """A fine groove in the soft furrow that carries it.

    Skin folds over a wider strip than its line; the strip is what is seen of a wrinkle at portrait resolution.
    """
    return np.maximum(_groove(distance, width_mm), 0.75 * _groove(distance, 2.6 * width_mm))


def _sample(mask: NDArray[np.uint8], uv: NDArray[np.float32], blur: float = 1.0) -> NDArray[np.float32]:
    """MakeHuman's mask at texture coordinates, 0..1, smoothed a little against its JPEG blocks."""
    import cv2

    soft = cv2.GaussianBlur(mask, (0, 0), blur)
    row = np.clip(((1 - uv[:, 1]) * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    column = np.clip((uv[:, 0] * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    return soft[row, column].astype(np.float32) / 255


def _openness(shape: HeadShape) -> NDArray[np.float32]:
    """Openness of the mean head's surface at small scale, 0 in a deep crease to 1 in the open. [R]

    The share of nearby surface points that rise above the tangent plane, weighted by how steeply they do.
    """
    fine = shape.refine(shape.mean)
    normals = vertex_normals((shape.fine_weights @ shape.mean).astype(np.float32), shape.fine_triangles)[shape.source]
    charts = vertex_charts(shape)
    surface = np.flatnonzero(charts.head | charts.body)
    tree = cKDTree(fine[surface])
    neighbours = tree.query_ball_point(fine[surface], 11 * MM)
    openness = np.ones(len(fine), np.float32)
    for vertex, near in zip(surface, neighbours, strict=True):
        offset = fine[surface[near]] - fine[vertex]
        distance = np.linalg.norm(offset, axis=1)
        rise = (offset @ normals[vertex]) / np.maximum(distance, 1e-6)
        openness[vertex] = 1.0 - np.clip(np.maximum(rise - 0.08, 0).mean() * 2.2, 0, 0.75)
    return openness


def _paint(
    shape: HeadShape,
    position: NDArray[np.float32],
    uv: NDArray[np.float32],
    is_body: NDArray[np.bool_],
    openness: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """All layers at the given places. [K, L]"""
    points = shape.landmarks(shape.mean)
    x, y, z = position[:, 0], position[:, 1], position[:, 2]
    ax = np.abs(x)
    azimuth = azimuth_degrees(position)
    front = (z > 0.06) & ~is_body
    millimetres = (position / MM).astype(np.float32)
    layers: dict[str, NDArray[np.floating]] = {}

    ears = _sample(shape.assets.ears, uv) * ~is_body
    lips = _step(_sample(shape.assets.lips, uv, 3.0), 0.36, 0.66) * front
    layers["lips"] = lips
    lip_lines = value_noise((millimetres * np.array([0.9, 0.12, 0.12])).astype(np.float32), 5)
    layers["lip_lines"] = lip_lines

    # Brows: coordinates along (0 inner end, 1 outer end) and across (in half thicknesses) the middle of each brow.
    brow = points[22:27]
    inner, outer = brow[0, 0], brow[4, 0]
    along = (ax - inner) / (outer - inner)
    centre = np.interp(along, np.linspace(0, 1, 5), np.interp(np.linspace(inner, outer, 5), brow[:, 0], brow[:, 1]))
    centre += np.where(along < 0, 0.1 * along * (outer - inner), 0) + np.where(along > 1, -0.9 * (along - 1) * 0.1, 0)
    across = (y - centre) / (4.2 * MM)
    # Both coordinates leave their painted range before they are cut off, so that averaging texels paints nothing.
    layers["brow_along"] = np.where(front, np.clip((along + 0.25) / 1.5, 0, 1), 1.0)
    layers["brow_across"] = np.clip((across + 4) / 8, 0, 1)
    lean = np.radians(np.interp(along, (0, 0.25, 0.6, 1), (78, 48, 22, -8)))
    stroke_x, stroke_y = ax / MM * np.cos(lean) + y / MM * np.sin(lean), -ax / MM * np.sin(lean) + y / MM * np.cos(lean)
    strokes = np.stack([stroke_x * 0.16, stroke_y * 1.25, np.where(x < 0, 7.3, 2.1)], axis=1).astype(np.float32)
    layers["brow_hair"] = value_noise(strokes, 21)

    # The scalp: distance inside the hairline, and where hair recedes first.
    scalp = scalp_distance(position) - 30 * MM * ears
    scalp = np.where(is_body, np.minimum(scalp, -6 * MM), scalp)
    edge_noise = 5.0 * MM * (fractal_noise(millimetres, 0.22, 2, 31) - 0.5)
    layers["scalp"] = np.clip(128 + (scalp + edge_noise) / DISTANCE_STEP, 0, 255) / 255
    layers["recession"] = np.exp(-(((azimuth - 34) / 15) ** 2)) * _step(y, 0.10, 0.2) + 0.45 * _step(
        azimuth, 40, 10
    ) * _step(y, 0.1, 0.2)
    top = _step(y, 0.225, 0.275)
    layers["crown"] = top
    layers["sides"] = _step(y, 0.27, 0.16)

    chin, lip_bottom, lip_top, nose_base, corner = points[8], points[57], points[51], points[33], points[54]
    no_lips = 1 - _step(_sample(shape.assets.lips, uv, 3.0), 0.35, 0.62)
    droop = np.clip((ax - 0.03) / 0.05, 0, 1)
    layers["moustache"] = (
        _step(y, lip_top[1] - 0.012 - 0.028 * droop, lip_top[1] + 0.002 - 0.02 * droop)
        * _step(y, nose_base[1] + 0.006 - 0.022 * droop, nose_base[1] - 0.008 - 0.022 * droop)
        * _step(ax, corner[0] + 0.02, corner[0] - 0.004)
        * front
        * no_lips
    )
    around = _step(np.abs(ax - corner[0] - 0.005), 0.021, 0.011) * _step(y, chin[1] + 0.01, chin[1] + 0.05)
    around *= _step(y, nose_base[1] - 0.02, nose_base[1] - 0.035)
    chin_patch = _step(y, lip_bottom[1] + 0.007, lip_bottom[1] - 0.003) * _step(
        ax, corner[0] + 0.024, corner[0] + 0.002
    )
    soul = _step(ax, 0.022, 0.012) * _step(y, lip_bottom[1] + 0.004, lip_bottom[1] - 0.004)
    below = _step(y, -0.235, -0.215)
    layers["goatee"] = np.maximum(np.maximum(chin_patch, soul), around) * below * front * no_lips
    cheek_line = np.interp(
        azimuth, (0, 18, 27, 38, 50, 60, 66, 71, 76), (-0.1, -0.085, -0.08, -0.075, -0.055, -0.015, 0.06, 0.10, 0.10)
    )
    neck_line = np.interp(azimuth, (0, 25, 50, 70, 80, 95), (-0.262, -0.262, -0.245, -0.19, -0.12, -0.02))
    full = _step(y, cheek_line + 0.012, cheek_line - 0.014) * _step(y, neck_line - 0.012, neck_line + 0.016)
    full *= _step(azimuth, 84, 77) * (1 - ears)
    below_lip = _step(ax, corner[0] + 0.012, corner[0] + 0.03) + _step(y, lip_bottom[1] + 0.007, lip_bottom[1] - 0.003)
    full *= np.clip(below_lip, 0, 1)
    layers["full_beard"] = np.maximum(full, layers["goatee"]) * no_lips
    layers["stubble_dots"] = fractal_noise(millimetres, 0.75, 2, 41)
    streaks = millimetres * np.array([0.62, 0.11, 0.4]) + np.stack([0.5 * np.sin(y / MM * 0.15), 0 * y, 0 * y], axis=1)
    layers["streaks"] = fractal_noise(streaks.astype(np.float32), 1.0, 2, 43)
    layers["fuzz"] = fractal_noise(millimetres, 0.30, 3, 47)

    layers["mottle"] = fractal_noise(millimetres, 0.05, 3, 51)
    spots = value_noise((millimetres * 0.42).astype(np.float32), 61)
    cheeks_nose = _step(np.abs(y - points[29, 1]), 0.09, 0.02) * _step(azimuth, 62, 35)
    layers["freckles"] = _step(spots, 0.66, 0.8) * (0.35 + 0.65 * cheeks_nose)
    layers["spots"] = _step(fractal_noise(millimetres, 0.16, 3, 67), 0.62, 0.95) * _step(y, -0.14, 0.0)

    def blob(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.floating]:
        return np.exp(-(((ax - cx) / rx) ** 2) - ((y - cy) / ry) ** 2) * front

    cheek_y = points[30, 1]
    red = 0.9 * blob(0.125, cheek_y + 0.005, 0.055, 0.05) + 0.8 * blob(0, cheek_y - 0.004, 0.035, 0.03)
    red += 0.35 * blob(0, chin[1] + 0.035, 0.05, 0.03) + 0.7 * ears + 0.3 * blob(0, 0.2, 0.12, 0.05)
    layers["redness"] = np.clip(red, 0, 1)
    layers["blush"] = blob(0.145, cheek_y + 0.022, 0.05, 0.03)
    eye = points[42:48]
    eye_centre = eye.mean(0)
    layers["dark_circle"] = blob(eye_centre[0] - 0.012, eye_centre[1] - 0.038, 0.042, 0.016)
    layers["dark_circle"] += 0.7 * blob(eye[0, 0] + 0.002, eye_centre[1] + 0.004, 0.017, 0.022)
    lid_mask = _sample(shape.assets.lids, uv) * ~is_body
    crease = _step(y, centre - 0.012, centre - 0.035)
    layers["lid"] = (
        np.maximum(lid_mask, blob(eye_centre[0], eye_centre[1] + 0.028, 0.048, 0.018))
        * (y > eye_centre[1] - 0.004)
        * crease
    )
    layers["liner"] = _step(lid_mask, 0.72, 0.95) * front

    # Wrinkles: depth of grooves, 0..1.
    wave = 0.006 * (value_noise((millimetres * np.array([0.03, 0.008, 0])).astype(np.float32), 71) - 0.5)
    forehead = np.zeros(len(x))
    brow_top = float(brow[:, 1].max())
    for k, height in enumerate((0.036, 0.067, 0.099)):
        bow = 0.010 * np.cos(ax / 0.14 * np.pi) * (0.6 + 0.1 * k)
        line = np.abs(y - (brow_top + height - 0.008 + bow * 0.6 + wave * (1 + k % 2)))
        forehead = np.maximum(forehead, _crease(line, 1.4) * _step(ax, 0.135 - 0.015 * k, 0.075))
    layers["wrinkle_forehead"] = forehead * front
    crow = np.zeros(len(x))
    corner_eye = eye[3]
    radius = np.hypot(ax - corner_eye[0], y - corner_eye[1])
    angle = np.degrees(np.arctan2(y - corner_eye[1], ax - corner_eye[0]))
    for direction in (-38, -16, 6, 27):
        bent = direction + 120 * (radius - 0.03) * np.sign(direction - 3)
        crow = np.maximum(
            crow,
            _crease(radius * np.radians(angle - bent), 1.1) * _step(radius, 0.012, 0.022) * _step(radius, 0.075, 0.035),
        )
    bag_line = eye_centre[1] - 0.036 + 0.016 * ((ax - eye_centre[0]) / 0.05) ** 2
    bag = _crease(np.abs(y - bag_line), 1.6) * _step(np.abs(ax - eye_centre[0] + 0.008), 0.06, 0.02)
    tear = eye[0]
    trough = (
        _crease(np.abs((y - tear[1] + 0.012) + 0.55 * (ax - tear[0])), 2.0)
        * _step(ax, tear[0] - 0.006, tear[0] + 0.012)
        * _step(ax, tear[0] + 0.075, tear[0] + 0.03)
    )
    layers["wrinkle_eye"] = np.maximum(np.maximum(crow, bag), 0.8 * trough) * front * (z > 0.02)
    wing = points[35]
    t = np.clip((wing[1] + 0.016 - y) / (wing[1] + 0.016 - corner[1] + 0.012), -0.2, 1.3)
    fold_x = wing[0] + 0.006 + (corner[0] + 0.024 - wing[0] - 0.006) * np.clip(t, 0, 1.3) ** 0.8
    fold = _crease(ax - fold_x, 2.2) * _step(t, -0.05, 0.12) * _step(t, 1.15, 0.8)
    marionette_x = corner[0] + 0.010 + 0.16 * (corner[1] - y)
    marionette = (
        _crease(ax - marionette_x, 1.8)
        * _step(y, corner[1] + 0.002, corner[1] - 0.014)
        * _step(y, corner[1] - 0.062, corner[1] - 0.035)
    )
    layers["wrinkle_mouth"] = np.maximum(fold, 0.9 * marionette) * front
    frown_x = 0.017 + 0.06 * np.abs(y - brow[0, 1])
    frown = _crease(ax - frown_x, 1.3) * _step(np.abs(y - brow[0, 1] - 0.002), 0.032, 0.012)
    layers["wrinkle_frown"] = frown * front
    # Where an old face loses its fat: below the cheekbone, at the temple, under the eye, before the jowl.
    layers["hollow"] = np.clip(
        blob(0.150, corner[1] + 0.018, 0.030, 0.045)
        + 0.8 * blob(0.195, eye_centre[1] + 0.035, 0.030, 0.040)
        + 0.9 * blob(eye_centre[0], eye_centre[1] - 0.048, 0.046, 0.013)
        + 0.8 * blob(corner[0] + 0.028, chin[1] + 0.030, 0.014, 0.030),
        0,
        1,
    )
    layers["pores"] = fractal_noise(millimetres, 0.55, 2, 81)
    layers["cavity"] = openness
    stacked = np.stack([np.asarray(layers[name], np.float32) for name in LAYERS], axis=1)
    return np.round(np.clip(stacked, 0, 1) * 255).astype(np.uint8)
