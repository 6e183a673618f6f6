"""The starter model from nothing, stage by stage: data, generator, encoders, matte, local detail, cartoons, figures.

    python scripts/train_starter.py --out starter_runs                 # hours; stop it and start it as you like
    python scripts/train_starter.py --out starter_runs --effort 10     # ten times the steps: for a GPU
    python scripts/train_starter.py --out rehearsal --rehearse         # one step of every stage: does it all fit?

Every stage is a command of `e3dge-video train` with a file of `configs/training/`; it is printed before it runs, so any
of them can be run alone. A stage that is done is not run again, one that was stopped goes on. The bundle: OUT/starter.
`--set STAGE KEY=VALUE …` gives one stage further options (`--set points points.identities=16`).

The shipped starter was not made in one go: G, E0 and E1 went on from those of earlier ones (see the model card), so a
first model from nothing needs more steps than the files name, which `--effort` multiplies.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e3dge_video.config.load import bundled_config, read_values

_EDITS = "smile,mouth_open,eyes_closed,age,glasses,beard,grey,surprise"
#: What a rehearsal reduces, by the section of a configuration that has it.
_SMALL = {
    "mapping": ("codes=64", "held_out=32", "batch=8"),
    "points": ("held_out=3", "identities=2", "evaluate_identities=1"),
    "render": ("held_out=3", "identities=1", "evaluate_identities=1"),
    "landmarks": ("held_out=3", "batch=4"),
}


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: Its folder below OUT.
        command: `e3dge-video train …`.
        config: File of `configs/training/`; None: the command has none.
        options: What it is given besides; `{}` stands for OUT.
        small: What a rehearsal reduces besides `_SMALL`.
    """

    name: str
    command: str
    config: str | None = None
    options: tuple[str, ...] = ()
    small: tuple[str, ...] = ()

    def arguments(self, root: Path, effort: float, rehearse: bool) -> list[str]:
        """What stands behind `e3dge-video`."""
        options = [option.replace("{}", str(root)) for option in self.options]
        if self.config is None:
            return ["train", self.command, str(root / self.name), *options, *(self.small if rehearse else ())]
        file = f"training/{self.config}.yaml"
        values = read_values(bundled_config(file), ())
        if "loop" in values:
            steps = 1 if rehearse else round(effort * values["loop"]["steps"])
            options.append(f"loop.steps={steps}")
        if rehearse:
            if "loop" in values:
                options += ["loop.evaluate_every=1", "loop.checkpoint_every=1", "loop.warmup_steps=1"]
            sections = [section for section in _SMALL if isinstance(values.get(section), dict)]
            options += [f"{section}.{option}" for section in sections for option in _SMALL[section]]
            options += self.small
        return ["train", self.command, "--config", file, "--out", str(root / self.name), *options]

    def done(self, root: Path) -> bool:
        """Whether it needs no more running. Data sets are looked through again, which costs little."""
        return any((root / self.name / marker).is_file() for marker in ("averaged.pt", "model.json"))


#: A local branch's pairs, in a rehearsal.
_FEW = ("stage.pairs.held_out=3", "stage.evaluate_heads=1")
STAGES = (
    Stage("heads", "heads", None, ("--identities", "12288", "--views", "3"), ("--identities", "12")),
    Stage(
        "folds_pairs", "heads", None, ("--identities", "320", "--views", "2", "--seed", "1", "--pairs", "wrinkles"),
        ("--identities", "6"),
    ),
    Stage(
        "edits", "heads", None, ("--identities", "2176", "--views", "2", "--seed", "5", "--pairs", _EDITS),
        ("--identities", "8"),
    ),
    Stage(
        "toon_heads", "heads", None, ("--style", "toon", "--identities", "1536", "--views", "2", "--seed", "7"),
        ("--identities", "8"),
    ),
    Stage("mapping", "generator", "starter_mapping", ("init=null",)),
    Stage("points", "generator", "starter_points", ("init={}/mapping", "points.data={}/heads")),
    Stage(
        "folds", "generator", "starter_folds",
        ("init={}/points", "points.data={}/heads", "points.pairs={}/folds_pairs"),
    ),
    Stage(
        "render", "generator", "starter_render",
        ("init={}/folds", "render.data={}/heads", "render.pairs={}/folds_pairs"),
    ),
    Stage("landmarks", "landmarks", "starter_landmarks", ("generator={}/mapping", "landmarks.data={}/heads")),
    Stage(
        "codes", "global", "starter_codes",
        ("init=null", "generator={}/mapping", "reader={}/mapping", "face_points={}/landmarks", "stage.data={}/heads"),
        ("stage.held_out=3", "stage.batch=2", "stage.evaluate_heads=2"),
    ),
    Stage(
        "encoder", "global", "starter_global",
        ("init={}/codes", "generator={}/render", "face_points={}/landmarks", "stage.data={}/heads"),
        (
            "stage.held_out=3", "stage.batch=2", "stage.evaluate_heads=2", "stage.generator_batch=2",
            "stage.visible_probes=8",
        ),
    ),
    Stage("matte", "matte", "starter_matte", ("stage.data={}/heads",), ("stage.held_out=3", "stage.batch=2")),
    Stage(
        "bundle", "pack", "starter_pack",
        ("generator={}/render", "landmarks={}/landmarks", "encoder={}/encoder", "matte={}/matte"),
        ("directions.pairs=8", "directions.identities=8"),
    ),
    Stage(
        "blend", "blend", "starter_blend",
        ("model={}/bundle", "stage.views.data={}/heads", "stage.edits.data={}/edits"),
        ("stage.examples=2", "stage.held_out=1", "stage.batch=2", "stage.views.held_out=3", "stage.edits.held_out=4"),
    ),
    Stage("align", "align", "starter_align", ("model={}/bundle", "stage.pairs.data={}/heads"), _FEW),
    Stage(
        "align_far", "align", "starter_far_align",
        ("init={}/align", "model={}/bundle", "stage.pairs.data={}/heads"), _FEW,
    ),
    Stage(
        "align_edit", "align", "starter_edit_align",
        ("init={}/align_far", "model={}/bundle", "stage.pairs.data={}/heads", "stage.edits.data={}/edits"),
        (*_FEW, "stage.edits.held_out=4"),
    ),
    Stage("lift_bundle", "pack", "starter_detail_pack", ("base={}/bundle", "local=null", "blend={}/blend")),
    Stage(
        "align_lifted", "align", "starter_lifted_align",
        ("init={}/align_edit", "model={}/lift_bundle", "stage.pairs.data={}/heads", "stage.edits.data={}/edits"),
        (*_FEW, "stage.edits.held_out=4"),
    ),
    Stage(
        "detail_bundle", "pack", "starter_detail_pack",
        ("base={}/bundle", "local={}/align_lifted", "blend={}/blend"),
    ),
    Stage(
        "toon_points", "generator", "toon_points", ("init={}/detail_bundle", "points.data={}/toon_heads"),
    ),
    Stage("toon_render", "generator", "toon_render", ("init={}/toon_points", "render.data={}/toon_heads")),
    Stage("starter", "pack", "toon_pack", ("base={}/detail_bundle", "toon={}/toon_render")),
    Stage("attributes", "attributes", "attributes", ("stage.data={}/heads",), ("stage.held_out=3", "stage.batch=2")),
)  # fmt: skip


def main() -> None:
    """Run what is not done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--effort", type=float, default=1.0, help="multiplies the steps of every stage")
    parser.add_argument("--rehearse", action="store_true", help="one step of every stage, on a handful of heads")
    parser.add_argument("--set", nargs="+", action="append", default=[], metavar=("STAGE", "KEY=VALUE"))
    parser.add_argument("--until", choices=[stage.name for stage in STAGES], help="stop behind this stage")
    arguments = parser.parse_args()
    own: dict[str, list[str]] = {}
    for name, *options in arguments.set:
        if name not in {stage.name for stage in STAGES}:
            parser.error(f"--set {name}: no such stage; they are {', '.join(stage.name for stage in STAGES)}")
        own.setdefault(name, []).extend(options)
    for stage in STAGES:
        if not stage.done(arguments.out):
            command = stage.arguments(arguments.out, arguments.effort, arguments.rehearse) + own.get(stage.name, [])
            run(stage.name, command)
        if stage.name == arguments.until:
            break


def run(name: str, command: Sequence[str]) -> None:
    """One command, shown; ends the whole if it fails."""
    print(f"\n{name}: e3dge-video {shlex.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "e3dge_video.cli.main", *command])
    if done.returncode:
        sys.exit(f"{name} ended with exit code {done.returncode}; the same command goes on from here")


if __name__ == "__main__":
    main()
