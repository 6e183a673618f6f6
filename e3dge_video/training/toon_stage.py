"""Toonification (§7.5): a generator fine-tuned on a few hundred cartoon faces, against a discriminator.

The loss is StyleGAN's, as in EG3D's public training: non-saturating, with R1 on the pictures (a projected discriminator
needs none). Both networks step together: what judges the generator's pictures does not learn from that term, and
what the discriminator learns from does not reach the generator, so one optimiser over both sets of parameters does what
two would.

A few hundred pictures are few: they are mirrored, and both they and the generator's are shifted, scaled and recoloured
at random before they are judged (Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020).
The mapping network stays, since codes come from an encoder that keeps its meaning of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.io.images import to_array
from e3dge_video.models.discriminators import DualDiscriminator, ImageDiscriminator
from e3dge_video.models.fir import resize_bilinear
from e3dge_video.models.generators.base import Generator
from e3dge_video.models.projected_discriminator import ProjectedDiscriminator
from e3dge_video.training.generator_stage import parameters_without
from e3dge_video.training.losses import generator_loss, r1_penalty


@dataclass(frozen=True)
class ToonConfig:
    """One step of toonification."""

    batch: int = 4  # drawings
    #: Pictures, and disturbances of the drawings, that the discriminator learns from: beside G it costs little.
    judged: int = 16
    #: Steps in which only the discriminator learns, before the generator's own begin.
    warm_up: int = 60
    #: Shares of the learning rate. EG3D's rate is for 32 pictures a step; with few, the discriminator must be the
    #: faster of the two (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017), a new one the more so.
    generator_rate: float = 0.5
    projected_rate: float = 2.0  # of a discriminator that looks through E0; another's is 1
    #: EG3D's gamma. One that looks through E0 learns without R1, which keeps fine lines from it.
    r1_weight: float = 10.0
    r1_every: int = 16  # steps between two penalties, each as much stronger; as in EG3D
    #: Chance of each disturbance of what the discriminator sees.
    augment: float = 0.4
    #: Standard deviations of the cameras' yaw and pitch, radians.
    yaw: float = 0.3
    pitch: float = 0.15
    examples: int = 6  # codes of the sample sheet


class ToonStage:
    """G and a discriminator on cartoon faces.

    Args:
        generator: G; all of it is trained but its mapping network.
        discriminator: Judges the final image, or it and the volume-rendered one together. Where cartoons were seen from
            is not known: one that wants a camera is told the frontal one of every picture, drawn or not.
        pictures: Cartoon faces in [-1, 1]. [N, 3, S, S]
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: DualDiscriminator | ImageDiscriminator | ProjectedDiscriminator,
        pictures: Tensor,
        config: ToonConfig,
    ) -> None:
        assert isinstance(generator, nn.Module)
        self.network: nn.Module = generator
        self.generator, self.discriminator = generator, discriminator
        self.pictures, self.config = pictures, config
        self.projected = isinstance(discriminator, ProjectedDiscriminator)
        self.judging = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]

    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.network, "discriminator": self.discriminator}

    def parameters(self) -> Iterator[nn.Parameter]:
        for _, group in self.groups():
            yield from group

    def groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        kept = [part for name, part in self.network.named_modules() if name.split(".")[-1] == "mapping"]
        drawing = list(parameters_without(self.network, kept))
        return [
            (self.config.generator_rate, drawing),
            (self.config.projected_rate if self.projected else 1.0, self.judging),
        ]

    def losses(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        config = self.config
        learns = step >= config.warm_up
        self.network.train()
        with torch.set_grad_enabled(learns):
            drawn = self._drawn(rng)
        real = self._seen(self._real(rng), rng)
        losses = {
            "fake": F.softplus(self._judge(self._seen(self._repeated(drawn.detach()), rng))).mean(),
            "real": F.softplus(-self._judge(real)).mean(),
        }
        if not self.projected and step % config.r1_every == 0:
            losses["r1"] = 0.5 * config.r1_weight * config.r1_every * self._slope(real)
        if learns:
            self._learns(False)
            losses["toon"] = generator_loss(self._judge(self._seen(drawn, rng)))
            self._learns(True)
        return losses

    def _learns(self, learns: bool) -> None:
        """Whether what the discriminator is asked next is for it to learn from."""
        for parameter in self.judging:
            parameter.requires_grad_(learns)

    def _drawn(self, rng: np.random.Generator) -> Tensor:
        """Final and volume-rendered image of random codes, stacked. [B, 6, S, S]"""
        count = self.config.batch
        z = torch.from_numpy(rng.standard_normal((count, self.generator.z_dim)).astype(np.float32))
        with torch.no_grad():
            latents = self.generator.map(z)
        yaw, pitch = rng.standard_normal((2, count)) * np.array([[self.config.yaw], [self.config.pitch]])
        return self._pair(self.generator, latents, self._turned(yaw, pitch))

    def _pair(self, generator: Generator, latents: Tensor, camera: Camera) -> Tensor:
        # In few blocks: each adds a gradient of whole planes.
        rendered = generator.render(generator.planes(latents), camera, block=2048)
        # Half precision cannot be resized with antialiasing.
        rendered = replace(rendered, rgb=rendered.rgb.float(), features=rendered.features.float())
        image = generator.upsample(rendered, latents).float()
        return torch.cat([image, resize_bilinear(rendered.rgb, image.shape[-1])], dim=1)

    def _turned(self, yaw: NDArray[np.floating], pitch: NDArray[np.floating]) -> Camera:
        """The generator's cameras at angles in radians from the frontal one. [B] each"""
        return self.generator.camera_at(torch.from_numpy(np.stack([yaw, pitch], axis=1).astype(np.float32)))

    def _real(self, rng: np.random.Generator) -> Tensor:
        """Pictures and their reduction to the volume rendering's size, stacked; half of them mirrored. [B, 6, S, S]"""
        images = self.pictures[rng.integers(0, len(self.pictures), self.config.judged)]
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)[:, None, None, None]
        images = torch.where(mirrored, images.flip(-1), images)
        small = F.interpolate(images, scale_factor=0.25, mode="area")
        return torch.cat([images, resize_bilinear(small, images.shape[-1])], dim=1)

    def _repeated(self, drawn: Tensor) -> Tensor:
        """Drawings, each as often as makes as many as there are pictures."""
        return drawn.repeat(max(1, self.config.judged // len(drawn)), 1, 1, 1)

    def _seen(self, pairs: Tensor, rng: np.random.Generator) -> Tensor:
        """Each picture as it is, or shifted, scaled and recoloured a little. [B, 6, S, S]"""
        count = len(pairs)

        def drawn(spread: float, *shape: int) -> Tensor:
            happens = rng.random((count, *[1] * len(shape))) < self.config.augment
            return torch.from_numpy((happens * rng.normal(0, spread, (count, *shape))).astype(np.float32))

        scale, shift = torch.exp(drawn(0.06)), drawn(0.05, 2)
        matrix = torch.zeros(count, 2, 3)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = scale, scale, shift
        grid = F.affine_grid(matrix, list(pairs.shape), align_corners=False)
        moved = F.grid_sample(pairs, grid, padding_mode="border", align_corners=False)
        contrast, brightness = (
            torch.exp(drawn(0.15))[:, None, None, None],
            drawn(0.10, 3).repeat(1, 2)[:, :, None, None],
        )
        return contrast * moved + brightness

    def _judge(self, pairs: Tensor, judge: nn.Module | None = None) -> Tensor:
        label = self.generator.frontal_camera().to_eg3d().expand(len(pairs), -1)
        scores: Tensor = (judge or self.discriminator)(pairs[:, :3], pairs[:, 3:], label)
        return scores

    def _slope(self, real: Tensor) -> Tensor:
        """R1 of pictures."""
        with torch.autocast(real.device.type, enabled=False):
            seen = real.detach().requires_grad_(True)
            return r1_penalty(self._judge(seen), seen)

    def evaluate(self, modules: Mapping[str, nn.Module]) -> tuple[dict[str, float], NDArray[np.uint8] | None]:
        """Scores of pictures and drawings, and a sheet: some of the pictures, then fixed codes from two sides."""
        generator, judge = modules["generator"], modules["discriminator"]
        count = self.config.examples
        rng = np.random.default_rng(0)
        z = torch.from_numpy(rng.standard_normal((count, self.generator.z_dim)).astype(np.float32))
        latents = generator.map(z)  # type: ignore[operator]
        rows, scores = [], []
        for yaw in (0.0, 0.4):
            camera = self._turned(np.full(count, yaw), np.zeros(count))
            pairs = self._pair(generator, latents, camera)  # type: ignore[arg-type]
            scores += [float(self._judge(pair[None], judge).mean()) for pair in pairs]
            rows.append(np.concatenate(list(to_array(pairs[:, :3])), axis=1))
        shown = self.pictures[rng.integers(0, len(self.pictures), count)]
        rows.insert(0, np.concatenate(list(to_array(shown)), axis=1))
        real = [float(self._judge(pair[None], judge).mean()) for pair in self._real(rng)]
        return {"score_real": float(np.mean(real)), "score_drawn": float(np.mean(scores))}, np.concatenate(rows)
