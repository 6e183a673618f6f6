"""Train G0 on rendered heads by regressing colour and occupancy at points, not pixels.

A renderer knows where each pixel's surface is, so the field can be taught directly: the colour on the surface, solid
just behind it, empty in front of it and along background rays. One step costs a few thousand point queries instead of
volume-rendered rays, and the result is consistent in 3D from the start. `RenderStage` finishes with volume rendering
and super-resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.generator_evaluation import evaluate_generator
from e3dge_video.training.head_pairs import HeadPairs, change_error
from e3dge_video.training.head_views import HeadViews, pixel_rays
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class PointConfig:
    """What one step looks at, and how the terms weigh."""

    data: Path = Path("heads")
    held_out: int = 64  # the last identities of the data set are never trained on
    identities: int = 4  # per step
    views: int = 3  # per identity and step
    pixels: int = 1024  # per view
    detail_share: float = 0.3  # of the pixels, taken from eyes, brows, lips, teeth and glasses
    #: Further weight of what stands out on the skin: wrinkles differ little from smooth skin, but they tell the age.
    relief_weight: float = 0.0
    #: Data set of heads followed by a copy of the same shape and another skin (`train heads --pairs wrinkles`): what
    #: changes between the two is learned by itself.
    pairs: Path | None = None
    pairs_per_step: int = 3
    pair_weight: float = 5.0
    free: int = 2  # empty points per pixel
    color_weight: float = 1.0
    occupancy_weight: float = 0.3
    #: Raw density at which the occupancy's logit is one; solid matter ends a few units above.
    density_scale: float = 20.0
    keep_mapping: bool = False  # a finer phase: codes keep their meaning, E0 can already be trained on them
    keep_blocks: int = 0  # first blocks of the backbone (4 px, 8 px, …) that stay as they are
    thickness: float = 0.03  # how far behind the surface matter is certainly solid, world units
    evaluate_identities: int = 24


@dataclass(frozen=True)
class PointBatch:
    """Points of one step. B identities, S surface points and O occupancy points each.

    Attributes:
        z: Latents of the identities. [B, Z]
        surface: Points on the surface. [B, S, 3]
        color: Their colours in [-1, 1]. [B, S, 3]
        importance: Their weights, mean about one. [B, S]
        points: Points that are solid or empty. [B, O, 3]
        solid: 1 solid, 0 empty. [B, O]
    """

    z: Tensor
    surface: Tensor
    color: Tensor
    importance: Tensor
    points: Tensor
    solid: Tensor


class PointStage:
    """Surface-point colour and occupancy regression."""

    def __init__(self, generator: EG3D, data: HeadViews, config: PointConfig) -> None:
        self.generator, self.data, self.config = generator, data, config
        self.train_ids = data.train_count
        self.half_box = generator.config.volume.box_warp / 2
        self.detail = np.isin(np.arange(256), data.detail_labels)
        self.pairs = None if config.pairs is None else HeadPairs(config.pairs, data.z_dim)

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator}

    def parameters(self) -> Iterator[nn.Parameter]:
        generator, kept = self.generator, [*self.generator.backbone.blocks[: self.config.keep_blocks]]
        if generator.superresolution is not None:
            kept.append(generator.superresolution)
        if self.config.keep_mapping:
            kept.append(generator.mapping)
        return parameters_without(generator, kept)

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        batch = placed(self.draw(rng), device_of(self.generator))
        latents = self.generator.map(batch.z)
        planes = self.generator.planes(latents, noise="const")
        count = batch.surface.shape[1]
        samples = self.generator.sample(planes, torch.cat([batch.surface, batch.points], dim=1))
        color = 2 * samples.features[:, :count, :3] - 1
        color_error = ((color - batch.color).abs().mean(-1) * batch.importance).mean()
        logits = samples.density[:, count:, 0] / self.config.density_scale
        occupancy = F.binary_cross_entropy_with_logits(logits, batch.solid)
        losses = {
            "color": self.config.color_weight * color_error,
            "occupancy": self.config.occupancy_weight * occupancy,
        }
        if self.pairs is not None:
            error = change_error(self.generator, self.pairs, self.config.pairs_per_step, self.config.pixels, rng)
            losses["pairs"] = self.config.pair_weight * error
        return losses

    def draw(self, rng: np.random.Generator) -> PointBatch:
        """One step's points."""
        ids = rng.choice(self.train_ids, self.config.identities, replace=False)
        parts = [self._points(int(i), rng) for i in ids]
        z = torch.from_numpy(self.data.z[ids])
        stacked = (torch.from_numpy(np.stack(p).astype(np.float32)) for p in zip(*parts, strict=True))
        return PointBatch(z, *stacked)

    def _points(self, identity: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
        config, count = self.config, self.config.pixels
        surface, color, importance, points, solid = [], [], [], [], []
        for view in rng.choice(self.data.views, min(config.views, self.data.views), replace=False):
            record = self.data.view(identity, int(view))
            size = record.depth.shape[0]
            pixels = self._pixels(record.label.reshape(-1), record.rgba[..., 3].reshape(-1), rng)
            depth = record.depth.reshape(-1)[pixels].astype(np.float32)
            rgba = record.rgba.reshape(-1, 4)[pixels]
            origin, rays = pixel_rays(record.camera, pixels, size)
            near, far = _box_bounds(origin, rays, self.half_box)
            hit = (depth > 0) & (rgba[:, 3] > 200)
            end = np.where(depth > 0, depth, far)
            # A ray ends a little behind the surface, where matter has become dense: the colour must hold there too.
            on = depth + rng.normal(0.006, 0.006, count)
            surface.append(origin + rays * np.where(hit, on, far)[:, None])
            color.append(rgba[:, :3].astype(np.float32) / 127.5 - 1)
            importance.append(hit.astype(np.float32))
            if config.relief_weight:
                importance[-1] *= 1 + np.float32(config.relief_weight) * self.data.relief(record).reshape(-1)[pixels]
            # Empty space: half of the points anywhere before the surface, half close to it, where it matters.
            for k in range(config.free):
                spread = rng.random(count)
                gap = np.abs(rng.normal(0, 0.03, count)) + 0.004
                t = np.where(k % 2 == 0, near + spread * np.maximum(end - 0.004 - near, 0), end - gap)
                points.append(origin + rays * np.maximum(t, near)[:, None])
                solid.append(np.zeros(count))
            # Behind the surface it is solid, as far as the pixel is covered (strands of hair cover a part of theirs).
            inside = depth + 0.003 + rng.random(count) * config.thickness
            anywhere = near + rng.random(count) * (far - near)
            points.append(origin + rays * np.where(depth > 0, inside, anywhere)[:, None])
            solid.append(np.where(depth > 0, rgba[:, 3] / np.float32(255), 0))
        weights = np.concatenate(importance)
        weights /= max(weights.mean(), 1e-3)
        return tuple(np.concatenate(p) for p in (surface, color, (weights,), points, solid))

    def _pixels(
        self, labels: NDArray[np.uint8], alpha: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Pixel numbers: a share on small features, the rest mostly on the head, some on the background."""
        count = self.config.pixels
        detail = np.flatnonzero(self.detail[labels])
        head = np.flatnonzero(alpha > 0)
        n_detail = int(self.config.detail_share * count) if len(detail) else 0
        n_head = int(0.75 * (count - n_detail)) if len(head) else 0
        picks = [rng.integers(0, len(labels), count - n_detail - n_head)]
        if n_head:
            picks.append(head[rng.integers(0, len(head), n_head)])
        if n_detail:
            picks.append(detail[rng.integers(0, len(detail), n_detail)])
        return np.concatenate(picks)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        generator = modules["generator"]
        assert isinstance(generator, EG3D)
        return evaluate_generator(generator, self.data, list(self.data.held_out)[: self.config.evaluate_identities])


def parameters_without(module: nn.Module, kept: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """The parameters of a module that are none of some of its parts."""
    left_out = {id(p) for part in kept for p in part.parameters()}
    return (p for p in module.parameters() if id(p) not in left_out)


def initialise_density(generator: EG3D, scale: float) -> None:
    """Let the decoder's density row start at the scale of solid matter: growing there would take thousands of steps."""
    with torch.no_grad():
        generator.decoder.output.weight[0].mul_(scale)


def _box_bounds(origin: NDArray[np.float32], rays: NDArray[np.float32], half: float) -> tuple[NDArray[np.float32], ...]:
    """Where rays enter and leave the cube of half side `half`; a ray that misses gets a point range at its closest."""
    inverse = 1.0 / np.where(np.abs(rays) < 1e-6, 1e-6, rays)
    low, high = (-half - origin) * inverse, (half - origin) * inverse
    near = np.minimum(low, high).max(axis=1)
    far = np.maximum(low, high).min(axis=1)
    return near, np.maximum(far, near)
