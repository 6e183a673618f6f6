"""Visibility of triangles in a pinhole camera: a z-buffer that keeps which triangle is seen and where on it."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True)
def project(
    vertices: NDArray[np.float32],
    world2cam: NDArray[np.float32],
    intrinsics: NDArray[np.float32],
    scale: float,
    offset: float,
) -> NDArray[np.float32]:
    """Sample-grid coordinates and inverse depth: column, row, 1/z. [N, 3]

    Args:
        vertices: World points. [N, 3]
        world2cam: Rotation and translation, OpenCV axes. [4, 4]
        intrinsics: Divided by the image size. [3, 3]
        scale, offset: Grid coordinate = scale * image coordinate (0..1) + offset.
    """
    projected = np.empty((vertices.shape[0], 3), np.float32)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        cx = world2cam[0, 0] * x + world2cam[0, 1] * y + world2cam[0, 2] * z + world2cam[0, 3]
        cy = world2cam[1, 0] * x + world2cam[1, 1] * y + world2cam[1, 2] * z + world2cam[1, 3]
        cz = world2cam[2, 0] * x + world2cam[2, 1] * y + world2cam[2, 2] * z + world2cam[2, 3]
        inverse = np.float32(1.0) / max(cz, np.float32(1e-3))
        projected[i, 0] = (
            intrinsics[0, 0] * cx * inverse + intrinsics[0, 1] * cy * inverse + intrinsics[0, 2]
        ) * scale + offset
        projected[i, 1] = (intrinsics[1, 1] * cy * inverse + intrinsics[1, 2]) * scale + offset
        projected[i, 2] = inverse
    return projected


@numba.njit(cache=True, fastmath=True)
def rasterize(
    projected: NDArray[np.float32],
    triangles: NDArray[np.int32],
    two_sided: NDArray[np.bool_],
    grid: int,
    inverse_depth: NDArray[np.float32],
    seen: NDArray[np.int32],
    bary: NDArray[np.float32],
) -> None:
    """Draw triangles into a z-buffer whose samples sit on integer grid coordinates.

    Args:
        projected: Result of `project`. [N, 3]
        triangles: Corner vertices, counter-clockwise from outside in world space. [T, 3]
        two_sided: Triangles that are also seen from behind. [T]
        grid: Number of samples along each side, G.
        inverse_depth: 1/z of the nearest surface, 0 where nothing is. [G, G], updated
        seen: Triangle seen, -1 where nothing is. [G, G], updated
        bary: Perspective-correct weights of the second and third corner. [G, G, 2], updated
    """
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, aw = projected[a, 0], projected[a, 1], projected[a, 2]
        bx, by, bw = projected[b, 0], projected[b, 1], projected[b, 2]
        cx, cy, cw = projected[c, 0], projected[c, 1], projected[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # Rows grow downwards, so counter-clockwise in the world is negative here.
        if area > 0.0 and not two_sided[t]:
            continue
        if abs(area) < 1e-9:
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx))), 0)
        x1 = min(int(np.floor(max(ax, bx, cx))), grid - 1)
        y0 = max(int(np.ceil(min(ay, by, cy))), 0)
        y1 = min(int(np.floor(max(ay, by, cy))), grid - 1)
        if x0 > x1 or y0 > y1:
            continue
        inv_area = 1.0 / area
        # Weights of corners b and c are affine in the screen: value = start + column * dx + row * dy.
        wb_dx, wb_dy = (cy - ay) * inv_area, (ax - cx) * inv_area
        wc_dx, wc_dy = (ay - by) * inv_area, (bx - ax) * inv_area
        for y in range(y0, y1 + 1):
            fy = y - ay
            for x in range(x0, x1 + 1):
                fx = x - ax
                wb = fx * wb_dx + fy * wb_dy
                wc = fx * wc_dx + fy * wc_dy
                wa = 1.0 - wb - wc
                if wa < -1e-6 or wb < -1e-6 or wc < -1e-6:
                    continue
                w = wa * aw + wb * bw + wc * cw
                if w > inverse_depth[y, x]:
                    inverse_depth[y, x] = w
                    seen[y, x] = t
                    bary[y, x, 0] = wb * bw / w
                    bary[y, x, 1] = wc * cw / w
