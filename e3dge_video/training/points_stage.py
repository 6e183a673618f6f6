"""Train the 3D landmarks of a code: which points of the generated head are its eyes, lips and jaw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class FacePointsConfig:
    """Training of the 3D landmarks."""

    data: Path = Path("heads")
    held_out: int = 256
    batch: int = 128
    #: Codes are disturbed by this share of their spread, because E0's codes will not be exact either.
    noise: float = 0.05


class FacePointsStage:
    """L1 between the landmarks of a head's code and the head's exact landmarks."""

    def __init__(
        self, face_points: FacePoints, generator: Generator, data: HeadViews, config: FacePointsConfig
    ) -> None:
        self.face_points, self.config = face_points, config
        with torch.no_grad():
            self.latents = torch.cat([generator.map(part)[:, :1] for part in torch.from_numpy(data.z).split(256)])
        self.points = torch.from_numpy(data.landmarks)
        self.train_ids = data.train_count
        self.spread = self.latents[: self.train_ids].std(dim=0)
        face_points.mean_points.copy_(self.points[: self.train_ids].mean(dim=0))

    def modules(self) -> dict[str, nn.Module]:
        return {"face_points": self.face_points}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.face_points.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        ids = rng.integers(0, self.train_ids, self.config.batch)
        latents = self.latents[ids]
        latents = latents + self.config.noise * self.spread * torch.randn_like(latents)
        latents, points = placed((latents, self.points[ids]), device_of(self.face_points))
        # World units are small; the factor brings the loss near one, where the gradient clip is meant to work.
        return {"points": 100 * (self.face_points(latents) - points).abs().mean()}

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        network = modules["face_points"]
        assert isinstance(network, FacePoints)
        rows = slice(self.train_ids, None)
        latents, truth = placed((self.latents[rows], self.points[rows]), device_of(network))
        error = (network(latents) - truth).norm(dim=-1)
        mean_error = (network.mean_points - truth).norm(dim=-1)
        return {"error": float(error.mean()), "error_of_mean_head": float(mean_error.mean())}, None
