"""Figures of a starter bundle on heads it was never trained on, as a Markdown page and JSON.

    python scripts/evaluate_starter.py --model starter --data data/heads --reader runs/attributes --out docs/starter

Needs the extra [heads], the data set that the model was trained on (its last heads were held out) and the attribute
reader that was trained on the same renders (`e3dge-video train attributes`). Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from e3dge_video.evaluation.edit_accuracy import edit_accuracy, linearity, strength_curve
from e3dge_video.evaluation.new_views import new_view_figures
from e3dge_video.evaluation.starter import OWN_ATTRIBUTES, as_plain, direction_table, pose_errors, reconstruction_table
from e3dge_video.inversion.load import load_inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.training.generator_evaluation import evaluate_generator
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.runs import averaged
from e3dge_video.weights.bundle import read_spec
from e3dge_video.weights.catalog import find_bundle

log = logging.getLogger("evaluate_starter")


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reader", type=Path, required=True, help="folder of the run `train attributes`")
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--heads", type=int, default=64, help="heads of the generator's and the directions' figures")
    parser.add_argument("--edited", type=int, default=24, help="heads whose edits are rendered exactly")
    parser.add_argument("--out", type=Path, default=Path("starter"))
    arguments = parser.parse_args()

    inverter = load_inverter(arguments.model)
    data = HeadViews(arguments.data, arguments.held_out)
    reader = AttributeNet(len(data.attribute_names))
    reader.load_state_dict(averaged(arguments.reader)["attributes"])
    reader.eval().requires_grad_(False)

    with torch.no_grad():
        generator, _ = evaluate_generator(inverter.generator, data, list(data.held_out)[: arguments.heads])
    log.info("generator: %s", generator)
    pose = pose_errors(inverter, data)
    log.info("pose: %s", pose)
    views = new_view_figures(inverter, data, list(data.held_out)[: arguments.heads])
    log.info("new views: %s", views)
    reconstruction, read_back = reconstruction_table(inverter, reader, data)
    rows = list(data.held_out)[: arguments.edited]
    edits = {}
    for name in tqdm(inverter.directions, desc="edits"):
        edits[name] = edit_accuracy(inverter, reader, data, name, rows)
        log.info("%s: %s", name, {key: value for key, value in vars(edits[name]).items() if key != "changes"})
    curves = {}
    for name, spec in read_spec(find_bundle(arguments.model)).edits.items():
        if name in OWN_ATTRIBUTES:
            strengths = [share * limit for limit in spec.limits for share in (0.5, 1.0)]
            changes = strength_curve(inverter, reader, data, name, rows, strengths)
            curves[name] = (dict(zip(strengths, changes, strict=True)), linearity(strengths, changes))
    figures = {
        "held_out_heads": len(data.held_out),
        "training_heads": data.train_count,
        "generator": {name: round(value, 4) for name, value in generator.items()},
        "pose": {name: round(value, 3) for name, value in pose.items()},
        "new_views": {name: round(value, 4) for name, value in views.items()},
        "reconstruction": as_plain(reconstruction),
        "read_back": {name: _named(data, values) for name, values in read_back.items()},
        "directions": as_plain(
            direction_table(inverter, reader, data, data.attribute_names, heads=arguments.heads)
        ),
        "edited_heads": len(rows),
        "edits": {
            name: {
                key: _named(data, value) if key == "changes" else round(value, 3) for key, value in vars(row).items()
            }
            for name, row in edits.items()
        },
        "strengths": {
            name: {"change": {f"{x:g}": round(y, 3) for x, y in curve.items()}, "linearity": round(straight, 3)}
            for name, (curve, straight) in curves.items()
        },
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out.with_suffix(".json"), figures)
    page = _page(figures)
    arguments.out.with_suffix(".md").write_text(page, encoding="utf-8")
    log.info("%s", page)


def _named(data: HeadViews, values: Sequence[float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in zip(data.attribute_names, values, strict=True)}


def _page(figures: Mapping[str, Any]) -> str:
    generator, pose, views = figures["generator"], figures["pose"], figures["new_views"]
    edits, read_back = figures["edits"], figures["read_back"]
    attributes = list(read_back["E0"])
    lines = [
        "# The starter model in figures",
        "",
        f"Measured on {figures['held_out_heads']} procedural heads that no part was trained on "
        f"({figures['training_heads']} were), by `scripts/evaluate_starter.py`. How it was made: `model.json` of the "
        "bundle and `configs/training/`.",
        "",
        "## Generator: new views by volume rendering, 128 px over grey",
        "",
        "| PSNR, dB | MAE (range 2) | MAE on the head | MAE on eyes, brows, mouth | median depth error, world units |",
        "|---|---|---|---|---|",
        f"| {generator['psnr']:.2f} | {generator['mae']:.4f} | {generator['mae_head']:.4f} "
        f"| {generator['mae_detail']:.4f} | {generator['depth']:.4f} |",
        "",
        "## New views: the finished pictures",
        "",
        "From exact codes, after super-resolution, 256 px over grey; normals of the rendered depth at 128 px.",
        "",
        "| PSNR, dB | PSNR on the head, dB | SSIM | median depth error, world units | mean angle between normals |",
        "|---|---|---|---|---|",
        f"| {views['psnr']:.2f} | {views['psnr_head']:.2f} | {views['ssim']:.3f} | {views['depth']:.4f} "
        f"| {views['normal_deg']:.1f}° |",
        "",
        "## Camera: E_ξ on disturbed pictures",
        "",
        f"Median error: yaw {pose['yaw_deg']:.2f}°, pitch {pose['pitch_deg']:.2f}°, roll {pose['roll_deg']:.2f}°.",
        "",
        "## Reconstruction: code from a disturbed picture, drawn by G from the true camera",
        "",
        "Attributes are read by a network trained on exact renders; their error is in spreads over all heads.",
        "",
        "| code | MAE on the head | attribute error | attribute correlation |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['mae_head']:.3f} | {row['attribute_error']:.3f} | {row['attribute_r']:.3f} |"
            for name, row in figures["reconstruction"].items()
        ),
        "",
        "### Read back, attribute by attribute",
        "",
        "Correlation with the truth of what the reader sees. In exact renders: as much as it can tell; from exact "
        "codes: what G shows of it; from E0's: what is left of it from a disturbed picture.",
        "",
        "| attribute | exact render | exact code | E0 |",
        "|---|---|---|---|",
        *(
            f"| {name} | "
            + " | ".join(f"{read_back[of][name]:.2f}" for of in ("exact render", "exact code", "E0"))
            + " |"
            for name in attributes
        ),
        "",
        "## Editing directions at strength 1, in spreads of each attribute over all heads",
        "",
        "| edit | its own attribute | mean leak | largest leak |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_signed(row['own'])} | {row['leak']:.3f} | {row['worst']} {_signed(row['worst_change'])} |"
            for name, row in figures["directions"].items()
        ),
        "",
        "## Editing directions against exact edits",
        "",
        f"{figures['edited_heads']} heads from none of the edit to all of it, each rendered exactly, drawn by G from "
        "exact codes, and drawn by G from the first code and the direction. Own attribute and leak in spreads; "
        "correlation and gain: of the picture's change with the exact one, over all pixels.",
        "",
        "| edit | own: exact render | exact code | direction | leak: exact render | direction | correlation | gain |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {_signed(row['exact'])} | {_signed(row['code'])} | {_signed(row['own'])} "
            f"| {row['exact_leak']:.3f} | {row['leak']:.3f} | {row['correlation']:.2f} | {row['gain']:.2f} |"
            for name, row in edits.items()
        ),
        "",
        "What each direction does to every attribute, in spreads:",
        "",
        "| attribute | " + " | ".join(edits) + " |",
        "|---" * (len(edits) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(_signed(row["changes"][name]) for row in edits.values()) + " |"
            for name in attributes
        ),
        "",
        "## How straight the sliders are",
        "",
        "Change of an edit's own attribute at strengths up to its limits, and the share of it that a straight line "
        "explains (R²); heads as they are, so movements and categories end where they are full.",
        "",
        "| edit | strength → change | R² |",
        "|---|---|---|",
        *(
            f"| {name} | "
            + ", ".join(f"{x}: {_signed(y)}" for x, y in row["change"].items())
            + f" | {row['linearity']:.2f} |"
            for name, row in figures["strengths"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _signed(value: float) -> str:
    """With its sign; a dash for an edit that no attribute stands for."""
    return "–" if math.isnan(value) else f"{value:+.2f}"


if __name__ == "__main__":
    main()
