"""The morphable head: phenotype and targets give the neutral shape, facial actions move it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from e3dge_video.geometry.face_template import FIVE_POINTS
from e3dge_video.heads.assets import ACTIONS, PARTS, SHAPE_TARGETS, HeadAssets, load_assets
from e3dge_video.heads.landmarks import fit_scale_translation, five_points, landmark_matrix
from e3dge_video.heads.mesh import catmull_clark, split_seams, subdivide_corners, triangulate

#: Years at which the child, young and old targets stand fully.
_AGE_ANCHORS = (10.0, 25.0, 88.0)


@dataclass(frozen=True)
class Phenotype:
    """What decides the neutral shape.

    Attributes:
        age_years: 8 to 88.
        gender: 0 male, 1 female.
        origin: Weights of african, asian, caucasian; they sum to one. [3]
        weight: Body weight, 0 thin to 1 heavy.
        targets: Signed amounts of `SHAPE_TARGETS`, -1..1. [S]
    """

    age_years: float
    gender: float
    origin: NDArray[np.float32]
    weight: float
    targets: NDArray[np.float32]


class HeadShape:
    """Anny's head as linear maps on a fixed mesh, with its subdivided render mesh.

    Attributes:
        landmark_weights: Landmarks are this matrix times the coarse vertices. [68, N]
        fine_weights: Vertices after subdivision are this matrix times the coarse ones. [M, N]
        fine_triangles: Triangles over them. [T, 3]
        source: Fine vertex of each render vertex; render vertices are split at the texture's seams. [R]
        triangles: The same triangles over the render vertices. [T, 3]
        coarse_triangles: Triangles of the unrefined mesh. [T/4, 3]
        uv: Texture coordinates of the render vertices. [R, 2]
        part: Index in `PARTS` of each render vertex. [R]
        triangle_part: Index in `PARTS` of each triangle. [T]
        mean: The mean adult head in world units, normalised to the face template. [N, 3]
    """

    def __init__(self, assets: HeadAssets) -> None:
        self.assets = assets
        count = len(assets.vertices)
        self.landmark_weights = landmark_matrix(assets.base_index)
        part = np.zeros(count, np.int8)
        part[assets.quads.reshape(-1)] = np.repeat(assets.quad_part, 4)
        smooth = np.isin(part, [PARTS.index("skin"), PARTS.index("tongue")])
        fine = catmull_clark(assets.quads, count, smooth)
        source, quads, uv = split_seams(fine.quads, subdivide_corners(assets.quad_uv))
        self.coarse_part = part
        self.fine_weights: sp.csr_matrix = fine.weights
        self.fine_triangles = triangulate(fine.quads)
        self.source = source
        self.triangles = triangulate(quads)
        self.coarse_triangles = triangulate(assets.quads)
        self.uv = uv.astype(np.float32)
        self.triangle_part = np.repeat(assets.quad_part, 8)
        self.part = np.zeros(len(source), np.int8)
        self.part[self.triangles.reshape(-1)] = np.repeat(self.triangle_part, 3)
        # Anny's teeth sit too deep to show in speech and the lower ones pierce the lip of a laugh: the upper row
        # comes down 2.2 mm, the lower goes down 1.5 and back 4 mm.
        self._teeth_shift = np.zeros((count, 3), np.float32)
        self._teeth_shift[part == PARTS.index("upper_teeth"), 1] = -0.022
        self._teeth_shift[part == PARTS.index("lower_teeth"), 1:] = (-0.015, -0.04)
        self._action_index = {name: i for i, name in enumerate(ACTIONS)}
        targets = np.zeros(len(SHAPE_TARGETS), np.float32)
        third = np.full(3, 1 / 3, np.float32)
        self.mean, _ = self.neutral(Phenotype(35.0, 0.5, third, 0.5, targets))

    def neutral(self, phenotype: Phenotype) -> tuple[NDArray[np.float32], float]:
        """The neutral face fitted to the face template: vertices [N, 3], and world units per decimetre."""
        assets = self.assets
        age = _hat_weights(phenotype.age_years, _AGE_ANCHORS)
        gender = np.array([1 - phenotype.gender, phenotype.gender])
        weight = _hat_weights(phenotype.weight, (0.0, 0.5, 1.0))
        vertices = assets.vertices.copy()
        for (g, a, w), amount in np.ndenumerate(np.einsum("g,a,w->gaw", gender, age, weight)):
            if amount:
                vertices += np.float32(amount) * assets.universal[g, a, w]
        for (o, g, a), amount in np.ndenumerate(np.einsum("o,g,a->oga", phenotype.origin, gender, age)):
            if amount:
                vertices += np.float32(amount) * assets.origin[o, g, a]
        for i, amount in enumerate(phenotype.targets):
            if amount:
                vertices += np.float32(abs(amount)) * assets.shape[i, int(amount > 0)]
        points = five_points(self.landmark_weights @ vertices)
        scale, shift = fit_scale_translation(points, FIVE_POINTS)
        return (vertices * np.float32(scale) + shift.astype(np.float32)), scale

    def express(self, neutral: NDArray[np.float32], scale: float, actions: dict[str, float]) -> NDArray[np.float32]:
        """The neutral face moved by facial actions, named as in `ACTIONS`, mostly 0..1. [N, 3]"""
        moved = neutral + np.float32(scale) * self._teeth_shift
        for name, amount in actions.items():
            if amount:
                moved += np.float32(scale * amount) * self.assets.action[self._action_index[name]]
        return moved

    def refine(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of coarse vertices at the render vertices. [N, C] → [R, C]"""
        return (self.fine_weights @ values)[self.source].astype(np.float32)

    def landmarks(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """The 68 points of coarse vertices. [N, 3] → [68, 3]"""
        return (self.landmark_weights @ vertices).astype(np.float32)


@lru_cache(maxsize=1)
def load_shape() -> HeadShape:
    """The head shape, built once per process."""
    return HeadShape(load_assets())


def _hat_weights(value: float, anchors: tuple[float, ...]) -> NDArray[np.float64]:
    """Linear interpolation weights of `value` between neighbouring anchors, clamped at the ends."""
    return np.array([np.interp(value, anchors, row) for row in np.eye(len(anchors))])
