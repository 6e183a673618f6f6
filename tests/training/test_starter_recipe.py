"""The way to the starter from nothing, rehearsed: every stage with the shipped networks' own sizes, for one step."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from e3dge_video.inversion.load import load_inverter
from e3dge_video.weights.bundle import read_bundle, read_spec
from e3dge_video.weights.catalog import find_bundle

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_starter.py"


def recipe(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script's run in a folder of its own."""
    command = [sys.executable, str(SCRIPT), "--out", "runs", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )


@pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="needs the extra [heads]")
def test_every_stage_fits_the_one_before(tmp_path: Path) -> None:
    begun = recipe("--rehearse", "--until", "mapping", folder=tmp_path)
    assert begun.returncode == 0, begun.stderr[-2000:]
    assert not (tmp_path / "runs" / "points").exists()
    done = recipe("--rehearse", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\nmapping: " not in done.stdout and "\npoints: " in done.stdout, "what is done is not run again"
    made, shipped = (read_spec(folder) for folder in (tmp_path / "runs" / "starter", find_bundle("starter")))
    for part in ("generator", "encoder", "matte", "local", "blend", "edits", "resolution", "crop"):
        assert getattr(made, part) == getattr(shipped, part), f"the recipe makes the shipped {part}"
    kinds = (read_bundle(folder).tensors for folder in (tmp_path / "runs" / "starter", find_bundle("starter")))
    mine, theirs = ({file: {k: v.shape for k, v in of.items()} for file, of in each.items()} for each in kinds)
    assert mine == theirs
    model = load_inverter(str(tmp_path / "runs" / "starter"), local=True, toon=1.0)
    picture = torch.rand(1, 3, model.resolution, model.resolution) * 2 - 1
    assert model.synthesize(model.invert(picture), model.generator.frontal_camera()).image.isfinite().all()


def test_an_unknown_stage_is_one_line(tmp_path: Path) -> None:
    refused = recipe("--set", "pionts", "loop.steps=3", folder=tmp_path)
    assert refused.returncode == 2 and refused.stderr.splitlines()[-1].startswith(
        "train_starter.py: error: --set pionts:"
    )
    assert "Traceback" not in refused.stderr
