"""Held-out figures of a generator trained on rendered heads: its new views against the exact renders."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.io.images import to_array
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.head_views import HeadView, HeadViews
from e3dge_video.training.workers import placed


def evaluate_generator(
    generator: Generator, data: HeadViews, identities: Sequence[int], *, size: int = 128, view: int = 1
) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Render identities the generator was never trained on and compare over grey.

    Args:
        generator: Generator whose z is the data set's.
        data: Rendered heads with depth.
        identities: Which heads.
        size: Resolution of the comparison, pixels; at most that of the data.
        view: Which view of each identity.

    Returns:
        PSNR (dB), MAE and MAE on the head (range -1..1), MAE on eyes, brows, mouth and glasses, median depth error
        (world units); and a sheet: truth, rendering, depth.
    """
    size, device = min(size, data.size), generator.mean_latents.device
    figures: dict[str, list[float]] = {k: [] for k in ("psnr", "mae", "mae_head", "mae_detail", "depth")}
    rows: list[NDArray[np.uint8]] = []
    for identity in identities:
        record = data.view(identity, view)
        truth, alpha, depth, detail = placed(_reduced(record, size, data.detail_labels), device)
        camera = placed(data.camera(identity, view), device)
        latents = generator.map(torch.from_numpy(data.z[identity])[None].to(device))
        rendered = generator.render(generator.planes(latents, noise="const"), camera, resolution=size)
        image = over_grey(rendered.rgb, rendered.alpha)[0].clamp(-1, 1)
        error = (image - truth).abs().mean(dim=0)
        figures["psnr"].append(float(-10 * torch.log10(((image - truth) / 2).square().mean())))
        figures["mae"].append(float(error.mean()))
        head = alpha > 0.5
        figures["mae_head"].append(float(error[head].mean()))
        if detail.any():
            figures["mae_detail"].append(float(error[detail].mean()))
        both = head & (rendered.alpha[0, 0] > 0.5) & (depth > 0)
        figures["depth"].append(float((rendered.depth[0, 0] - depth).abs()[both].median()))
        if len(rows) < 8:
            rows.append(np.concatenate([to_array(truth), to_array(image), _gray(rendered.depth[0, 0], both)], axis=0))
    return {k: float(np.mean(v)) for k, v in figures.items()}, np.concatenate(rows, axis=1)


def over_grey(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Lay a rendering over mid-grey. Raw colours in [-1, 1] stand on black. [B, 3, S, S], [B, 1, S, S]"""
    return rgb + (1 - alpha)


def _reduced(record: HeadView, size: int, detail: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Truth over grey [3, S, S], alpha, depth and detail mask [S, S] of one view at the evaluation's resolution."""
    rgba, depth, label = record.rgba, record.depth, record.label
    alpha = rgba[..., 3:].astype(np.float32) / 255
    image = alpha * (rgba[..., :3].astype(np.float32) / 127.5 - 1)
    step = rgba.shape[0] // size
    small = cv2.resize(np.concatenate([image, alpha], axis=2), (size, size), interpolation=cv2.INTER_AREA)
    middle = slice(step // 2, None, step)
    return (
        torch.from_numpy(np.ascontiguousarray(small[..., :3].transpose(2, 0, 1))),
        torch.from_numpy(np.ascontiguousarray(small[..., 3])),
        torch.from_numpy(depth[middle, middle].astype(np.float32)),
        torch.from_numpy(np.isin(label[middle, middle], detail)),
    )


def _gray(depth: Tensor, mask: Tensor) -> NDArray[np.uint8]:
    shade = torch.where(mask, 1.6 - 2 * (depth - 2.2), -1.0).clamp(-1, 1)
    return to_array(shade[None].expand(3, -1, -1))
