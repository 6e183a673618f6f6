"""The paper's novel-view evaluation (§7.2): heads that the generator makes up, seen once, drawn around an ellipse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from e3dge_video.evaluation.judge import HeadJudge
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project
from e3dge_video.geometry.trajectories import stylesdf_ellipse
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.training.backgrounds import random_background

#: Views of the paper's trajectory, once around.
ELLIPSE_VIEWS = 250


def ellipse_cameras(model: Inverter, views: int = ELLIPSE_VIEWS) -> Camera:
    """Cameras once around the paper's ellipse, ±0.45 rad of yaw and ±0.225 rad of pitch."""
    pose = torch.zeros(views, 6)
    pose[:, :2] = stylesdf_ellipse(views + 1)[:-1]  # the last would be the first again
    return model.orbit.camera(pose)


@torch.no_grad()
def novel_view_figures(
    model: Inverter,
    inverters: Mapping[str, Inverter],
    judge: HeadJudge,
    identity: int,
    *,
    views: int = ELLIPSE_VIEWS,
    seed: int = 0,
    batch: int = 5,
) -> dict[str, dict[str, float]]:
    """One head: a random view of the ellipse is the input, the others the truth.

    Args:
        model: Makes up the head: its generator is the truth.
        inverters: What is judged, by name; its generator is the same.
        judge: The metrics.
        identity: Number of the head.
        views: How many views of the ellipse, evenly spaced.
        seed: Of all heads.
        batch: Views drawn at a time.

    Returns:
        Means over the views, judged where the true head is: by inverter, and of the "global code" alone, the first
        one's.
    """
    rng, size = np.random.default_rng([seed, identity]), model.resolution
    latents = model.generator.map(torch.from_numpy(rng.standard_normal((1, model.generator.z_dim)).astype(np.float32)))
    planes, cameras, points = model.generator.planes(latents), ellipse_cameras(model, views), model.face_points(latents)
    source = int(rng.integers(views))
    shown = model.layer(planes, latents, cameras[source : source + 1])
    background = torch.from_numpy(random_background(size, rng).astype(np.float32)).permute(2, 0, 1)
    image = 2 * (shown.color + (1 - shown.alpha) * background) - 1
    inversions = {name: inverter.invert(image) for name, inverter in inverters.items()}
    coarse = next(iter(inversions.values()))
    figures: dict[str, dict[str, list[float]]] = {}
    rest = torch.tensor([k for k in range(views) if k != source])
    for first in range(0, len(rest), batch):
        camera = cameras[rest[first : first + batch]]
        count = len(camera)
        truth, alone = (
            model.layer(of, code.expand(count, -1, -1), camera)
            for of, code in ((planes, latents), (coarse.planes, coarse.latents))
        )
        drawn = {"global code": 2 * alone.color - 1}
        for name, inverter in inverters.items():
            each = [inverter.synthesize(inversions[name], camera[k : k + 1]).image for k in range(count)]
            drawn[name] = torch.cat(each)
        head, landmarks = (truth.alpha > 0.5).float(), project(points.expand(count, -1, -1), camera)[0]
        for name, pictures in drawn.items():
            for one in zip(pictures, 2 * truth.color - 1, head, landmarks, strict=True):
                for metric, value in judge(*(values[None] for values in one)).items():
                    figures.setdefault(name, {}).setdefault(metric, []).append(value)
    return {name: {k: float(np.mean(v)) for k, v in of.items()} for name, of in figures.items()}
