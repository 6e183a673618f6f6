"""Where clothes begin: the neckline of each style around the mean head's neck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.spec import Clothing

#: Where the vertical axis of the neck's rings stands.
NECK_AXIS_Z = -0.075


def neckline(spec: Clothing, azimuth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Height of the cloth's upper edge at an azimuth (radians, 0 in front), world units of the mean head."""
    front = 0.5 + 0.5 * np.cos(azimuth)
    lower = -0.02 * spec.neckline
    if spec.style == "turtleneck":
        return -0.185 - 0.055 * front + 0.4 * lower
    if spec.style == "crew":
        return -0.222 - 0.092 * front**1.5 + lower
    if spec.style == "v_neck":
        return -0.222 - 0.085 * front**1.5 - 0.16 * np.clip(1 - np.abs(azimuth) / 0.75, 0, 1) + lower
    if spec.style == "shirt":
        return -0.215 - 0.085 * front**1.5 - 0.17 * np.clip(1 - np.abs(azimuth) / 0.42, 0, 1) + lower
    return -0.222 - 0.085 * front**1.5 - 0.05 * np.clip(1 - np.abs(azimuth) / 0.7, 0, 1) + lower
