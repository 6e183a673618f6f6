"""Train E_ξ behind a frozen E0 (§4.4): L_pose on pictures whose camera is known, a generator's or rendered heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.pose_encoder import PoseEncoder, ViewpointEncoder
from e3dge_video.models.encoders.psp import PSPEncoder
from e3dge_video.training.augmentation import AugmentationConfig
from e3dge_video.training.encoder_data import draw_batch
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.teacher import Teacher, TeacherConfig
from e3dge_video.training.workers import device_of, placed

_NAMES = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class PoseBatch:
    """Pictures with known cameras.

    Attributes:
        image: RGB in [-1, 1]. [B, 3, S, S]
        landmarks: 68 points in crop coordinates 0..1, for an E0 that looks along them. [B, 68, 2]
        pose: Azimuth and elevation [B, 2], or the six numbers of `Camera.from_pose` [B, 6]
    """

    image: Tensor
    landmarks: Tensor | None
    pose: Tensor


class PoseSource(Protocol):
    """Where pictures with known cameras come from."""

    def draw(self, step: int, rng: np.random.Generator) -> PoseBatch:
        """One step's batch."""

    def held_out(self) -> Iterator[PoseBatch]:
        """Pictures that training does not see, a few at a time."""


@dataclass(frozen=True)
class HeadPoseConfig:
    """E_ξ on rendered heads."""

    data: Path = Path("heads")
    held_out: int = 256
    batch: int = 24
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluate_heads: int = 128


@dataclass(frozen=True)
class TaughtPoseConfig:
    """E_ξ on heads that a generator makes up."""

    batch: int = 6  # of each process; the paper's 24 on four GPUs
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    evaluate_heads: int = 128


class HeadPoses:
    """Rendered heads, disturbed as for E0."""

    def __init__(self, data: HeadViews, config: HeadPoseConfig) -> None:
        self.data, self.config = data, config

    def draw(self, step: int, rng: np.random.Generator) -> PoseBatch:
        return self._batch(rng.choice(self.data.train_count, self.config.batch, replace=False), rng)

    def held_out(self) -> Iterator[PoseBatch]:
        rows, rng = np.asarray(self.data.held_out)[: self.config.evaluate_heads], np.random.default_rng(7)
        for start in range(0, len(rows), self.config.batch):
            yield self._batch(rows[start : start + self.config.batch], rng)

    def _batch(self, rows: NDArray[np.integer], rng: np.random.Generator) -> PoseBatch:
        batch = draw_batch(self.data, rows, rng, self.config.augmentation)
        return PoseBatch(batch.image, batch.landmarks, batch.camera.pose())


class TaughtPoses:
    """Heads of a frozen generator."""

    def __init__(self, teacher: Teacher, config: TaughtPoseConfig) -> None:
        self.teacher, self.config = teacher, config

    def draw(self, step: int, rng: np.random.Generator) -> PoseBatch:
        return self._batch(self.config.batch, rng, self.teacher.share(step))

    def held_out(self) -> Iterator[PoseBatch]:
        rng = np.random.default_rng(7)
        for _ in range(0, self.config.evaluate_heads, self.config.batch):
            yield self._batch(self.config.batch, rng, 1.0)

    def _batch(self, count: int, rng: np.random.Generator, share: float) -> PoseBatch:
        [view] = self.teacher.draw(count, rng, share=share).views
        return PoseBatch(view.image, None, view.viewpoint)


class PoseStage:
    """E_ξ alone; E0 is as it was found, its statistics included.

    Args:
        encoder: E0, frozen here.
        pose_encoder: E_ξ.
        source: Pictures.
    """

    def __init__(
        self,
        encoder: GlobalEncoder | PSPEncoder,
        pose_encoder: PoseEncoder | ViewpointEncoder,
        source: PoseSource,
    ) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.pose_encoder, self.source = pose_encoder, source

    def modules(self) -> dict[str, nn.Module]:
        return {"pose_encoder": self.pose_encoder}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.pose_encoder.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        batch = placed(self.source.draw(step, rng), device_of(self.pose_encoder))
        return {"pose": F.mse_loss(self.pose_encoder.pose(self._features(batch)).float(), batch.pose)}

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Median errors in degrees."""
        pose_encoder = modules["pose_encoder"]
        assert isinstance(pose_encoder, PoseEncoder | ViewpointEncoder)
        errors = []
        for batch in self.source.held_out():
            batch = placed(batch, device_of(pose_encoder))
            errors.append((pose_encoder.pose(self._features(batch)) - batch.pose).abs().rad2deg())
        medians = torch.cat(errors).median(dim=0).values.tolist()
        return {f"{name}_median": value for name, value in zip(_NAMES, medians, strict=False)}, None

    @torch.no_grad()
    def _features(self, batch: PoseBatch) -> Tensor:
        if isinstance(self.encoder, GlobalEncoder):
            assert batch.landmarks is not None
            return self.encoder(batch.image, batch.landmarks).features
        return self.encoder(batch.image).features
