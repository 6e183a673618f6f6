"""Losses that are formulas: adversarial, of the viewpoint, of the signed distance, and structural features of images.

StyleSDF (Or-El et al. 2022) weighs the first three 1, 15, 0.1 (eikonal) and 0.05 (minimal surface) when it trains a
generator; E3DGE's own weights (section 6) are the defaults of the dataclasses here and in `image_losses.py`. All are
means over everything given, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialWeights:
    """Eq. 22: λ_adv, λ_D and λ_R1."""

    generator: float = 0.01
    discriminator: float = 0.01
    r1: float = 10.0  # γ: half of it weighs the penalty
    r1_every: int = 16  # steps; the penalty then counts as many times


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of a discriminator's scores (Goodfellow et al. 2014). Any shapes → []"""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating logistic loss of the scores of generated images. Any shape → []"""
    return F.softplus(-fake).mean()


def r1_penalty(score: Tensor, *images: Tensor) -> Tensor:
    """Squared gradient of the scores of real images by the images (Mescheder et al. 2018), itself differentiable.

    Training adds γ / 2 of it to the discriminator's loss; StyleSDF's γ is 10 for faces, 50 for animals.

    Args:
        score: What the discriminator made of `images`. [B, 1]
        images: Everything that is judged together, as EG3D's final and volume-rendered image; must have required a
            gradient before. An image that the score does not depend on adds nothing. [B, 3, H, H] each

    Returns:
        []
    """
    gradients = torch.autograd.grad(score.sum(), images, create_graph=True, materialize_grads=True)
    return torch.stack([slope.square().flatten(1).sum(dim=1).mean() for slope in gradients]).sum()


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


def structural_features(image: Tensor, *, scales: int = 4) -> list[Tensor]:
    """Edges of an image, by direction, relative to how strong edges are around them; finest scale first.

    Differences of neighbouring pixels in four directions of brightness and two colour contrasts, divided by their local
    strength: what a picture shows, whatever its light and contrast. Needs no trained network.

    Args:
        image: RGB in [-1, 1]. [B, 3, H, W]
        scales: The image and its halvings, as far as they have 8 px.

    Returns:
        [B, 12, H', W'] each
    """
    red, green, blue = image.float().unbind(dim=1)
    seen = torch.stack([(red + green + blue) / 3, (red - green) / 2, (blue - green) / 2], dim=1)
    maps = []
    for _ in range(scales):
        if min(seen.shape[-2:]) < 8:
            break
        here = seen[..., 1:-1, 1:-1]
        around = [seen[..., 1:-1, 2:], seen[..., 2:, 1:-1], seen[..., 2:, 2:], seen[..., 2:, :-2]]
        edges = torch.cat([other - here for other in around], dim=1)
        strength = F.avg_pool2d(edges.square().sum(dim=1, keepdim=True), 5, 1, 2, count_include_pad=False)
        # Below about a hundredth of the range there is noise rather than structure.
        maps.append(edges / (strength + 0.02**2).sqrt())
        seen = F.avg_pool2d(seen, 2)
    return maps


def structural_distance(image: Tensor, truth: Tensor) -> Tensor:
    """Mean squared distance of `structural_features`, mean of the scales; 0 for equal images, about 2 for unlike ones.

    [B, 3, H, W] twice → [B]
    """
    pairs = zip(structural_features(image), structural_features(truth), strict=True)
    return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).mean(dim=0)
