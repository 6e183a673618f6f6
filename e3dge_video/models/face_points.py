"""The generated head's own 68 landmarks in 3D, read from its codes.

They tie a latent code to the landmarks of a picture: the camera of a real frame is found by laying these points over
the detected ones, and E0 is trained on them as the visible part of the shape (vertex loss).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FacePoints(nn.Module):
    """Latent codes → 68 points in world units. [B, L, W] → [B, 68, 3]"""

    mean_points: Tensor

    def __init__(self, latent_width: int, hidden: int = 256, count: int = 68) -> None:
        super().__init__()
        self.register_buffer("mean_points", torch.zeros(count, 3))
        self.linear = nn.Linear(latent_width, count * 3)
        self.layers = nn.Sequential(
            nn.Linear(latent_width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, count * 3),
        )

    def forward(self, latents: Tensor) -> Tensor:
        w = latents.mean(dim=1)
        # Points move by centimetres, codes by ones: the scale keeps the layers at their natural size.
        offsets = 0.1 * (self.linear(w) + self.layers(w))
        return self.mean_points + offsets.view(len(w), -1, 3)
