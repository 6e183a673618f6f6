"""Close-ups of eyes and mouth, cut from the full-resolution crop along the landmarks.

A global encoder at 128 px hardly sees lips and lids; small networks on close-ups do, and what they learn on renders
holds on real video.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.config.encoders import WindowConfig

_PARTS = {"eyes": slice(36, 48), "mouth": slice(48, 68)}


def cut_window(image: Tensor, landmarks: Tensor, config: WindowConfig) -> Tensor:
    """Cut one close-up, turned so that the eye line is level.

    Args:
        image: Crop of the face. [B, 3, H, W]
        landmarks: 68 points in crop coordinates, 0..1 from edge to edge. [B, 68, 2]
        config: Which part, how large, how many pixels.

    Returns:
        The close-up. [B, 3, config.height, config.width]
    """
    left, right = landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)
    level = right - left
    # Under a turned head the eye distance shrinks but the head does not: the vertical distance from the eyes to the
    # mouth keeps the window's size.
    down = landmarks[:, 48:68].mean(1) - 0.5 * (left + right)
    distance = torch.maximum(level.norm(dim=1), 0.9 * down.norm(dim=1)).clamp_min(1e-3)
    across = F.normalize(level, dim=1)
    along = torch.stack([-across[:, 1], across[:, 0]], dim=1)
    centre = landmarks[:, _PARTS[config.part]].mean(1)
    half_width = 0.5 * config.span * distance
    half_height = half_width * config.height / config.width
    # Normalised coordinates of grid_sample run over -1..1, hence twice the 0..1 coordinates minus one.
    theta = torch.stack([2 * across * half_width[:, None], 2 * along * half_height[:, None], 2 * centre - 1], dim=2)
    grid = F.affine_grid(theta, [len(image), 3, config.height, config.width], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
