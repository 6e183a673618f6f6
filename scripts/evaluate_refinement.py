"""What E1 and test-time optimisation do to real clips: none, E1, P, P+C and a generator tuned to the clip.

    python scripts/evaluate_refinement.py talk.mp4 other.mp4 --modes none E1 pose pose+code clip --out refinement

`none` is the global reconstruction alone; `E1` lets the model's local branch add to it. Modes that begin with `clip`
tune a generator to the clip: `clip` as `--refine clip` does, that is `clip-codes-between`; `clip-shared` without own
offsets of key frames, `clip-codes`, `-poses` and `-both` with, which are dropped or, with `-between`, carried to the
frames between them.

For every clip and mode it prints, and writes to OUT.json:

  unseen    MAE of Î0 in the face over the frames looked at that are no key frames of `clip`
  coarse    reconstruction before the lift (Î0, or with E1) at the input view against the picture: MAE (range 2) and
            SSIM inside the face (jaw line and brows), MAE on the head (matte and alpha)
  final     the final picture at the input view, MAE inside the face; the lifted residual copies it, whatever Î0 is
  A→B       frame A inverted, drawn with the camera of frame B (the clip's extremes of yaw, and two frames apart),
            against B inside B's face: MAE and SSIM; `same` keeps A's expression, `moved` takes B's code
  points    landmarks found on Î0 against those found on the picture, percent of the distance between the eyes
  E0        cosine between E0's codes of picture and Î0, both less their mean; stands in for the identity of a face
            recogniser unless IR-SE50 has been fetched
  jitter    mean second difference of yaw, pitch, roll over consecutive frames, degrees; of P and P+C unsmoothed
  CPU s     CPU seconds beyond `none`: per frame for E1, P and P+C, for the whole clip for `clip`

Frames looked at: `--frames` consecutive ones from a third of the clip on, and those of the pairs. OUT/CLIP.png shows
the input, then for each mode Î0, the final picture, and both at −20° and +20° of yaw.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast, get_args

import cv2
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.evaluation.face_motion import point_error, points_of
from e3dge_video.evaluation.likeness import masked_error, masked_similarity, person_similarity
from e3dge_video.faces.landmarks import LandmarkBackend, LandmarkOptions, choose_backend, load_backend
from e3dge_video.faces.pose import camera_angles
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.inverter import Inverter, face_region
from e3dge_video.inversion.lifting import Layer
from e3dge_video.inversion.load import load_inverter
from e3dge_video.inversion.refinement.frames import refine_frames
from e3dge_video.inversion.refinement.load import MetricFiles, find_metric_files, load_objective
from e3dge_video.inversion.refinement.objective import Objective, head_weight
from e3dge_video.inversion.refinement.personalization import OwnOffsets, PersonalizationConfig
from e3dge_video.io.images import to_array
from e3dge_video.pipelines.clip_frames import ClipFrames, Frames
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.pipelines.options import RefineMode, RefineOptions
from e3dge_video.pipelines.report import second_difference
from e3dge_video.pipelines.stages.refine import frame_schedule
from e3dge_video.weights.metric_networks import load_recognizer

log = logging.getLogger("evaluate_refinement")
SIDE_DEG = 20
SHARED, POSES = {"own_code_lr": 0.0}, {"own_pose_lr": 1e-3}
CLIP_MODES = {
    "clip": RefineOptions("clip"),
    "clip-shared": RefineOptions("clip", clip=PersonalizationConfig(**SHARED)),
    **{
        f"clip-{name}{'-between' if own == 'interpolate' else ''}": RefineOptions(
            "clip", clip=PersonalizationConfig(**rates), own_offsets=own
        )
        for name, rates in (("codes", {}), ("poses", SHARED | POSES), ("both", POSES))
        for own in get_args(OwnOffsets)
    },
}


@dataclass(frozen=True)
class Found:
    """What a mode made of them."""

    inverter: Inverter
    frames: Frames
    cpu_s: float


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", default="starter")
    every = ["none", "E1", "pose", "pose+code", *CLIP_MODES]
    parser.add_argument("--modes", nargs="+", choices=every, default=every[:5])
    parser.add_argument("--seconds", type=Fraction, default=Fraction(6), help="of each clip, from its beginning")
    parser.add_argument("--frames", type=int, default=24, help="consecutive frames looked at")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("refinement"))
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    files = find_metric_files()
    judge = Judge.at_hand()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {}
    for clip in arguments.clips:
        frames = ClipFrames(clip, arguments.model, arguments.seconds, arguments.threads)
        chosen, pairs = looked_at(frames, arguments.frames)
        learned = frames.key_frames(RefineOptions("clip"))
        unseen = [place for place, frame in enumerate(chosen) if frame not in learned]
        pictures = [to_array(frames.frames()[chosen].image)]
        for mode in arguments.modes:
            found = detailed(frames, arguments.model, chosen) if mode == "E1" else refined(frames, mode, chosen, files)
            places = [(chosen.index(a), chosen.index(b)) for a, b in pairs]
            figures, shown = judge(found, arguments.frames, unseen, places)
            table[f"{clip.stem} {mode}"] = figures
            pictures.append(shown)
            log.info("%-28s %s", f"{clip.stem} {mode}", "  ".join(f"{k} {v:.4g}" for k, v in figures.items()))
        some = np.linspace(0, len(chosen) - 1, 4).astype(int)
        sheet = np.concatenate([np.concatenate(list(p[some]), axis=0) for p in pictures], axis=1)
        cv2.imwrite(str(arguments.out / f"{clip.stem}.png"), sheet[..., ::-1])
        write_json(arguments.out.with_suffix(".json"), table)


def looked_at(clip: ClipFrames, count: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Consecutive frames, then those of the pairs; and the pairs."""
    yaw = clip.yaw
    total = len(yaw)
    left, right = int(yaw.argmin()), int(yaw.argmax())
    pairs = [(left, right), (right, left), (total // 5, 4 * total // 5), (4 * total // 5, total // 5)]
    block = list(range(total // 3, min(total // 3 + count, total)))
    return block + sorted({k for pair in pairs for k in pair} - set(block)), pairs


def detailed(clip: ClipFrames, model: str, chosen: list[int]) -> Found:
    """The frames looked at, as the model with its local branch reconstructs them."""
    frames, inverter = clip.frames()[chosen], load_inverter(model, local=True)
    seconds = []
    with torch.no_grad():
        for each in (clip.inverter, inverter):
            began = time.process_time()
            for k in range(len(chosen)):
                one = frames[[k]]
                each.invert(one.image, one.camera, landmarks=one.landmarks, latents=one.latents)
            seconds.append(time.process_time() - began)
    return Found(inverter, frames, (seconds[1] - seconds[0]) / len(chosen))


def refined(clip: ClipFrames, mode: str, chosen: list[int], files: MetricFiles) -> Found:
    """The frames looked at, refined."""
    began = time.process_time()
    if mode in CLIP_MODES:
        payload = clip.refine(replace(CLIP_MODES[mode], metrics=files))
        spent = time.process_time() - began
        tuned = clip.inverter.with_weights(safetensors.torch.load(bytes(payload["generator"])))
        return Found(tuned, clip.frames("refined")[chosen], spent)
    frames = clip.frames()[chosen]
    if mode == "none":
        return Found(clip.inverter, frames, 0.0)
    found = adjusted(clip.inverter, frames, load_objective(files), cast(RefineMode, mode))
    return Found(clip.inverter, found, (time.process_time() - began) / len(chosen))


def adjusted(inverter: Inverter, frames: Frames, objective: Objective, mode: RefineMode) -> Frames:
    """P or P+C of frames."""
    with torch.no_grad():
        foreground = inverter.foreground(frames.image, frames.landmarks)
        planes = inverter.generator.planes(frames.latents)
        alpha = inverter.generator.render(planes, frames.camera, resolution=inverter.neural_resolution).alpha
    found = refine_frames(
        inverter.generator, frames.image, head_weight(alpha, foreground), frames.latents, frames.camera, objective,
        inverter.neural_resolution, frame_schedule(mode, "cpu"),
    )  # fmt: skip
    log.info("  %s: loss %.4f → %.4f", mode, found.loss_before.mean(), found.loss_after.mean())
    return Frames(frames.image, frames.landmarks, frames.latents + found.offset, found.camera)


@dataclass(frozen=True)
class Judge:
    """Figures of one mode."""

    backend: LandmarkBackend
    recognizer: Any

    @classmethod
    def at_hand(cls) -> Judge:
        """With the recogniser if it was fetched."""
        try:
            recognizer = load_recognizer()
        except ModelError as error:
            log.info("identity is measured by E0's code, a stand-in: %s", error)
            recognizer = None
        backend, _ = choose_backend(LandmarkOptions())
        return cls(load_backend(LandmarkOptions(backend)), recognizer)

    @torch.no_grad()
    def __call__(
        self, found: Found, consecutive: int, unseen: Sequence[int], pairs: Sequence[tuple[int, int]]
    ) -> tuple[dict[str, float], NDArray[np.uint8]]:
        """Figures, and pictures for people."""
        inverter, frames = found.inverter, found.frames
        parts = [self._frame(inverter, frames[[k]]) for k in range(len(frames.image))]
        figures = {"unseen MAE": float(np.mean([parts[k][0]["coarse MAE"] for k in unseen]))}
        figures |= {name: float(np.nanmean([part[0][name] for part in parts])) for name in parts[0][0]}
        crossed = [self._pair(inverter, frames[[a]], frames[[b]]) for a, b in pairs]
        figures |= {name: float(np.mean([pair[name] for pair in crossed])) for name in crossed[0]}
        angles = np.degrees(camera_angles(frames.camera.cam2world[:consecutive].numpy()))
        figures["jitter"] = second_difference(angles, np.zeros(len(angles), np.int64))
        figures["CPU s"] = found.cpu_s
        return figures, np.stack([part[1] for part in parts])

    def _frame(self, inverter: Inverter, frame: Frames) -> tuple[dict[str, float], NDArray[np.uint8]]:
        inversion = inverter.invert(frame.image, frame.camera, landmarks=frame.landmarks, latents=frame.latents)
        face = face_region(frame.landmarks, frame.image.shape[-1])
        coarse = shown(inversion.layer)  # the global reconstruction, unless there is a local branch
        final = inverter.synthesize(inversion, inversion.camera).image
        head = inversion.coarse.alpha * inversion.lifted.matte
        figures = {
            "coarse MAE": masked_error(coarse, frame.image, face),
            "coarse SSIM": masked_similarity(coarse, frame.image, face),
            "coarse MAE head": masked_error(coarse, frame.image, head),
            "final MAE": masked_error(final, frame.image, face),
            "points": self._points(frame.image, coarse),
        }
        kind, alike = person_similarity(inverter, self.recognizer, coarse, frame.image, frame.landmarks)
        figures[kind] = alike
        pictures = [coarse, final]
        for degrees in (-SIDE_DEG, SIDE_DEG):
            pose = frame.camera.pose()
            pose[:, 0] += np.radians(degrees)
            side = Camera.from_pose(pose)
            layer = inverter.layer(inversion.planes, inversion.latents, side)
            pictures += [shown(layer), inverter.synthesize(inversion, side).image]
        return figures, np.concatenate([to_array(picture)[0] for picture in pictures], axis=1)

    def _pair(self, inverter: Inverter, a: Frames, b: Frames) -> dict[str, float]:
        inversion = inverter.invert(a.image, a.camera, landmarks=a.landmarks, latents=a.latents)
        face = face_region(b.landmarks, b.image.shape[-1])
        same = inverter.synthesize(inversion, b.camera).image
        moved = inverter.synthesize(inversion, b.camera, inverter.edit(inversion, b.latents)).image
        return {
            "A→B same MAE": masked_error(same, b.image, face),
            "A→B same SSIM": masked_similarity(same, b.image, face),
            "A→B moved MAE": masked_error(moved, b.image, face),
            "A→B moved SSIM": masked_similarity(moved, b.image, face),
        }

    def _points(self, image: Tensor, coarse: Tensor) -> float:
        """Distance of the points found on both, percent of the eyes' distance; NaN where there is no face."""
        found = points_of(self.backend, to_array(image)[0], to_array(coarse)[0])
        return float("nan") if found is None else float(point_error(*(points[None] for points in found))[0])


def shown(layer: Layer) -> Tensor:
    """A head over grey. [B, 3, S, S]"""
    return 2 * (layer.color + 0.5 * (1 - layer.alpha)) - 1


if __name__ == "__main__":
    main()
