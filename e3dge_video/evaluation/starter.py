"""Figures of a model whose z is that of the procedural heads, on heads it was never trained on.

Attributes of generated pictures are read by a small network trained on exact renders (`train attributes`), because no
classifier of ours has seen anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.models.encoders.pose_encoder import pose_error_degrees
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.augmentation import AugmentationConfig
from e3dge_video.training.encoder_data import EncoderBatch, draw_batch
from e3dge_video.training.generator_evaluation import over_grey
from e3dge_video.training.head_views import HeadViews

#: What each edit is meant to change; everything else that it changes is leak. Growing old greys and wrinkles.
OWN_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "age": ("age", "wrinkles", "hair_grey", "hair_light"),
    "gender": ("gender",),
    "smile": ("smile",),
    "mouth_open": ("mouth_open",),
    "eyes_closed": ("eyes_closed",),
    "glasses": ("glasses",),
    "beard": ("beard", "moustache", "stubble"),
    "wrinkles": ("wrinkles",),
    "grey": ("hair_grey", "hair_light"),
    "surprise": ("brow_up", "eyes_wide", "mouth_open"),
    "brow": ("brow_up", "brow_down"),
    "pucker": ("pucker",),
    "long_hair": ("hair_long", "bald"),
    "sunglasses": ("sunglasses", "glasses"),
    "lipstick": ("lipstick",),
}


@dataclass(frozen=True)
class DirectionEffect:
    """What strength 1 of an edit does, in spreads of each attribute over all heads.

    Attributes:
        own: Change of its own (first) attribute.
        leak: Mean absolute change of all attributes that it should leave alone.
        worst: The attribute that it wrongly changes most.
        worst_change: By how much.
    """

    own: float
    leak: float
    worst: str
    worst_change: float


@torch.no_grad()
def pose_errors(inverter: Inverter, data: HeadViews, *, seed: int = 17) -> dict[str, float]:
    """Median errors of E_ξ in degrees on disturbed pictures of all held-out heads."""
    errors = []
    for batch in _batches(data, seed, AugmentationConfig()):
        seen = inverter.observe(batch.image, batch.landmarks)
        errors.append(pose_error_degrees(seen.camera.pose(), batch.camera.pose()))
    median = torch.cat(errors).median(dim=0).values
    return {"yaw_deg": float(median[0]), "pitch_deg": float(median[1]), "roll_deg": float(median[2])}


@torch.no_grad()
def reconstruction_table(
    inverter: Inverter, reader: AttributeNet, data: HeadViews, *, disturbed: bool = True, seed: int = 19
) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """E0 → G against the exact code, the mean face and the nearest training head, all drawn by G from the true camera.

    Returns:
        By method: MAE on the head (range 2) and, over all attributes, the mean error in spreads and the mean
        correlation with the truth. And, by method, the correlation of every attribute; also of the exact renders,
        which is as much as the reader can tell.
    """
    lookup = _NearestHead(data)
    images: dict[str, list[Tensor]] = {}
    truths, codes = [], []
    for batch in _batches(data, seed, AugmentationConfig() if disturbed else None):
        generator = inverter.generator
        found = torch.from_numpy(data.z[lookup(batch)])
        latents = {
            "exact code": generator.map(batch.z),
            "E0": inverter.observe(batch.image, batch.landmarks).latents,
            "nearest training head": generator.map(found),
            "mean face": inverter.encoder.mean_latents.expand(len(batch.z), -1, -1),
        }
        for name, code in latents.items():
            images.setdefault(name, []).append(drawn_heads(generator, code, batch.camera))
        truths.append(_clean(data, batch))
        codes.append(torch.from_numpy(data.attributes[batch.identities]))
    truth, attributes = torch.cat(truths), torch.cat(codes)
    wanted = (attributes - reader.mean) / reader.spread
    pictures = {name: torch.cat(parts) for name, parts in images.items()}
    read = {name: reader.standardised(image) for name, image in pictures.items()}
    figures = {
        name: {
            "mae_head": float(_head_error(image, truth)),
            "attribute_error": float((read[name] - wanted).abs().mean()),
            "attribute_r": float(np.nanmean(_correlations(read[name], wanted))),
        }
        for name, image in pictures.items()
    }
    read |= {"exact render": reader.standardised(truth[:, :3])}
    return figures, {name: _correlations(values, wanted) for name, values in read.items()}


@torch.no_grad()
def direction_table(
    inverter: Inverter, reader: AttributeNet, data: HeadViews, names: Sequence[str], *, heads: int = 64
) -> dict[str, DirectionEffect]:
    """What each direction does at strength 1, read from the generator's own pictures."""
    ids = list(data.held_out)[:heads]
    generator = inverter.generator
    latents = generator.map(torch.from_numpy(data.z[ids]))
    camera = Camera.from_eg3d(torch.from_numpy(data.cameras[ids, 0]))
    before = _read(reader, generator, latents, camera)
    table = {}
    for name, direction in inverter.directions.items():
        change = (_read(reader, generator, latents + direction, camera) - before).mean(dim=0)
        own = OWN_ATTRIBUTES.get(name, ())
        others = {n: float(v) for n, v in zip(names, change, strict=True) if n not in own}
        worst = max(others, key=lambda n: abs(others[n]))
        table[name] = DirectionEffect(
            own=float(change[list(names).index(own[0])]) if own else float("nan"),
            leak=float(np.mean(np.abs(list(others.values())))),
            worst=worst,
            worst_change=others[worst],
        )
    return table


class _NearestHead:
    """The training head whose picture, over grey at 32 px, is closest to a given one."""

    def __init__(self, data: HeadViews, size: int = 32) -> None:
        self.size = size
        rng = np.random.default_rng(0)
        known = []
        for first in range(0, data.train_count, 64):
            ids = np.arange(first, min(first + 64, data.train_count))
            known.append(_reduced(draw_batch(data, ids, rng, None, landmark_noise=0).image, size))
        self.known = torch.cat(known).flatten(1)

    def __call__(self, batch: EncoderBatch) -> NDArray[np.int64]:
        wanted = _reduced(batch.image, self.size).flatten(1)
        return torch.stack([(self.known - row).abs().mean(dim=1).argmin() for row in wanted]).numpy()


def _batches(data: HeadViews, seed: int, augmentation: AugmentationConfig | None, size: int = 32) -> list[EncoderBatch]:
    ids = np.asarray(data.held_out)
    rng = np.random.default_rng(seed)
    parts = np.split(ids, range(size, len(ids), size))
    return [draw_batch(data, part, rng, augmentation) for part in parts if len(part)]


def _reduced(image: Tensor, size: int) -> Tensor:
    return F.interpolate(image, (size, size), mode="area")


def _clean(data: HeadViews, batch: EncoderBatch, size: int = 64) -> Tensor:
    """The undisturbed renders of a batch's views, over grey. [B, 4, size, size], the last channel their alpha"""
    rows = []
    for row, view in zip(batch.identities, batch.views, strict=True):
        rgba = torch.from_numpy(data.view(row, view).rgba.astype(np.float32) / 255).permute(2, 0, 1)
        rows.append(torch.cat([rgba[3:] * (2 * rgba[:3] - 1), rgba[3:]]))
    return _reduced(torch.stack(rows), size)


def drawn_heads(generator: Generator, latents: Tensor, camera: Camera, size: int = 64, step: int = 32) -> Tensor:
    """Heads as the generator's volume rendering shows them, over grey, `step` at a time. [B, 3, size, size]"""
    parts = []
    for first in range(0, len(latents), step):
        part = slice(first, first + step)
        rendered = generator.render(generator.planes(latents[part]), camera[part], resolution=size)
        parts.append(over_grey(rendered.rgb, rendered.alpha))
    return torch.cat(parts)


def _read(reader: AttributeNet, generator: Generator, latents: Tensor, camera: Camera) -> Tensor:
    """Standardised attributes of the generator's pictures. [B, A]"""
    return reader.standardised(drawn_heads(generator, latents, camera))


def _head_error(image: Tensor, truth: Tensor) -> Tensor:
    """MAE where the head is. [B, 3, S, S], [B, 4, S, S] → []"""
    weight = truth[:, 3:]
    return ((image - truth[:, :3]).abs().mean(dim=1, keepdim=True) * weight).sum() / weight.sum()


def _correlations(read: Tensor, wanted: Tensor) -> list[float]:
    """Of every attribute, over all heads. [B, A] twice → A"""
    return [float(torch.corrcoef(torch.stack(pair))[0, 1].nan_to_num()) for pair in zip(read.T, wanted.T, strict=True)]


def as_plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table as plain values, rounded for print."""
    plain: dict[str, Any] = {}
    for name, row in table.items():
        values = row if isinstance(row, Mapping) else vars(row)
        plain[name] = {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
    return plain
