"""Losses of the generators' own training: adversarial, of the viewpoint, and of the signed distance.

StyleSDF (Or-El et al. 2022) weighs them 1, 15, 0.1 (eikonal) and 0.05 (minimal surface). All are means over everything
given.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of a discriminator's scores (Goodfellow et al. 2014). Any shapes → []"""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating logistic loss of the scores of generated images. Any shape → []"""
    return F.softplus(-fake).mean()


def r1_penalty(score: Tensor, image: Tensor) -> Tensor:
    """Squared gradient of the scores of real images by the images (Mescheder et al. 2018), itself differentiable.

    Training adds γ / 2 of it to the discriminator's loss; StyleSDF's γ is 10 for faces, 50 for animals.

    Args:
        score: What the discriminator made of `image`. [B, 1]
        image: Must have required a gradient before. [B, 3, H, H]

    Returns:
        []
    """
    [gradient] = torch.autograd.grad(score.sum(), image, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def viewpoint_loss(estimated: Tensor, viewpoint: Tensor) -> Tensor:
    """Smooth L1 distance of azimuths and elevations, radians. [B, 2], [B, 2] → []"""
    return F.smooth_l1_loss(estimated, viewpoint)


def eikonal_loss(gradient: Tensor) -> Tensor:
    """How far the derivative of a signed distance by the point is from unit length. [..., 3] → []"""
    return (gradient.norm(dim=-1) - 1).square().mean()


def minimal_surface_loss(sdf: Tensor, *, sharpness: float = 100.0) -> Tensor:
    """Share of points that lie on the surface or near it: keeps surfaces away that no image shows. Any shape → []"""
    return torch.exp(-sharpness * sdf.abs()).mean()


def sphere_distance(points: Tensor, radius: float) -> Tensor:
    """Signed distance of a sphere around the world origin, the target of a field's first steps.

    StyleSDF's sphere has a quarter of the rendered depth range as its radius: 0.06.

    Args:
        points: World coordinates. [..., 3]

    Returns:
        World units, negative inside. [...]
    """
    return points.norm(dim=-1) - radius
