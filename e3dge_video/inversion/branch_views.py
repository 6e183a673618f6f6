"""A global reconstruction as the encoders of the local branch see it, for each kind of generator."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import axial_depth, unproject
from e3dge_video.inversion.detail import View, normalised_depth
from e3dge_video.inversion.maps import resized
from e3dge_video.models.generators.base import RenderOutput
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender

#: Side of the pictures that the local branch sees, pixels.
DETAIL_SIZE = 256


class Viewing(Protocol):
    """What makes a `View` of a rendering."""

    def __call__(self, rendered: RenderOutput, camera: Camera) -> View: ...


def smooth_view(rendered: RenderOutput, camera: Camera) -> View:
    """EG3D's: the raw neural image and the distances along the rays, enlarged smoothly."""
    picture, depth = (resized(values, DETAIL_SIZE) for values in (rendered.rgb, rendered.depth))
    return View(picture, normalised_depth(depth), unproject(rendered.depth, camera), camera)


def released_view(rendered: RenderOutput, camera: Camera) -> View:
    """StyleSDF's, as its weights were released: the thumbnail and the depth along the optical axis, nearest pixels."""
    assert isinstance(rendered, SurfaceRender)
    depth = _repeated(optical_depth(rendered, camera))
    return View(_repeated(rendered.rgb), depth, surface_points(rendered), camera)


def surface_points(rendered: SurfaceRender) -> Tensor:
    """Expected surface points of all pixels, row by row, world units. [B, R·R, 3]"""
    return rendered.xyz.flatten(2).transpose(1, 2)


def optical_depth(rendered: SurfaceRender, camera: Camera) -> Tensor:
    """Depth of the expected surface along the optical axis, world units, which the released E1 sees. [B, 1, R, R]"""
    return axial_depth(surface_points(rendered), camera).unflatten(1, rendered.xyz.shape[-2:])[:, None]


def _repeated(values: Tensor) -> Tensor:
    """A rendered map at the encoders' size; nearest, as the released weights were trained. [B, C, 256, 256]"""
    return F.interpolate(values, (DETAIL_SIZE, DETAIL_SIZE), mode="nearest")
