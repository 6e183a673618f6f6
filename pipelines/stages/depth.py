"""Depth as it is stored: 16-bit codes for depth.mkv, colours for depth.mp4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

#: depth = code · scale + offset, world units; code 0 where there is no head. Of EG3D's cameras.
DEPTH_OFFSET, DEPTH_SCALE = 1.5, 1.0 / 32768

#: Depths between which depth.mp4 is coloured, world units: the same for all clips, so that colours can be compared.
#: A head stands from the nose tip (about 2.35 from the camera) to the back of the shoulders.
DEPTH_RANGE = (2.3, 3.0)


@dataclass(frozen=True)
class DepthCode:
    """How the depths of a model are stored and coloured, world units; the defaults are EG3D's."""

    offset: float = DEPTH_OFFSET
    scale: float = DEPTH_SCALE
    shown: tuple[float, float] = DEPTH_RANGE


EG3D_DEPTH = DepthCode()
#: StyleSDF's cameras stand at 1, and its heads reach 0.12 to either side of the world's origin.
STYLESDF_DEPTH = DepthCode(0.75, 1.0 / 131072, (0.9, 1.12))


def depth_code_of(backbone: str) -> DepthCode:
    """The code of a kind of generator."""
    return STYLESDF_DEPTH if backbone == "stylesdf" else EG3D_DEPTH


def colored_depth(codes: NDArray[np.uint16], code: DepthCode = EG3D_DEPTH) -> NDArray[np.uint8]:
    """Codes in colours (near is warm) over one fixed range; black where there is no head. [..., S, S] → RGB"""
    return _colors(code)[codes]


@cache
def _colors(code: DepthCode) -> NDArray[np.uint8]:
    """The colour of every code. [65536, 3]"""
    near, far = code.shown
    depth = np.arange(1 << 16) * code.scale + code.offset
    shade = np.round(255 * np.clip((far - depth) / (far - near), 0, 1)).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(shade[:, None], cv2.COLORMAP_TURBO), np.uint8)[:, 0, ::-1].copy()
    colors[0] = 0
    return colors
