"""Two views of one head, for training what has to look right from elsewhere (two-view training, §4.3).

What makes a head this one and no other is drawn into both views alike: a pattern in space (prints, patches, moles:
local detail that no code holds), recoloured hair and clothes, the light's colour. What a camera does to a picture
(blur, noise, compression, somebody's hand) only meets the input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project, unproject
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.augmentation import AugmentationConfig, camera_disturbance, color_cast, composite, occluded
from e3dge_video.training.backgrounds import random_background
from e3dge_video.training.encoder_data import noisy_landmarks
from e3dge_video.training.head_views import HeadView, HeadViews


@dataclass(frozen=True)
class ViewPairs:
    """Two views of each of P heads; all pictures RGB in [-1, 1].

    Attributes:
        image: What an encoder sees. [P, 2, 3, S, S]
        truth: What the generator should show from there: the same head without what a camera did to the picture.
            [P, 2, 3, S, S]
        alpha: Opacity of the head in `truth`, which stands on black. [P, 2, 1, S, S]
        landmarks: 68 points in crop coordinates 0..1, with a detector's error. [P, 2, 68, 2]
        camera: Exact cameras, the two of each head one after the other. 2P of them
        z: Codes of the heads: both views' heads, which differ where a pair shows an edit. [P, 2, Z], or W+ codes
            [P, 2, L, W] of a generator's own heads
        neural: `truth` before super-resolution; None: not known. [P, 2, 3, R, R]
        whole: `truth` at the generator's own size; None: not known. [P, 2, 3, H, H]
    """

    image: Tensor
    truth: Tensor
    alpha: Tensor
    landmarks: Tensor
    camera: Camera
    z: Tensor
    neural: Tensor | None = None
    whole: Tensor | None = None

    @property
    def edited(self) -> bool:
        """Whether the second picture of each pair shows an edit of the first one's head."""
        return not torch.equal(self.z[:, 0], self.z[:, 1])

    def edit_of(self, generator: Generator) -> Tensor:
        """What turns the codes of each picture's head into those of the other one of its pair. [2P, L, W]"""
        codes = self.z.flatten(0, 1)
        w = (codes if codes.ndim == 3 else generator.map(codes)).unflatten(0, (-1, 2))
        return (w.flip(1) - w).flatten(0, 1)


class PairSource(Protocol):
    """Where pairs come from."""

    def draw(self, count: int, rng: np.random.Generator, *, step: int = 0) -> ViewPairs:
        """Pairs to train on, at a step of training."""

    def held_out(self, index: int) -> ViewPairs:
        """One pair that `draw` never gives, the same every time."""


@dataclass(frozen=True)
class PairConfig:
    """Where pairs of rendered heads come from, and how they are changed."""

    data: Path = Path("heads")
    held_out: int = 256
    #: Let the second view be of the head's edit where the data set holds one (`train heads --pairs`).
    edits: bool = False
    pattern: float = 0.8  # probability of a pattern in space
    recolor: float = 0.3
    color: float = 0.9
    occluder: float = 0.1
    augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(blur=0.2, rescale=0.25, sharpen=0.15, jpeg=0.4, noise=0.3)
    )
    landmark_noise: float = 0.015


class HeadViewPairs:
    """Pairs of rendered heads.

    Args:
        config: Where they lie, and how they are changed.

    Raises:
        ConfigError: The data set has one view of each head only, or no edits where they are asked for.
    """

    def __init__(self, config: PairConfig) -> None:
        self.config, self.data = config, HeadViews(config.data, config.held_out)
        data = self.data
        if data.views < 2:
            raise ConfigError(f"{config.data}: one view of each head; two-view training needs --views 2 or more")
        edited = data.edits >= 0
        if config.edits and not edited.any():
            raise ConfigError(f"{config.data}: holds no pairs of heads; render it with --pairs smile,age,…")
        plain = np.flatnonzero(~edited)
        if config.edits:
            plain = plain[np.append(edited, False)[plain + 1]]
        self.train_rows, self.test_rows = plain[plain < data.train_count], plain[plain >= data.train_count]

    def draw(self, count: int, rng: np.random.Generator, *, step: int = 0) -> ViewPairs:
        return self._pairs(rng.choice(self.train_rows, count, replace=False), rng)

    def held_out(self, index: int) -> ViewPairs:
        row = self.test_rows[index : index + 1]
        if not len(row):
            raise ConfigError(f"{self.config.data}: holds out {len(self.test_rows)} pairs, {index + 1} are wanted")
        return self._pairs(row, np.random.default_rng([17, index]))

    def _pairs(self, rows: NDArray[np.integer], rng: np.random.Generator) -> ViewPairs:
        made = [self._pair(int(row), rng) for row in rows]
        images, truths, alphas, members = zip(*made, strict=True)
        cameras = Camera.from_eg3d(torch.tensor(np.stack([self.data.cameras[m] for pair in members for m in pair])))
        points = torch.tensor(np.stack([self.data.landmarks[row] for pair in members for row, _ in pair]))
        landmarks = noisy_landmarks(project(points, cameras)[0], rng, self.config.landmark_noise)
        return ViewPairs(
            image=_stacked(images),
            truth=_stacked(truths),
            alpha=_stacked(alphas).add_(1).div_(2),
            landmarks=landmarks.unflatten(0, (-1, 2)),
            camera=cameras,
            z=torch.tensor(np.stack([[self.data.z[row] for row, _ in pair] for pair in members])),
        )

    def _pair(
        self, row: int, rng: np.random.Generator
    ) -> tuple[list[NDArray], list[NDArray], list[NDArray], list[tuple[int, int]]]:
        """Pictures, truths and opacities in 0..1, and (row, view) of both members."""
        config, data = self.config, self.data
        first, second = rng.choice(data.views, 2, replace=False)
        members = [(row, int(first)), (row + int(config.edits), int(second))]
        pattern = _Pattern(data, rng) if rng.random() < config.pattern else None
        recolor = _Recolor(data, rng) if rng.random() < config.recolor else None
        cast = color_cast(rng) if rng.random() < config.color else None
        images, truths, alphas = [], [], []
        for member in members:
            view = data.view(*member)
            color: NDArray[np.floating] = view.rgba[..., :3].astype(np.float32) / 255
            for change in (recolor, pattern):
                if change is not None:
                    color = change(color, view)
            color = np.clip(color, 0, 1)
            if cast is not None:
                color = cast(color)
            alpha: NDArray[np.floating] = view.rgba[..., 3:].astype(np.float32) / 255
            background = random_background(data.size, rng)
            image = composite(color, alpha, background if cast is None else cast(background))
            if rng.random() < config.occluder:
                image, _ = occluded(image, alpha, rng)
            images.append(np.clip(camera_disturbance(image, rng, config.augmentation), 0, 1))
            truths.append(alpha * color)
            alphas.append(alpha)
        return images, truths, alphas, members


class _Pattern:
    """Local detail in space: waves on clothes and hair, faint ones on skin, and a few spots."""

    WAVES, SPOTS = 10, 5

    def __init__(self, data: HeadViews, rng: np.random.Generator) -> None:
        self.skin = data.skin_label
        self.others = data.recolored_labels
        directions = rng.normal(size=(self.WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self.waves = (directions * np.exp(rng.uniform(np.log(15), np.log(180), (self.WAVES, 1)))).astype(np.float32)
        self.phases = rng.uniform(0, 2 * np.pi, self.WAVES).astype(np.float32)
        amount = rng.uniform(0, 1, 3) * (0.05, 0.18, 0.22)  # skin, hair, clothing
        self.amounts = amount.astype(np.float32)
        self.colors = (rng.normal(size=(self.WAVES, 3)) * 0.4 + rng.normal(size=(self.WAVES, 1))).astype(np.float32)
        self.centres = (rng.uniform(-1, 1, (self.SPOTS, 3)) * (0.16, 0.24, 0.05) + (0, 0, 0.22)).astype(np.float32)
        self.radii = np.exp(rng.uniform(np.log(0.006), np.log(0.05), self.SPOTS)).astype(np.float32)
        self.inks = (rng.uniform(-0.45, 0.25, (self.SPOTS, 1)) + rng.normal(0, 0.1, (self.SPOTS, 3))).astype(np.float32)

    def __call__(self, color: NDArray[np.floating], view: HeadView) -> NDArray[np.floating]:
        """[S, S, 3] in 0..1, straight colours."""
        camera = Camera.from_eg3d(torch.from_numpy(view.camera)[None])
        depth = torch.from_numpy(view.depth.astype(np.float32))[None, None]
        points = unproject(depth, camera)[0].numpy()
        amount = np.zeros(view.label.size, np.float32)
        label = view.label.reshape(-1)
        for kind, strength in zip((self.skin, *self.others), self.amounts, strict=True):
            amount[label == kind] = strength
        waves = np.sin(points @ self.waves.T + self.phases) @ self.colors / np.float32(self.WAVES**0.5)
        change = amount[:, None] * waves
        for centre, radius, ink in zip(self.centres, self.radii, self.inks, strict=True):
            # Spots reach through the head: where they meet its surface does not matter.
            near = np.exp(-((((points[:, :2] - centre[:2]) / radius) ** 2).sum(axis=1) ** 2))
            change += (near * (label == self.skin) * (points[:, 2] > 0.05))[:, None] * ink
        return color + change.reshape(color.shape) * (view.depth > 0)[..., None]


class _Recolor:
    """Another colour for hair or clothing, shading kept."""

    def __init__(self, data: HeadViews, rng: np.random.Generator) -> None:
        self.label = int(rng.choice(data.recolored_labels))
        self.color = rng.uniform(0.02, 0.95, 3).astype(np.float32)
        self.share = float(rng.uniform(0.4, 1))

    def __call__(self, color: NDArray[np.floating], view: HeadView) -> NDArray[np.floating]:
        region = (view.label == self.label)[..., None]
        if not region.any():
            return color
        shade = color.mean(axis=-1, keepdims=True)
        shade = shade / max(float(shade[region].mean()), 0.05)
        return color + region * self.share * (np.clip(self.color * shade, 0, 1) - color)


def _stacked(pairs: tuple[list[NDArray], ...]) -> Tensor:
    """Pictures [S, S, C] in 0..1 → [P, 2, C, S, S] in [-1, 1]"""
    values = np.stack([np.stack([picture.transpose(2, 0, 1) for picture in pair]) for pair in pairs])
    return torch.tensor(values.astype(np.float32)).mul_(2).sub_(1)  # aligned alike, always
