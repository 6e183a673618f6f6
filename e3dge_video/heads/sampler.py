"""From a latent code to a head that can be rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads import decode as decoding
from e3dge_video.heads import shading
from e3dge_video.heads.assets import PARTS
from e3dge_video.heads.decode import attributes
from e3dge_video.heads.expression import facial_actions
from e3dge_video.heads.hair import grow, ribbons
from e3dge_video.heads.hair_field import load_field, warp
from e3dge_video.heads.hair_recipes import recipe
from e3dge_video.heads.latent import Z_DIM
from e3dge_video.heads.lighting import (
    CELL,
    GRID_SHAPE,
    LightRig,
    blur,
    directions,
    harmonics,
    light_rig,
    splat,
    splat_triangles,
    transfer,
)
from e3dge_video.heads.mesh import vertex_normals
from e3dge_video.heads.paint import hair_on_skin, linear, skin_tone
from e3dge_video.heads.parts import Part, collar, glasses, lashes
from e3dge_video.heads.shape import load_shape
from e3dge_video.heads.spec import HeadSpec, Style
from e3dge_video.heads.template import BOX, HeadTemplate, load_template
from e3dge_video.heads.toon import cartoon, enlarge_eyes, rounded_normals

#: Directions of the light transfer.
_RAYS = directions(64)
_BASIS = harmonics(_RAYS)


@dataclass(frozen=True)
class Head:
    """A head in world units, ready to be rendered from any camera.

    Attributes:
        spec: What it was built from.
        vertices, normals, tangents: World positions and unit vectors. [N, 3] each
        attributes: Shader inputs, see `shading.shade`. [N, 4]
        transfer: Light transfer, nine harmonics. [N, 9]
        irradiance: Light of the spec's own rig on each vertex. [N, 3]
        triangles, material: Opaque triangles and their materials. [T, 3], [T]
        blended_triangles, blended_material: Lenses and lashes. [B, 3], [B]
        rig: The spec's light.
        landmarks: The 68 points. [68, 3]
        look: Shader numbers, see `shading.shade`. [16]
        style: How it is painted and shaded.
    """

    spec: HeadSpec
    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    tangents: NDArray[np.float32]
    attributes: NDArray[np.float32]
    transfer: NDArray[np.float32]
    irradiance: NDArray[np.float32]
    triangles: NDArray[np.int32]
    material: NDArray[np.int8]
    blended_triangles: NDArray[np.int32]
    blended_material: NDArray[np.int8]
    rig: LightRig
    landmarks: NDArray[np.float32]
    look: NDArray[np.float32]
    style: Style = "photo"


class HeadSampler:
    """Draws latent codes, decodes them and builds heads. Needs the package `anny` (extra `heads`)."""

    z_dim: int = Z_DIM

    def __init__(self) -> None:
        self.shape = load_shape()
        self.template: HeadTemplate = load_template()
        self.field = load_field()

    def sample(self, count: int, seed: int) -> NDArray[np.float32]:
        """Latent codes from N(0, I). [count, Z]"""
        return np.stack([identity_code(seed, i) for i in range(count)]) if count else np.zeros((0, Z_DIM), np.float32)

    def decode(self, z: NDArray[np.floating]) -> HeadSpec:
        """The physical description of one latent code. [Z]"""
        return decoding.decode(z)

    def attributes(self, spec: HeadSpec) -> dict[str, float]:
        """Physical attributes 0..1, in the order of `ATTRIBUTE_NAMES`."""
        return attributes(spec)

    def landmarks(self, head: Head) -> NDArray[np.float32]:
        """The 68 iBUG points of a head in world units. [68, 3]"""
        return head.landmarks

    def build(self, spec: HeadSpec, style: Style = "photo") -> Head:
        """Mesh, materials and light of a head; as a cartoon of the same person with `style` toon."""
        if style == "toon":
            spec = cartoon(spec)
        shape, template = self.shape, self.template
        neutral, scale = shape.neutral(spec.phenotype)
        displacement = neutral[self.field.control] - self.field.control_position
        face = shape.express(neutral, scale, facial_actions(spec.expression))
        if style == "toon":
            face = enlarge_eyes(face, (template.eyes[0][1], template.eyes[1][1]))
        landmarks = shape.landmarks(face)
        coarse_normals = vertex_normals(face, shape.coarse_triangles)
        thickness = template.thickness(spec)
        coarse = template.flatten_ears(spec, face + coarse_normals * thickness[:, None])

        parts = self._parts(spec, neutral, face, landmarks, displacement)
        skin = self._skin(spec, coarse, landmarks)
        hair = self._hair(spec, displacement)

        # Density for soft shadows: skin a little inside its surface, hair half transparent.
        grid = np.zeros(GRID_SHAPE, np.float32)
        blockers = template.blocking_triangles
        splat_triangles(coarse, blockers, coarse_normals, 0.75 * CELL, grid)
        for part in parts:
            if part.blocks_light:
                splat(part.vertices, 0.35, grid)
        if hair is not None:
            splat(hair.centres.reshape(-1, 3), 0.22, grid)
        grid = blur(grid)
        facing, bias = coarse_normals, 0.6 * CELL
        if style == "toon":
            # Light that starts further out knows nothing of eye sockets, but still of chin and hair.
            facing, bias = rounded_normals(coarse, coarse_normals), 2.5 * CELL
        on_skin = shape.refine(transfer(coarse, facing, grid, _RAYS, _BASIS, bias, 0.12))
        pieces = [skin, *parts]
        transfers = [on_skin]
        transfers += [transfer(part.vertices, part.normals, grid, _RAYS, _BASIS, 0.9 * CELL, 0.1) for part in parts]
        tangents = [np.zeros_like(piece.vertices) for piece in pieces]
        materials = [template.material, *[np.full(len(p.triangles), p.material, np.int8) for p in parts]]
        if hair is not None:
            pieces.append(hair.part)
            tangents.append(hair.tangents)
            materials.append(np.full(len(hair.part.triangles), shading.HAIR, np.int8))
            # Light is smooth along a strand: every third point is enough.
            count, points = hair.centres.shape[:2]
            every = np.arange(0, points, 3)
            sparse = transfer(
                np.ascontiguousarray(hair.centres[:, every].reshape(-1, 3)),
                np.ascontiguousarray(hair.outward[:, every].reshape(-1, 3)),
                grid, _RAYS, _BASIS, 0.9 * CELL, 0.3,
            ).reshape(count, len(every), 9)  # fmt: skip
            place = np.arange(points) / 3
            low = np.minimum(place.astype(int), len(every) - 2)
            share = (place - low)[None, :, None].astype(np.float32)
            along = sparse[:, low] * (1 - share) + sparse[:, low + 1] * share
            transfers.append(np.repeat(along[:, :, None], 3, axis=2).reshape(-1, 9))
        rig = light_rig(spec.light)
        starts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
        triangles = np.concatenate([piece.triangles + start for piece, start in zip(pieces, starts, strict=False)])
        material = np.concatenate(materials)
        all_transfer = np.concatenate(transfers).astype(np.float32)
        # einsum, not @: a matrix product would start BLAS threads in every worker process.
        irradiance = np.maximum(np.einsum("vk,kc->vc", all_transfer, rig.coefficients), 0.0).astype(np.float32)
        blended = np.isin(material, shading.BLENDED)
        vertices = np.concatenate([piece.vertices for piece in pieces])
        inside = (np.abs(vertices) < BOX).all(axis=1)[triangles].all(axis=1)
        drawn = ~blended & inside & (material != shading.HIDDEN)
        return Head(
            spec=spec,
            vertices=vertices,
            normals=np.concatenate([piece.normals for piece in pieces]),
            tangents=np.concatenate(tangents),
            attributes=np.concatenate([piece.attributes for piece in pieces]),
            transfer=all_transfer,
            irradiance=irradiance,
            triangles=np.ascontiguousarray(triangles[drawn]),
            material=material[drawn],
            blended_triangles=np.ascontiguousarray(triangles[blended]),
            blended_material=material[blended],
            rig=rig,
            landmarks=landmarks,
            look=_look(spec),
            style=style,
        )

    def _skin(self, spec: HeadSpec, coarse: NDArray[np.float32], landmarks: NDArray[np.float32]) -> Part:
        """Skin, eyeballs, teeth and tongue on the render mesh."""
        shape, template = self.shape, self.template
        fine = (shape.fine_weights @ coarse).astype(np.float32)
        vertices = fine[shape.source]
        normals = vertex_normals(fine, shape.fine_triangles)[shape.source]
        values = template.attributes.copy()
        for chosen, coarse_eye, lids in template.eyes:
            ball = coarse[coarse_eye]
            centre = ball.mean(0)
            # A little smaller than Anny's, so that it does not show through the lids of a squint.
            radius = 0.985 * float(np.linalg.norm(ball - centre, axis=1).mean())
            centre = centre - np.array([0.0, 0.0, 0.0012], np.float32)
            direction = vertices[chosen] - centre
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            vertices[chosen] = centre + radius * direction
            normals[chosen] = direction
            top, bottom = landmarks[lids[0]][:, 1].mean(), landmarks[lids[1]][:, 1].mean()
            half = max(0.5 * float(top - bottom), 2e-3)
            values[chosen, 3] = (vertices[chosen, 1] - 0.5 * (top + bottom)) / half
        tone = skin_tone(spec.skin.melanin, spec.skin.warmth)
        values[template.socket] = [*tone, 0.0]
        return Part(vertices, normals, shape.triangles, values, shading.SKIN)

    def _parts(
        self,
        spec: HeadSpec,
        neutral: NDArray[np.float32],
        face: NDArray[np.float32],
        landmarks: NDArray[np.float32],
        displacement: NDArray[np.float32],
    ) -> list[Part]:
        """Collar, glasses and lashes."""
        parts = []
        for part in collar(spec.clothing, self.field):
            moved = warp(part.vertices, self.field.control_position, displacement)
            parts.append(
                Part(moved, vertex_normals(moved, part.triangles), part.triangles, part.attributes, part.material, True)
            )
        neutral_landmarks = self.shape.landmarks(neutral)
        parts += glasses(spec.glasses, neutral_landmarks, float(neutral_landmarks[17:27, 2].max()))
        for side, (_, coarse_eye, _) in zip((-1.0, 1.0), self.template.eyes, strict=True):
            upper, lower = self.template.lid_edges[0 if side < 0 else 1]
            amount = float(np.clip(0.15 + 0.55 * spec.eyes.lashes + 0.4 * spec.makeup.eyeliner, 0, 1))
            parts.append(lashes(face[upper], face[lower], face[coarse_eye].mean(0), amount, side))
        return parts

    def _hair(self, spec: HeadSpec, displacement: NDArray[np.float32]) -> _Hair | None:
        """Ribbons of the hair, warped to the person's head."""
        style = recipe(spec)
        if style is None:
            return None
        scalp = hair_on_skin(spec)
        strands = grow(style, self.field, scalp["recession"], scalp["crown"])
        if not len(strands.points):
            return None
        centres = warp(strands.points.reshape(-1, 3), self.field.control_position, displacement)
        centres = centres.reshape(strands.points.shape)
        vertices, normals, tangents, values, triangles = ribbons(strands, centres)
        part = Part(vertices, normals, triangles, values, shading.HAIR)
        return _Hair(part, tangents, centres, strands.outward)


@dataclass(frozen=True)
class _Hair:
    part: Part
    tangents: NDArray[np.float32]
    centres: NDArray[np.float32]
    outward: NDArray[np.float32]


def identity_code(seed: int, index: int) -> NDArray[np.float32]:
    """The latent code of identity `index` of a seed, whatever else is drawn. [Z]"""
    return np.random.default_rng([seed, index]).standard_normal(Z_DIM).astype(np.float32)


_IRISES = np.array(
    [
        (0.0, 52, 30, 18), (0.25, 84, 50, 27), (0.45, 112, 84, 46), (0.62, 92, 108, 76), (0.8, 84, 122, 156),
        (1.0, 120, 142, 160),
    ]
)  # fmt: skip


def _look(spec: HeadSpec) -> NDArray[np.float32]:
    """Numbers of the shaders that are the same over a head."""
    eyes, hair = spec.eyes, spec.hair
    tone = np.array([np.interp(eyes.iris, _IRISES[:, 0], _IRISES[:, k]) for k in (1, 2, 3)]) / 255
    iris = linear(np.clip(tone * (0.85 + 0.4 * eyes.lightness), 0, 1))
    look = np.zeros(16, np.float32)
    look[0:3] = iris
    look[3] = 0.19
    look[4] = 0.15 + 0.6 * eyes.redness
    look[5:8] = linear(hair.colour)
    look[8] = hair.shine
    look[9] = hair.contrast
    look[10] = hair.grey
    look[11] = spec.glasses.tint
    look[12] = spec.skin.gloss
    return look


assert PARTS[0] == "skin"
