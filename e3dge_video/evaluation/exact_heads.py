"""What should be seen: procedural heads rendered exactly, from any camera, with any edit.

Needs the extra `heads`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.heads.dataset import shared_sampler
from e3dge_video.heads.render import render


@dataclass(frozen=True)
class ExactView:
    """One rendered head.

    Attributes:
        image: RGB in [-1, 1] over mid-grey. [1, 3, S, S]
        alpha: Opacity. [1, 1, S, S]
        depth: Distance along the ray, world units, 0 where nothing is. [1, 1, S, S]
        normal: Unit normals in world axes, 0 where nothing is. [1, 3, S, S]
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor


def exact_view(z: NDArray[np.floating], camera: NDArray[np.floating], size: int) -> ExactView:
    """The head of a code [Z] from the camera of an EG3D label [25]."""
    sampler = shared_sampler()
    head = sampler.build(sampler.decode(np.asarray(z, np.float32)))
    shot = render(head, camera[:16].reshape(4, 4), camera[16:].reshape(3, 3), size)
    color, alpha, normal = (
        torch.from_numpy(np.asarray(values, np.float32))[None]
        for values in (shot.rgb.transpose(2, 0, 1), shot.alpha[None], shot.normal.transpose(2, 0, 1))
    )
    alpha = alpha / 255
    return ExactView(alpha * (color / 127.5 - 1), alpha, torch.from_numpy(shot.depth)[None, None], normal)
