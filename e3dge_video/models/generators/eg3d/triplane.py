"""Tri-plane field: world point → three plane reads → small network → density and features.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022, section 4.1. Letters: P heads,
M points, C features. This file is the one place that reads planes; renderer and trainers only call `TriPlaneField`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.generators import PlaneAxes
from e3dge_video.models.mapping import FullyConnected
from e3dge_video.models.rendering.volume import PointSamples

#: World axes along each plane's width and height. The released networks were trained with a slip: their planes 1 and 2
#: both hold (x, z), and none holds (y, z). Their weights need it.
PLANE_AXES: dict[PlaneAxes, tuple[tuple[int, int], ...]] = {
    "released": ((0, 1), (0, 2), (2, 0)),
    "corrected": ((0, 1), (0, 2), (2, 1)),
}


class PointDecoder(nn.Module):
    """Plane features of a point → density and features. The viewing direction plays no part."""

    def __init__(self, inputs: int, hidden: int, features: int, *, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.hidden = FullyConnected(inputs, hidden, lr_multiplier=lr_multiplier)
        self.output = FullyConnected(hidden, 1 + features, lr_multiplier=lr_multiplier)

    def forward(self, plane_features: Tensor) -> PointSamples:
        """Mean of the three planes' features [P, M, C] → samples."""
        heads, points, channels = plane_features.shape
        x = self.output(F.softplus(self.hidden(plane_features.reshape(heads * points, channels))))
        x = x.view(heads, points, -1)
        # A sigmoid a little wider than [0, 1], so that pure black and white can be reached (Mip-NeRF, 2021).
        return PointSamples(x[..., :1], torch.sigmoid(x[..., 1:]) * (1 + 2 * 0.001) - 0.001)


class TriPlaneField:
    """Planes made ready for reading at many points.

    Args:
        planes: [P, 3, C, H, W]
        decoder: The network behind the planes.
        box_warp: Side of the box that the planes span, world units. Outside, planes read as zero.
    """

    def __init__(self, planes: Tensor, decoder: PointDecoder, *, box_warp: float, axes: PlaneAxes) -> None:
        self.decoder = decoder
        self.scale = 2 / box_warp
        third = planes / 3  # the mean of the three reads
        first, second, last = third.unbind(dim=1)
        if axes == "released" and planes.shape[-1] == planes.shape[-2]:
            # Planes 1 and 2 are read at the same (x, z), one of them transposed: their sum needs a single read.
            reads = [(first, PLANE_AXES[axes][0]), (second + last.transpose(2, 3), PLANE_AXES[axes][1])]
        else:
            reads = list(zip((first, second, last), PLANE_AXES[axes], strict=True))
        # Channels of a pixel side by side: one read touches four places in memory instead of 4 C.
        self.reads = [(plane.contiguous(memory_format=torch.channels_last), pair) for plane, pair in reads]

    def __call__(self, points: Tensor) -> PointSamples:
        """World points [P, M, 3] → samples."""
        boxed = points * self.scale
        first, *others = (read_plane(plane, boxed[..., axes]) for plane, axes in self.reads)
        for read in others:
            first += read  # in place: no gradient needs the summands
        return self.decoder(first.transpose(1, 2))


def read_plane(plane: Tensor, positions: Tensor) -> Tensor:
    """Bilinear reads, zero outside.

    Args:
        plane: [P, C, H, W]
        positions: (along the width, along the height) in [-1, 1], the edges of the outermost pixels. [P, M, 2]

    Returns:
        [P, C, M]
    """
    grid = positions[:, None]
    return F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, :, 0]


def read_volume(volume: Tensor, positions: Tensor) -> Tensor:
    """Trilinear reads of a voxel grid, zero outside.

    Args:
        volume: [P or 1, C, D, H, W]
        positions: (along W, along H, along D) in [-1, 1]. [P, M, 3]

    Returns:
        [P, M, C]
    """
    volume = volume.expand(len(positions), -1, -1, -1, -1)
    reads = F.grid_sample(volume, positions[:, None, None], padding_mode="zeros", align_corners=False)
    return reads[:, :, 0, 0].transpose(1, 2)
