"""The speaker: a procedural head on a body that stays put while the head turns, in the light of the room."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from e3dge_video.heads import Head, HeadSampler, RenderedHead, intrinsics_matrix, look_at, paint, render, shading
from e3dge_video.heads.lighting import (
    CELL,
    GRID_SHAPE,
    LightRig,
    blur,
    directions,
    harmonics,
    splat,
    transfer,
)
from e3dge_video.heads.paint_layers import MM
from e3dge_video.heads.parts import Part
from e3dge_video.heads.spec import Expression, HeadSpec

from .wardrobe import below_neckline, load_rig, make_clothes

Array = NDArray[np.float32]

#: About where the head turns on the neck, world units.
_PIVOT = np.array((0.0, -0.13, -0.06))
#: Focal length over picture width: the head takes up about half of the height.
_FOCAL = 1.95
_DISTANCE = 2.75
#: The camera stands a little above the eyes and looks at the chin.
_TARGET = (0.0, -0.115, 0.1)
_CAMERA_PITCH = np.radians(3.0)


@dataclass(frozen=True)
class Pose:
    """Where the head is: turns in radians (yaw towards image right, pitch up, roll towards image right), shift of
    the whole body in world units (x right, y up, z towards the camera)."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Actor:
    """Renders one person in any expression and pose."""

    def __init__(self, spec: HeadSpec, size: int) -> None:
        self.spec = spec
        self.size = size
        self._sampler = HeadSampler()
        self._head_share = load_rig().head[self._sampler.shape.assets.base_index].astype(np.float32)
        clothes = make_clothes(spec)
        self._cloth_follows = np.clip(np.concatenate(clothes.follows_head), 0, 1)
        self._cloth = _joined(clothes.parts)
        rest = self._sampler.build(spec)
        self._skin = paint(rest, size)
        under = self._sampler.shape.refine(below_neckline(self._sampler.shape.mean, spec.clothing)[:, None])[:, 0]
        self._under_cloth = np.zeros(len(rest.vertices), bool)
        self._under_cloth[: len(under)] = under > 22 * MM
        self._cloth_transfer = _cloth_transfer(rest, self._cloth.vertices, self._cloth.normals)
        self._intrinsics = intrinsics_matrix()
        self._intrinsics[0, 0] = self._intrinsics[1, 1] = _FOCAL
        self._camera = look_at(0.0, _CAMERA_PITCH, 0.0, _TARGET, _DISTANCE)

    def show(self, expression: Expression, pose: Pose) -> RenderedHead:
        """One picture. [size, size]"""
        head = self._sampler.build(dataclasses.replace(self.spec, expression=expression))
        posed = self._with_body(head, self._share_of(head), pose)
        return render(posed, self._camera, self._intrinsics, self.size, skin=self._skin)

    def _share_of(self, head: Head) -> Array:
        """How much of the head's turn each vertex takes. [N]"""
        shape = self._sampler.shape
        on_skin = shape.refine(self._head_share[:, None])[:, 0]
        share = np.ones(len(head.vertices), np.float32)
        share[: len(on_skin)] = on_skin
        # Collars move with the skin beneath them; hair, lashes and glasses with the head.
        cloth = np.unique(head.triangles[head.material == shading.CLOTH])
        skin = np.unique(head.triangles[head.material == shading.SKIN])
        if len(cloth):
            _, nearest = cKDTree(head.vertices[skin]).query(head.vertices[cloth], k=4)
            share[cloth] = share[skin][nearest].mean(1)
        return np.clip(share, 0, 1)

    def _with_body(self, head: Head, share: Array, pose: Pose) -> Head:
        cloth = self._cloth
        count = len(head.vertices)
        # The head's own shoulders give way to the pullover.
        covered = (head.material == shading.SKIN) & self._under_cloth[head.triangles].any(1)
        vertices = np.concatenate([head.vertices, cloth.vertices])
        normals = np.concatenate([head.normals, cloth.normals])
        tangents = np.concatenate([head.tangents, np.zeros_like(cloth.vertices)])
        moves = np.concatenate([share, self._cloth_follows])
        transfers = np.concatenate([head.transfer, self._cloth_transfer])
        triangles = np.concatenate([head.triangles[~covered], cloth.triangles + count])
        material = np.concatenate([head.material[~covered], np.full(len(cloth.triangles), cloth.material, np.int8)])

        # A share of a turn is the turn about the same axis by a share of the angle.
        turn = Rotation.from_euler("YXZ", [pose.yaw, -pose.pitch, -pose.roll]).as_rotvec()
        partial = Rotation.from_rotvec(moves[:, None] * turn[None])
        vertices = (partial.apply(vertices - _PIVOT) + _PIVOT + np.array(pose.shift)).astype(np.float32)
        normals, tangents = (partial.apply(v).astype(np.float32) for v in (normals, tangents))
        return dataclasses.replace(
            head,
            vertices=vertices,
            normals=normals,
            tangents=tangents,
            attributes=np.concatenate([head.attributes, cloth.attributes]),
            transfer=transfers,
            irradiance=_light(transfers, moves, head.rig, turn),
            triangles=np.ascontiguousarray(triangles),
            material=material,
        )


def _joined(parts: tuple[Part, ...]) -> Part:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=False)]).astype(np.int32),
        np.concatenate([part.attributes for part in parts]),
        parts[0].material,
    )


def _light(transfers: Array, moves: Array, rig: LightRig, turn: NDArray[np.float64]) -> Array:
    """Light on each vertex when the head has turned and the lamps have not. [N, 3]"""
    samples = directions(200)
    basis = harmonics(samples).astype(np.float64)
    # Radiance seen by the turned head in its own axes, fitted exactly: harmonics of one degree turn among themselves.
    seen = harmonics(Rotation.from_rotvec(turn).apply(samples)) @ rig.coefficients
    turned = np.linalg.lstsq(basis, seen, rcond=None)[0].astype(np.float32)
    still = np.einsum("vk,kc->vc", transfers, rig.coefficients)
    moved = np.einsum("vk,kc->vc", transfers, turned)
    return np.maximum(still + moves[:, None] * (moved - still), 0.0).astype(np.float32)


def _cloth_transfer(head: Head, points: Array, normals: Array) -> Array:
    """Light transfer of the pullover in the shadow of the head. [N, 9]"""
    grid = np.zeros(GRID_SHAPE, np.float32)
    splat(head.vertices, 0.25, grid)
    splat(points - 1.5 * np.float32(CELL) * normals, 0.25, grid)
    rays = directions(64)
    return transfer(points, normals, blur(grid), rays, harmonics(rays), 1.5 * CELL, 0.1)
