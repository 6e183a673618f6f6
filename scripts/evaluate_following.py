"""How closely the reconstruction follows a face over time: mouth, lids, turning, before and after `--refine clip`.

    python scripts/evaluate_following.py talk.mp4 other.mp4 --frames 60 --modes none clip --out following

Frames spread over the first seconds of each clip are reconstructed from their codes alone (before the lift, whose
residual would bring the source's own mouth). Landmarks are found on source and reconstruction by the same back end:

  mouth r, gain   correlation over time of the inner lips' opening (over the eyes' distance), and its regression slope
  lids r, gain    the same of the eyes' opening (height over width)
  smile r, gain   the same of the mouth's width (over the eyes' distance)
  points          mean distance of the points (without the jaw line), percent of the eyes' distance
  found           share of the frames where a face was found in both

OUT/CLIP.png has eight of the frames: source, then the reconstruction of each mode.
"""

from __future__ import annotations

import argparse
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.evaluation.face_motion import lid_opening, mouth_opening, mouth_width, point_error, points_of
from e3dge_video.faces.landmarks import LandmarkBackend, LandmarkOptions, choose_backend, load_backend
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.io.images import to_array
from e3dge_video.pipelines.clip_frames import ClipFrames, Frames
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.pipelines.options import RefineOptions

log = logging.getLogger("evaluate_following")


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--modes", nargs="+", choices=["none", "clip"], default=["none", "clip"])
    parser.add_argument("--seconds", type=Fraction, default=Fraction(6), help="of each clip, from its beginning")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("following"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backend = load_backend(LandmarkOptions(choose_backend(LandmarkOptions())[0]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {}
    for path in arguments.clips:
        clip = ClipFrames(path, arguments.model, arguments.seconds, arguments.threads)
        chosen = np.unique(np.linspace(0, len(clip.yaw) - 1, arguments.frames).astype(int))
        columns = [to_array(clip.frames()[chosen].image)]
        for mode in arguments.modes:
            inverter, frames = made(clip, mode)
            shown = reconstructions(inverter, frames[chosen])
            table[f"{path.stem} {mode}"] = figures = following(backend, columns[0], shown)
            columns.append(shown)
            log.info("%-24s %s", f"{path.stem} {mode}", "  ".join(f"{k} {v:.3g}" for k, v in figures.items()))
        some = np.linspace(0, len(chosen) - 1, 8).astype(int)
        sheet = np.concatenate([np.concatenate(list(column[some]), axis=1) for column in columns])
        cv2.imwrite(str(arguments.out / f"{path.stem}.png"), sheet[..., ::-1])
        write_json(arguments.out.with_suffix(".json"), table)


def made(clip: ClipFrames, mode: str) -> tuple[Inverter, Frames]:
    """The model and the clip's frames of a mode."""
    if mode == "none":
        return clip.inverter, clip.frames()
    payload = clip.refine(RefineOptions("clip"))
    return clip.inverter.with_weights(safetensors.torch.load(bytes(payload["generator"]))), clip.frames("refined")


@torch.no_grad()
def reconstructions(inverter: Inverter, frames: Frames) -> NDArray[np.uint8]:
    """Heads of the codes over grey. [T, S, S, 3]"""
    pictures: list[Tensor] = []
    for k in range(len(frames.image)):
        one = frames[[k]]
        layer = inverter.layer(inverter.generator.planes(one.latents), one.latents, one.camera)
        pictures.append(2 * (layer.color + 0.5 * (1 - layer.alpha)) - 1)
    return to_array(torch.cat(pictures))


def following(backend: LandmarkBackend, source: NDArray[np.uint8], made: NDArray[np.uint8]) -> dict[str, float]:
    """Figures of two sequences of pictures. [T, S, S, 3] twice"""
    pairs = [both for a, b in zip(source, made, strict=True) if (both := points_of(backend, a, b)) is not None]
    seen, shown = (np.stack(points) for points in zip(*pairs, strict=True))
    figures = {}
    for name, measure in (("mouth", mouth_opening), ("lids", lid_opening), ("smile", mouth_width)):
        x, y = measure(seen), measure(shown)
        figures[f"{name} r"] = float(np.corrcoef(x, y)[0, 1])
        figures[f"{name} gain"] = float(np.polyfit(x, y, 1)[0])
    return figures | {"points": float(point_error(seen, shown).mean()), "found": len(pairs) / len(source)}


if __name__ == "__main__":
    main()
