"""Finish G by volume rendering: patches of rays through the real sampler, and super-resolution trained on them.

`PointStage` taught where matter is and what colour it has; what a ray integrates, and what the 2D network makes of the
features, is learned here. The mapping network is kept, so that codes learned by the encoder keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, camera_rays
from e3dge_video.io.images import to_array
from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.generator_evaluation import evaluate_generator, over_grey
from e3dge_video.training.generator_stage import parameters_without
from e3dge_video.training.head_pairs import HeadPairs, change_error
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.picture_losses import contrast_error, difference_error
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class RenderConfig:
    """What one step renders, and how the terms weigh."""

    data: Path = Path("heads")
    held_out: int = 64
    identities: int = 4
    patch: int = 32  # rays on a side
    keep_blocks: int = 0  # as in `PointConfig`
    color_weight: float = 1.0
    alpha_weight: float = 0.5
    depth_weight: float = 2.0
    image_weight: float = 1.0  # after super-resolution
    edge_weight: float = 0.25  # differences of neighbouring pixels after super-resolution
    #: How strong those differences are around a place, wherever exactly they run: what a code cannot place to the pixel
    #: (wrinkles, strands) would otherwise be averaged away.
    contrast_weight: float = 2.0
    #: Further weight of what stands out on the skin, in both colour terms.
    relief_weight: float = 0.0
    pairs: Path | None = None  # as in `PointConfig`
    pairs_per_step: int = 2
    pair_points: int = 1024  # of each
    pair_weight: float = 5.0
    detail_chance: float = 0.5  # of a patch standing on the face instead of anywhere on the head
    evaluate_identities: int = 24


class RenderStage:
    """Patch-wise volume rendering and super-resolution."""

    def __init__(self, generator: EG3D, data: HeadViews, config: RenderConfig) -> None:
        if generator.superresolution is None:
            raise ConfigError("generator.superresolution.kind is none: there is no super-resolution to train")
        self.generator, self.data, self.config = generator, data, config
        self.train_ids = data.train_count
        self.pairs = None if config.pairs is None else HeadPairs(config.pairs, data.z_dim)
        self.resolution = generator.config.resolution
        self.scale = generator.config.image_resolution // self.resolution
        if data.size != generator.config.image_resolution:
            raise ConfigError(
                f"the data set's pictures have {data.size} px, the generator makes {generator.config.image_resolution}"
            )

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator}

    def parameters(self) -> Iterator[nn.Parameter]:
        return parameters_without(
            self.generator, [self.generator.mapping, *self.generator.backbone.blocks[: self.config.keep_blocks]]
        )

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config, generator, side = self.config, self.generator, self.config.patch
        generator.train()
        ids = rng.choice(self.train_ids, config.identities, replace=False)
        device = device_of(generator)
        patches = [placed(self._patch(int(i), rng), device) for i in ids]
        rays = Rays(torch.cat([p[0].origins for p in patches]), torch.cat([p[0].directions for p in patches]))
        small, large = torch.stack([p[1] for p in patches]), torch.stack([p[2] for p in patches])
        depth = torch.stack([p[3] for p in patches])
        with torch.no_grad():
            latents = generator.map(torch.from_numpy(self.data.z[ids]).to(device))
        sums = generator.render_rays(generator.planes(latents), rays)
        features = sums.features.transpose(1, 2).unflatten(2, (side, side))
        alpha, true_alpha = sums.alpha.unflatten(1, (side, side)), small[:, 3]
        solid = (true_alpha > 0.98) & (depth > 0)
        depth_error = (sums.depth.unflatten(1, (side, side)) - depth).abs().clamp_max(0.2)
        image = self._upsample(features, latents)
        coarse_weight, weight = (1 + config.relief_weight * x[:, 4:] for x in (small, large))
        judged = torch.stack([p[4] for p in patches])
        image_error = ((image - large[:, :3]).abs() * weight * judged).mean() / judged.mean()
        margin = self._margin
        image, truth = (x[:, :3, margin:-margin, margin:-margin] for x in (image, large))
        losses = {
            "color": config.color_weight * ((features[:, :3] - small[:, :3]).abs() * coarse_weight).mean(),
            "alpha": config.alpha_weight * (alpha - true_alpha).abs().mean(),
            "depth": config.depth_weight * depth_error[solid].mean() if solid.any() else depth_error.sum() * 0,
            "image": config.image_weight * image_error,
            "edges": config.edge_weight * difference_error(image, truth),
            "contrast": config.contrast_weight * contrast_error(image, truth),
        }
        if self.pairs is not None:
            error = change_error(generator, self.pairs, config.pairs_per_step, config.pair_points, rng)
            losses["pairs"] = config.pair_weight * error
        return losses

    @property
    def _margin(self) -> int:
        """How far inwards the border of a patch shows that it is none of the picture, pixels."""
        return self.config.patch // 8 * self.scale

    def _upsample(self, features: Tensor, latents: Tensor) -> Tensor:
        """Super-resolution of a patch, at the scale at which the whole picture would be treated."""
        module = self.generator.superresolution
        assert module is not None
        features = features.float()  # as when rendering; half precision cannot be resized with antialiasing
        size = features.shape[-1] * module.config.input_size // self.resolution
        if size != features.shape[-1]:
            features = resize_bilinear(features, size, antialias=module.config.antialias)
        return module.refine(features[:, :3], features, latents)

    def _patch(self, identity: int, rng: np.random.Generator) -> tuple[Rays, Tensor, Tensor, Tensor, Tensor]:
        """Rays [1, P², 3], truth at ray resolution [5, P, P], at full resolution [5, sP, sP], depth [P, P], and where
        the full picture is judged, 0 or 1 [1, sP, sP].

        The truth is RGB in [-1, 1], premultiplied, alpha and the skin's relief.
        """
        record = self.data.view(identity, int(rng.integers(self.data.views)))
        side, scale, n = self.config.patch, self.scale, self.resolution
        row, column = self._corner(record.label, record.rgba[..., 3], rng)
        rays = camera_rays(Camera.from_eg3d(torch.from_numpy(record.camera)[None]), n)
        number = torch.arange(n * n).view(n, n)[row : row + side, column : column + side].reshape(-1)
        alpha = record.rgba[..., 3:].astype(np.float32) / 255
        premultiplied = 2 * alpha * (record.rgba[..., :3].astype(np.float32) / 255) - 1
        relief = self.data.relief(record)[..., None] if self.config.relief_weight else np.zeros_like(alpha)
        truth = np.concatenate([premultiplied, alpha, relief], axis=2)
        large = truth[scale * row : scale * (row + side), scale * column : scale * (column + side)]
        small = cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)
        middle = slice(scale // 2, None, scale)
        depth = record.depth[middle, middle][row : row + side, column : column + side].astype(np.float32)
        return (
            Rays(rays.origins[:, number], rays.directions[:, number]),
            torch.from_numpy(small.transpose(2, 0, 1).copy()),
            torch.from_numpy(large.transpose(2, 0, 1).copy()),
            torch.from_numpy(depth),
            self._judged(row, column),
        )

    def _judged(self, row: int, column: int) -> Tensor:
        """All of a patch but its margins; where it ends with the picture, its border is the picture's. [1, sP, sP]"""
        last, size = self.resolution - self.config.patch, self.config.patch * self.scale
        judged = torch.zeros(1, size, size)
        rows, columns = (
            slice(self._margin * (start > 0), size - self._margin * (start < last)) for start in (row, column)
        )
        judged[:, rows, columns] = 1
        return judged

    def _corner(self, label: NDArray[np.uint8], alpha: NDArray[np.uint8], rng: np.random.Generator) -> tuple[int, int]:
        """Upper left ray of a patch that holds a random pixel of the face or the head."""
        on_face = rng.random() < self.config.detail_chance
        wanted = np.isin(label, self.data.detail_labels) if on_face else alpha > 0
        choices = np.flatnonzero(wanted if wanted.any() else np.ones_like(alpha))
        pixel = np.array(divmod(int(choices[rng.integers(len(choices))]), label.shape[1])) // self.scale
        corner = pixel - rng.integers(0, self.config.patch, 2)
        row, column = np.clip(corner, 0, self.resolution - self.config.patch)
        return int(row), int(column)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        generator = modules["generator"]
        assert isinstance(generator, EG3D)
        held_out = self.data.held_out[: self.config.evaluate_identities]
        figures, sheet = evaluate_generator(generator, self.data, list(held_out))
        device = device_of(generator)
        errors: list[float] = []
        images: list[NDArray[np.uint8]] = []
        for identity in held_out:
            record = self.data.view(identity, 1)
            camera = placed(self.data.camera(identity, 1), device)
            latents = generator.map(torch.from_numpy(self.data.z[identity])[None].to(device))
            rendered = generator.render(generator.planes(latents), camera)
            alpha = F.interpolate(rendered.alpha, (self.data.size,) * 2, mode="bilinear")
            image = over_grey(generator.upsample(rendered, latents), alpha)[0]
            opacity = record.rgba[..., 3:].astype(np.float32) / 255
            truth = opacity * (record.rgba[..., :3].astype(np.float32) / 127.5 - 1)
            error = image.clamp(-1, 1) - torch.from_numpy(truth.transpose(2, 0, 1).copy()).to(device)
            errors.append(float(-10 * torch.log10((error / 2).square().mean())))
            if len(images) < 4:
                images.append(np.concatenate([to_array(torch.from_numpy(truth.transpose(2, 0, 1))), to_array(image)]))
        large = np.concatenate(images, axis=1)
        return figures | {"psnr_final": float(np.mean(errors))}, np.concatenate([sheet, large[:, : sheet.shape[1]]])
