"""Toonification on a folder of pictures: the command, the bundle it leaves, and what one step does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch

from e3dge_video.cli.main import main
from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.faces.alignment import resized
from e3dge_video.inversion.load import encoder_body_of, load_inverter
from e3dge_video.io.images import write_png
from e3dge_video.models.build import build_generator
from e3dge_video.models.discriminators import DualDiscriminator
from e3dge_video.training.loop import LoopConfig, train
from e3dge_video.training.toon import ToonRun, draws_heads_alone, train_toon
from e3dge_video.training.toon_pictures import read_toon_pictures
from e3dge_video.training.toon_stage import ToonConfig, ToonStage
from e3dge_video.weights.bundle import DISCRIMINATOR_FILE, TOON_FILE, read_bundle, read_spec
from tests.support.tiny_model import (
    GENERATOR,
    STYLESDF,
    give_discriminator,
    write_tiny_bundle,
    write_tiny_hybrid,
    write_tiny_paper,
)

STAGE = ToonConfig(batch=2, judged=4, warm_up=2, r1_every=2, examples=2)
LOOP = LoopConfig(steps=5, learning_rate=2e-3, warmup_steps=1, betas=(0.0, 0.99), gradient_clip=0.0, checkpoint_every=2)


@pytest.fixture(scope="module")
def cartoons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn faces of several sizes, wide and tall."""
    folder = tmp_path_factory.mktemp("cartoons")
    for number in range(6):
        picture = np.full((90 + 10 * number, 120, 3), (240, 220, 60 + 20 * number), np.uint8)
        cv2.circle(picture, (60, 50), 35, (250, 190, 150), -1)
        for x in (48, 72):
            cv2.circle(picture, (x, 45), 7, (20, 20, 20), -1)
        write_png(folder / f"{number}.png", picture)
    return folder


def stage_of(config: GeneratorConfig, cartoons: Path) -> ToonStage:
    torch.manual_seed(0)
    generator = build_generator(config)
    side = config.image_resolution
    pictures = read_toon_pictures(cartoons, side, "eg3d").images
    channels = [8] * (side.bit_length() - 2)
    return ToonStage(generator, DualDiscriminator(channels, camera_dim=0), pictures, STAGE)


def test_pictures_without_a_face_give_their_middle(cartoons: Path) -> None:
    seen = read_toon_pictures(cartoons, 32, "eg3d")
    assert seen.images.shape == (6, 3, 32, 32)
    if seen.aligned == 0:
        first = cv2.imread(str(cartoons / "0.png"))[..., ::-1]
        middle = resized(np.ascontiguousarray(first[:, 15:105]), 32, 32)
        torch.testing.assert_close(seen.images[0], torch.from_numpy(middle.transpose(2, 0, 1).copy()) / 127.5 - 1)
    cut = read_toon_pictures(cartoons, 32, "eg3d", lambda images: torch.zeros_like(images[:, :1]))
    assert bool((cut.images == -1).all())
    with pytest.raises(ConfigError, match="no folder here"):
        read_toon_pictures(cartoons / "absent", 32, "eg3d")


@pytest.mark.parametrize("config", [GENERATOR, STYLESDF], ids=["eg3d", "stylesdf"])
def test_each_network_learns_from_its_own_terms(config: GeneratorConfig, cartoons: Path) -> None:
    stage = stage_of(config, cartoons)
    trained = {id(p) for p in stage.parameters()}
    for step in (0, 2):
        losses = stage.losses(step, np.random.default_rng([0, step]))
        assert ("toon" in losses) == (step >= STAGE.warm_up) and "r1" in losses
        for module in stage.modules().values():
            module.zero_grad()
        sum(losses.values()).backward()
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in stage.network.parameters()]
        assert any(moved) == (step >= STAGE.warm_up)
    mapping = [p for name, p in stage.network.named_parameters() if "mapping." in name]
    assert mapping and not any(id(p) in trained for p in mapping)
    # The generator's term alone leaves the discriminator as it is.
    stage.discriminator.zero_grad()
    stage.losses(3, np.random.default_rng(3))["toon"].backward()
    assert all(p.grad is None or not p.grad.any() for p in stage.discriminator.parameters())


def test_the_discriminator_comes_to_tell_pictures_from_drawings(cartoons: Path) -> None:
    stage = stage_of(GENERATOR, cartoons)
    stage.config = replace(STAGE, warm_up=1000, batch=4, augment=0.0)
    optimizer = torch.optim.Adam(stage.discriminator.parameters(), lr=2e-3, betas=(0.0, 0.99))
    history = []
    for step in range(40):
        torch.manual_seed(step)
        losses = stage.losses(step, np.random.default_rng([0, step]))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(float((losses["fake"] + losses["real"]).detach()))
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:5])


def test_a_stopped_run_ends_with_the_same_weights(cartoons: Path, tmp_path: Path) -> None:
    train(stage_of(GENERATOR, cartoons), LOOP, tmp_path / "whole")
    stopped = stage_of(GENERATOR, cartoons)
    losses = stopped.losses

    def interrupted(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        if step == 3:
            raise KeyboardInterrupt
        return losses(step, rng)

    stopped.losses = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(stopped, LOOP, tmp_path / "stopped")
    train(stage_of(GENERATOR, cartoons), LOOP, tmp_path / "stopped")
    whole, again = (torch.load(tmp_path / name / "averaged.pt", weights_only=True) for name in ("whole", "stopped"))
    for part in ("generator", "discriminator"):
        for key, value in whole[part].items():
            assert torch.equal(value, again[part][key]), key


def test_the_command_leaves_a_bundle_that_draws_cartoons(
    cartoons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_bundle(tmp_path / "tiny")
    options = [f"pictures={cartoons}", f"model={model}", "style=balls", "stage.warm_up=1", "stage.batch=2"]
    options += ["stage.judged=2", "loop.steps=3", "loop.threads=1"]
    with pytest.raises(SystemExit) as end:
        main(["train", "toon", "--config", "training/toon.yaml", "--out", str(tmp_path / "run"), *options])
    out = capsys.readouterr().out
    assert not end.value.code and f"--toon --model {tmp_path / 'run' / 'bundle'}" in out
    before, after = read_bundle(model), read_bundle(tmp_path / "run" / "bundle")
    assert after.spec.toon is not None and after.spec.toon.style == "balls"
    assert {name: after.spec.files[name] for name in before.spec.files} == before.spec.files
    assert not any(key.startswith("mapping.") for key in after.tensors[TOON_FILE])
    assert after.spec.provenance["toon"]["pictures"] == 6
    inverter = load_inverter(str(tmp_path / "run" / "bundle"), toon=1.0)
    assert inverter.toon is not None and inverter.toon.degree == 1.0
    # Its discriminator can go on.
    run = ToonRun(cartoons, str(model), discriminator=tmp_path / "run", stage=STAGE, loop=LOOP)
    assert train_toon(run, tmp_path / "further")["pictures"] == 6
    assert read_spec(tmp_path / "further" / "bundle").toon is not None
    with pytest.raises(ConfigError, match="no finished toon run"):
        train_toon(replace(run, discriminator=tmp_path / "tiny"), tmp_path / "none")


@pytest.mark.parametrize(("config", "kind"), [(GENERATOR, "dual"), (STYLESDF, "image")], ids=["eg3d", "stylesdf"])
def test_it_begins_with_the_generators_own_discriminator(
    config: GeneratorConfig, kind: Literal["dual", "image"], cartoons: Path, tmp_path: Path
) -> None:
    model = give_discriminator(write_tiny_bundle(tmp_path / "tiny", config), kind)
    run = ToonRun(cartoons, str(model), stage=replace(STAGE, batch=6), loop=replace(LOOP, steps=1, learning_rate=0.0))
    with pytest.raises(ModelError, match="nothing was trained"):
        train_toon(run, tmp_path / "run")
    own = read_bundle(model, discriminator=True).tensors[DISCRIMINATOR_FILE]
    begun = torch.load(tmp_path / "run" / "averaged.pt", weights_only=True)["discriminator"]
    assert begun.keys() == own.keys() and all(torch.equal(begun[key], value) for key, value in own.items())
    with pytest.raises(ConfigError, match="its discriminator is not of the configured sizes"):
        plain = ToonRun(cartoons, str(write_tiny_bundle(tmp_path / "plain", config)), stage=STAGE, loop=LOOP)
        train_toon(replace(plain, discriminator=tmp_path / "run"), tmp_path / "further")


def paper_bundle(folder: Path) -> Path:
    return write_tiny_paper(folder, local=False)


@pytest.mark.parametrize(
    "write", [write_tiny_bundle, paper_bundle, write_tiny_hybrid], ids=["starter", "psp", "hybrid"]
)
def test_otherwise_it_looks_through_the_models_encoder(
    write: Callable[[Path], Path], cartoons: Path, tmp_path: Path
) -> None:
    model = write(tmp_path / "tiny")
    bundle = read_bundle(model)
    body, _ = encoder_body_of(bundle)
    train_toon(ToonRun(cartoons, str(model), stage=STAGE, loop=replace(LOOP, steps=3)), tmp_path / "run")
    end = torch.load(tmp_path / "run" / "averaged.pt", weights_only=True)["discriminator"]
    for key, value in body.state_dict().items():
        assert torch.equal(end[f"body.{key}"], value), "it learns as little as E0 does"
    after = read_spec(tmp_path / "run" / "bundle")
    assert "E0" in after.provenance["toon"]["first discriminator"]


def test_a_discriminator_that_wants_a_camera_is_told_the_frontal_one(cartoons: Path) -> None:
    stage = stage_of(GENERATOR, cartoons)
    stage.discriminator = DualDiscriminator((8,) * 5, mapping_layers=2)
    labels: list[torch.Tensor] = []
    stage.discriminator.register_forward_hook(lambda _, seen, score: labels.append(seen[2]))
    stage.losses(STAGE.warm_up, np.random.default_rng(0))
    front = stage.generator.frontal_camera().to_eg3d()
    assert len(labels) >= 3 and all(torch.equal(label, front.expand(len(label), -1)) for label in labels)
    with torch.no_grad():
        figures, _ = stage.evaluate({"generator": stage.network.eval(), "discriminator": stage.discriminator})
    assert np.isfinite(list(figures.values())).all()


def test_what_stands_around_a_head_is_asked_of_the_generator() -> None:
    torch.manual_seed(0)
    generator = build_generator(GENERATOR).eval()
    generator.decoder.output.bias.data[0] = 50.0
    assert not draws_heads_alone(generator)
    generator.decoder.output.weight.data.zero_()
    generator.decoder.output.bias.data[0] = -50.0
    assert draws_heads_alone(generator)
