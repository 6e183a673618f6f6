"""E_ξ: the camera of an image, read from E0's features (§4.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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


class ViewpointEncoder(nn.Module):
    """Head on E0's deepest map → azimuth and elevation, the paper's E_ξ (§4.4).

    The camera is then the generator's own: `Generator.camera_at`. Roll and scale are the crop's business.

    Args:
        channels: Of the map.
        side: Of the map, a power of two.
        width: Channels inside.
    """

    def __init__(self, channels: int, side: int, width: int = 256) -> None:
        super().__init__()
        steps = int(math.log2(side))
        self.convs = nn.ModuleList(nn.Conv2d(width if k else channels, width, 3, 2, 1) for k in range(steps))
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.out.weight)  # at first every picture is seen from the front
        nn.init.zeros_(self.out.bias)

    def pose(self, features: Tensor) -> Tensor:
        """Azimuth and elevation, radians. [B, C, h, h] → [B, 2]"""
        for conv in self.convs:
            features = F.leaky_relu(conv(features), 0.2)
        return self.out(features.flatten(1))


def pose_error_degrees(predicted: Tensor, true: Tensor) -> Tensor:
    """Absolute error of yaw, pitch and roll in degrees. [B, 6], [B, 6] → [B, 3]"""
    return torch.rad2deg((predicted[:, :3] - true[:, :3]).abs())
