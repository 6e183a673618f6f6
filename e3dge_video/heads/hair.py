"""Hair: tapered ribbons that follow strands grown over the mean head, one recipe of numbers per style.

Strands start at fixed roots, run along the scalp the way the style combs them, fall where nothing holds them, and are
kept outside of head and shoulders by the distance field. Nothing is random: a recipe changes smoothly with the latent
code, and so does the hair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.hair_field import FIELD_CELL, HairField, sample_distance
from e3dge_video.heads.paint_layers import MM
from e3dge_video.heads.spec import HeadSpec

#: Points along each strand.
POINTS = 13


@dataclass(frozen=True)
class Recipe:
    """How a style is combed. Lengths in millimetres of the mean head, weights about 0..1.

    Attributes:
        top, side, back: Lengths by where the root is.
        part: Pull to both sides of the parting. part_x: place of the parting, mm from the middle.
        backward, forward: Pull to the back and to the front on top of the head.
        lift: How far strands leave the scalp at the root.
        depth: Thickness of the hair from the inner to the outer layer, mm.
        fall: Weight of gravity.
        tuck: Pull backwards at the sides.
        hang: Pull of loose hair towards cheeks and neck.
        fringe: How much of the front falls onto the forehead; sweep: to which side it falls.
        curl, turns: Radius of curls in mm and their number along the strand.
        width: Width of ribbons, mm. taper: 0 blunt to 1 pointed.
        cut: Height below which hair is cut, world units.
        cap: Thickness of the painted layer on the scalp, mm.
        tie: Where hair is tied (y, z in world units), or None; tail: length of the ponytail, mm, 0 for a bun.
    """

    top: float = 60.0
    side: float = 30.0
    back: float = 40.0
    part: float = 0.0
    part_x: float = 0.0
    backward: float = 0.0
    forward: float = 0.0
    lift: float = 0.25
    depth: float = 10.0
    fall: float = 0.3
    tuck: float = 0.3
    hang: float = 0.0
    fringe: float = 0.0
    sweep: float = 0.0
    curl: float = 0.0
    turns: float = 2.0
    width: float = 13.0
    taper: float = 0.7
    cut: float = -1.0
    cap: float = 2.0
    tie: tuple[float, float] | None = None
    tail: float = 0.0

    @property
    def covers_ears(self) -> bool:
        """Whether long hair hangs over the ears, which then lie flat."""
        return self.side > 60 and self.tie is None


_RECIPES: dict[str, Recipe] = {
    "crop": Recipe(top=32, side=14, back=16, forward=0.7, lift=0.55, depth=9, fall=0.1, fringe=0.25, width=10, cap=3),
    "side_part": Recipe(top=75, side=22, back=24, part=0.9, part_x=38, backward=0.45, lift=0.5, depth=13, fall=0.12, cap=3),
    "swept_back": Recipe(top=85, side=22, back=28, backward=1.0, part=0.15, lift=0.75, depth=13, fall=0.06, tuck=0.8, cap=3),
    "receding": Recipe(top=18, side=14, back=16, backward=0.3, lift=0.3, depth=4, fall=0.2, width=9, cap=2),
    "afro": Recipe(top=16, side=16, back=16, lift=1.4, depth=6, fall=0.0, tuck=0.0, curl=3.5, turns=1.5, width=9, taper=0.4, cap=26),
    "medium": Recipe(hang=0.3, top=105, side=75, back=85, part=0.7, part_x=20, backward=0.1, lift=0.5, depth=17, fall=0.35, curl=3, turns=1.5),
    "bob": Recipe(hang=0.45, top=210, side=170, back=170, part=0.9, part_x=22, lift=0.45, depth=18, fall=0.5, tuck=0.1, cut=-0.17, taper=0.25, width=15),
    "long_straight": Recipe(hang=0.4, top=360, side=330, back=330, part=1.0, part_x=4, lift=0.3, depth=14, fall=0.55, tuck=0.12, cut=-0.60, width=15),
    "long_wavy": Recipe(hang=0.35, top=350, side=310, back=310, part=0.9, part_x=26, lift=0.5, depth=22, fall=0.5, tuck=0.1, curl=8, turns=2.6, cut=-0.56, width=16),
    "long_curly": Recipe(hang=0.12, top=270, side=240, back=240, part=0.7, part_x=12, lift=0.7, depth=34, fall=0.42, tuck=0.05, curl=9, turns=5.0, cut=-0.52, width=13, cap=6),
    "tied_back": Recipe(top=300, side=250, back=250, backward=0.9, part=0.1, lift=0.1, depth=6, fall=0.0, tuck=1.0, tie=(0.20, -0.32), tail=220, width=14, cap=3),
    "bun": Recipe(top=300, side=250, back=250, backward=0.8, part=0.35, part_x=10, lift=0.1, depth=6, fall=0.0, tuck=1.0, tie=(0.29, -0.27), tail=0, width=14, cap=3),
    "fringe": Recipe(hang=0.4, top=300, side=260, back=260, part=0.8, part_x=0, lift=0.35, depth=15, fall=0.55, tuck=0.1, fringe=1.0, cut=-0.42, taper=0.35, width=14),
}  # fmt: skip


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


def recipe(spec: HeadSpec) -> Recipe | None:
    """The style's recipe with the person's own length, volume, parting and waves; None where no strands grow."""
    hair = spec.hair
    base = _RECIPES.get(hair.style)
    if base is None:
        return None
    long = base.top > 150
    length = 1.0 + (0.22 if long else 0.38) * hair.length
    volume = 1.0 + 0.55 * hair.volume
    side_length = length * (1.0 if long else 1.0 - 0.35 * max(hair.sides, 0.0) + 0.3 * max(-hair.sides, 0.0))
    side = float(np.tanh(2.5 * hair.part))
    wave = hair.wave
    return replace(
        base,
        top=base.top * length,
        side=base.side * side_length,
        back=base.back * side_length,
        part_x=side * max(base.part_x, 4.0) * (0.75 + 0.5 * abs(hair.part)),
        lift=base.lift * (1.0 + 0.35 * hair.volume),
        depth=base.depth * volume,
        fringe=float(np.clip(base.fringe + (0.45 * hair.fringe if base.fringe > 0 else 0.0), 0, 1)),
        sweep=-side * (0.35 + 0.4 * abs(hair.part)),
        curl=base.curl * (0.5 + wave) + 4.0 * max(wave - 0.55, 0.0) * (base.top > 60 and base.tie is None),
        width=base.width * (1.0 + 0.25 * hair.clumps),
        cut=base.cut if base.cut <= -0.9 else base.cut - 0.07 * hair.length,
        cap=base.cap * (volume if hair.style == "afro" else 1.0) * (1.0 + 0.5 * hair.length * (hair.style == "afro")),
        tail=base.tail * length,
    )


def grow(recipe: Recipe, field: HairField, recession: float, crown: float) -> Strands:
    """Strands of a recipe on the mean head.

    Args:
        recession: How far the hairline has moved back at the temples, world units.
        crown: How bald the top is, 0..1.
    """
    roots, normals = field.roots, field.root_normals
    temple = np.exp(-(((field.azimuth - 34) / 15) ** 2)) + 0.45 * np.clip((40 - field.azimuth) / 30, 0, 1)
    above = np.clip((roots[:, 1] - 0.10) / 0.1, 0, 1)
    inside = field.inside - recession * (0.35 + 1.6 * temple * above)
    inside = inside - crown * 0.16 * np.clip((roots[:, 1] - 0.225) / 0.05, 0, 1)
    grown = np.clip((inside + 1 * MM) / (9 * MM), 0, 1)
    top = np.clip((normals[:, 1] - 0.25) / 0.45, 0, 1)
    frontness = np.clip((100 - field.azimuth) / 45, 0, 1)
    length = top * recipe.top + (1 - top) * (frontness * recipe.side + (1 - frontness) * recipe.back)
    length = length * MM * (0.86 + 0.22 * field.variation[:, 0]) * (0.35 + 0.65 * grown)
    # The fringe: the front of the top, combed onto the forehead.
    near_edge = np.clip((62 * MM - inside) / (20 * MM), 0, 1) * np.clip((52 - field.azimuth) / 12, 0, 1)
    fringe = near_edge * recipe.fringe
    fringe_length = (inside / MM + 62.0 - 0.35 * np.abs(roots[:, 0]) / MM * (recipe.fringe < 0.7)) * MM
    short = recipe.top < 60
    if not short:
        length = length * (1 - fringe) + np.maximum(fringe_length, 12 * MM) * fringe
    alive = (grown > 0.02) & (length > 4 * MM)
    numbers = np.array(
        [
            recipe.part, recipe.part_x * MM, recipe.backward, recipe.forward, recipe.lift, recipe.depth * MM,
            recipe.fall, recipe.tuck, recipe.sweep, recipe.curl * MM, recipe.turns, recipe.cut, recipe.cap * MM,
            1.0 if recipe.tie else 0.0, *(recipe.tie or (0.0, 0.0)), recipe.hang,
        ],
        np.float32,
    )  # fmt: skip
    points, outward = _grow(
        field.distance,
        roots[alive],
        normals[alive],
        length[alive].astype(np.float32),
        fringe[alive].astype(np.float32),
        (np.clip(1.2 - field.azimuth / 55, 0, 1) * np.clip((80 * MM - inside) / (50 * MM), 0, 1))[alive].astype(
            np.float32
        ),
        field.layer[alive],
        field.variation[alive],
        numbers,
    )
    share = np.linspace(0, 1, POINTS, dtype=np.float32)
    profile = np.sqrt(np.clip(1 - recipe.taper * share**2.2, 0, 1)) * (0.75 + 0.25 * np.clip(share * 6, 0, 1))
    profile[-1] *= 0.25 + 0.5 * (1 - recipe.taper)
    scale = (0.8 + 0.4 * field.variation[alive][:, 1]) * (0.5 + 0.5 * grown[alive])
    width = 0.5 * recipe.width * MM * scale[:, None] * profile[None]
    strands = Strands(points, outward, width.astype(np.float32), field.variation[alive][:, 0], field.layer[alive])
    if recipe.tie:
        strands = _joined(strands, _tail(recipe) if recipe.tail > 0 else _bun(recipe))
    return strands


@numba.njit(cache=True, fastmath=True)
def _grow(
    field: NDArray[np.float32],
    roots: NDArray[np.float32],
    normals: NDArray[np.float32],
    length: NDArray[np.float32],
    fringe: NDArray[np.float32],
    frontal: NDArray[np.float32],
    layer: NDArray[np.float32],
    variation: NDArray[np.float32],
    numbers: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Step each strand from its root; see `Recipe` for the numbers."""
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
    ) = numbers
    count = roots.shape[0]
    points = np.zeros((count, POINTS, 3), np.float32)
    outward = np.zeros((count, POINTS, 3), np.float32)
    h = 1.2 * FIELD_CELL
    for i in range(count):
        px, py, pz = roots[i, 0], roots[i, 1], roots[i, 2]
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        height = cap + (0.10 + 0.90 * layer[i]) * depth
        px += nx * cap * 0.6
        py += ny * cap * 0.6
        pz += nz * cap * 0.6
        step = length[i] / (POINTS - 1)
        off_part = (roots[i, 0] - part_x) / 0.00265
        side = np.tanh(off_part / 5.0) * 0.7 + 0.3 * np.tanh(off_part / 25.0)
        dx, dy, dz = nx, ny + 0.5 * frontal[i], nz * (1.0 - 0.8 * frontal[i])
        stopped = False
        for k in range(POINTS):
            points[i, k, 0], points[i, k, 1], points[i, k, 2] = px, py, pz
            outward[i, k, 0], outward[i, k, 1], outward[i, k, 2] = nx, ny, nz
            if stopped or k == POINTS - 1:
                continue
            s = k / (POINTS - 1)
            distance = sample_distance(field, px, py, pz)
            # Only the head has a top: the shoulders' upward slope must not count.
            top = min(max((ny - 0.05) / 0.5, 0.0), 1.0) * min(max((py - 0.10) / 0.12, 0.0), 1.0)
            loose = min(max((distance - height) / 0.03, 0.0), 1.0)
            # The way the style combs, then gravity.
            f = fringe[i]
            wx = part * side * top * (1.0 - 0.75 * f) + sweep * f * 1.1
            wz = (forward - backward) * top * (1.0 - f) + 1.1 * f * top - tuck * (1.0 - top) * 0.6 * (1.0 - f)
            # A parting lays the front to the sides and a little back before it falls.
            wz -= 0.75 * part * frontal[i] * (1.0 - f) * max(0.0, 1.0 - 3.0 * s)
            wy = -(1.0 - top) * (0.75 + 0.25 * part) - 0.12 * f
            # Hair that is not a fringe stays out of the face.
            if f < 0.5 and py < 0.235 and pz > 0.02 and abs(px) < 0.2:
                clear = (
                    (1.0 - f)
                    * min(1.0, (0.235 - py) / 0.05)
                    * min(1.0, (pz - 0.02) / 0.05)
                    * min(1.0, (0.2 - abs(px)) / 0.05)
                )
                wx += 1.6 * clear * (1.0 if side > 0.0 else -1.0)
                wz -= 0.8 * clear
            wx += (variation[i, 0] - 0.5) * 0.25
            wz += (variation[i, 1] - 0.5) * 0.22
            if tied > 0.5:
                tx, ty, tz = -px, tie_y - py, tie_z - pz
                away = np.sqrt(tx * tx + ty * ty + tz * tz)
                if away < 0.035:
                    stopped = True
                    continue
                wx, wy, wz = tx / away, ty / away, tz / away
                step = max(step, away / (POINTS - 1 - k))
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
            up = 0.7 * frontal[i] * (1.0 - f)
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
            wanted = height * min(1.0, 0.35 + 3.0 * (s + 1.0 / POINTS))
            if f > 0:
                wanted = cap * 0.5 + (wanted - cap * 0.5) * (1.0 - 0.55 * f)
            if distance < wanted:
                push = wanted - distance
                px, py, pz = px + nx * push, py + ny * push, pz + nz * push
        if curl > 0.0:
            phase = 6.2832 * variation[i, 0] * 0.35 + 2.0 * layer[i]
            for k in range(1, POINTS):
                s = k / (POINTS - 1)
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
    s = np.linspace(0, 1, POINTS)
    length = recipe.tail * MM * (0.85 + 0.15 * ((k * 0.618) % 1.0))
    spread = 14 * MM * (0.55 + 1.1 * np.sin(np.pi * np.clip(s * 0.85 + 0.1, 0, 1)))
    points = np.zeros((count, POINTS, 3))
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
    angle = np.linspace(0, 3.6, POINTS)
    around = first[:, None] * np.cos(angle)[None, :, None] + second[:, None] * np.sin(angle)[None, :, None]
    outward = around * np.sqrt(1 - latitude**2)[:, None, None] + axis[:, None] * latitude[:, None, None]
    centre = np.array([0.0, recipe.tie[0] + 0.012, recipe.tie[1] - 0.028])
    points = centre + outward * radius
    width = np.full((count, POINTS), 5.5 * MM) * np.sin(np.linspace(0.35, np.pi - 0.35, POINTS))[None]
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
    count = len(points)
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
    attributes = np.zeros((count, POINTS, 3, 4), np.float32)
    attributes[..., 0] = np.array([-1, 0, 1])
    attributes[..., 1] = np.linspace(0, 1, POINTS)[None, :, None]
    attributes[..., 2] = strands.identity[:, None, None]
    attributes[..., 3] = strands.layer[:, None, None]
    start = (
        (np.arange(count) * POINTS * 3)[:, None, None]
        + (np.arange(POINTS - 1) * 3)[None, :, None]
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
