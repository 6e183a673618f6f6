"""Encoder inputs made from rendered heads: disturbed pictures with the exact code, camera, landmarks and matte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project
from e3dge_video.training.augmentation import AugmentationConfig, disturbed
from e3dge_video.training.head_views import HeadViews


@dataclass(frozen=True)
class EncoderBatch:
    """Pictures and what is true of them.

    Attributes:
        image: RGB in [-1, 1]. [B, 3, S, S]
        landmarks: 68 points in crop coordinates 0..1, with a detector's error. [B, 68, 2]
        matte: Visible foreground, 0..1. [B, 1, S, S]
        z: Generator latents. [B, Z]
        camera: Exact cameras.
        points: Exact 3D landmarks, world units. [B, 68, 3]
        identities: Number of each head in the data set, to look up depth or attributes. [B]
        views: Number of each view. [B]
    """

    image: Tensor
    landmarks: Tensor
    matte: Tensor
    z: Tensor
    camera: Camera
    points: Tensor
    identities: list[int]
    views: list[int]


def draw_batch(
    data: HeadViews,
    identities: np.ndarray,
    rng: np.random.Generator,
    augmentation: AugmentationConfig | None,
    landmark_noise: float = 0.02,
) -> EncoderBatch:
    """Make one batch.

    Args:
        data: Rendered heads.
        identities: Which heads; the view is drawn.
        rng: Source of every draw.
        augmentation: Disturbances, or None for clean pictures over mid-grey.
        landmark_noise: Standard deviation of the detector's error, in units of the eye distance.
    """
    images: list[NDArray[np.floating]] = []
    mattes: list[NDArray[np.floating]] = []
    views: list[int] = []
    for identity in identities:
        view = int(rng.integers(data.views))
        image: NDArray[np.floating]
        alpha: NDArray[np.floating]
        record = data.view(int(identity), view)
        if augmentation is None:
            alpha = record.rgba[..., 3].astype(np.float32) / 255
            image = alpha[..., None] * (record.rgba[..., :3].astype(np.float32) / 255 - 0.5) + 0.5
        else:
            image, alpha = disturbed(record.rgba, record.label, data.recolored_labels, rng, augmentation)
        images.append(image.transpose(2, 0, 1))
        mattes.append(alpha[None])
        views.append(view)
    ids = [int(i) for i in identities]
    # Copied into torch's own memory, whose place is always aligned alike: the last bits of a convolution depend on it.
    camera = Camera.from_eg3d(torch.tensor(data.cameras[ids, views]))
    points = torch.tensor(data.landmarks[ids])
    return EncoderBatch(
        image=torch.tensor(np.stack(images)).mul_(2).sub_(1),
        landmarks=noisy_landmarks(project(points, camera)[0], rng, landmark_noise),
        matte=torch.tensor(np.stack(mattes)),
        z=torch.tensor(data.z[ids]),
        camera=camera,
        points=points,
        identities=ids,
        views=views,
    )


def noisy_landmarks(landmarks: Tensor, rng: np.random.Generator, noise: float) -> Tensor:
    """What a detector would have said: a shift and scale of the whole face and an error of each point. [B, 68, 2]"""
    if noise == 0:
        return landmarks
    eyes = (landmarks[:, 36:42].mean(1) - landmarks[:, 42:48].mean(1)).norm(dim=1)
    mouth = landmarks[:, 48:68].mean(1) - 0.5 * (landmarks[:, 36:42].mean(1) + landmarks[:, 42:48].mean(1))
    unit = noise * torch.maximum(eyes, 0.9 * mouth.norm(dim=1))[:, None, None]

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    count = len(landmarks)
    centre = landmarks.mean(dim=1, keepdim=True)
    scaled = centre + (landmarks - centre) * (1 + 0.03 * normal(count, 1, 1))
    return scaled + unit * (1.5 * normal(count, 1, 2) + normal(count, 68, 2))
