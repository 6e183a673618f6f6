"""New views of heads that no part was trained on: the generator's pictures, depth and normals against exact renders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.evaluation.exact_heads import exact_view
from e3dge_video.evaluation.metrics import peak_signal_to_noise, structural_similarity
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import unproject
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.models.generators.base import Generator, Planes
from e3dge_video.training.head_views import HeadViews

#: Side of the maps that normals are taken from, pixels.
_NORMAL_SIZE = 128


@torch.no_grad()
def new_view_figures(inverter: Inverter, data: HeadViews, rows: Sequence[int], *, view: int = 1) -> dict[str, float]:
    """Heads drawn from their exact codes, at the pictures' size.

    Args:
        inverter: A model whose z is that of the data set.
        data: Where codes and cameras come from.
        rows: Which heads.
        view: Which of their cameras.

    Returns:
        PSNR (dB) and SSIM of the whole picture over grey, PSNR on the head, median depth error (world units), mean
        angle between normals (degrees).
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        label = data.cameras[row, view]
        camera = Camera.from_eg3d(torch.from_numpy(label)[None])
        truth = exact_view(data.z[row], label, inverter.resolution)
        latents = inverter.generator.map(torch.from_numpy(data.z[[row]]))
        planes = inverter.generator.planes(latents)
        layer = inverter.layer(planes, latents, camera)
        image = 2 * layer.color - layer.alpha
        squared = (image - truth.image).square().mean(dim=1, keepdim=True)
        inside = (truth.alpha > 0.5).float()
        both = (truth.alpha > 0.5) & (layer.alpha > 0.5) & (truth.depth > 0)
        figures = {
            "psnr": float(peak_signal_to_noise(image, truth.image)),
            "psnr_head": float(-10 * torch.log10((squared * inside).sum() / inside.sum() / 4)),
            "ssim": float(structural_similarity(image, truth.image)),
            "depth": float((layer.depth - truth.depth).abs()[both].median()),
            "normal_deg": normal_error(inverter.generator, planes, camera, data.z[row], label),
        }
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def normal_error(generator: Generator, planes: Planes, camera: Camera, z: np.ndarray, label: np.ndarray) -> float:
    """Mean angle between the normals of one head's rendered depth and the exact ones, degrees; inside its outline."""
    rendered = generator.render(planes, camera, resolution=_NORMAL_SIZE)
    truth = exact_view(z, label, _NORMAL_SIZE)
    whole = ((truth.alpha > 0.98) & (rendered.alpha > 0.98)).float()
    inside = -F.max_pool2d(-whole, 5, 1, 2) > 0
    cosine = (surface_normals(rendered.depth, camera) * truth.normal).sum(dim=1, keepdim=True).clamp(-1, 1)
    return float(torch.rad2deg(torch.arccos(cosine))[inside].mean())


def surface_normals(depth: Tensor, camera: Camera) -> Tensor:
    """Unit normals of a depth map of ray lengths, towards the camera, world axes. [B, 1, S, S] → [B, 3, S, S]"""
    size = depth.shape[-1]
    points = unproject(depth, camera).unflatten(1, (size, size)).permute(0, 3, 1, 2)
    padded = F.pad(points, (1, 1, 1, 1), mode="replicate")
    across, down = (
        padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2],
        padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1],
    )
    normal = F.normalize(torch.linalg.cross(down, across, dim=1), dim=1)
    toward = ((camera.position[:, :, None, None] - points) * normal).sum(dim=1, keepdim=True)
    return torch.where(toward < 0, -normal, normal)
