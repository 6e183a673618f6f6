"""What local detail is worth: the paper's Table 3 on rendered heads, and frame A drawn as frame B of real clips.

    python scripts/evaluate_detail.py heads --data data/heads --runs local=runs/local hybrid=runs/align --out detail
    python scripts/evaluate_detail.py pairs --data data/heads --edits data/edits --out detail
    python scripts/evaluate_detail.py clips talk.mp4 other.mp4 --blend runs/blend --local runs/align --out detail

`heads`: held-out heads with detail that no code holds (patterns, patches, recoloured hair and clothes), two views each,
inverted from a disturbed picture; with `--fine` nothing is recoloured, and no broad tone changed. A row for the global
reconstruction and one for every run of `train local|align`, on request with its features read in another mode
(`unaligned=runs/local:unaligned`); for source and novel view each MAE (range 2) on the head, also where the source
shows the place and where it does not, SSIM, LPIPS and identity. Without the networks of the latter two, `features` (our
structural features, lower is better) and `E0` (cosine of E0's codes less their mean) stand in. With `--edits` (a data
set of `train heads --pairs`) also as many heads drawn as their exact edit, from the edit's camera: `edited`, `changed`
where the edit puts something else.

`pairs`: the same held-out heads and edits, by the global reconstruction, the plain lift, the lift with its blend,
and both on top of E1; MAE and SSIM where picture and truth show nothing but the head.

`clips`: frame A inverted, drawn with the camera and the expression of frame B, more than `--degrees` apart in yaw; MAE
and SSIM where B shows the head and where it shows the face, of A itself, the global reconstruction, the plain lift, the
lift with its learned blend, and both on top of E1. `hidden` is the MAE where A does not show what B shows. OUT_CLIP.png
has the pictures: A, each of them, B.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.config.encoders import LocalBranchConfig
from e3dge_video.config.load import from_mapping
from e3dge_video.evaluation.judge import HeadJudge
from e3dge_video.evaluation.likeness import masked_error, masked_similarity
from e3dge_video.inversion.inverter import Inverter, face_region
from e3dge_video.inversion.lifting import ResidualLift
from e3dge_video.inversion.load import load_inverter
from e3dge_video.io.images import to_array
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.residual_blender import ResidualBlender
from e3dge_video.pipelines.clip_frames import ClipFrames, Frames
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.training.local_stage import Shown, TwoViews
from e3dge_video.training.runs import averaged, load_weights, run_config
from e3dge_video.training.view_pairs import HeadViewPairs, PairConfig
from e3dge_video.weights.bundle import read_spec
from e3dge_video.weights.catalog import find_bundle

log = logging.getLogger("evaluate_detail")


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    heads, pairs, clips = (what.add_parser(name) for name in ("heads", "pairs", "clips"))
    heads.add_argument("--runs", nargs="*", default=[], metavar="NAME=FOLDER[:MODE]")
    heads.add_argument("--fine", action="store_true", help="change no broad tones: no colour casts, nothing recoloured")
    for each in (heads, pairs):
        each.add_argument("--data", type=Path, required=True)
        each.add_argument("--edits", type=Path)
        each.add_argument("--count", type=int, default=64)
    clips.add_argument("clips", type=Path, nargs="+")
    for each in (pairs, clips):
        each.add_argument("--blend", type=Path, help="run of `train blend`; None: the model's own")
        each.add_argument("--local", type=Path, help="run of `train align`; None: the model's own")
    clips.add_argument("--seconds", type=Fraction, default=Fraction(8))
    clips.add_argument("--degrees", type=float, default=12)
    clips.add_argument("--pairs", type=int, default=12)
    for each in (heads, pairs, clips):
        each.add_argument("--model", default="starter")
        each.add_argument("--threads", type=int, default=2)
        each.add_argument("--out", type=Path, default=Path("detail"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = {"heads": ablation, "pairs": lifted, "clips": crossed}[arguments.what](arguments)
    write_json(arguments.out.with_suffix(".json"), table)


@torch.no_grad()
def ablation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Table 3 on rendered heads."""
    model = load_inverter(arguments.model)
    sources = pair_sources(arguments.data, arguments.edits, fine=arguments.fine)
    pairs = sources[0]
    judge, views = HeadJudge(model), TwoViews(model)
    rows: dict[str, LocalBranch | None] = {"global": None}
    for text in arguments.runs:
        name, _, run = text.partition("=")
        folder, _, mode = run.partition(":")
        rows[name] = branch_of(Path(folder), model, mode)
    table, sheet = {}, []
    for name, branch in rows.items():
        figures: dict[str, list[float]] = {}
        column = []
        for source, k in product(sources, range(arguments.count)):
            one = source.held_out(k)
            drawn = views.pictures(one, branch)
            for shown in drawn:
                for metric, value in judged(judge, shown, one.landmarks[0]).items():
                    figures.setdefault(f"{shown.view} {metric}", []).append(value)
            if source is pairs and k < 6:
                column.append(np.concatenate([to_array(shown.image[0]) for shown in drawn], axis=1))
        table[name] = {key: float(np.nanmean(values)) for key, values in figures.items()}
        sheet.append(np.concatenate(column))
        log.info("%-10s %s", name, "  ".join(f"{k} {v:.3f}" for k, v in table[name].items()))
    truths = [views.pictures(pairs.held_out(k), None) for k in range(min(6, arguments.count))]
    sheet.append(np.concatenate([np.concatenate([to_array(t.truth[0]) for t in one], axis=1) for one in truths]))
    cv2.imwrite(str(arguments.out) + "_heads.png", np.concatenate(sheet, axis=1)[..., ::-1])
    return table


def pair_sources(data: Path, edits: Path | None, *, fine: bool = False) -> list[HeadViewPairs]:
    """Pairs of views, and of edits if there are any."""
    config = PairConfig(data=data, recolor=0.0, color=0.0) if fine else PairConfig(data=data)
    sources = [HeadViewPairs(config)]
    return sources if edits is None else [*sources, HeadViewPairs(replace(config, data=edits, edits=True))]


@torch.no_grad()
def lifted(arguments: argparse.Namespace) -> dict[str, Any]:
    """The lift with and without E1 on held-out pairs: each picture drawn as the other one of its pair."""
    models = variants(arguments.model, arguments.local, arguments.blend)
    figures: dict[str, dict[str, list[float]]] = {}
    for source, k in product(pair_sources(arguments.data, arguments.edits), range(arguments.count)):
        one = source.held_out(k)
        camera, truth, whole = one.camera[torch.tensor([1, 0])], one.truth[0].flip(0), one.alpha[0].flip(0) > 0.98
        kind, made = "edited" if one.edited else "novel", {}
        for name, model in models.items():
            inversion = model.invert(one.image[0], landmarks=one.landmarks[0])
            latents, edited = inversion.latents, None
            if one.edited:
                latents = latents + one.edit_of(model.generator)
                edited = model.edit(inversion, latents)
            made[name] = model.synthesize(inversion, camera, edited).image
            if name == "plain lift":
                planes = inversion.planes if edited is None else edited.planes
                target = model.layer(planes, latents, camera)
                made["global"] = 2 * target.color - 1
        region = (whole & (target.alpha > 0.8)).float()
        for name, image in made.items():
            for row in range(2):
                shown = (image[[row]], truth[[row]], region[[row]])
                figures.setdefault(name, {}).setdefault(f"{kind} MAE", []).append(masked_error(*shown))
                figures[name].setdefault(f"{kind} SSIM", []).append(masked_similarity(*shown))
    table = {name: {key: float(np.mean(values)) for key, values in of.items()} for name, of in figures.items()}
    for name, values in table.items():
        log.info("%-16s %s", name, "  ".join(f"{k} {v:.4f}" for k, v in values.items()))
    return table


def judged(judge: HeadJudge, shown: Shown, landmarks: Tensor) -> dict[str, float]:
    """The four metrics of pictures over black; MAE also of parts of the head."""
    head = (shown.alpha > 0.5).float()
    figures = judge(shown.image, shown.truth, head, landmarks)
    parts = {"seen": shown.seen, "hidden": ~shown.seen}
    if shown.changed is not None:
        parts["changed"] = shown.changed
    for name, part in parts.items():
        region = head * part
        figures[name] = masked_error(shown.image, shown.truth, region) if region.any() else float("nan")
    return figures


def branch_of(folder: Path, model: Inverter, mode: str = "") -> LocalBranch:
    """The local branch of a run, averaged weights; in another mode than it learned in, if its parts are those of it."""
    options = run_config(folder)["branch"] | ({"mode": mode} if mode else {})
    config = from_mapping(LocalBranchConfig, options, source=str(folder))
    branch = LocalBranch(config, model.generator.feature_width)
    load_weights(branch, averaged(folder), "local", folder)
    return branch.eval().requires_grad_(False)


@torch.no_grad()
def crossed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Frame A as frame B of every clip."""
    table: dict[str, Any] = {}
    for path in arguments.clips:
        clip = ClipFrames(path, arguments.model, arguments.seconds, arguments.threads)
        frames, inverters = clip.frames(), variants(arguments.model, arguments.local, arguments.blend)
        found = far_pairs(clip.yaw, np.radians(arguments.degrees), arguments.pairs)
        if not found:
            log.info("%s: no two frames are %g° apart", path.stem, arguments.degrees)
            continue
        figures: dict[str, dict[str, list[float]]] = {}
        shown = []
        for a, b in found:
            one, pictures = pair(inverters, frames[[a]], frames[[b]])
            for name, values in one.items():
                for metric, value in values.items():
                    figures.setdefault(name, {}).setdefault(metric, []).append(value)
            shown.append(np.concatenate(pictures, axis=1))
        table[path.stem] = {name: {k: float(np.mean(v)) for k, v in values.items()} for name, values in figures.items()}
        for name, values in table[path.stem].items():
            log.info("%-16s %-12s %s", path.stem, name, "  ".join(f"{k} {v:.4f}" for k, v in values.items()))
        cv2.imwrite(f"{arguments.out}_{path.stem}.png", np.concatenate(shown[:6])[..., ::-1])
    return table


def far_pairs(yaw: NDArray[np.floating], apart: float, count: int) -> list[tuple[int, int]]:
    """Pairs of frames that far apart in yaw, spread over all there are."""
    some = np.unique(np.linspace(0, len(yaw) - 1, 40).astype(int))
    pairs = [(int(a), int(b)) for a in some for b in some if abs(yaw[a] - yaw[b]) > apart]
    return [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))] if pairs else []


def variants(name: str, local: Path | None, blend: Path | None) -> dict[str, Inverter]:
    """The model with and without E1 and the learned blend."""
    made = {}
    for e1 in (False, True):
        for learned in (False, True):
            model = load_inverter(name, local=local is None and has_local(name))
            if local is not None:
                model.local = branch_of(local, model)
            blender = model.blender if blend is None else blender_of(blend)
            if (e1 and model.local is None) or (learned and blender is None):
                continue
            model.local = model.local if e1 else None
            model.lift = ResidualLift(blender=blender if learned else None)
            made[("E1, " if e1 else "") + ("blend" if learned else "plain lift")] = model
    return made


def has_local(name: str) -> bool:
    """Whether a model has a local branch of its own."""
    return read_spec(find_bundle(name)).local is not None


def pair(
    inverters: Mapping[str, Inverter], a: Frames, b: Frames
) -> tuple[dict[str, dict[str, float]], list[NDArray[np.uint8]]]:
    """Figures of one pair, and pictures: A, the global reconstruction as B, each variant, B."""
    plain = inverters["plain lift"]
    images = {"A itself": a.image}
    for name, model in inverters.items():
        inversion = model.invert(a.image, a.camera, landmarks=a.landmarks, latents=a.latents)
        edited = model.edit(inversion, b.latents)
        if model is plain:
            target = model.layer(edited.planes, edited.latents, b.camera)
            images["global"] = 2 * (target.color + (1 - target.alpha) * (b.image + 1) / 2) - 1
            reading = model.lift.read(inversion.lifted, target, b.camera, edited.change)
        images[name] = model.synthesize(inversion, b.camera, edited).image
    foreground, face = plain.foreground(b.image, b.landmarks), face_region(b.landmarks, b.image.shape[-1])
    head = ((foreground > 0.5) & (target.alpha > 0.5)).float()
    hidden = head * (reading.weight < 0.3)
    figures = {}
    for name, image in images.items():
        figures[name] = {
            "head MAE": masked_error(image, b.image, head),
            "face MAE": masked_error(image, b.image, face),
            "hidden MAE": masked_error(image, b.image, hidden),
            "head SSIM": masked_similarity(image, b.image, head),
            "face SSIM": masked_similarity(image, b.image, face),
        }
    return figures, [to_array(x[0]) for x in (*images.values(), b.image)]


def blender_of(folder: Path) -> ResidualBlender:
    """The blend of a run, averaged weights."""
    blender = ResidualBlender(tuple(run_config(folder)["widths"]))
    load_weights(blender, averaged(folder), "blender", folder)
    return blender.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
