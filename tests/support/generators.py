"""Codes and cameras for small generators."""

from __future__ import annotations

import torch
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.generators.base import Generator


def latents_of(generator: Generator, count: int) -> Tensor:
    """The same random codes each time. [count, L, W]"""
    return generator.map(torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(1))).detach()


def orbit(count: int) -> Camera:
    """Different EG3D cameras around the front."""
    return Camera.orbit(torch.linspace(-0.4, 0.4, count), torch.linspace(0.1, -0.1, count))
