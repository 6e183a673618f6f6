"""How far a toon part draws like the cartoons that it was taught, and what it keeps of the heads.

    python scripts/evaluate_toon.py --pictures cartoons --models starter runs/toon/bundle --out toon

Random codes and views, the same for all: the pictures of the folder, the model's photographs, and each model's
cartoons.

`colours`: sliced Wasserstein distance of the colours of heads (Lab, 0..100) from the folder's; the folder's own is that
of its two halves. `edges`: share of the pixels inside heads where grey changes by more than 0.12 to the next. `depth`:
median distance of the cartoon's surface from the photograph's, world units. `codes`: share of the heads that E0 finds
again: of all codes that it reads from the photographs, the nearest to what it reads from the cartoon is this head's.

OUT.png has some of the pictures: a row of the folder, of the photographs, and one each of the models' cartoons.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.load import load_inverter
from e3dge_video.io.images import to_array
from e3dge_video.models.generators.base import Generator
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.training.toon_pictures import read_toon_pictures

log = logging.getLogger("evaluate_toon")

#: Change of grey, 0..1, from one pixel to the next that makes an edge.
_EDGE = 0.12
#: Colours of all heads together that are compared, and the directions that they are projected on.
_COLOURS, _DIRECTIONS = 100_000, 64


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--pictures", type=Path, required=True, help="folder of cartoon faces")
    parser.add_argument("--models", nargs="+", default=["starter"], help="bundles with a toon part, of one generator")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("toon"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with torch.no_grad():
        table = compare(arguments.pictures, arguments.models, arguments.count, arguments.out)
    write_json(arguments.out.with_suffix(".json"), table)


def compare(pictures: Path, names: list[str], count: int, out: Path) -> dict[str, dict[str, float]]:
    """A row of figures for the folder, the photographs and every model."""
    models = {name: load_inverter(name, toon=1.0) for name in names}
    first = models[names[0]]
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.standard_normal((count, first.generator.z_dim)).astype(np.float32))
    angles = torch.from_numpy((rng.standard_normal((count, 2)) * (0.3, 0.15)).astype(np.float32))
    latents, camera = first.generator.map(z), first.generator.camera_at(angles)
    folder = read_toon_pictures(pictures, first.resolution, "eg3d", first.matte).images
    shown = torch.cat([first.matte(part) for part in folder.split(16)]) > 0.5
    wanted = colours(folder, shown)
    photo, inside, depth = drawn(first.generator, latents, camera)
    codes = read(first, photo)
    halves = [colours(folder[k::2], shown[k::2]) for k in (0, 1)]
    table = {
        "the folder": {"colours": distance(*halves), "edges": edges(folder, shown)},
        "photographs": {"colours": distance(colours(photo, inside), wanted), "edges": edges(photo, inside)},
    }
    rows = [folder[:8], photo[:8]]
    for name, model in models.items():
        assert model.toon is not None
        image, inside, moved = drawn(model.toon.generator, latents, camera)
        both = inside & (depth > 0) & (moved > 0)
        table[name] = {
            "colours": distance(colours(image, inside), wanted),
            "edges": edges(image, inside),
            "depth": float((moved - depth)[both].abs().median()),
            "codes": float((torch.cdist(read(model, image), codes).argmin(1) == torch.arange(count)).float().mean()),
        }
        rows.append(image[:8])
    for name, figures in table.items():
        log.info("%-28s %s", name, "  ".join(f"{key} {value:.4f}" for key, value in figures.items()))
    cv2.imwrite(f"{out}.png", np.concatenate([np.concatenate(list(to_array(row)), axis=1) for row in rows])[..., ::-1])
    return table


def drawn(generator: Generator, latents: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures over black [N, 3, S, S], where they show the head [N, 1, S, S], and depth in the same size."""
    images, inside, depths = [], [], []
    for k in range(len(latents)):
        rendered = generator.render(generator.planes(latents[[k]]), camera[[k]])
        image = generator.upsample(rendered, latents[[k]])
        alpha, depth = (
            torch.nn.functional.interpolate(x, image.shape[-2:], mode="bilinear")
            for x in (rendered.alpha, rendered.depth)
        )
        images.append(alpha * (image + 1) - 1)
        inside.append(alpha > 0.9)
        depths.append(depth)
    return torch.cat(images).clamp(-1, 1), torch.cat(inside), torch.cat(depths)


def read(model: Inverter, pictures: Tensor) -> Tensor:
    """E0's codes of pictures. [N, L·W]"""
    return torch.cat([model.observe(part).latents.flatten(1) for part in pictures.split(8)])


def colours(pictures: Tensor, inside: Tensor) -> NDArray[np.float32]:
    """Colours of heads in Lab. [M, 3]"""
    lab = np.stack([cv2.cvtColor(np.float32(one) / 255, cv2.COLOR_RGB2LAB) for one in to_array(pictures)])
    found: NDArray[np.float32] = lab[inside[:, 0].numpy()]
    return found[np.random.default_rng(0).integers(0, len(found), _COLOURS)]


def distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Sliced Wasserstein distance: mean over directions of the mean distance between sorted projections."""
    directions = np.random.default_rng(1).standard_normal((3, _DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    return float(np.abs(np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)).mean())


def edges(pictures: Tensor, inside: Tensor) -> float:
    """Share of the pixels inside heads whose grey differs from that of the next one."""
    grey = (pictures.mean(dim=1, keepdim=True) + 1) / 2
    across, down = grey.diff(dim=3)[:, :, :-1].abs(), grey.diff(dim=2)[..., :-1].abs()
    core = -torch.nn.functional.max_pool2d(-inside.float(), 9, 1, 4)[..., :-1, :-1] > 0.5
    return float((torch.maximum(across, down)[core] > _EDGE).float().mean())


if __name__ == "__main__":
    main()
