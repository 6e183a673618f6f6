"""Depth as it is stored: 16-bit codes for depth.mkv, colours for depth.mp4."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

#: depth = code · scale + offset, world units; code 0 where there is no head.
DEPTH_OFFSET, DEPTH_SCALE = 1.5, 1.0 / 32768

#: Depths between which depth.mp4 is coloured, world units: the same for all clips, so that colours can be compared.
#: A head stands from the nose tip (about 2.35 from the camera) to the back of the shoulders.
DEPTH_RANGE = (2.3, 3.0)


def colored_depth(codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Codes in colours (near is warm) over one fixed range; black where there is no head. [n, S, S] → RGB"""
    near, far = DEPTH_RANGE
    depth = codes.astype(np.float32) * DEPTH_SCALE + DEPTH_OFFSET
    shade = np.round(255 * np.clip((far - depth) / (far - near), 0, 1)).astype(np.uint8)
    colors = np.stack([cv2.applyColorMap(frame, cv2.COLORMAP_TURBO)[..., ::-1] for frame in shade])
    return np.where(codes[..., None] > 0, colors, 0).astype(np.uint8)
