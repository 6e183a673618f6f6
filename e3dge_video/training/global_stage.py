"""Train E0 and E_ξ on heads whose code, shape and camera are known exactly (§4.1, §5, Eqs. 2–6 and 12–15).

The code loss alone teaches a code's numbers; what they show matters more. So the code is compared in the metric of
what the generator draws (its Jacobian at the mean), the shape through the 3D landmarks that the code places, and in the
last part of the run through the generator itself: density and colour at surface, near-surface and free points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.geometry.projection import unproject
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.pose_encoder import PoseEncoder, pose_error_degrees
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.training.augmentation import AugmentationConfig
from e3dge_video.training.encoder_data import EncoderBatch, draw_batch
from e3dge_video.training.generator_evaluation import over_grey
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class GlobalConfig:
    """E0's training."""

    data: Path = Path("heads")
    held_out: int = 256
    batch: int = 24
    code_weight: float = 1.0  # on the standardised code
    visible_weight: float = 4.0  # on the code in the generator's visible metric
    visible_probes: int = 768  # of the picture's slope that this metric is estimated from
    point_weight: float = 40.0  # on 3D landmarks, per world unit
    pose_weight: float = 8.0
    #: Geometry and colour through the generator begin at this share of the run; they cost as much as all the rest.
    generator_from: float = 0.6
    generator_batch: int = 4
    generator_points: int = 1024
    density_weight: float = 0.5
    color_weight: float = 1.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluate_heads: int = 128


class GlobalStage:
    """E0 and E_ξ together: the pose term keeps in E0's features what the pose head reads.

    Args:
        encoder: E0.
        pose_encoder: E_ξ.
        generator: The frozen generator.
        face_points: Its 3D landmarks, frozen.
        data: Rendered heads with depth.
        config: Weights and sizes.
        steps: Length of the run.
        visible: Metric in which codes are compared, see `visible_metric`; None: that one. [W, W']
    """

    def __init__(
        self,
        encoder: GlobalEncoder,
        pose_encoder: PoseEncoder,
        generator: EG3D,
        face_points: FacePoints,
        data: HeadViews,
        config: GlobalConfig,
        steps: int,
        visible: Tensor | None = None,
    ) -> None:
        self.encoder, self.pose_encoder, self.config, self.data, self.steps = encoder, pose_encoder, config, data, steps
        self.generator = generator.eval().requires_grad_(False)
        self.face_points = face_points.eval().requires_grad_(False)
        self.train_ids = data.train_count
        with torch.no_grad():
            latents = _latents_of(generator, data, range(min(4096, self.train_ids)))
            self.spread = latents.std(dim=0).clamp_min(1e-3)
            encoder.mean_latents.copy_(latents.mean(dim=0).expand_as(encoder.mean_latents))
        metric = visible_metric(generator, latents, data, probes=config.visible_probes) if visible is None else visible
        self.visible = metric.to(generator.mean_latents.device)

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "pose_encoder": self.pose_encoder}

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.encoder.parameters()
        yield from self.pose_encoder.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config = self.config
        self.encoder.train()
        rows = rng.choice(self.train_ids, config.batch, replace=False)
        batch = placed(draw_batch(self.data, rows, rng, config.augmentation), device_of(self.encoder))
        with torch.no_grad():
            target = self.generator.map(batch.z)
        output = self.encoder(batch.image, batch.landmarks)
        difference = output.latents - target
        losses = {
            "code": config.code_weight * F.smooth_l1_loss(difference / self.spread, torch.zeros_like(difference)),
            "visible": config.visible_weight * (difference @ self.visible).square().sum(-1).add(1e-4).sqrt().mean(),
            "points": config.point_weight * (self.face_points(output.latents) - batch.points).abs().mean(),
            "pose": config.pose_weight
            * F.smooth_l1_loss(self.pose_encoder.pose(output.features), batch.camera.pose(), beta=0.1),
        }
        if step >= config.generator_from * self.steps:
            losses |= self._through_generator(batch, output.latents, target, rng)
        return losses

    def _through_generator(
        self, batch: EncoderBatch, latents: Tensor, target: Tensor, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Density and colour of the predicted head against the teacher's, at the teacher's points (Eqs. 4–6)."""
        config, count = self.config, self.config.generator_points
        part = slice(0, config.generator_batch)
        points = torch.stack([
            self._teacher_points(i, v, count, rng)
            for i, v in zip(batch.identities[part], batch.views[part], strict=True)
        ]).to(latents.device)  # fmt: skip
        with torch.no_grad():
            truth = self.generator.sample(self.generator.planes(target[part], noise="const"), points)
        ours = self.generator.sample(self.generator.planes(latents[part], noise="const"), points)
        # Opacity of one ray step: raw densities differ wildly inside solid matter without any visible difference.
        opacity, true_opacity = (1 - torch.exp(-F.softplus(s.density - 1) / 60) for s in (ours, truth))
        color = (ours.features[:, :count, :3] - truth.features[:, :count, :3]).abs().mean()
        return {
            "density": config.density_weight * (opacity - true_opacity).abs().mean(),
            "color": config.color_weight * color,
        }

    def _teacher_points(self, identity: int, view: int, count: int, rng: np.random.Generator) -> Tensor:
        """Surface points, as many near the surface (σ 0.05), half as many anywhere in the box. [2.5·count, 3]"""
        record = self.data.view(identity, view)
        camera = self.data.camera(identity, view)
        depth = torch.from_numpy(record.depth.astype(np.float32))[None, None]
        on_head = np.flatnonzero(record.depth.reshape(-1) > 0)
        surface = unproject(depth, camera)[0][on_head[rng.integers(0, len(on_head), count)]]
        near = surface + torch.from_numpy(rng.normal(0, 0.05, (count, 3)).astype(np.float32))
        half = self.generator.config.volume.box_warp / 2
        free = torch.from_numpy(rng.uniform(-half, half, (count // 2, 3)).astype(np.float32))
        return torch.cat([surface, near, free])

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        encoder, pose_encoder = modules["encoder"], modules["pose_encoder"]
        assert isinstance(encoder, GlobalEncoder) and isinstance(pose_encoder, PoseEncoder)
        rng = np.random.default_rng(7)
        ids = np.asarray(self.data.held_out)[: self.config.evaluate_heads]
        batch = placed(draw_batch(self.data, ids, rng, self.config.augmentation), device_of(encoder))
        output = encoder(batch.image, batch.landmarks)
        target = self.generator.map(batch.z)
        difference = output.latents - target
        mean_difference = encoder.mean_latents - target
        error = pose_error_degrees(pose_encoder.pose(output.features), batch.camera.pose())
        figures = {
            "code_r2": float(1 - difference.square().mean() / mean_difference.square().mean()),
            "visible_r2": float(
                1 - (difference @ self.visible).square().mean() / (mean_difference @ self.visible).square().mean()
            ),
            "points": float((self.face_points(output.latents) - batch.points).norm(dim=-1).mean()),
            "points_of_mean": float((self.face_points(encoder.mean_latents[None]) - batch.points).norm(dim=-1).mean()),
            "yaw_median": float(error[:, 0].median()),
            "pitch_median": float(error[:, 1].median()),
            "roll_median": float(error[:, 2].median()),
        }
        return figures, self._sheet(batch, output.latents, target)

    def _sheet(self, batch: EncoderBatch, latents: Tensor, target: Tensor, count: int = 10) -> NDArray[np.uint8]:
        """Input, the teacher's head, the predicted head, all from the true camera."""
        rows = [F.interpolate(batch.image[:count], (128, 128), mode="area")]
        for codes in (target, latents):
            planes = self.generator.planes(codes[:count], noise="const")
            rendered = self.generator.render(planes, batch.camera[:count], resolution=64)
            rows.append(F.interpolate(over_grey(rendered.rgb, rendered.alpha), (128, 128), mode="bilinear"))
        return np.concatenate([np.concatenate(list(to_array(row)), axis=1) for row in rows], axis=0)


def _latents_of(generator: EG3D, data: HeadViews, identities: range) -> Tensor:
    """One latent row per identity. [N, W]"""
    z = torch.from_numpy(data.z[identities.start : identities.stop]).to(generator.mean_latents.device)
    return torch.cat([generator.map(part)[:, 0] for part in z.split(256)])


def read_metric(reader: Tensor) -> Tensor:
    """The metric of an appearance reader [P, W]: |Δw V| is the root mean square change of what it reads. [W, P]"""
    return reader.T / len(reader) ** 0.5


def visible_metric(generator: EG3D, latents: Tensor, data: HeadViews, *, probes: int) -> Tensor:
    """Factor V of the metric in which codes are compared: |Δw V|² is about what a change Δw does to the picture.

    Random projections of the Jacobian of surface colour and opacity with respect to w, at sampled heads, give
    E[JᵀJ] = V Vᵀ. [W, W]
    """
    rng = np.random.default_rng(11)
    width = latents.shape[1]
    device = latents.device
    total = torch.zeros(width, width, device=device)
    batch = min(8, len(latents))
    for _ in range(probes // batch):
        ids = rng.choice(len(latents), batch, replace=False)
        w = latents[ids].clone().requires_grad_(True)
        codes = w[:, None].expand(-1, generator.latent_shape[0], -1)
        points = []
        for i in ids:
            record, camera = data.view(int(i), 0), data.camera(int(i), 0)
            surface = unproject(torch.from_numpy(record.depth.astype(np.float32))[None, None], camera)[0]
            on_head = np.flatnonzero(record.depth.reshape(-1) > 0)
            points.append(surface[on_head[rng.integers(0, len(on_head), 2048)]])
        samples = generator.sample(generator.planes(codes, noise="const"), torch.stack(points).to(device))
        opacity = 1 - torch.exp(-F.softplus(samples.density - 1) / 60)
        seen = torch.cat([samples.features[..., :3], 0.5 * opacity], dim=-1)
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], seen.shape).astype(np.float32)).to(device)
        (gradient,) = torch.autograd.grad((seen * signs).sum() / 2048**0.5, w)
        total += gradient.T @ gradient / probes
    values, vectors = torch.linalg.eigh(total)
    return vectors * values.clamp_min(0).sqrt()
