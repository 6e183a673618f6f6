"""Tri-plane field: world point → three plane reads → small network → density and features.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022, section 4.1. Letters: P heads,
M points, C features. This file is the one place that reads planes; renderer and trainers only call `TriPlaneField`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.generators import PlaneAxes
from e3dge_video.models.activations import softplus
from e3dge_video.models.generators.base import PointModulation
from e3dge_video.models.mapping import FullyConnected
from e3dge_video.models.parallel import needs_gradient
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
        """f_G, the mean of the three planes' features [P, M, C] → samples."""
        heads, points, channels = plane_features.shape
        x = softplus(self.hidden(plane_features.reshape(heads * points, channels)))
        weight, bias = self._read_out()
        density = torch.matmul(x, weight[0]) + bias[0]  # apart from the features, which then lie side by side
        return PointSamples(density.view(heads, points, 1), self._features(x, weight, bias).view(heads, points, -1))

    def features(self, plane_features: Tensor) -> Tensor:
        """The samples' features alone, of f_G that local detail has modulated. [P, M, C] → [P, M, F]"""
        x = softplus(self.hidden(plane_features.flatten(0, 1)))
        return self._features(x, *self._read_out()).unflatten(0, plane_features.shape[:2])

    def _read_out(self) -> tuple[Tensor, Tensor]:
        assert self.output.bias is not None
        return self.output.weight * self.output.weight_gain, self.output.bias * self.output.bias_gain

    @staticmethod
    def _features(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        features = torch.addmm(bias[1:], x, weight[1:].t()).sigmoid_()
        # A sigmoid a little wider than [0, 1], so that pure black and white can be reached (Mip-NeRF, 2021).
        return features.mul(1 + 2 * 0.001).sub_(0.001)


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
            self.reads = [(first, PLANE_AXES[axes][0]), (second + last.transpose(2, 3), PLANE_AXES[axes][1])]
        else:
            self.reads = list(zip((first, second, last), PLANE_AXES[axes], strict=True))
        on_cpu = planes.device.type == "cpu"
        self.table = PixelTable(self.reads) if on_cpu and not needs_gradient(planes) else None

    def __call__(self, points: Tensor) -> PointSamples:
        """World points [P, M, 3] → samples."""
        return self.decoder(self.read(points))

    def read(self, points: Tensor) -> Tensor:
        """f_G: mean of the three planes' features at world points. [P, M, 3] → [P, M, C]"""
        boxed = points * self.scale
        if self.table is not None and not needs_gradient(points):
            return self.table(boxed)
        first, *others = (read_plane(plane, boxed[..., axes]) for plane, axes in self.channels_last)
        for read in others:
            first += read  # in place: no gradient needs the summands
        return first.transpose(1, 2)

    def detailed(self, points: Tensor, modulation: PointModulation) -> Tensor:
        """Features at world points with local detail (E3DGE, Eq. 9). [P, M, 3] → [P, M, F]"""
        return self.decoder.features(modulation(points)(self.read(points)))

    @cached_property
    def channels_last(self) -> list[tuple[Tensor, tuple[int, int]]]:
        """The planes with the channels of a pixel side by side: a read touches four places in memory instead of 4 C."""
        return [(plane.contiguous(memory_format=torch.channels_last), axes) for plane, axes in self.reads]


class PixelTable:
    """All pixels of all planes in one list, for reading without gradients on a CPU.

    A read of K planes is one weighted sum of 4 K rows of the list. Each plane has a frame of zeros, so that reading
    outside needs no conditions.

    Args:
        reads: Planes [P, C, H, W], and the axes along their width and height.
    """

    def __init__(self, reads: Sequence[tuple[Tensor, tuple[int, int]]]) -> None:
        self.axes = [axes for _, axes in reads]
        heads, channels, self.height, self.width = reads[0][0].shape
        dtype = torch.promote_types(reads[0][0].dtype, torch.float32)  # of positions, also where planes are half
        rows = torch.zeros(heads, len(reads), self.height + 2, self.width + 2, channels, dtype=dtype)
        for index, (plane, _) in enumerate(reads):
            rows[:, index, 1:-1, 1:-1] = plane.permute(0, 2, 3, 1)
        self.rows = rows.view(-1, channels)

    def __call__(self, positions: Tensor) -> Tensor:
        """Sums of the reads at positions [P, M, 3] in the box [-1, 1]³. [P, M, C]"""
        heads, count, _ = positions.shape
        sides = {(axis, size) for pair in self.axes for axis, size in zip(pair, (self.width, self.height), strict=True)}
        cells = {(axis, size): _cell(positions[..., axis], size) for axis, size in sides}
        line, plane = self.width + 2, (self.width + 2) * (self.height + 2)
        first = torch.arange(heads, dtype=torch.int32)[:, None] * (plane * len(self.axes))
        steps = torch.tensor([0, 1, line, line + 1], dtype=torch.int32)[:, None, None]
        corners = torch.empty(len(self.axes), 4, heads, count, dtype=torch.int32)
        weights = self.rows.new_empty(len(self.axes), 2, 2, heads, count)
        for index, (a, b) in enumerate(self.axes):
            (column, across), (row, along) = cells[a, self.width], cells[b, self.height]
            torch.add(torch.add(column, row, alpha=line).add_(first + index * plane), steps, out=corners[index])
            torch.mul(along[:, None], across, out=weights[index])
        rows, shares = (values.flatten(-2).flatten(0, -2).t().contiguous() for values in (corners, weights))
        return F.embedding_bag(rows, self.rows, per_sample_weights=shares, mode="sum").view(heads, count, -1)


def _cell(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where positions in [-1, 1] [P, M] are among a framed plane's pixels.

    Returns:
        The pixel before (int32) [P, M], shares of this one and of the next [2, P, M].
    """
    pixels = (positions * (size / 2)).add_((size + 1) / 2).clamp_(0, size + 1)
    before = pixels.to(torch.int32).clamp_max_(size)
    shares = pixels.new_empty(2, *pixels.shape)
    torch.sub(pixels, before, out=shares[1])
    torch.sub(1, shares[1], out=shares[0])
    return before, shares


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
