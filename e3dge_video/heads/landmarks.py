"""The 68 iBUG landmarks as points on the mesh, and the five points that place a head in the world.

"Left" means image left of a frontal view (-x), as everywhere in this library. The points were chosen on the mean head
and checked by eye; they move with every expression because they are vertices (brows: weighted triples of vertices).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

#: MakeHuman base-mesh vertices of points 0-16 and 27-67 (brows are in `_BROWS`).
_JAW = (5769, 5735, 5098, 5242, 895, 893, 891, 5293, 5296, 11899, 7593, 7595, 7597, 11851, 11713, 12332, 12366)
_NOSE = (133, 131, 201, 5054, 358, 359, 343, 7120, 7119)
_EYES = (4854, 4848, 4865, 66, 47, 41, 6850, 11483, 11466, 11472, 6825, 6831)
_OUTER_LIPS = (422, 5354, 450, 455, 7210, 11956, 7182, 7166, 7241, 492, 486, 406)
_INNER_LIPS = (432, 5360, 520, 11962, 7192, 7266, 540, 519)
#: Points 17-26: triangle of base-mesh vertices and weights of its corners.
_BROWS = (
    ((254, 212, 255), (0.231, 0.003, 0.766)),
    ((225, 206, 224), (0.235, 0.427, 0.338)),
    ((222, 204, 205), (0.481, 0.391, 0.128)),
    ((205, 208, 233), (0.717, 0.158, 0.125)),
    ((208, 209, 221), (0.604, 0.264, 0.132)),
    ((6983, 6995, 6984), (0.604, 0.132, 0.264)),
    ((6980, 7006, 6983), (0.717, 0.125, 0.158)),
    ((6996, 6980, 6979), (0.481, 0.128, 0.391)),
    ((6999, 6998, 6981), (0.235, 0.338, 0.427)),
    ((7023, 7024, 6987), (0.231, 0.766, 0.003)),
)


def landmark_matrix(base_index: NDArray[np.integer]) -> sp.csr_matrix:
    """Matrix L with landmarks = L @ vertices. [68, N]

    Args:
        base_index: Index of each vertex in MakeHuman's base mesh. [N]
    """
    rows: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
    rows += [((i,), (1.0,)) for i in _JAW]
    rows += list(_BROWS)
    rows += [((i,), (1.0,)) for i in _NOSE + _EYES + _OUTER_LIPS + _INNER_LIPS]
    place = {int(base): i for i, base in enumerate(base_index)}
    row = [r for r, (ids, _) in enumerate(rows) for _ in ids]
    column = [place[i] for ids, _ in rows for i in ids]
    weight = [w for _, weights in rows for w in weights]
    return sp.csr_matrix((weight, (row, column)), shape=(68, len(base_index)))


def five_points(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Eyes (middle of their corners), nose tip and mouth corners from 68 points. [..., 68, D] → [..., 5, D]"""
    left = 0.5 * (landmarks[..., 36, :] + landmarks[..., 39, :])
    right = 0.5 * (landmarks[..., 42, :] + landmarks[..., 45, :])
    return np.stack([left, right, landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], axis=-2)


def fit_scale_translation(
    points: NDArray[np.floating], target: NDArray[np.floating]
) -> tuple[float, NDArray[np.floating]]:
    """Scale s and translation t, no rotation, that minimise |s * points + t - target|². [P, 3]"""
    centred = points - points.mean(axis=0)
    scale = float((centred * (target - target.mean(axis=0))).sum() / (centred * centred).sum())
    return scale, target.mean(axis=0) - scale * points.mean(axis=0)
