"""The way to a model, end to end on ten heads: runs that start from runs, the bundle, and runs that start from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import load_inverter
from e3dge_video.inversion.verify import verify_bundle
from e3dge_video.training.directions import DirectionConfig
from e3dge_video.training.generator_stage import PointConfig
from e3dge_video.training.global_stage import GlobalConfig
from e3dge_video.training.loop import LoopConfig
from e3dge_video.training.mapping_stage import MappingStageConfig
from e3dge_video.training.matte_stage import MatteStageConfig
from e3dge_video.training.pack import PackRun, pack
from e3dge_video.training.points_stage import FacePointsConfig
from e3dge_video.training.render_stage import RenderConfig
from e3dge_video.training.runs import (
    GeneratorRun,
    GlobalRun,
    LandmarkRun,
    MatteRun,
    averaged,
    load_generator_run,
    train_generator,
    train_global,
    train_landmarks,
    train_matte,
)
from e3dge_video.weights.bundle import read_spec
from tests.support.tiny_model import ENCODER, GENERATOR, MATTE
from tests.training.conftest import HELD_OUT

LOOP = LoopConfig(steps=2, learning_rate=1e-3, warmup_steps=1, threads=1)


@pytest.fixture(scope="module")
def trained(tiny_heads: Path, tiny_views, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with all runs of a model and its bundle."""
    root = tmp_path_factory.mktemp("runs")
    config = replace(GENERATOR, z_dim=tiny_views.z_dim)
    points = PointConfig(tiny_heads, HELD_OUT, identities=2, views=1, pixels=64, evaluate_identities=1)
    render = RenderConfig(tiny_heads, HELD_OUT, identities=1, patch=8, evaluate_identities=1)
    train_generator(GeneratorRun(config, loop=LOOP, points=points), root / "points")
    train_generator(
        GeneratorRun(config, "render", root / "points", loop=LOOP, points=points, render=render), root / "render"
    )
    train_landmarks(LandmarkRun(root / "render", LOOP, FacePointsConfig(tiny_heads, HELD_OUT)), root / "landmarks")
    stage = GlobalConfig(tiny_heads, HELD_OUT, batch=2, generator_from=0, generator_points=32, evaluate_heads=2)
    train_global(
        GlobalRun(root / "render", root / "landmarks", encoder=ENCODER, loop=LOOP, stage=stage), root / "encoder"
    )
    train_matte(MatteRun(MATTE, loop=LOOP, stage=MatteStageConfig(tiny_heads, HELD_OUT, batch=2)), root / "matte")
    directions = DirectionConfig(pairs=4, expressions=3, identities=4, components=3, edits=("age", "smile"))
    runs = {name: root / name for name in ("landmarks", "encoder", "matte")}
    pack(PackRun("small", generator=root / "render", directions=directions, **runs), root / "bundle")
    return root


def test_the_bundle_holds_what_was_trained(trained: Path) -> None:
    inverter = load_inverter(str(trained / "bundle"))
    assert set(inverter.directions) == {"age", "smile"}
    for part, run in (
        ("generator", "render"),
        ("encoder", "encoder"),
        ("matte", "matte"),
        ("face_points", "landmarks"),
    ):
        for name, value in averaged(trained / run)[part].items():
            found = inverter.get_submodule(part).state_dict()[name]
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-6, msg=f"{part}.{name}")


def test_the_bundle_verifies_against_its_own_check_image(trained: Path) -> None:
    difference = verify_bundle(str(trained / "bundle")).difference
    assert difference is not None and difference < 1e-3


def test_the_encoder_can_start_before_the_generator_draws(tiny_heads: Path, tiny_views, tmp_path: Path) -> None:
    """Mapping, landmarks and E0 from codes alone; then G draws, with the codes kept as they are."""
    config = replace(GENERATOR, z_dim=tiny_views.z_dim)
    mapping = MappingStageConfig(codes=64, held_out=16, batch=8)
    train_generator(GeneratorRun(config, "mapping", loop=LOOP, mapping=mapping), tmp_path / "mapping")
    source = tmp_path / "mapping"
    train_landmarks(LandmarkRun(source, LOOP, FacePointsConfig(tiny_heads, HELD_OUT)), tmp_path / "landmarks")
    stage = GlobalConfig(tiny_heads, HELD_OUT, batch=2, generator_from=1, evaluate_heads=2)
    run = GlobalRun(source, tmp_path / "landmarks", source, ENCODER, loop=LOOP, stage=stage)
    figures = train_global(run, tmp_path / "codes")
    assert np.isfinite(figures["visible_r2"])
    points = PointConfig(
        tiny_heads, HELD_OUT, identities=2, views=1, pixels=64, evaluate_identities=1, keep_mapping=True
    )
    train_generator(GeneratorRun(config, init=source, loop=LOOP, points=points), tmp_path / "points")
    before, after = load_generator_run(source), load_generator_run(tmp_path / "points")
    z = torch.from_numpy(tiny_views.z[:4])
    torch.testing.assert_close(after.map(z), before.map(z), rtol=0, atol=0)


def test_provenance_names_every_run(trained: Path) -> None:
    runs = read_spec(trained / "bundle").provenance["runs"]
    assert runs["generator"]["figures"]["step"] == 2 and "psnr_final" in runs["generator"]["figures"]
    assert runs["generator"]["started_from"]["options"]["phase"] == "points"
    assert str(trained) not in (trained / "bundle" / "model.json").read_text()


def test_a_part_of_an_earlier_bundle_keeps_its_history(trained: Path, tmp_path: Path) -> None:
    directions = DirectionConfig(pairs=2, expressions=2, identities=2, components=2, edits=("age",))
    parts = {name: trained / name for name in ("landmarks", "encoder")}
    run = PackRun("next", generator=trained / "render", matte=trained / "bundle", directions=directions, **parts)
    pack(run, tmp_path / "next")
    matte = read_spec(tmp_path / "next").provenance["runs"]["matte"]
    assert matte["bundle"] == "small" and matte["files"] == read_spec(trained / "bundle").files
    assert matte["options"]["loop"]["steps"] == 2 and matte["figures"]["step"] == 2


def test_a_bundle_can_be_trained_further(trained: Path, tiny_heads: Path) -> None:
    bundle = trained / "bundle"
    spec = read_spec(bundle)
    kept = load_generator_run(bundle)
    assert kept.config == spec.generator
    points = PointConfig(tiny_heads, HELD_OUT, identities=2, views=1, pixels=64, evaluate_identities=1)
    still = replace(LOOP, steps=1, learning_rate=0.0)
    train_generator(GeneratorRun(spec.generator, init=bundle, loop=still, points=points), trained / "further")
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(averaged(trained / "further")["generator"][name], value)
    stage = GlobalConfig(tiny_heads, HELD_OUT, batch=2, generator_from=1, evaluate_heads=2)
    train_global(GlobalRun(bundle, bundle, None, spec.encoder, bundle, still, stage), trained / "further_encoder")
    started = averaged(bundle)["pose_encoder"]
    for name, value in averaged(trained / "further_encoder")["pose_encoder"].items():
        torch.testing.assert_close(value, started[name])


def test_a_wider_mapping_starts_with_the_codes_of_the_narrower(trained: Path, tiny_heads: Path, tiny_views) -> None:
    bundle = trained / "bundle"
    earlier = load_generator_run(bundle)
    wider = replace(earlier.config, mapping=replace(earlier.config.mapping, hidden_width=48))
    points = PointConfig(tiny_heads, HELD_OUT, identities=2, views=1, pixels=64, evaluate_identities=1)
    still = replace(LOOP, steps=1, learning_rate=0.0)
    train_generator(GeneratorRun(wider, init=bundle, loop=still, points=points), trained / "wider")
    z = torch.from_numpy(tiny_views.z[:4])
    torch.testing.assert_close(load_generator_run(trained / "wider").map(z), earlier.map(z), rtol=1e-5, atol=1e-5)
    narrower = replace(earlier.config, mapping=replace(earlier.config.mapping, hidden_width=8))
    with pytest.raises(ConfigError, match=r"not of the configured sizes: a layer of \d+ units does not fit"):
        train_generator(GeneratorRun(narrower, init=bundle, loop=still, points=points), trained / "narrower")


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no training run .* and no model bundle here"):
        averaged(tmp_path)
    with pytest.raises(ConfigError, match=r"no training run .* and no model bundle here"):
        load_generator_run(tmp_path)
