"""Train the foreground matte on rendered heads over procedural backgrounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.io.images import to_array
from e3dge_video.models.matting import MatteNet
from e3dge_video.training.augmentation import AugmentationConfig
from e3dge_video.training.encoder_data import draw_batch
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class MatteStageConfig:
    """The matte's training."""

    data: Path = Path("heads")
    held_out: int = 256
    batch: int = 16
    augmentation: AugmentationConfig = field(default_factory=lambda: AugmentationConfig(recolor=0.6, occluder=0.1))


class MatteStage:
    """Image → matte, by cross-entropy and L1 of the matte's gradient."""

    def __init__(self, network: MatteNet, data: HeadViews, config: MatteStageConfig) -> None:
        self.network, self.data, self.config = network, data, config
        self.train_ids = data.train_count

    def modules(self) -> dict[str, nn.Module]:
        return {"matte": self.network}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        self.network.train()
        image, truth = self._batch(rng.choice(self.train_ids, self.config.batch, replace=False), rng)
        logits = self.network.logits(image)
        matte = logits.sigmoid()
        edges = sum(((matte.diff(dim=d) - truth.diff(dim=d)).abs().mean() for d in (2, 3)), start=matte.new_zeros(()))
        return {"cross_entropy": F.binary_cross_entropy_with_logits(logits, truth), "edges": 0.5 * edges}

    def _batch(self, identities: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        batch = draw_batch(self.data, identities, rng, self.config.augmentation)
        batch = placed(batch, device_of(self.network))
        size = (self.network.config.input_size,) * 2
        return F.interpolate(batch.image, size, mode="area"), F.interpolate(batch.matte, size, mode="area")

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        network = modules["matte"]
        assert isinstance(network, MatteNet)
        ids = np.asarray(self.data.held_out)[:96]
        image, truth = self._batch(ids, np.random.default_rng(5))
        matte = network(image)
        both = torch.minimum(matte, truth).sum(dim=(1, 2, 3)) / torch.maximum(matte, truth).sum(dim=(1, 2, 3))
        rows = [image[:10], 2 * truth[:10].expand(-1, 3, -1, -1) - 1, 2 * matte[:10].expand(-1, 3, -1, -1) - 1]
        sheet = np.concatenate([np.concatenate(list(to_array(row)), axis=1) for row in rows], axis=0)
        return {"mae": float((matte - truth).abs().mean()), "iou": float(both.mean())}, sheet
