"""Figures of a starter bundle on heads it was never trained on, as a Markdown page and JSON.

    python scripts/evaluate_starter.py --model starter --data data/heads --reader runs/attributes --out docs/starter

Needs the data set that the model was trained on (its last heads were held out) and the attribute reader that was
trained on the same renders (`e3dge-video train attributes`). Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from e3dge_video.evaluation.starter import as_plain, direction_table, pose_errors, reconstruction_table
from e3dge_video.inversion.load import load_inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.training.generator_evaluation import evaluate_generator
from e3dge_video.training.head_views import HeadViews
from e3dge_video.training.runs import averaged

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
    figures = {
        "held_out_heads": len(data.held_out),
        "training_heads": data.train_count,
        "generator": {name: round(value, 4) for name, value in generator.items()},
        "pose": {name: round(value, 3) for name, value in pose.items()},
        "reconstruction": as_plain(reconstruction_table(inverter, reader, data)),
        "directions": as_plain(
            direction_table(inverter, reader, data, data.attribute_names, heads=arguments.heads)
        ),
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out.with_suffix(".json"), figures)
    page = _page(figures)
    arguments.out.with_suffix(".md").write_text(page, encoding="utf-8")
    log.info("%s", page)


def _page(figures: Mapping[str, Any]) -> str:
    generator, pose = figures["generator"], figures["pose"]
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
        "## Editing directions at strength 1, in spreads of each attribute over all heads",
        "",
        "| edit | its own attribute | mean leak | largest leak |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_signed(row['own'])} | {row['leak']:.3f} | {row['worst']} {_signed(row['worst_change'])} |"
            for name, row in figures["directions"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _signed(value: float) -> str:
    """With its sign; a dash for an edit that no attribute stands for."""
    return "–" if math.isnan(value) else f"{value:+.2f}"


if __name__ == "__main__":
    main()
