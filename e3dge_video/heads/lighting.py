"""Soft light: how much of each direction's light reaches a point, and what a key, a fill and an ambient light give.

Light transfer is precomputed radiance transfer with nine spherical harmonics (Sloan et al. 2002): visibility times
cosine, found by marching through a coarse density grid of the head with its hair and glasses. It is smooth by
construction, which keeps shadows learnable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.spec import Light

#: World size of one cell of the density grid, and the grid's origin and shape (x, y, z).
CELL = 0.0135
GRID_ORIGIN = np.array((-0.55, -0.65, -0.52), np.float32)
GRID_SHAPE = (82, 92, 70)


@dataclass(frozen=True)
class LightRig:
    """A light as nine spherical-harmonic coefficients per colour and the direction of its brightest part.

    Attributes:
        coefficients: Radiance coefficients. [9, 3]
        direction: Unit vector to the key light. [3]
        highlight: Linear RGB of highlights from the key light. [3]
        ambient: Linear RGB of light from everywhere, for reflections. [3]
    """

    coefficients: NDArray[np.float32]
    direction: NDArray[np.float32]
    highlight: NDArray[np.float32]
    ambient: NDArray[np.float32]


def directions(count: int) -> NDArray[np.float32]:
    """Unit vectors spread evenly over the sphere (Fibonacci spiral). [count, 3]"""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    return np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], 1).astype(np.float32)


def harmonics(unit: NDArray[np.floating]) -> NDArray[np.float32]:
    """Real spherical harmonics up to degree two. [..., 3] → [..., 9]"""
    x, y, z = unit[..., 0], unit[..., 1], unit[..., 2]
    return np.stack(
        [
            0.282095 * np.ones_like(x),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        axis=-1,
    ).astype(np.float32)


def light_rig(light: Light) -> LightRig:
    """Spherical-harmonic coefficients of a light; a unit key facing a surface gives irradiance one."""

    def toward(azimuth: float, elevation: float) -> NDArray[np.float64]:
        return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])

    # Hanning-like windows make the key an area light some 60 degrees wide and avoid ringing.
    window = np.array([1.0] + [0.9] * 3 + [0.62] * 5)
    key_direction = toward(light.azimuth, light.elevation)
    fill_direction = toward(-np.sign(light.azimuth + 1e-9) * 1.1, 0.15)
    samples = directions(400)
    basis = harmonics(samples)
    sky = light.ground + (1 - light.ground) * (0.5 + 0.5 * samples[:, 1])
    ambient = (basis * sky[:, None]).mean(0) * 4 * np.pi
    coefficients = np.zeros((9, 3))
    colour_key, colour_ambient = np.array(light.key_colour), np.array(light.ambient_colour)
    for direction, strength, colour in (
        (key_direction, light.key, colour_key),
        (fill_direction, light.fill, 0.5 * (colour_key + colour_ambient)),
    ):
        coefficients += (harmonics(direction) * window * strength * np.pi)[:, None] * colour
    coefficients += (light.ambient * ambient)[:, None] * colour_ambient
    return LightRig(
        coefficients=(coefficients * light.exposure).astype(np.float32),
        direction=key_direction.astype(np.float32),
        highlight=(colour_key * (light.key + 0.25 * light.ambient) * light.exposure).astype(np.float32),
        ambient=(colour_ambient * (light.ambient + 0.3 * light.fill) * light.exposure).astype(np.float32),
    )


@numba.njit(cache=True)
def splat(points: NDArray[np.float32], amount: float, grid: NDArray[np.float32]) -> None:
    """Add `amount` of density at the cell of each point, up to one."""
    for i in range(points.shape[0]):
        x = int((points[i, 0] - GRID_ORIGIN[0]) / CELL)
        y = int((points[i, 1] - GRID_ORIGIN[1]) / CELL)
        z = int((points[i, 2] - GRID_ORIGIN[2]) / CELL)
        if 0 <= x < grid.shape[0] and 0 <= y < grid.shape[1] and 0 <= z < grid.shape[2]:
            grid[x, y, z] = min(grid[x, y, z] + amount, 1.0)


@numba.njit(cache=True)
def splat_triangles(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    normals: NDArray[np.float32],
    inset: float,
    grid: NDArray[np.float32],
) -> None:
    """Fill the cells just beneath a surface. `inset` is the depth below the surface that is filled, world units."""
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        longest = 0.0
        for k in range(3):
            ab, bc = vertices[a, k] - vertices[b, k], vertices[b, k] - vertices[c, k]
            longest += ab * ab + bc * bc
        steps = min(int(np.sqrt(longest) / (0.8 * CELL)) + 1, 6)
        for i in range(steps + 1):
            for j in range(steps + 1 - i):
                u, v = i / steps, j / steps
                w = 1.0 - u - v
                px = w * vertices[a, 0] + u * vertices[b, 0] + v * vertices[c, 0] - inset * normals[a, 0]
                py = w * vertices[a, 1] + u * vertices[b, 1] + v * vertices[c, 1] - inset * normals[a, 1]
                pz = w * vertices[a, 2] + u * vertices[b, 2] + v * vertices[c, 2] - inset * normals[a, 2]
                x, y, z = (
                    int((px - GRID_ORIGIN[0]) / CELL),
                    int((py - GRID_ORIGIN[1]) / CELL),
                    int((pz - GRID_ORIGIN[2]) / CELL),
                )
                if 0 <= x < grid.shape[0] and 0 <= y < grid.shape[1] and 0 <= z < grid.shape[2]:
                    grid[x, y, z] = 1.0


@numba.njit(cache=True, fastmath=True)
def transfer(
    points: NDArray[np.float32],
    normals: NDArray[np.float32],
    grid: NDArray[np.float32],
    rays: NDArray[np.float32],
    basis: NDArray[np.float32],
    start: float,
    wrap: float,
) -> NDArray[np.float32]:
    """Transfer coefficients: irradiance / π = transfer · radiance coefficients. [P, 9]

    Args:
        points, normals: Where, and unit normals. [P, 3]
        grid: Density 0..1 of the head (see `CELL`). [X, Y, Z]
        rays, basis: Directions and their harmonics. [D, 3], [D, 9]
        start: Distance from the surface at which marching begins, world units.
        wrap: 0 for a plain cosine; w gives max(0, (cos + w) / (1 + w)), the soft terminator of skin and hair.
    """
    result = np.zeros((points.shape[0], 9), np.float32)
    weight = np.float32(4.0 / rays.shape[0])
    inv = np.float32(1.0 / CELL)
    for p in range(points.shape[0]):
        nx, ny, nz = normals[p, 0], normals[p, 1], normals[p, 2]
        bx = (points[p, 0] - GRID_ORIGIN[0]) * inv
        by = (points[p, 1] - GRID_ORIGIN[1]) * inv
        bz = (points[p, 2] - GRID_ORIGIN[2]) * inv
        for d in range(rays.shape[0]):
            rx, ry, rz = rays[d, 0], rays[d, 1], rays[d, 2]
            cosine = (nx * rx + ny * ry + nz * rz + wrap) / (1.0 + wrap)
            if cosine <= 0.0:
                continue
            seen = np.float32(1.0)
            t = start * inv
            step = np.float32(0.9)
            while t < 26.0 and seen > 0.02:
                qx = bx + nx * 0.7 + rx * t
                qy = by + ny * 0.7 + ry * t
                qz = bz + nz * 0.7 + rz * t
                ix, iy, iz = int(qx), int(qy), int(qz)
                if qx < 0 or qy < 0 or qz < 0 or ix >= grid.shape[0] or iy >= grid.shape[1] or iz >= grid.shape[2]:
                    break
                seen *= max(0.0, 1.0 - grid[ix, iy, iz] * min(step, 1.5))
                t += step
                step *= 1.22
            value = cosine * seen * weight
            for k in range(9):
                result[p, k] += value * basis[d, k]
    return result


@numba.njit(cache=True)
def blur(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average with the six neighbours, which softens shadow edges."""
    result = grid.copy()
    for x in range(1, grid.shape[0] - 1):
        for y in range(1, grid.shape[1] - 1):
            for z in range(1, grid.shape[2] - 1):
                around = grid[x - 1, y, z] + grid[x + 1, y, z] + grid[x, y - 1, z] + grid[x, y + 1, z]
                around += grid[x, y, z - 1] + grid[x, y, z + 1]
                result[x, y, z] = 0.4 * grid[x, y, z] + 0.1 * around
    return result
