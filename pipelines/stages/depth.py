"""Depth as it is stored: 16-bit codes for depth.mkv, colours for depth.mp4."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

#: depth = code · scale + offset, world units; code 0 where there is no head.
DEPTH_OFFSET, DEPTH_SCALE = 1.5, 1.0 / 32768

#: Depths between which depth.mp4 is coloured, world units: the same for all clips, so that colours can be compared.
#: A head stands from the nose tip (about 2.35 from the camera) to the back of the shoulders.
DEPTH_RANGE = (2.3, 3.0)


def colored_depth(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Codes in colours (near is warm) over one fixed range; black where there is no head. [..., S, S] → RGB"""
    return _colors()[codes]


@cache
def _colors() -> NDArray[np.uint8]:
    """The colour of every code. [65536, 3]"""
    near, far = DEPTH_RANGE
    depth = np.arange(1 << 16) * DEPTH_SCALE + DEPTH_OFFSET
    shade = np.round(255 * np.clip((far - depth) / (far - near), 0, 1)).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(shade[:, None], cv2.COLORMAP_TURBO), np.uint8)[:, 0, ::-1].copy()
    colors[0] = 0
    return colors
