"""Thin things that are blended over the finished picture: clear lenses and lashes."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.shading import LASH, smooth_step


@numba.njit(cache=True, fastmath=True)
def blend(
    projected: NDArray[np.float32],
    triangles: NDArray[np.int32],
    material: NDArray[np.int8],
    vertices: NDArray[np.float32],
    normals: NDArray[np.float32],
    attributes: NDArray[np.float32],
    irradiance: NDArray[np.float32],
    inverse_depth: NDArray[np.float32],
    camera: NDArray[np.float32],
    ambient: NDArray[np.float32],
    colour: NDArray[np.float32],
    cover: NDArray[np.float32],
) -> None:
    """Blend clear lenses and lashes over the shaded samples, in the order given (far to near).

    Attributes of lashes: linear RGB and opacity. Lenses reflect the surroundings, more at grazing angles.
    """
    grid = inverse_depth.shape[0]
    for t in range(triangles.shape[0]):
        ia, ib, ic = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, aw = projected[ia, 0], projected[ia, 1], projected[ia, 2]
        bx, by, bw = projected[ib, 0], projected[ib, 1], projected[ib, 2]
        cx, cy, cw = projected[ic, 0], projected[ic, 1], projected[ic, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), grid - 1)
        y0, y1 = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), grid - 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                wa = 1.0 - wb - wc
                # A half-open rule, so that samples on a shared edge are not blended twice.
                if wa <= 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                w = wa * aw + wb * bw + wc * cw
                if w < inverse_depth[y, x]:
                    continue
                wa, wb, wc = wa * aw / w, wb * bw / w, wc * cw / w
                if material[t] == LASH:
                    alpha = wa * attributes[ia, 3] + wb * attributes[ib, 3] + wc * attributes[ic, 3]
                    for k in range(3):
                        lash = attributes[ia, k] * (
                            wa * irradiance[ia, k] + wb * irradiance[ib, k] + wc * irradiance[ic, k]
                        )
                        colour[y, x, k] = colour[y, x, k] * (1.0 - alpha) + lash * alpha
                else:
                    nx = wa * normals[ia, 0] + wb * normals[ib, 0] + wc * normals[ic, 0]
                    ny = wa * normals[ia, 1] + wb * normals[ib, 1] + wc * normals[ic, 1]
                    nz = wa * normals[ia, 2] + wb * normals[ib, 2] + wc * normals[ic, 2]
                    px = wa * vertices[ia, 0] + wb * vertices[ib, 0] + wc * vertices[ic, 0]
                    py = wa * vertices[ia, 1] + wb * vertices[ib, 1] + wc * vertices[ic, 1]
                    pz = wa * vertices[ia, 2] + wb * vertices[ib, 2] + wc * vertices[ic, 2]
                    vx, vy, vz = camera[0] - px, camera[1] - py, camera[2] - pz
                    norm = 1.0 / np.sqrt(vx * vx + vy * vy + vz * vz)
                    facing = (nx * vx + ny * vy + nz * vz) * norm
                    if facing < 0.0:
                        nx, ny, nz, facing = -nx, -ny, -nz, -facing
                    up = 2.0 * facing * ny - vy * norm
                    across = 2.0 * facing * nx - vx * norm
                    # A bright window above, seen as a soft band across the lens.
                    band = up + 0.55 * across
                    sky = smooth_step(band, 0.16, 0.30) * (1.0 - smooth_step(band, 0.46, 0.62))
                    fresnel = 0.035 + 0.6 * (1.0 - facing) ** 4
                    alpha = min(0.5, fresnel * (0.25 + 3.2 * sky)) * (1.0 if cover[y, x] > 0.5 else 0.4)
                    for k in range(3):
                        colour[y, x, k] = colour[y, x, k] * (0.98 - alpha) + alpha * 1.1 * ambient[k]
                if cover[y, x] < 0.5:
                    cover[y, x] = max(cover[y, x], alpha)
