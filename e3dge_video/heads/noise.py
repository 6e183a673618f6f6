"""Fixed value noise: the same pattern for everybody, in template coordinates, so that nothing in a head is random."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True)
def _hash(x: int, y: int, z: int, seed: int) -> float:
    """Repeatable number in 0..1 of an integer lattice point."""
    h = (x * 374761393 + y * 668265263 + z * 2147483647 + seed * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777215.0


@numba.njit(cache=True)
def value_noise(points: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Smooth noise in 0..1 with unit lattice spacing. [K, 3] → [K]"""
    result = np.empty(points.shape[0], np.float32)
    for i in range(points.shape[0]):
        ix, iy, iz = int(np.floor(points[i, 0])), int(np.floor(points[i, 1])), int(np.floor(points[i, 2]))
        fx, fy, fz = points[i, 0] - ix, points[i, 1] - iy, points[i, 2] - iz
        fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
        total = 0.0
        for dz in range(2):
            wz = fz if dz else 1 - fz
            for dy in range(2):
                wy = fy if dy else 1 - fy
                for dx in range(2):
                    wx = fx if dx else 1 - fx
                    total += wx * wy * wz * _hash(ix + dx, iy + dy, iz + dz, seed)
        result[i] = total
    return result


def fractal_noise(points: NDArray[np.float32], frequency: float, octaves: int, seed: int) -> NDArray[np.float32]:
    """Sum of value noises of rising frequency and falling weight, scaled to about 0..1. [K, 3] → [K]"""
    total = np.zeros(len(points), np.float32)
    weight_sum = 0.0
    for octave in range(octaves):
        weight = 0.5**octave
        scaled = (points * np.float32(frequency * 2**octave)).astype(np.float32)
        total += weight * value_noise(scaled, seed + octave)
        weight_sum += weight
    return np.clip(0.5 + (total / weight_sum - 0.5) * 1.6, 0, 1).astype(np.float32)
