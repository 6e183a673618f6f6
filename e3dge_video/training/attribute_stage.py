"""Train the attribute reader on rendered heads, softened at random so that it can also read a generator's pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.models.attributes import AttributeNet
from e3dge_video.training.encoder_data import draw_batch
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.workers import device_of, placed


@dataclass(frozen=True)
class AttributeConfig:
    """Training of the attribute reader."""

    data: Path = Path("heads")
    held_out: int = 256
    batch: int = 48
    largest_blur: float = 1.2  # pixels of the reader's input


class AttributeStage:
    """Smooth L1 on standardised attributes."""

    def __init__(self, network: AttributeNet, data: HeadViews, config: AttributeConfig) -> None:
        self.network, self.data, self.config = network, data, config
        attributes = torch.from_numpy(data.attributes)
        network.mean.copy_(attributes[: data.train_count].mean(dim=0))
        network.spread.copy_(attributes[: data.train_count].std(dim=0).clamp_min(1e-3))
        self.targets = (attributes - network.mean) / network.spread

    def modules(self) -> dict[str, nn.Module]:
        return {"attributes": self.network}

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        self.network.train()
        ids = rng.choice(self.data.train_count, self.config.batch, replace=False)
        image, targets = placed((self._pictures(ids, rng), self.targets[ids]), device_of(self.network))
        return {"attributes": F.smooth_l1_loss(self.network.standardised(image), targets)}

    def _pictures(self, ids: NDArray[np.integer], rng: np.random.Generator) -> Tensor:
        image = F.interpolate(draw_batch(self.data, ids, rng, None).image, (self.network.size,) * 2, mode="area")
        weight = torch.from_numpy(rng.uniform(0, 1, (len(ids), 1, 1, 1)).astype(np.float32))
        blurred = soft(image, self.config.largest_blur).to(image)  # a convolution may be in half
        return torch.lerp(image, blurred, weight)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        network = modules["attributes"]
        assert isinstance(network, AttributeNet)
        ids = np.asarray(self.data.held_out)
        image, truth = placed((self._pictures(ids, np.random.default_rng(9)), self.targets[ids]), device_of(network))
        read = network.standardised(image)
        figures = {
            f"r_{name}": float(torch.corrcoef(torch.stack([read[:, k], truth[:, k]]))[0, 1])
            for k, name in enumerate(self.data.attribute_names)
        }
        return {"mean_r": float(np.nanmean(list(figures.values()))), **figures}, None


def soft(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur. [B, C, S, S]"""
    radius = max(1, int(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, -1).expand(image.shape[1], 1, -1)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.unsqueeze(2), groups=image.shape[1])
    return F.conv2d(across, kernel.unsqueeze(3), groups=image.shape[1])
