"""Small conversions between pixel layouts that more than one reader needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def on_white(picture: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a transparent picture on white. [H, W, 3], [H, W] → [H, W, 3]"""
    cover = alpha[..., None].astype(np.uint16)
    blended = picture * cover + 255 * (255 - cover)
    return ((blended + 127) // 255).astype(np.uint8)
