"""Every bundled training configuration says only what its schema knows, and the paper's say the paper's numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from e3dge_video.config.encoders import LocalBranchConfig
from e3dge_video.config.load import config_root, from_mapping, read_values, to_mapping
from e3dge_video.training.pack import PackRun
from e3dge_video.training.runs import (
    AttributeRun,
    BlendRun,
    GeneratorRun,
    GlobalRun,
    LandmarkRun,
    LocalRun,
    MatteRun,
    PoseRun,
)
from e3dge_video.training.taught_runs import TaughtGlobalRun, TaughtLocalRun, TaughtPackRun, TaughtPoseRun
from e3dge_video.training.toon import ToonRun
from e3dge_video.weights.public_files import public_files

#: What the name of a file ends in → the run on rendered heads, the run on a model's own heads.
SCHEMAS = {
    "global": (GlobalRun, TaughtGlobalRun),
    "pose": (PoseRun, TaughtPoseRun),
    "pack": (PackRun, TaughtPackRun),
    "local": (LocalRun, TaughtLocalRun),
    "align": (LocalRun, TaughtLocalRun),
    "blend": (BlendRun, None),
    "toon": (ToonRun, None),
    "codes": (GlobalRun, None),
    "landmarks": (LandmarkRun, None),
    "matte": (MatteRun, None),
    "attributes": (AttributeRun, None),
    "points": (GeneratorRun, None),
    "folds": (GeneratorRun, None),
    "render": (GeneratorRun, None),
    "mapping": (GeneratorRun, None),
}
#: Names of the paper's runs, by their models, but for StyleSDF's.
MODELS = ("eg3d_ffhq", "afhq_cats", "shapenet_chairs")
FILES = sorted((config_root() / "training").glob("*.yaml"))
PAPER = [path for path in FILES if not path.stem.startswith(("starter", "attributes", "toon"))]


def options(path: Path) -> object:
    values, kind = read_values(path), path.stem.split("_")[-1]
    assert kind in SCHEMAS, f"{path.name}: of which schema is it?"
    # The starter's branch, too, names the model that it belongs to.
    schema = SCHEMAS[kind]["model" in values and not path.stem.startswith("starter")]
    assert schema is not None
    return from_mapping(schema, values, source=path.name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_configurations_are_read_strictly(path: Path) -> None:
    run = options(path)
    assert from_mapping(type(run), to_mapping(run)) == run


def test_the_papers_configurations_are_all_there() -> None:
    names = {path.stem for path in PAPER}
    faces = {f"{generator}_ffhq_{stage}" for generator in ("eg3d", "stylesdf") for stage in ("global", "pose")}
    others = {f"{kind}_{stage}" for kind in (*MODELS, "stylesdf_ffhq") for stage in ("local", "align")}
    assert faces | others | {"afhq_cats_global", "shapenet_chairs_global"} <= names


@pytest.mark.parametrize("path", [p for p in PAPER if p.stem.endswith("global")], ids=lambda p: p.stem)
def test_e0_is_trained_as_the_paper_says(path: Path) -> None:
    run = options(path)
    assert isinstance(run, TaughtGlobalRun)
    loop, stage = run.loop, run.stage
    assert (loop.steps, loop.learning_rate, loop.betas, loop.weight_decay) == (500_000, 5e-5, (0.9, 0.999), 0)
    assert (loop.warmup_steps, loop.decay_from) == (0, 1) and 4 * stage.batch == 24 and run.samples == 48
    faces = "ffhq" in path.stem
    assert (stage.image.l2, stage.image.perceptual, stage.image.identity) == (1, 0.8, 0.1 if faces else 0)
    assert run.body == ("ir-se50" if faces else "random")
    assert (stage.geometry.surface, stage.geometry.detail, stage.geometry.points) == (1, 1, 0.2)
    assert "ir-se50" not in path.read_text() or faces


@pytest.mark.parametrize("path", [p for p in PAPER if p.stem.endswith("pose")], ids=lambda p: p.stem)
def test_the_pose_head_is_trained_as_the_paper_says(path: Path) -> None:
    run = options(path)
    assert isinstance(run, TaughtPoseRun)
    assert (run.loop.steps, run.loop.learning_rate) == (50_000, 5e-5) and 4 * run.stage.batch == 24
    assert run.encoder.name == path.stem.replace("pose", "global")


@pytest.mark.parametrize("path", [p for p in PAPER if p.stem.endswith(("local", "align"))], ids=lambda p: p.stem)
def test_the_local_branch_is_trained_as_the_paper_says(path: Path) -> None:
    run = options(path)
    assert isinstance(run, TaughtLocalRun)
    stage, faces, two_views = run.stage, "ffhq" in path.stem, path.stem.endswith("align")
    assert (run.loop.learning_rate, run.loop.betas, run.samples) == (5e-5, (0.9, 0.999), 48)
    assert 4 * 2 * stage.heads == 24 and stage.camera == "predicted"
    assert (stage.views, run.branch.mode) == (("swapped", "hybrid") if two_views else ("source", "projected"))
    assert (stage.image.l2, stage.image.identity) == (1, 0.1 if faces else 0)
    assert stage.image.perceptual == (1.0 if two_views else 0.8) and stage.alignment == 1
    assert (stage.adversarial is not None) == two_views
    if stage.adversarial is not None:
        weights = stage.adversarial.weights
        assert (weights.generator, weights.discriminator, weights.r1) == (0.01, 0.01, 10)
        assert 2 << len(stage.adversarial.channels) == stage.teacher.image_size
    released = path.stem.startswith(("stylesdf", "shapenet"))
    assert run.branch.film_head == ("residual" if released else "deep")
    # EG3D's box, one world unit wide, becomes [-1, 1]; StyleSDF's points stay what the released weights know.
    assert run.branch.coordinate_scale == (1 if released else 2)
    assert replace(run.branch, mode="hybrid", film_head="residual", coordinate_scale=1.0) == LocalBranchConfig()


def test_comments_name_published_files() -> None:
    known = {entry.file for entry in public_files().values()} | {"chairs.pt"}
    for path in PAPER:
        words = path.read_text().split()
        assert {word for word in words if word.endswith((".pkl", ".pt"))} <= known, path.name
