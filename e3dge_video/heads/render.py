"""Pictures of a head: anti-aliased colour and alpha, with exact depth, normals and labels at the pixel centres.

Samples sit on a grid of half-pixel pitch of which every second one is a pixel centre. Colour and alpha are filtered
with a three by three tent around each centre; depth, normal and label are those of the centre itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads import shading
from e3dge_video.heads.blending import blend
from e3dge_video.heads.outlines import draw_outlines
from e3dge_video.heads.paint import PaintedSkin, paint_skin
from e3dge_video.heads.paint_layers import load_layers
from e3dge_video.heads.raster import project, rasterize
from e3dge_video.heads.sampler import Head
from e3dge_video.heads.toon import plain_layers
from e3dge_video.heads.toon_shading import shade_toon

#: Width of a cartoon's outlines as a share of the picture.
_LINE = 1.7 / 256
#: Up to this image size the skin is painted at half resolution.
_HALF_PAINT_SIZE = 160


@dataclass(frozen=True)
class RenderedHead:
    """One picture, S pixels wide and high.

    Attributes:
        rgb: Straight (not premultiplied) sRGB colour. [S, S, 3] uint8
        alpha: Coverage with smooth edges. [S, S] uint8
        depth: Distance from the camera along the pixel centre's ray, world units, 0 where nothing is. [S, S] float32
        normal: Unit surface normal in world axes, 0 where nothing is. [S, S, 3] float32
        label: Index in `paint.LABELS`. [S, S] uint8
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    label: NDArray[np.uint8]


def paint(head: Head, size: int) -> PaintedSkin:
    """The head's painted skin at the resolution that pictures of a size need; shared by all views."""
    layers = plain_layers if head.style == "toon" else load_layers
    return paint_skin(head.spec, layers(size <= _HALF_PAINT_SIZE))


def render(
    head: Head,
    cam2world: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    size: int,
    *,
    skin: PaintedSkin | None = None,
) -> RenderedHead:
    """Render one view.

    Args:
        head: From `HeadSampler.build`.
        cam2world: OpenCV axes. [4, 4]
        intrinsics: Divided by the image size. [3, 3]
        size: Width and height in pixels.
        skin: From `paint`, to share it between views.
    """
    half_paint = size <= _HALF_PAINT_SIZE
    skin = skin or paint(head, size)
    attributes = head.attributes
    if half_paint:
        attributes = attributes.copy()
        on_atlas = np.zeros(len(attributes), bool)
        on_atlas[head.triangles[head.material == shading.SKIN]] = True
        attributes[on_atlas, :2] = (attributes[on_atlas, :2] - 0.5) / 2
    cam2world = np.asarray(cam2world, np.float64)
    world2cam = np.linalg.inv(cam2world).astype(np.float32)
    camera = cam2world[:3, 3].astype(np.float32)
    grid = 2 * size + 1
    projected = project(head.vertices, world2cam, np.asarray(intrinsics, np.float32), 2.0 * size, 0.0)
    inverse_depth = np.zeros((grid, grid), np.float32)
    seen = np.full((grid, grid), -1, np.int32)
    bary = np.zeros((grid, grid, 2), np.float32)
    two_sided = head.material >= shading.HAIR
    rasterize(projected, head.triangles, two_sided, grid, inverse_depth, seen, bary)
    colour = np.empty((grid, grid, 3), np.float32)
    normal = np.empty((grid, grid, 3), np.float32)
    label = np.empty((grid, grid), np.uint8)
    rig = head.rig
    if head.style == "toon":
        shade_toon(
            seen, bary, head.triangles, head.material, head.vertices, head.normals, attributes, head.irradiance,
            skin.colour, skin.label, camera, rig.direction, head.look, colour, normal, label,
        )  # fmt: skip
        draw_outlines(inverse_depth, normal, label, max(2 * size * _LINE, 1.0), colour)
    else:
        shading.shade(
            seen, bary, head.triangles, head.material, head.vertices, head.normals, head.tangents, attributes,
            head.irradiance, skin.colour, skin.label, camera, rig.direction, rig.highlight, rig.ambient, head.look,
            colour, normal, label,
        )  # fmt: skip
    cover = (seen >= 0).astype(np.float32)
    if len(head.blended_triangles):
        order = np.argsort(projected[head.blended_triangles, 2].mean(1), kind="stable")
        blend(
            projected, head.blended_triangles[order], head.blended_material[order], head.vertices, head.normals,
            attributes, head.irradiance, inverse_depth, camera, rig.ambient, colour, cover,
        )  # fmt: skip
    rgb = np.empty((size, size, 3), np.uint8)
    alpha = np.empty((size, size), np.uint8)
    _resolve(colour, cover, rgb, alpha)
    centres = slice(1, None, 2)
    inverse = inverse_depth[centres, centres]
    rays = _ray_lengths(np.asarray(intrinsics, np.float64), size)
    depth = np.where(inverse > 0, rays / np.maximum(inverse, 1e-9), 0.0).astype(np.float32)
    return RenderedHead(
        rgb, alpha, depth, np.ascontiguousarray(normal[centres, centres]), np.ascontiguousarray(label[centres, centres])
    )


def _ray_lengths(intrinsics: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Length of each pixel centre's ray per unit of camera z. [S, S]"""
    centre = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centre, centre)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(intrinsics).T
    return np.linalg.norm(rays / rays[..., 2:], axis=-1)


@numba.njit(cache=True, fastmath=True)
def _resolve(
    colour: NDArray[np.float32], cover: NDArray[np.float32], rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]
) -> None:
    """Tone-map samples, filter them with a tent around each pixel centre, and encode as sRGB."""
    size = alpha.shape[0]
    grid = cover.shape[0]
    table = np.empty(4097, np.float32)
    for i in range(4097):
        x = i / 4096.0
        table[i] = 255.0 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055)
    for y in range(grid):
        for x in range(grid):
            if cover[y, x] > 0:
                for k in range(3):
                    c = colour[y, x, k]
                    # Straight up to 0.6, then a soft shoulder to 1.
                    colour[y, x, k] = c if c < 0.6 else 0.6 + 0.4 * (1.0 - np.exp(-(c - 0.6) / 0.4))
    for i in range(size):
        for j in range(size):
            total, red, green, blue = 0.0, 0.0, 0.0, 0.0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    y, x = 2 * i + 1 + dy, 2 * j + 1 + dx
                    c = cover[y, x]
                    if c > 0.0:
                        w = c * (2 - abs(dy)) * (2 - abs(dx))
                        total += w
                        red += w * colour[y, x, 0]
                        green += w * colour[y, x, 1]
                        blue += w * colour[y, x, 2]
            if total > 0.0:
                alpha[i, j] = np.uint8(min(255.0, total * (255.0 / 16.0) + 0.5))
                rgb[i, j, 0] = np.uint8(table[int(min(max(red / total, 0.0), 1.0) * 4096.0)] + 0.5)
                rgb[i, j, 1] = np.uint8(table[int(min(max(green / total, 0.0), 1.0) * 4096.0)] + 0.5)
                rgb[i, j, 2] = np.uint8(table[int(min(max(blue / total, 0.0), 1.0) * 4096.0)] + 0.5)
            else:
                alpha[i, j] = 0
                rgb[i, j, 0] = 0
                rgb[i, j, 1] = 0
                rgb[i, j, 2] = 0
