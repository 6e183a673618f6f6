"""Triangle meshes of heads: from a volume of signed distances, or from a map of surface points.

Letters: B batch, D × H × W samples of a volume along depth (near to far), rows and columns; V vertices, F faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import BackendError, InputError


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: x right, y up, z towards the viewer, the generator's units. [V, 3]
        faces: Three vertices each. [F, 3]
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def unwarp_frustum(volume: Tensor, near: float, far: float, *, outside: float = 1.0) -> Tensor:
    """Resample a volume seen through a pinhole to a box as wide everywhere as the view is at `far`.

    The narrowing towards `near` is taken as linear in depth, as StyleSDF takes it.

    Args:
        volume: Values at samples of the pixels' rays. [B, D, H, W]
        near: Depth of the first samples, along the optical axis.
        far: Depth of the last ones.
        outside: Value of the box where no pixel looks; positive, that is empty, for signed distances.

    Returns:
        [B, D, H, W]
    """
    lines = (torch.linspace(-1, 1, size, dtype=volume.dtype, device=volume.device) for size in volume.shape[1:])
    z, y, x = torch.meshgrid(*lines, indexing="ij")
    widening = torch.linspace(far / near, 1, volume.shape[1], dtype=volume.dtype, device=volume.device)[:, None, None]
    grid = torch.stack([x * widening, y * widening, z], dim=-1)
    seen = (grid.abs() <= 1).all(dim=-1)
    grid = grid.expand(len(volume), -1, -1, -1, -1)
    box = F.grid_sample(volume[:, None], grid, padding_mode="border", align_corners=True)[:, 0]
    return torch.where(seen, box, outside)


def surface_mesh(sdf: Tensor, side: float) -> Mesh:
    """Surface of zero distance in a box of samples (Lorensen and Cline, "Marching Cubes", 1987).

    Args:
        sdf: Signed distances, in any unit. [D, H, W]
        side: Length of the box's sides; StyleSDF's rendered depth is 0.24.

    Raises:
        InputError: The distance has the same sign everywhere.
        BackendError: scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise BackendError(
            f"surface extraction needs scikit-image ({error}); install it with: pip install 'e3dge-video[mesh]'"
        ) from error
    volume = sdf.detach().cpu().numpy().transpose(2, 1, 0)
    if not volume.min() < 0 < volume.max():
        raise InputError(
            f"no surface: the signed distance stays between {volume.min():.3g} and {volume.max():.3g}, "
            "it must change its sign somewhere"
        )
    vertices, faces, _, _ = marching_cubes(volume, 0)
    vertices = (vertices / volume.shape - 0.5) * side * (1, -1, -1)  # rows count downwards, depth away from the viewer
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


def depth_mesh(xyz: Tensor) -> Mesh:
    """The surface that one view sees: neighbouring pixels' points joined, two triangles for each four.

    Args:
        xyz: Surface points. [3, H, W]

    Returns:
        V = H · W vertices, row by row; faces turn anticlockwise as seen by the viewer.
    """
    index = np.arange(xyz[0].numel(), dtype=np.int32).reshape(xyz.shape[1:])
    corner, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.stack([corner, below, right, right, below, across], axis=-1).reshape(-1, 3)
    return Mesh(xyz.detach().flatten(1).t().cpu().numpy().astype(np.float32), faces)
