"""Train E0 on heads that a frozen generator makes up, whatever the generator (§4.1, §5, §6).

z → w, ξ → G → {S, ξ, I};   ŵ = E0(I);   G(ŵ, ξ) → {Ŝ, Î0, Î1};   L = L_geo + L_code + L_rec(Î0) + L_rec(Î1)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.psp import PSPEncoder
from e3dge_video.training.geometry_supervision import GeometryWeights
from e3dge_video.training.image_losses import ImageLoss, ImageLossConfig
from e3dge_video.training.shape_teaching import geometry_supervision
from e3dge_video.training.teacher import Teacher, TeacherBatch, TeacherConfig, fitted


@dataclass(frozen=True)
class TaughtGlobalConfig:
    """E0's training. Defaults are the paper's for faces."""

    batch: int = 6  # heads per step of each process; the paper's 24 on four GPUs
    code: float = 1.0  # weight of L_code
    geometry: GeometryWeights = field(default_factory=GeometryWeights)
    image: ImageLossConfig = field(default_factory=ImageLossConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    evaluate_heads: int = 32


class TaughtGlobalStage:
    """E0 of a frozen generator.

    Args:
        encoder: E0. Its mean code is set to the teacher's.
        teacher: The generator.
        image_loss: L_rec.
        config: Weights and sizes.
    """

    def __init__(
        self, encoder: PSPEncoder, teacher: Teacher, image_loss: ImageLoss, config: TaughtGlobalConfig
    ) -> None:
        self.encoder, self.teacher, self.image_loss, self.config = encoder, teacher, image_loss, config
        self.generator = teacher.generator
        self.supervision = geometry_supervision(teacher.generator, config.geometry)
        encoder.mean_latents.copy_(teacher.mean_latents())

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.encoder.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        self.encoder.train()
        batch = self.teacher.draw(self.config.batch, rng, share=self.teacher.share(step))
        latents = self.encoder(batch.views[0].image).latents  # ŵ = E0(I), Eq. 3
        with torch.autocast(latents.device.type, enabled=False):
            return self._losses(batch, latents.float(), rng)[0]

    def _losses(
        self, batch: TeacherBatch, latents: Tensor, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """L of Eq. 22 without its adversarial part, by terms, and the reconstruction. [B, 3, S, S]"""
        [view] = batch.views
        planes = self.generator.planes(latents)
        rendering = self.supervision.render(planes, view.camera, self.teacher.config.resolution)
        image = self.teacher.picture(rendering[0], latents)
        losses = {"code": self.config.code * self.supervision.code_error(latents, batch.latents)}
        losses |= self.supervision.losses(batch.planes, view.camera, view.rendered, planes, rendering, rng)
        losses |= self.image_loss(image, view.image)
        raw = self.image_loss(rendering[0].rgb, view.rendered.rgb)
        return losses | {f"raw_{name}": value for name, value in raw.items()}, image

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Losses on heads of the whole range of cameras, and how much of the codes' variation is explained."""
        encoder, rng = modules["encoder"], np.random.default_rng(7)
        assert isinstance(encoder, PSPEncoder)
        batches = -(-self.config.evaluate_heads // self.config.batch)
        sums: dict[str, float] = {}
        rows: list[Tensor] = []
        for _ in range(batches):
            batch = self.teacher.draw(self.config.batch, rng)
            latents = encoder(batch.views[0].image).latents
            losses, image = self._losses(batch, latents, rng)
            losses["code_of_mean"] = self.supervision.code_error(encoder.mean_latents.expand_as(latents), batch.latents)
            losses["mae"] = (image - batch.views[0].image).abs().mean()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value) / batches
            rows = rows or [batch.views[0].image, image]
        unexplained = sums["code"] / self.config.code if self.config.code else float("nan")
        figures = {"code_r2": 1 - unexplained / sums.pop("code_of_mean"), **sums}
        return figures, sheet_of(rows)


def sheet_of(rows: list[Tensor], count: int = 10, size: int = 128) -> NDArray[np.uint8]:
    """Rows of small pictures, one below the other. [B, 3, S, S] each → [rows · size, count · size, 3]"""
    small = (fitted(row[:count].float(), size) for row in rows)
    return np.concatenate([np.concatenate(list(to_array(row)), axis=1) for row in small], axis=0)
