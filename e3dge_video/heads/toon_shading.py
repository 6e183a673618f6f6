"""Colour of a cartoon's visible surface: flat tones with clear borders, one numba loop.

Takes what `shading.shade` takes and gives what it gives. Light falls in three tones; the borders between them are a few
hundredths of the irradiance wide, so that they can be learned.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.paint import LABEL
from e3dge_video.heads.shading import (
    CLOTH,
    DARK_LENS,
    EYE,
    HAIR,
    MOUTH,
    SKIN,
    SOCKET,
    TEETH,
    TONGUE,
    between,
    smooth_step,
    texel,
)
from e3dge_video.heads.toon import MIDDLE

_L_SKIN, _L_EYE, _L_MOUTH, _L_TEETH = LABEL["skin"], LABEL["eye"], LABEL["mouth"], LABEL["teeth"]
_L_HAIR, _L_GLASSES, _L_CLOTHING = LABEL["hair"], LABEL["glasses"], LABEL["clothing"]


@numba.njit(cache=True, fastmath=True, inline="always")
def _tone(light: float) -> float:
    """Brightness of a surface for the irradiance on it: shadow, plain, lit."""
    return 0.56 + 0.36 * smooth_step(light, 0.50, 0.58) + 0.13 * smooth_step(light, 1.00, 1.08)


@numba.njit(cache=True, fastmath=True)
def shade_toon(
    seen: NDArray[np.int32],
    bary: NDArray[np.float32],
    triangles: NDArray[np.int32],
    material: NDArray[np.int8],
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    attributes: NDArray[np.float32],
    irradiance: NDArray[np.float32],
    atlas: NDArray[np.float32],
    atlas_label: NDArray[np.uint8],
    camera: NDArray[np.float32],
    key: NDArray[np.float32],
    look: NDArray[np.float32],
    colour: NDArray[np.float32],
    normal_map: NDArray[np.float32],
    label: NDArray[np.uint8],
) -> None:
    """Shade every sample of a visibility buffer; arguments as in `shading.shade`."""
    for row in range(seen.shape[0]):
        for column in range(seen.shape[1]):
            t = seen[row, column]
            if t < 0:
                for k in range(3):
                    colour[row, column, k] = 0.0
                    normal_map[row, column, k] = 0.0
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
            light = (er + eg + eb) / 3.0
            tone = _tone(light)
            what = _L_SKIN
            r, g, b = 0.5, 0.5, 0.5
            if kind == SKIN:
                column_f = min(max(a0, 0.0), atlas.shape[1] - 1.001)
                row_f = min(max(a1, 0.0), atlas.shape[0] - 1.001)
                c0, r0 = int(column_f), int(row_f)
                fx, fy = column_f - c0, row_f - r0
                r = texel(atlas, r0, c0, 0, fx, fy)
                g = texel(atlas, r0, c0, 1, fx, fy)
                b = texel(atlas, r0, c0, 2, fx, fy)
                what = atlas_label[int(row_f + 0.5), int(column_f + 0.5)]
            elif kind == EYE:
                what = _L_EYE
                angle = np.sqrt(a0 * a0 + a1 * a1)
                if a2 < 0.0:
                    angle = 2.0
                iris, pupil = 0.60, 0.27
                r, g, b = 0.93, 0.94, 0.95
                disc = 1.0 - smooth_step(angle, iris - 0.02, iris + 0.02)
                ring = smooth_step(angle, iris - 0.10, iris - 0.05)
                # The iris is lighter below, where light falls through it.
                glow = 1.05 + 0.75 * smooth_step(-a1, -0.05, 0.35)
                shade = glow * (1.0 - 0.65 * ring)
                r, g, b = (
                    r + (look[0] * shade - r) * disc,
                    g + (look[1] * shade - g) * disc,
                    b + (look[2] * shade - b) * disc,
                )
                hole = 1.0 - smooth_step(angle, pupil - 0.02, pupil + 0.02)
                r, g, b = r * (1.0 - 0.97 * hole), g * (1.0 - 0.97 * hole), b * (1.0 - 0.97 * hole)
                # One large catch light, fixed to the eye so that every view sees it in the same place.
                side = 0.22 if key[0] > 0.0 else -0.22
                spark = np.sqrt((a0 - side) ** 2 + (a1 - 0.20) ** 2)
                lit = (1.0 - smooth_step(spark, 0.11, 0.15)) * (1.0 if a2 > 0.0 else 0.0)
                small = np.sqrt((a0 + 0.9 * side) ** 2 + (a1 + 0.24) ** 2)
                lit = max(lit, (1.0 - smooth_step(small, 0.045, 0.075)) * (0.8 if a2 > 0.0 else 0.0))
                # The upper lid's shadow.
                tone = 1.0 - 0.30 * smooth_step(a3, 0.52, 0.66)
                r, g, b = r + (1.0 - r) * lit, g + (1.0 - g) * lit, b + (1.0 - b) * lit
            elif kind == TEETH:
                what = _L_TEETH
                gum = 1.0 - smooth_step(a1, 0.44, 0.54)
                deep = smooth_step(a2, 0.25, 0.45)
                r, g, b = 0.92 - 0.42 * gum, 0.90 - 0.70 * gum, 0.88 - 0.68 * gum
                r, g, b = r + (0.16 - r) * deep, g + (0.03 - g) * deep, b + (0.03 - b) * deep
                tone = 0.95
            elif kind == TONGUE:
                what = _L_MOUTH
                r, g, b = 0.62, 0.20, 0.20
                tone = 0.30 + 0.55 * smooth_step(a0, 0.35, 0.45)
            elif kind == MOUTH:
                what = _L_MOUTH
                r, g, b = 0.20, 0.035, 0.035
                tone = 0.6 + 0.3 * smooth_step(a0, 0.5, 0.6)
            elif kind == SOCKET:
                r, g, b = a0 * 0.7, a1 * 0.55, a2 * 0.52
            elif kind == HAIR:
                what = _L_HAIR
                # Hair is one body: its light follows the rounding of the head, not the single strand.
                dx, dy, dz = px - MIDDLE[0], py - MIDDLE[1], pz - MIDDLE[2]
                norm = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx * norm, dy * norm, dz * norm
                # Strands show as broad locks of two tones, and as a darker line along their rims.
                lock = 0.92 + 0.16 * smooth_step(a2, 0.45, 0.55)
                lock *= 1.0 - 0.22 * smooth_step(abs(a0), 0.78, 0.92)
                tone = _tone(0.55 * light + 0.45 * (0.62 + 0.5 * (dx * key[0] + dy * key[1] + dz * key[2]))) * lock
                r, g, b = look[5] + 0.010, look[6] + 0.010, look[7] + 0.010
                # One highlight, a band around the crown.
                hx, hy, hz = 0.8 * key[0], key[1] + 0.9, key[2] + 0.35
                norm = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz)
                band = dx * hx * norm + dy * hy * norm + dz * hz * norm
                shine = smooth_step(band, 0.885, 0.905) * (1.0 - smooth_step(band, 0.955, 0.975))
                shine *= smooth_step(dy, 0.1, 0.3)
                r, g, b = r + shine * (0.35 * r + 0.07), g + shine * (0.35 * g + 0.07), b + shine * (0.35 * b + 0.07)
            elif kind == CLOTH:
                what = _L_CLOTHING
                r, g, b = a0, a1, a2
                tone = max(tone, 0.7)
            elif kind == DARK_LENS:
                what = _L_GLASSES
                r, g, b = 0.02, 0.022, 0.03
                up = smooth_step(ny + 0.4 * nx, 0.05, 0.10) * 0.06
                r, g, b, tone = r + up, g + up, b + up, 1.0
            else:
                what = _L_GLASSES
                r, g, b = a0, a1, a2
            if what == _L_SKIN:
                # Clean, saturated skin; its shadow is warmer than its light.
                grey = 0.30 * r + 0.55 * g + 0.15 * b
                dark = 1.0 - smooth_step(tone, 0.6, 0.9)
                r = grey + 1.10 * (r - grey)
                g = (grey + 1.10 * (g - grey)) * (1.0 - 0.07 * dark)
                b = (grey + 1.10 * (b - grey)) * (1.0 - 0.05 * dark)
                r, g, b = r * 1.08, g * 1.06, b * 1.04
            # The light's own colour, without its strength.
            strength = tone / max(light, 1e-3)
            if kind in (EYE, TEETH, HAIR, MOUTH, TONGUE, DARK_LENS):
                er, eg, eb = tone, tone, tone
            else:
                er, eg, eb = er * strength, eg * strength, eb * strength
            colour[row, column, 0] = max(r, 0.0) * er
            colour[row, column, 1] = max(g, 0.0) * eg
            colour[row, column, 2] = max(b, 0.0) * eb
            normal_map[row, column, 0], normal_map[row, column, 1], normal_map[row, column, 2] = nx, ny, nz
            label[row, column] = what
