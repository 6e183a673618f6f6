"""Hair: tapered ribbons that follow strands grown over the mean head, one recipe of numbers per style.

Strands start at fixed roots, run along the scalp the way the style combs them, fall where nothing holds them, and are
kept outside of head and shoulders by the distance field. Nothing is random: a recipe changes smoothly with the latent
code, and so does the hair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.hair_field import FIELD_CELL, HairField, sample_distance
from e3dge_video.heads.hair_recipes import Recipe
from e3dge_video.heads.paint_layers import MM


@dataclass(frozen=True)
class Strands:
    """Centre lines of ribbons around the mean head.

    Attributes:
        points: World units. [N, P, 3]
        outward: Unit directions away from the head, the ribbons' facing. [N, P, 3]
        width: Half widths. [N, P]
        identity: A fixed number 0..1 per strand, for its tone. [N]
        layer: 0 inner to 1 outer. [N]
    """

    points: NDArray[np.float32]
    outward: NDArray[np.float32]
    width: NDArray[np.float32]
    identity: NDArray[np.float32]
    layer: NDArray[np.float32]


def grow(recipe: Recipe, field: HairField, recession: float, crown: float) -> Strands:
    """Strands of a recipe on the mean head.

    Args:
        recession: How far the hairline has moved back at the temples, world units.
        crown: How bald the top is, 0..1.
    """
    chosen = slice(None, None, recipe.every)
    roots, normals, azimuth = field.roots[chosen], field.root_normals[chosen], field.azimuth[chosen]
    layer, variation = field.layer[chosen], field.variation[chosen]
    temple = np.exp(-(((azimuth - 34) / 15) ** 2)) + 0.45 * np.clip((40 - azimuth) / 30, 0, 1)
    above = np.clip((roots[:, 1] - 0.10) / 0.1, 0, 1)
    inside = field.inside[chosen] - recession * (0.35 + 1.6 * temple * above)
    inside = inside - crown * 0.16 * np.clip((roots[:, 1] - 0.225) / 0.05, 0, 1)
    grown = np.clip((inside + 1 * MM) / (9 * MM), 0, 1)
    top = np.clip((normals[:, 1] - 0.25) / 0.45, 0, 1)
    frontness = np.clip((100 - azimuth) / 45, 0, 1)
    length = top * recipe.top + (1 - top) * (frontness * recipe.side + (1 - frontness) * recipe.back)
    length = length * MM * (0.86 + 0.22 * variation[:, 0]) * (0.35 + 0.65 * grown)
    # The fringe: the front of the top, combed onto the forehead.
    near_edge = np.clip((62 * MM - inside) / (20 * MM), 0, 1) * np.clip((52 - azimuth) / 12, 0, 1)
    fringe = near_edge * recipe.fringe
    fringe = np.clip((fringe - 0.3) / 0.4, 0, 1)
    fringe_length = (inside / MM + 62.0 - 0.35 * np.abs(roots[:, 0]) / MM * (recipe.fringe < 0.7)) * MM
    if recipe.top >= 60:
        length = length * (1 - fringe) + np.maximum(fringe_length, 12 * MM) * fringe
    alive = (grown > 0.02) & (length > 4 * MM)
    numbers = np.array(
        [
            recipe.part, recipe.part_x * MM, recipe.backward, recipe.forward, recipe.lift, recipe.depth * MM,
            recipe.fall, recipe.tuck, recipe.sweep, recipe.curl * MM, recipe.turns, recipe.cut, recipe.cap * MM,
            1.0 if recipe.tie else 0.0, *(recipe.tie or (0.0, 0.0)), recipe.hang, recipe.cling,
        ],
        np.float32,
    )  # fmt: skip
    frontal = np.clip(1.2 - azimuth / 55, 0, 1) * np.clip((80 * MM - inside) / (50 * MM), 0, 1)
    # On the fuller side of the parting the front may swoop over the forehead before it goes to the side.
    fuller = 0.5 - 0.5 * np.tanh((roots[:, 0] - recipe.part_x * MM) * np.sign(recipe.part_x + 1e-6) / (6 * MM))
    swoop = np.clip(1.3 * frontal, 0, 1) * fuller * recipe.swoop
    per_root = np.stack([length, fringe, frontal, swoop, layer, variation[:, 0], variation[:, 1]], axis=1)
    points, outward = _grow(
        field.distance, roots[alive], normals[alive], per_root[alive].astype(np.float32), numbers, recipe.points
    )
    share = np.linspace(0, 1, recipe.points, dtype=np.float32)
    profile = np.sqrt(np.clip(1 - recipe.taper * share**2.2, 0, 1)) * (0.4 + 0.6 * np.clip(share * 4, 0, 1))
    profile[-1] *= 0.25 + 0.5 * (1 - recipe.taper)
    scale = (0.8 + 0.4 * variation[alive][:, 1]) * (0.5 + 0.5 * grown[alive])
    # What strays into the face is thinned away.
    width_left = 1.0 - _intrusion(points, fringe[alive], swoop[alive])
    scale = scale * width_left
    # Short strands are thin, or they look like scales.
    scale = scale * np.clip(length[alive] / (38 * MM), 0.45, 1.0)
    # A fringe and the hairline are finer than the rest.
    scale = scale * (1 - 0.3 * fringe[alive])
    # Ends do not spread out over the shoulders.
    off_neck = np.clip((np.abs(points[..., 0]) - 0.255) / 0.05, 0, 1) * np.clip((-0.14 - points[..., 1]) / 0.06, 0, 1)
    profile = profile[None] * (1 - off_neck)
    width = 0.5 * recipe.width * MM * scale[:, None] * profile
    strands = Strands(points, outward, width.astype(np.float32), variation[alive][:, 0], layer[alive])
    if recipe.tie:
        strands = _joined(strands, _tail(recipe) if recipe.tail > 0 else _bun(recipe))
    return strands


def _intrusion(
    points: NDArray[np.float32], fringe: NDArray[np.floating], swoop: NDArray[np.floating]
) -> NDArray[np.floating]:
    """How far each strand reaches into the open face, 0 not at all to 1. [N, P, 3], [N] ×2 → [N]"""
    # The face is an upright ellipse; a fringe may cover its upper part down to the brows.
    ceiling = 0.205 - np.maximum(0.085 * fringe, 0.060 * swoop)[:, None]
    across = 1.0 - np.abs(points[..., 0]) / 0.172
    height = np.minimum(ceiling - points[..., 1], points[..., 1] + 0.20)
    depth = np.minimum(np.minimum(across, height / 0.05), (points[..., 2] - 0.115) / 0.05)
    return np.clip(depth.max(axis=1) / 0.15, 0.0, 1.0)


@numba.njit(cache=True, fastmath=True)
def _grow(
    field: NDArray[np.float32],
    roots: NDArray[np.float32],
    normals: NDArray[np.float32],
    per_root: NDArray[np.float32],
    numbers: NDArray[np.float32],
    count_points: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Step each strand from its root; see `Recipe` for the numbers and `grow` for those of each root."""
    (
        part,
        part_x,
        backward,
        forward,
        lift,
        depth,
        fall,
        tuck,
        sweep,
        curl,
        turns,
        cut,
        cap,
        tied,
        tie_y,
        tie_z,
        hang,
        cling,
    ) = numbers
    count = roots.shape[0]
    points = np.zeros((count, count_points, 3), np.float32)
    outward = np.zeros((count, count_points, 3), np.float32)
    h = 1.2 * FIELD_CELL
    for i in range(count):
        px, py, pz = roots[i, 0], roots[i, 1], roots[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        length, f, frontal, swoop = per_root[i, 0], per_root[i, 1], per_root[i, 2], per_root[i, 3]
        layer, vary, vary_more = per_root[i, 4], per_root[i, 5], per_root[i, 6]
        height = cap + (0.10 + 0.90 * layer) * depth
        px += nx * cap * 0.6
        py += ny * cap * 0.6
        pz += nz * cap * 0.6
        step = length / (count_points - 1)
        off_part = (roots[i, 0] - part_x) / 0.00265
        side = np.tanh(off_part / 5.0) * 0.7 + 0.3 * np.tanh(off_part / 25.0)
        dx, dy, dz = nx, ny + 0.5 * frontal, nz * (1.0 - 0.8 * frontal)
        stopped = False
        for k in range(count_points):
            points[i, k, 0], points[i, k, 1], points[i, k, 2] = px, py, pz
            outward[i, k, 0], outward[i, k, 1], outward[i, k, 2] = nx, ny, nz
            if stopped or k == count_points - 1:
                continue
            s = k / (count_points - 1)
            distance = sample_distance(field, px, py, pz)
            # Only the head has a top: the shoulders' upward slope must not count.
            top = min(max((ny - 0.05) / 0.5, 0.0), 1.0) * min(max((py - 0.10) / 0.12, 0.0), 1.0)
            loose = min(max((distance - height) / 0.03, 0.0), 1.0)
            # The way the style combs, then gravity.
            wx = part * side * top * (1.0 - 0.75 * f) + sweep * f * 1.1
            wz = (forward - backward) * top * (1.0 - f) + 1.1 * f * top - tuck * (1.0 - top) * 0.6 * (1.0 - f)
            # A parting lays the front to the sides and a little back before it falls.
            wz -= 0.75 * part * frontal * (1.0 - f) * (1.0 - swoop) * max(0.0, 1.0 - 3.0 * s)
            early = swoop * (1.0 - f) * max(0.0, 1.0 - 2.2 * s)
            wz += 0.55 * early
            wy = -(1.0 - top) * (0.75 + 0.25 * part) - 0.12 * f - 0.45 * early
            # Hair that is not a fringe stays out of the face.
            if f < 0.5 and py < 0.235 and pz > 0.10 and abs(px) < 0.15:
                clear = (
                    (1.0 - f)
                    * min(1.0, (0.235 - py) / 0.05)
                    * min(1.0, (pz - 0.10) / 0.05)
                    * min(1.0, (0.15 - abs(px)) / 0.04)
                )
                if py > 0.14:
                    clear *= 1.0 - 0.75 * swoop
                wx += 1.6 * clear * (1.0 if side > 0.0 else -1.0)
                wz -= 0.8 * clear
            wx += (vary - 0.5) * 0.25
            wz += (vary_more - 0.5) * 0.22
            if tied > 0.5:
                tx, ty, tz = -px, tie_y - py, tie_z - pz
                away = np.sqrt(tx * tx + ty * ty + tz * tz)
                if away < 0.035:
                    stopped = True
                    continue
                wx, wy, wz = tx / away, ty / away, tz / away
                step = max(step, away / (count_points - 1 - k))
            else:
                wy -= fall * (0.5 + 1.2 * s) * (1.0 + loose)
                # Loose hair hangs close to cheeks and neck.
                if py < 0.06:
                    wx -= hang * min(1.0, (0.06 - py) / 0.1) * (1.0 if px > 0.0 else -1.0)
            inward = wx * nx + wy * ny + wz * nz
            keep = 1.0 - loose
            wx -= nx * inward * keep
            wy -= ny * inward * keep
            wz -= nz * inward * keep
            norm = np.sqrt(wx * wx + wy * wy + wz * wz) + 1e-6
            rise = lift * max(0.0, 1.0 - 2.2 * s)
            # Roots rise off the scalp, in front upwards rather than forwards.
            up = 0.7 * frontal * (1.0 - f)
            wx, wy, wz = wx / norm + rise * nx, wy / norm + rise * (ny + up), wz / norm + rise * nz * (1.0 - up)
            hold = 0.45 if k > 0 else 0.15 + 0.4 * lift
            dx, dy, dz = dx * hold + wx * (1 - hold), dy * hold + wy * (1 - hold), dz * hold + wz * (1 - hold)
            norm = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6
            dx, dy, dz = dx / norm, dy / norm, dz / norm
            if py + dy * step < cut and dy < 0:
                part_step = max(0.0, (py - cut) / max(-dy, 1e-3))
                px, py, pz = px + dx * part_step, py + dy * part_step, pz + dz * part_step
                stopped = True
                continue
            px, py, pz = px + dx * step, py + dy * step, pz + dz * step
            distance = sample_distance(field, px, py, pz)
            gx = sample_distance(field, px + h, py, pz) - sample_distance(field, px - h, py, pz)
            gy = sample_distance(field, px, py + h, pz) - sample_distance(field, px, py - h, pz)
            gz = sample_distance(field, px, py, pz + h) - sample_distance(field, px, py, pz - h)
            norm = np.sqrt(gx * gx + gy * gy + gz * gz)
            if norm > 1e-6:
                nx, ny, nz = 0.4 * nx + 0.6 * gx / norm, 0.4 * ny + 0.6 * gy / norm, 0.4 * nz + 0.6 * gz / norm
                norm = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-6
                nx, ny, nz = nx / norm, ny / norm, nz / norm
            wanted = height * min(1.0, 0.35 + 3.0 * (s + 1.0 / count_points))
            if f > 0:
                wanted = cap * 0.5 + (wanted - cap * 0.5) * (1.0 - 0.55 * f)
            if distance < wanted:
                push = wanted - distance
                px, py, pz = px + nx * push, py + ny * push, pz + nz * push
            elif cling > 0.0 and py > 0.0:
                # Combed hair follows the rounding of the head instead of standing off.
                pull = (distance - wanted) * cling * 0.7 * min(1.0, py / 0.1)
                px, py, pz = px - nx * pull, py - ny * pull, pz - nz * pull
        if curl > 0.0:
            phase = 6.2832 * vary * 0.35 + 2.0 * layer
            for k in range(1, count_points):
                s = k / (count_points - 1)
                tx = points[i, k, 0] - points[i, k - 1, 0]
                ty = points[i, k, 1] - points[i, k - 1, 1]
                tz = points[i, k, 2] - points[i, k - 1, 2]
                norm = np.sqrt(tx * tx + ty * ty + tz * tz)
                if norm < 1e-6:
                    continue
                tx, ty, tz = tx / norm, ty / norm, tz / norm
                ox, oy, oz = outward[i, k, 0], outward[i, k, 1], outward[i, k, 2]
                bx, by, bz = ty * oz - tz * oy, tz * ox - tx * oz, tx * oy - ty * ox
                amount = curl * min(1.0, 2.5 * s)
                swing = np.sin(6.2832 * turns * s + phase) * amount
                bulge = (0.7 + 0.7 * np.cos(6.2832 * turns * s + phase)) * amount
                points[i, k, 0] += bx * swing + ox * bulge
                points[i, k, 1] += by * swing + oy * bulge
                points[i, k, 2] += bz * swing + oz * bulge
    return points, outward


def _joined(first: Strands, second: Strands) -> Strands:
    return Strands(
        *(np.concatenate([getattr(first, name), getattr(second, name)]) for name in Strands.__dataclass_fields__)
    )


def _tail(recipe: Recipe) -> Strands:
    """A ponytail: strands that leave the tie backwards and fall."""
    assert recipe.tie is not None
    count = 46
    k = np.arange(count)
    turn, ring = k * 2.399963, np.sqrt((k + 0.5) / count)
    across = np.stack([np.cos(turn), np.sin(turn)], 1) * ring[:, None]
    s = np.linspace(0, 1, recipe.points)
    length = recipe.tail * MM * (0.85 + 0.15 * ((k * 0.618) % 1.0))
    spread = 14 * MM * (0.55 + 1.1 * np.sin(np.pi * np.clip(s * 0.85 + 0.1, 0, 1)))
    points = np.zeros((count, recipe.points, 3))
    points[..., 0] = across[:, :1] * spread
    fall = length[:, None] * s[None]
    points[..., 1] = recipe.tie[0] + 0.03 * np.sin(np.pi * s * 0.6) - fall * s**0.8 + across[:, 1:] * spread * 0.5
    points[..., 2] = recipe.tie[1] - 0.075 * np.sin(np.pi * np.clip(s * 1.1, 0, 0.75)) + across[:, 1:] * spread - 0.01
    centre = points.mean(0, keepdims=True)
    outward = points - centre + np.array([0, 0, -0.3 * MM])
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-6)
    width = 6.5 * MM * np.sqrt(np.clip(1.02 - 0.95 * s**3, 0, 1))[None].repeat(count, 0)
    return Strands(
        points.astype(np.float32), outward.astype(np.float32), width.astype(np.float32),
        ((k * 0.754877666) % 1.0).astype(np.float32), ring.astype(np.float32),
    )  # fmt: skip


def _bun(recipe: Recipe) -> Strands:
    """A bun: bands wound around a ball."""
    assert recipe.tie is not None
    count, radius = 44, 27 * MM * (0.8 + 0.02 * recipe.depth)
    k = np.arange(count)
    tilt = np.pi * ((k * 0.618034) % 1.0)
    turn = np.pi * 2 * ((k * 0.754877) % 1.0)
    axis = np.stack([np.sin(tilt) * 0.5, np.cos(tilt) * 0.6 + 0.4, -np.ones(count) * 0.9], 1)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    helper = np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1)
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(axis, first)
    latitude = (((k + 0.5) / count) * 2 - 1) * 0.95
    angle = np.linspace(0, 3.6, recipe.points)
    around = first[:, None] * np.cos(angle)[None, :, None] + second[:, None] * np.sin(angle)[None, :, None]
    outward = around * np.sqrt(1 - latitude**2)[:, None, None] + axis[:, None] * latitude[:, None, None]
    centre = np.array([0.0, recipe.tie[0] + 0.012, recipe.tie[1] - 0.028])
    points = centre + outward * radius
    width = np.full((count, recipe.points), 5.5 * MM) * np.sin(np.linspace(0.35, np.pi - 0.35, recipe.points))[None]
    return Strands(
        points.astype(np.float32), outward.astype(np.float32), width.astype(np.float32),
        ((k * 0.569) % 1.0).astype(np.float32), np.full(count, 0.8, np.float32),
    )  # fmt: skip


def ribbons(
    strands: Strands, points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Arched ribbons along strands, three vertices across.

    Args:
        points: The strands' points where the ribbons shall be (warped to a person). [N, P, 3]

    Returns:
        Vertices [V, 3], normals [V, 3], tangents [V, 3], attributes (across -1..1, along 0..1, identity, layer)
        [V, 4], triangles [T, 3]. Vertex order: strand, point, side.
    """
    count, along = points.shape[:2]
    tangent = np.gradient(points, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-7)
    outward = strands.outward
    across = np.cross(tangent, outward)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-7)
    facing = np.cross(across, tangent)
    half = strands.width[..., None]
    vertices = np.stack([points - across * half, points + facing * half * 0.38, points + across * half], axis=2)
    normals = np.stack([outward - 0.55 * across, outward, outward + 0.55 * across], axis=2)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-7)
    tangents = np.repeat(tangent[:, :, None], 3, axis=2)
    attributes = np.zeros((count, along, 3, 4), np.float32)
    attributes[..., 0] = np.array([-1, 0, 1])
    attributes[..., 1] = np.linspace(0, 1, along)[None, :, None]
    attributes[..., 2] = strands.identity[:, None, None]
    attributes[..., 3] = strands.layer[:, None, None]
    start = (
        (np.arange(count) * along * 3)[:, None, None]
        + (np.arange(along - 1) * 3)[None, :, None]
        + np.arange(2)[None, None]
    )
    start = start.reshape(-1, 1)
    quads = np.concatenate([start, start + 1, start + 4, start + 3], axis=1)
    triangles = quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    return (
        vertices.reshape(-1, 3).astype(np.float32),
        normals.reshape(-1, 3).astype(np.float32),
        tangents.reshape(-1, 3).astype(np.float32),
        attributes.reshape(-1, 4),
        triangles.astype(np.int32),
    )
