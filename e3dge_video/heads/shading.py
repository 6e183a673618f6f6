"""Colour of the visible surface: one numba loop with a small shader per material.

Everything is in linear light with the light rig's exposure already applied; `irradiance` is what a white diffuse
surface would send back. Highlights come from the key light and a little from everywhere.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.paint import LABEL

#: Materials of triangles; hidden ones are never drawn.
HIDDEN = -1
SKIN, EYE, TEETH, TONGUE, MOUTH, SOCKET, HAIR, PLAIN, CLOTH, DARK_LENS, CLEAR_LENS, LASH = range(12)
#: Materials that are blended over what lies behind them.
BLENDED = (CLEAR_LENS, LASH)

_L_SKIN, _L_EYE, _L_MOUTH, _L_TEETH = LABEL["skin"], LABEL["eye"], LABEL["mouth"], LABEL["teeth"]
_L_HAIR, _L_GLASSES, _L_CLOTHING = LABEL["hair"], LABEL["glasses"], LABEL["clothing"]


@numba.njit(cache=True, fastmath=True, inline="always")
def smooth_step(x: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@numba.njit(cache=True, fastmath=True, inline="always")
def between(
    values: NDArray[np.float32], a: int, b: int, c: int, wa: float, wb: float, wc: float
) -> tuple[float, float, float]:
    """The first three numbers of a triangle's corners [N, 3 or more], weighted."""
    return (
        wa * values[a, 0] + wb * values[b, 0] + wc * values[c, 0],
        wa * values[a, 1] + wb * values[b, 1] + wc * values[c, 1],
        wa * values[a, 2] + wb * values[b, 2] + wc * values[c, 2],
    )


@numba.njit(cache=True, fastmath=True, inline="always")
def texel(atlas: NDArray[np.float32], row: int, column: int, k: int, fx: float, fy: float) -> float:
    """Bilinear read of a channel, `fx` and `fy` beyond a texel. [H, W, C]"""
    return (
        (1 - fx) * (1 - fy) * atlas[row, column, k]
        + fx * (1 - fy) * atlas[row, column + 1, k]
        + (1 - fx) * fy * atlas[row + 1, column, k]
        + fx * fy * atlas[row + 1, column + 1, k]
    )


@numba.njit(cache=True, fastmath=True, inline="always")
def _wobble(x: float, seed: float) -> float:
    """Smooth one-dimensional noise in -1..1."""
    return 0.6 * np.sin(x * 2.1 + seed * 37.7) + 0.4 * np.sin(x * 5.3 + seed * 91.3 + 1.7)


@numba.njit(cache=True, fastmath=True)
def shade(
    seen: NDArray[np.int32],
    bary: NDArray[np.float32],
    triangles: NDArray[np.int32],
    material: NDArray[np.int8],
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    tangents: NDArray[np.float32],
    attributes: NDArray[np.float32],
    irradiance: NDArray[np.float32],
    atlas: NDArray[np.float32],
    atlas_label: NDArray[np.uint8],
    camera: NDArray[np.float32],
    key: NDArray[np.float32],
    highlight: NDArray[np.float32],
    ambient: NDArray[np.float32],
    look: NDArray[np.float32],
    colour: NDArray[np.float32],
    normal_map: NDArray[np.float32],
    label: NDArray[np.uint8],
) -> None:
    """Shade every sample of a visibility buffer.

    Args:
        seen, bary: From `raster.rasterize`. [G, G], [G, G, 2]
        triangles, material: Corner vertices and materials. [T, 3], [T]
        vertices, normals, tangents: World positions and unit vectors. [N, 3] each
        attributes: Per vertex, by material: skin atlas column and row; eye and teeth template direction or place;
            hair across, along, identity, layer; plain things linear RGB and gloss. [N, 4]
        irradiance: Light on each vertex. [N, 3]
        atlas, atlas_label: The painted skin. [H, W, 5], [H, W]
        camera: Camera centre. [3]
        key, highlight, ambient: Of the light rig. [3] each
        look: Iris RGB (0:3), pupil radius 3, eye redness 4, hair RGB 5:8, hair shine 8, hair contrast 9, grey 10,
            lens tint 11, skin gloss 12. [16]
        colour, normal_map, label: Results; colour is 0 and label 0 where nothing is seen. [G, G, 3] ×2, [G, G]
    """
    for row in range(seen.shape[0]):
        for column in range(seen.shape[1]):
            t = seen[row, column]
            if t < 0:
                colour[row, column, 0] = 0.0
                colour[row, column, 1] = 0.0
                colour[row, column, 2] = 0.0
                normal_map[row, column, 0] = 0.0
                normal_map[row, column, 1] = 0.0
                normal_map[row, column, 2] = 0.0
                label[row, column] = 0
                continue
            ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wb, wc = bary[row, column, 0], bary[row, column, 1]
            wa = 1.0 - wb - wc
            nx, ny, nz = between(normals, ia, ib, ic, wa, wb, wc)
            px, py, pz = between(vertices, ia, ib, ic, wa, wb, wc)
            er, eg, eb = between(irradiance, ia, ib, ic, wa, wb, wc)
            a0, a1, a2 = between(attributes, ia, ib, ic, wa, wb, wc)
            a3 = wa * attributes[ia, 3] + wb * attributes[ib, 3] + wc * attributes[ic, 3]
            norm = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
            nx, ny, nz = nx * norm, ny * norm, nz * norm
            vx, vy, vz = camera[0] - px, camera[1] - py, camera[2] - pz
            norm = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * norm, vy * norm, vz * norm
            kind = material[t]
            facing = nx * vx + ny * vy + nz * vz
            if facing < 0.0 and kind >= HAIR and kind != HAIR:
                nx, ny, nz, facing = -nx, -ny, -nz, -facing
            gx, gy, gz = nx, ny, nz
            r, g, b = 0.5, 0.5, 0.5
            gloss, power, what = 0.0, 20.0, _L_SKIN
            if kind == SKIN:
                column_f = min(max(a0, 0.0), atlas.shape[1] - 1.001)
                row_f = min(max(a1, 0.0), atlas.shape[0] - 1.001)
                c0, r0 = int(column_f), int(row_f)
                fx, fy = column_f - c0, row_f - r0
                r = texel(atlas, r0, c0, 0, fx, fy)
                g = texel(atlas, r0, c0, 1, fx, fy)
                b = texel(atlas, r0, c0, 2, fx, fy)
                gloss = texel(atlas, r0, c0, 3, fx, fy)
                what = atlas_label[int(row_f + 0.5), int(column_f + 0.5)]
                # Relief: slope of the height along the surface, through the gradients of the atlas coordinates.
                slope_c = (atlas[r0, c0 + 1, 4] - atlas[r0, c0, 4]) * (1 - fy) + (
                    atlas[r0 + 1, c0 + 1, 4] - atlas[r0 + 1, c0, 4]
                ) * fy
                slope_r = (atlas[r0 + 1, c0, 4] - atlas[r0, c0, 4]) * (1 - fx) + (
                    atlas[r0 + 1, c0 + 1, 4] - atlas[r0, c0 + 1, 4]
                ) * fx
                e1x, e1y, e1z = (
                    vertices[ib, 0] - vertices[ia, 0],
                    vertices[ib, 1] - vertices[ia, 1],
                    vertices[ib, 2] - vertices[ia, 2],
                )
                e2x, e2y, e2z = (
                    vertices[ic, 0] - vertices[ia, 0],
                    vertices[ic, 1] - vertices[ia, 1],
                    vertices[ic, 2] - vertices[ia, 2],
                )
                fxn, fyn, fzn = e1y * e2z - e1z * e2y, e1z * e2x - e1x * e2z, e1x * e2y - e1y * e2x
                area = fxn * fxn + fyn * fyn + fzn * fzn
                if area > 1e-16:
                    dc1, dc2 = attributes[ib, 0] - attributes[ia, 0], attributes[ic, 0] - attributes[ia, 0]
                    dr1, dr2 = attributes[ib, 1] - attributes[ia, 1], attributes[ic, 1] - attributes[ia, 1]
                    h1, h2 = slope_c * dc1 + slope_r * dr1, slope_c * dc2 + slope_r * dr2
                    # grad h = (h1 * (e2 × f) + h2 * (f × e1)) / |f|²
                    bx = (h1 * (e2y * fzn - e2z * fyn) + h2 * (fyn * e1z - fzn * e1y)) / area
                    by = (h1 * (e2z * fxn - e2x * fzn) + h2 * (fzn * e1x - fxn * e1z)) / area
                    bz = (h1 * (e2x * fyn - e2y * fxn) + h2 * (fxn * e1y - fyn * e1x)) / area
                    length = np.sqrt(bx * bx + by * by + bz * bz)
                    if length > 0.7:
                        bx, by, bz = bx * 0.7 / length, by * 0.7 / length, bz * 0.7 / length
                    sx, sy, sz = nx - bx, ny - by, nz - bz
                    norm = 1.0 / np.sqrt(sx * sx + sy * sy + sz * sz)
                    sx, sy, sz = sx * norm, sy * norm, sz * norm
                    flat = 0.55 + 0.45 * (nx * key[0] + ny * key[1] + nz * key[2])
                    bumped = 0.55 + 0.45 * (sx * key[0] + sy * key[1] + sz * key[2])
                    ratio = min(max(bumped / max(flat, 0.12), 0.45), 1.6)
                    ratio = ratio * (1.0 + 0.25 * (sy - ny))
                    er, eg, eb = er * ratio, eg * ratio, eb * ratio
                    nx, ny, nz = sx, sy, sz
                # Light that scatters in skin comes out redder where it is scarce.
                mean = 0.333 * (er + eg + eb)
                dim = 1.0 - smooth_step(mean, 0.0, 0.75)
                er, eg, eb = er * (1.0 + 0.10 * dim), eg * (1.0 - 0.03 * dim), eb * (1.0 - 0.07 * dim)
                power = 14.0 + 16.0 * gloss
                gloss = (0.05 + 0.30 * gloss) * (0.5 + 0.5 * look[12])
            elif kind == EYE:
                what = _L_EYE
                angle = np.sqrt(a0 * a0 + a1 * a1)
                if a2 < 0.0:
                    angle = 2.0
                turn = np.arctan2(a1, a0)
                iris = 0.46
                white = 0.80 - 0.10 * smooth_step(angle, 0.45, 1.0)
                veins = (
                    look[4]
                    * (0.5 + 0.5 * np.sin(turn * 9.0 + 3.0 * np.sin(angle * 9.0)))
                    * smooth_step(angle, 0.5, 0.95)
                )
                corner = smooth_step(abs(a0), 0.62, 0.86)
                r, g, b = (
                    white,
                    white * (0.95 - 0.16 * corner - 0.10 * veins - 0.05 * look[4]),
                    white * (0.93 - 0.17 * corner - 0.10 * veins - 0.05 * look[4]),
                )
                if angle < iris + 0.05:
                    rays = 0.5 + 0.25 * np.sin(turn * 23.0 + 1.3) + 0.25 * np.sin(turn * 41.0)
                    ring = smooth_step(angle, 0.17, 0.30) * (1.0 - smooth_step(angle, 0.30, iris))
                    tone = (0.70 + 0.45 * rays + 0.60 * ring) * (1.0 - 0.70 * smooth_step(angle, 0.37, iris))
                    blend = 1.0 - smooth_step(angle, iris - 0.035, iris + 0.04)
                    r += (look[0] * tone - r) * blend
                    g += (look[1] * tone - g) * blend
                    b += (look[2] * tone - b) * blend
                    hole = 1.0 - smooth_step(angle, look[3] - 0.02, look[3] + 0.025)
                    r, g, b = r * (1.0 - 0.97 * hole), g * (1.0 - 0.97 * hole), b * (1.0 - 0.97 * hole)
                # The upper lid shades the ball; a3 is height in the opening, -1 lower lid to 1 upper lid.
                lid = 1.0 - 0.55 * smooth_step(a3, 0.25, 1.05) - 0.18 * smooth_step(-a3, 0.6, 1.1)
                er, eg, eb = (
                    (0.55 * er + 0.62 * ambient[0]) * lid,
                    (0.55 * eg + 0.62 * ambient[1]) * lid,
                    (0.55 * eb + 0.62 * ambient[2]) * lid,
                )
                # Catch light: a soft window in the key's direction, raised so that it stays in the opening.
                hx, hy, hz = key[0] * 0.7 + vx * 1.2, key[1] * 0.4 + vy * 1.2 + 0.36, key[2] * 0.7 + vz * 1.2
                norm = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz)
                half = (gx * hx + gy * hy + gz * hz) * norm
                spark = smooth_step(half, 0.9855, 0.9945) * (1.0 - 0.6 * smooth_step(a3, 0.75, 1.0))
                soft = 0.018 * smooth_step(half, 0.6, 1.0)
                colour_add = 0.8 * spark + soft
                r0f = r * er + colour_add * highlight[0]
                g0f = g * eg + colour_add * highlight[1]
                b0f = b * eb + colour_add * highlight[2]
                colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = r0f, g0f, b0f
                normal_map[row, column, 0], normal_map[row, column, 1], normal_map[row, column, 2] = gx, gy, gz
                label[row, column] = what
                continue
            elif kind == TEETH:
                what = _L_TEETH
                # a0 angle along the arch, a1 height from the gum (0) to the edge (1), a2 depth in the mouth 0..1
                cell = a0 / 0.29
                gap = abs(cell - np.floor(cell) - 0.5)
                groove = smooth_step(gap, 0.40, 0.5)
                r, g, b = 0.84, 0.79, 0.69
                dark = (1.0 - 0.45 * groove) * max(0.04, 1.0 - 1.5 * a2)
                gum = 1.0 - smooth_step(a1, 0.44, 0.54)
                r, g, b = r + (0.50 - r) * gum, g + (0.22 - g) * gum, b + (0.20 - b) * gum
                mean = 0.333 * (er + eg + eb)
                # Teeth and saliva pass light on: part of it does not depend on how open the mouth is.
                er, eg, eb = (
                    (0.35 * er + 0.72 * ambient[0]) * dark,
                    (0.35 * eg + 0.72 * ambient[1]) * dark,
                    (0.35 * eb + 0.72 * ambient[2]) * dark,
                )
                gloss, power = 0.25 * (1.0 - groove) * dark, 40.0
            elif kind == TONGUE:
                what = _L_MOUTH
                r, g, b = 0.44, 0.15, 0.14
                er, eg, eb = er * a0 + 0.02, eg * a0 + 0.02, eb * a0 + 0.02
                gloss, power = 0.15 * a0, 25.0
            elif kind == MOUTH:
                what = _L_MOUTH
                r, g, b = 0.26, 0.065, 0.06
                dim = a0 * (0.55 + 0.45 * a0)
                er, eg, eb = er * dim, eg * dim, eb * dim
            elif kind == SOCKET:
                what = _L_SKIN
                r, g, b = a0 * 0.75, a1 * 0.60, a2 * 0.58
                gloss, power = 0.25, 30.0
            elif kind == HAIR:
                what = _L_HAIR
                if facing < 0.0:
                    facing = -facing
                tx = wa * tangents[ia, 0] + wb * tangents[ib, 0] + wc * tangents[ic, 0]
                ty = wa * tangents[ia, 1] + wb * tangents[ib, 1] + wc * tangents[ic, 1]
                tz = wa * tangents[ia, 2] + wb * tangents[ib, 2] + wc * tangents[ic, 2]
                norm = 1.0 / np.sqrt(tx * tx + ty * ty + tz * tz + 1e-12)
                tx, ty, tz = tx * norm, ty * norm, tz * norm
                # Strands in a ribbon: tone varies across it, slowly along it, and from ribbon to ribbon.
                streak = _wobble(a0 * 3.1 + 0.25 * np.sin(a1 * 4.0 + a2 * 20.0), a2)
                fine = _wobble(a0 * 7.5 + 0.4 * np.sin(a1 * 3.0 + a2 * 11.0), a2 + 0.37)
                contrast = 0.35 + 0.5 * look[9]
                tone = 1.0 + contrast * (0.20 * streak + 0.12 * fine + 0.55 * (a2 - 0.5) * 0.6)
                tone *= 0.62 + 0.38 * smooth_step(a1, 0.0, 0.25)
                tone *= 0.72 + 0.28 * a3
                tone *= 1.0 - 0.22 * a0 * a0
                salt = look[10] * 0.25 * streak
                r, g, b = look[5] * tone + salt * 0.1, look[6] * tone + salt * 0.1, look[7] * tone + salt * 0.1
                r, g, b = max(r, 0.003), max(g, 0.003), max(b, 0.003)
                # Kajiya and Kay's highlight: brightest where the half vector is across the strand.
                hx, hy, hz = key[0] + vx, key[1] + vy, key[2] + vz
                norm = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz)
                shift = 0.10 * streak
                dot = (tx * hx + ty * hy + tz * hz) * norm
                first = np.exp(-(((dot + 0.10 + shift) / 0.22) ** 2))
                second = np.exp(-(((dot - 0.14 + shift) / 0.34) ** 2))
                mean = 0.333 * (er + eg + eb)
                lit = smooth_step(mean, 0.10, 0.8) * (0.35 + 0.9 * look[8])
                glow = 0.065 * first * lit
                tint = 0.55 * second * lit
                colour[row, column, 0] = r * er * (1.0 + tint) + glow * highlight[0]
                colour[row, column, 1] = g * eg * (1.0 + tint) + glow * highlight[1]
                colour[row, column, 2] = b * eb * (1.0 + tint) + glow * highlight[2]
                normal_map[row, column, 0], normal_map[row, column, 1], normal_map[row, column, 2] = gx, gy, gz
                label[row, column] = what
                continue
            elif kind == CLOTH:
                what = _L_CLOTHING
                r, g, b = a0, a1, a2
                # Thin cloth is never quite dark inside a collar.
                er, eg, eb = max(er, 0.4 * ambient[0]), max(eg, 0.4 * ambient[1]), max(eb, 0.4 * ambient[2])
            elif kind == DARK_LENS:
                what = _L_GLASSES
                r, g, b = 0.012 + 0.05 * look[11], 0.012 + 0.045 * look[11], 0.014 + 0.035 * look[11]
                up = 2.0 * facing * ny - vy
                sky = smooth_step(up, -0.25, 0.75)
                fresnel = 0.06 + 0.5 * (1.0 - facing) ** 4
                colour[row, column, 0] = r * er + fresnel * (0.15 + 1.1 * sky) * ambient[0]
                colour[row, column, 1] = g * eg + fresnel * (0.15 + 1.1 * sky) * ambient[1]
                colour[row, column, 2] = b * eb + fresnel * (0.15 + 1.15 * sky) * ambient[2]
                normal_map[row, column, 0], normal_map[row, column, 1], normal_map[row, column, 2] = gx, gy, gz
                label[row, column] = what
                continue
            else:
                what = _L_GLASSES
                r, g, b = a0, a1, a2
                gloss, power = a3, 45.0
            cr, cg, cb = r * er, g * eg, b * eb
            if gloss > 0.0:
                hx, hy, hz = key[0] + vx, key[1] + vy, key[2] + vz
                norm = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz)
                half = max((nx * hx + ny * hy + nz * hz) * norm, 0.0)
                mean = 0.333 * (er + eg + eb)
                lit = smooth_step(mean, 0.08, 0.7)
                rim = (1.0 - max(facing, 0.0)) ** 4
                shine = gloss * lit * ((power + 8.0) / 60.0 * half**power)
                veil = gloss * 0.22 * rim * lit
                cr += shine * highlight[0] + veil * ambient[0]
                cg += shine * highlight[1] + veil * ambient[1]
                cb += shine * highlight[2] + veil * ambient[2]
            colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = cr, cg, cb
            normal_map[row, column, 0], normal_map[row, column, 1], normal_map[row, column, 2] = gx, gy, gz
            label[row, column] = what
