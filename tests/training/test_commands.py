"""Every training command: it runs, is killed in the middle, and goes on to the log of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from e3dge_video.config.load import to_mapping
from e3dge_video.inversion.load import load_generator, load_psp
from e3dge_video.training.runs import averaged
from e3dge_video.weights.bundle import read_spec
from tests.support.tiny_model import (
    BRANCH,
    ENCODER,
    GENERATOR,
    MATTE,
    PSP,
    STYLESDF,
    write_tiny_bundle,
    write_tiny_hybrid,
    write_tiny_paper,
)
from tests.support.training_runs import log_figures

LOOP = [
    *(
        f"loop.{key}={value}"
        for key, value in {"steps": 6, "log_every": 1, "checkpoint_every": 2, "threads": 1}.items()
    ),
    "loop.evaluate_every=4",
    "loop.device=cpu",
    "loop.precision=fp32",
]
#: Runs the commands given as JSON, each in a process of its own that kills itself right after logging its third step.
KILLED = """
import json, os, signal, sys
import tensorboardX
from e3dge_video.cli.main import main
from e3dge_video.training import journal, taught_runs

logged = journal.Journal.losses

def killed(self, step, *arguments, **times):
    logged(self, step, *arguments, **times)
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.losses = killed
ends = []
for command in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        main(command)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


def value(section: object) -> str:
    """A whole section of options as an override."""
    return json.dumps(to_mapping(section))


@pytest.fixture(scope="module")
def commands(tiny_heads: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Arguments of each command but for its folder; later ones build on the results of earlier ones."""
    root = tmp_path_factory.mktemp("train")
    bundle, surfaces = write_tiny_bundle(root / "tiny"), write_tiny_bundle(root / "surfaces", STYLESDF)
    data, held_out = f"data={tiny_heads}", "held_out=3"
    on_heads = [f"stage.{data}", f"stage.{held_out}", "stage.batch=2"]
    teaching = [
        "stage.batch=2",
        "stage.teacher={image_size: 32, curriculum: false}",
        "stage.evaluate_heads=2",
        "samples=8",
    ]
    e0 = [
        f"encoder={value(PSP)}",
        "body=random",
        "stage.geometry={anywhere: 16}",
        "stage.image={perceptual_network: features-ours, identity: 0}",
        *teaching,
    ]
    taught, released = write_tiny_paper(root / "taught"), write_tiny_hybrid(root / "released")
    branch = [
        f"branch={value(BRANCH)}",
        "init=null",
        "stage.heads=1",
        "stage.image={perceptual_network: features-ours, identity: 0}",
        "stage.teacher={image_size: 32, curriculum: true}",
        "stage.evaluate_heads=2",
        "samples=8",
    ]
    judged = "stage.adversarial.channels=[8, 8, 8, 4]"
    points = [
        f"points.{data}",
        f"points.{held_out}",
        "points={identities: 1, views: 1, pixels: 64, evaluate_identities: 1}",
    ]
    render = [f"render.{data}", f"render.{held_out}", "render={identities: 1, patch: 8, evaluate_identities: 1}"]
    generator = f"generator={value(GENERATOR)}"

    def arguments(verb: str, config: str, *overrides: str) -> list[str]:
        return ["train", verb, "--config", f"training/{config}.yaml", *overrides, *LOOP, "--out"]

    return {
        "mapping": arguments(
            "generator", "starter_mapping", "init=null", generator, "mapping={codes: 64, held_out: 16, batch: 8}"
        ),
        "points": arguments("generator", "starter_points", "init=null", generator, points[2], *points[:2]),
        "render": arguments("generator", "starter_render", f"init={bundle}", generator, render[2], *render[:2]),
        "landmarks": arguments(
            "landmarks", "starter_landmarks", f"generator={bundle}", f"landmarks.{data}", f"landmarks.{held_out}"
        ),
        "global": arguments(
            "global",
            "starter_global",
            f"generator={bundle}",
            f"face_points={bundle}",
            f"init={bundle}",
            f"encoder={value(ENCODER)}",
            "stage={generator_from: 0.5, generator_points: 16, evaluate_heads: 2}",
            *on_heads,
        ),
        "pose": arguments("pose", "starter_pose", f"encoder={bundle}", "stage.evaluate_heads=2", *on_heads),
        "matte": arguments("matte", "starter_matte", "init=null", f"matte={value(MATTE)}", *on_heads),
        "attributes": arguments("attributes", "attributes", *on_heads),
        "global of eg3d": arguments("global", "eg3d_ffhq_global", f"model={bundle}", *e0),
        "global of stylesdf": arguments("global", "stylesdf_ffhq_global", f"model={surfaces}", *e0),
        "pose of eg3d": arguments(
            "pose", "eg3d_ffhq_pose", f"model={bundle}", f"encoder={root / 'whole' / 'global of eg3d'}", *teaching
        ),
        "pose of stylesdf": arguments(
            "pose",
            "stylesdf_ffhq_pose",
            f"model={surfaces}",
            f"encoder={root / 'whole' / 'global of stylesdf'}",
            *teaching,
        ),
        "local of eg3d": arguments("local", "eg3d_ffhq_local", f"model={taught}", *branch, "branch.mode=projected"),
        "align of eg3d": arguments("align", "eg3d_ffhq_align", f"model={taught}", *branch, judged),
        "align of stylesdf": arguments("align", "stylesdf_ffhq_align", f"model={released}", *branch, judged),
        "align of the starter": arguments(
            "align",
            "starter_align",
            f"model={bundle}",
            f"branch={value(BRANCH)}",
            f"stage.pairs.{data}",
            f"stage.pairs.{held_out}",
            "stage.evaluate_heads=2",
        ),
    } | {"root": [str(root)]}


def run(*arguments: str) -> None:
    """A command in this process; it must end well."""
    from e3dge_video.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 0


NAMES = (
    "mapping",
    "points",
    "render",
    "landmarks",
    "global",
    "pose",
    "matte",
    "attributes",
    "global of eg3d",
    "global of stylesdf",
    "pose of eg3d",
    "pose of stylesdf",
    "local of eg3d",
    "align of eg3d",
    "align of stylesdf",
    "align of the starter",
)


@pytest.fixture(scope="module")
def runs(commands: dict[str, list[str]]) -> Path:
    """Folder of all runs: `whole`, undisturbed; `killed`, in the middle and by nobody's leave."""
    [root] = commands["root"]
    for name in NAMES:
        run(*commands[name], f"{root}/whole/{name}")
    killed = [[*commands[name], f"{root}/killed/{name}"] for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(killed)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * len(NAMES), done.stderr
    return Path(root)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed processes are forked")
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_goes_on_to_the_same_figures(
    commands: dict[str, list[str]], runs: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = runs / "whole" / name, runs / "killed" / name
    left = [record["step"] for record in log_figures(killed) if "notes" not in record]
    assert left == [1, 2, 3] and not (killed / "averaged.pt").exists()
    assert torch.load(killed / "checkpoint.pt", weights_only=True)["step"] == 2
    run(*commands[name], str(killed))
    figures = capsys.readouterr().out
    assert log_figures(killed) == log_figures(whole)
    last = [record["evaluation"] for record in log_figures(whole) if "evaluation" in record][-1]
    assert figures.splitlines() == [f"{key:<24} {figure:.4f}" for key, figure in last.items()]
    for part, weights in averaged(whole).items():
        for key, weight in weights.items():
            assert torch.equal(averaged(killed)[part][key], weight), f"{part}.{key}"


def test_what_a_run_is_made_of_is_logged_and_kept(runs: Path) -> None:
    run_folder = runs / "whole" / "global of eg3d"
    notes = {
        "image loss": "l2: mean squared error × 1; features: features-ours × 0.8",
        "body of E0": "random numbers",
        "generator": "tiny",
    }
    assert log_figures(run_folder)[0] == {"step": 0, "notes": notes}
    assert torch.load(run_folder / "checkpoint.pt", weights_only=True)["notes"] == notes


@pytest.mark.parametrize("backbone", ["eg3d", "stylesdf"])
def test_what_a_generator_taught_can_be_packed_beside_it(
    runs: Path, tmp_path: Path, backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = runs / ("tiny" if backbone == "eg3d" else "surfaces")
    encoder, pose = (runs / "whole" / f"{part} of {backbone}" for part in ("global", "pose"))
    overrides = [f"model={model}", f"encoder={encoder}", f"pose={pose}", "name=taught"]
    run("train", "pack", "--config", "training/eg3d_ffhq_pack.yaml", "--out", str(tmp_path / "taught"), *overrides)
    assert "taught: " in capsys.readouterr().out
    spec, taught = read_spec(tmp_path / "taught"), load_psp(str(tmp_path / "taught"))
    assert spec.psp is not None and spec.psp.stages == PSP.stages and spec.encoder is None
    for module, source in zip(taught, ((encoder, "encoder"), (pose, "pose_encoder")), strict=True):
        for key, weight in averaged(source[0])[source[1]].items():
            assert torch.equal(module.state_dict()[key], weight)
    before, after = (load_generator(str(folder)).state_dict() for folder in (model, tmp_path / "taught"))
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    assert "image_loss" in spec.provenance["taught"]["runs"]["encoder"]["options"]
    assert str(runs) not in (tmp_path / "taught" / "model.json").read_text()
    run("models", "info", str(tmp_path / "taught"))
    assert "the paper's E0 and E_ξ, taught by this generator" in capsys.readouterr().out


Refused = Callable[[list[str]], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must be refused; gives its one line."""
    from e3dge_video.cli.main import main

    def call(arguments: list[str]) -> str:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert end.value.code == 1 and len(lines) == 1
        return lines[0]

    return call


def test_runs_that_do_not_belong_together_are_refused(runs: Path, tmp_path: Path, refused: Refused) -> None:
    whole, pack = (
        runs / "whole",
        ["train", "pack", "--config", "training/eg3d_ffhq_pack.yaml", "--out", str(tmp_path / "x")],
    )
    parts = [f"encoder={whole / 'global of stylesdf'}", f"pose={whole / 'pose of stylesdf'}"]
    another = "was trained behind another generator than that of the model it is packed into"
    assert another in refused([*pack, f"model={runs / 'tiny'}", *parts])
    own = f"encoder={whole / 'global of eg3d'}"
    assert "pose of stylesdf: was trained behind another generator and encoder than" in refused(
        [*pack, f"model={runs / 'tiny'}", own, parts[1]]
    )
    pose = ["train", "pose", "--config", "training/eg3d_ffhq_pose.yaml", "--out", str(tmp_path / "y")]
    assert "holds no E0 that was trained on a generator's own heads" in refused(
        [*pose, f"model={runs / 'tiny'}", f"encoder={whole / 'global'}"]
    )
    assert "encoder is not of the configured sizes" in refused(
        [*pose, f"model={runs / 'tiny'}", f"encoder={whole / 'global of stylesdf'}"]
    )
    assert "no such bundled configuration" in refused([*pose[:3], "training/eg3d_pose.yaml", *pose[4:]])
    assert "stage.teacher.truncatoin is not an option; did you mean stage.teacher.truncation?" in refused(
        [*pose, "stage.teacher.truncatoin=1"]
    )


def test_weights_that_are_asked_for_by_name_and_not_there_are_one_line(
    runs: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    command = ["train", "global", "--config", "training/eg3d_ffhq_global.yaml", "--out", str(tmp_path / "run")]
    line = refused([*command, f"model={runs / 'tiny'}", f"encoder={value(PSP)}"])
    assert "models fetch ir-se50" in line
    line = refused([*command, f"model={runs / 'tiny'}", f"encoder={value(PSP)}", "body=random"])
    assert "models fetch torchvision-alexnet" in line
