"""E_ξ: the camera of an image, read from E0's features (§4.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera


class PoseEncoder(nn.Module):
    """Head on E0's deepest map → camera.

    The paper predicts two angles because its crop removes roll and centres the head. EG3D's crop keeps roll,
    and real crops are never exact, so this head predicts all six numbers of `Camera.from_pose`.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(channels * ((side + 1) // 2) ** 2, 256),
            nn.LeakyReLU(0.2),
        )
        self.out = nn.Linear(256, 6)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def pose(self, features: Tensor) -> Tensor:
        """Yaw, pitch, roll (radians) and camera shift (world units). [B, C, h, h] → [B, 6]"""
        return self.out(self.layers(features))

    def forward(self, features: Tensor) -> Camera:
        return Camera.from_pose(self.pose(features))


def pose_error_degrees(predicted: Tensor, true: Tensor) -> Tensor:
    """Absolute error of yaw, pitch and roll in degrees. [B, 6], [B, 6] → [B, 3]"""
    return torch.rad2deg((predicted[:, :3] - true[:, :3]).abs())
