"""The paper's training of the local branch on a generator's own heads, and the way of the result into a bundle."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from e3dge_video.config.load import to_mapping
from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import load_paper_inverter
from e3dge_video.inversion.paper import PaperInverter
from e3dge_video.models.discriminators import DualDiscriminator
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.training.image_losses import ImageLossConfig, image_losses
from e3dge_video.training.local_losses import AdversarialConfig, PaperLoss
from e3dge_video.training.local_stage import LocalStage, TaughtLocalConfig
from e3dge_video.training.loop import LoopConfig, train
from e3dge_video.training.losses import AdversarialWeights
from e3dge_video.training.runs import averaged
from e3dge_video.training.taught_runs import TaughtLocalRun, TaughtPackRun, pack_taught, train_taught_local
from e3dge_video.training.teacher import Teacher, TeacherConfig
from e3dge_video.training.teacher_pairs import TeacherPairs
from e3dge_video.weights.bundle import DISCRIMINATOR_FILE, ENCODER_FILE, read_bundle, read_spec, write_bundle
from tests.support.tiny_model import BRANCH, give_discriminator, write_tiny_bundle, write_tiny_hybrid, write_tiny_paper
from tests.support.training_runs import learned

TEACHER = TeacherConfig(image_size=32, curriculum=False)
CONFIG = TaughtLocalConfig(
    heads=1,
    evaluate_heads=1,
    image=ImageLossConfig(perceptual_network="features-ours", identity=0),
    teacher=TEACHER,
)
LOOP = LoopConfig(steps=2, learning_rate=1e-2, warmup_steps=1, device="cpu", threads=1, tensorboard=False)


@pytest.fixture(scope="module", params=["eg3d", "stylesdf"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write = write_tiny_paper if request.param == "eg3d" else write_tiny_hybrid
    return write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> PaperInverter:
    return load_paper_inverter(str(folder))


def stage(model: PaperInverter, mode: str, config: TaughtLocalConfig = CONFIG) -> LocalStage:
    torch.manual_seed(0)
    branch = LocalBranch(replace(BRANCH, mode=mode), model.generator.feature_width)
    loss = PaperLoss(config, image_losses(config.image))
    return LocalStage(model, branch, TeacherPairs(Teacher(model.generator, config.teacher)), loss, config)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize(("mode", "views"), [("projected", "source"), ("hybrid", "swapped")])
def test_the_branch_alone_learns(model: PaperInverter, mode: str, views: str) -> None:
    made = stage(model, mode, replace(CONFIG, views=views))  # type: ignore[arg-type]
    before = state(model)
    history = learned(made)
    expected = {"l2", "features", "raw_l2", "raw_features"} | ({"alignment"} if mode == "hybrid" else set())
    assert set(history[0]) == expected
    assert sum(history[-1].values()) < 0.97 * sum(history[0].values())
    assert mode != "hybrid" or history[-1]["alignment"] < history[0]["alignment"]
    assert all(p.grad is not None for p in made.branch.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "statistics included"
    with torch.no_grad():
        figures, sheet = made.evaluate({"local": made.branch.eval()})
    assert set(figures) == {f"{kind}_{view}" for kind in ("global", "local") for view in ("source", "novel")}
    assert sheet is not None and sheet.shape == (32, 7 * 32, 3)


def test_pairs_are_two_views_of_one_head_with_their_own_cameras(model: PaperInverter) -> None:
    pairs = TeacherPairs(Teacher(model.generator, TEACHER))
    drawn = pairs.draw(2, np.random.default_rng(0))
    assert drawn.image.shape == (2, 2, 3, 32, 32) and len(drawn.camera) == 4 and drawn.neural is not None
    assert torch.equal(drawn.z[:, 0], drawn.z[:, 1]) and not torch.equal(drawn.image[:, 0], drawn.image[:, 1])
    planes = model.generator.planes(drawn.z.flatten(0, 1))
    again = model.generator.render(planes, drawn.camera).rgb
    torch.testing.assert_close(again, drawn.neural.flatten(0, 1), rtol=0, atol=1e-5)
    assert torch.equal(pairs.held_out(3).image, pairs.held_out(3).image)
    assert not torch.equal(pairs.held_out(3).image, pairs.held_out(4).image)


def test_the_discriminator_and_the_branch_do_not_learn_from_each_others_terms(model: PaperInverter) -> None:
    config = replace(CONFIG, adversarial=AdversarialConfig(channels=(8, 8, 8, 4)))
    made = stage(model, "hybrid", config)
    judge = made.modules()["discriminator"]
    losses = made.losses(0, np.random.default_rng(0))
    assert {"fool", "judge", "r1"} < set(losses)
    for name, learns, stays in (
        ("fool", made.branch, judge),
        ("judge", judge, made.branch),
        ("r1", judge, made.branch),
    ):
        reached = [
            torch.autograd.grad(losses[name], list(m.parameters()), retain_graph=True, allow_unused=True)
            for m in (learns, stays)
        ]
        assert any(g is not None and bool(g.any()) for g in reached[0]), name
        assert all(g is None for g in reached[1]), name
    assert "r1" not in made.losses(1, np.random.default_rng(0))


def test_a_dual_discriminator_is_told_the_camera_and_sees_the_volume_rendering(model: PaperInverter) -> None:
    config = replace(CONFIG, heads=3, views="swapped", adversarial=AdversarialConfig())
    torch.manual_seed(0)
    side = int(math.log2(model.synthesize(model.invert(_picture()), model.generator.frontal_camera()).image.shape[-1]))
    judge = DualDiscriminator((8,) * (side - 1), mapping_layers=2)
    branch = LocalBranch(BRANCH, model.generator.feature_width)
    asked: list[tuple[torch.Tensor, ...]] = []
    judge.register_forward_hook(lambda _, seen, score: asked.append(seen))
    loss = PaperLoss(config, image_losses(config.image), judge)
    made = LocalStage(model, branch, TeacherPairs(Teacher(model.generator, TEACHER)), loss, config)
    losses = made.losses(0, np.random.default_rng(0))
    pairs = made.pairs.draw(3, np.random.default_rng(0))
    swapped = torch.tensor([1, 0, 3, 2, 5, 4])
    assert pairs.whole is not None and pairs.neural is not None
    fake, real, _, slope = asked  # of "fool"; of "judge", the real ones first; of R1
    for seen in (fake, real, slope):
        assert torch.equal(seen[2], pairs.camera.to_eg3d()[swapped]), "the camera that is drawn from"
    for seen in (real, slope):
        torch.testing.assert_close(seen[0], pairs.whole.flatten(0, 1)[swapped])
        torch.testing.assert_close(seen[1], pairs.neural.flatten(0, 1)[swapped])
    assert fake[0].shape == real[0].shape == (6, 3, judge.resolution, judge.resolution)
    assert fake[1].requires_grad and not torch.equal(fake[1], real[1])
    [heard] = torch.autograd.grad(losses["judge"], [judge.mapping.embed.weight], retain_graph=True)
    assert heard.any()


def test_training_begins_with_the_generators_own_discriminator(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(folder, tmp_path / "base")
    config = replace(CONFIG, adversarial=AdversarialConfig(channels=(8, 8, 8, 4)))
    still = replace(LOOP, steps=1, learning_rate=0.0)
    with caplog.at_level("INFO"):
        train_taught_local(run_of(base, stage=config, loop=still), tmp_path / "random")
        assert "the discriminator begins with random numbers: the model does not" in caplog.text
        caplog.clear()
        give_discriminator(base, "dual" if read_spec(base).backbone == "eg3d" else "image")
        train_taught_local(run_of(base, stage=config, loop=still), tmp_path / "own")
        assert (
            "the discriminator begins as the generator's own, SHA-256 " in caplog.text and "random" not in caplog.text
        )
    own = read_bundle(base, discriminator=True).tensors[DISCRIMINATOR_FILE]
    begun = averaged(tmp_path / "own")["discriminator"]
    assert begun.keys() == own.keys() and all(torch.equal(begun[key], value) for key, value in own.items())
    with pytest.raises(ConfigError, match="was written by a run with other options"):  # it began with no discriminator
        train_taught_local(run_of(base, stage=config, loop=still), tmp_path / "random")


def test_a_stopped_adversarial_run_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(folder, tmp_path / "base")
    give_discriminator(base, "dual" if read_spec(base).backbone == "eg3d" else "image")
    weights = AdversarialWeights(r1_every=2)
    config = replace(CONFIG, adversarial=AdversarialConfig(weights=weights))
    run = run_of(base, stage=config, loop=replace(LOOP, steps=4, checkpoint_every=1))
    train_taught_local(run, tmp_path / "whole")
    draw, calls = TeacherPairs.draw, []

    def interrupted(self: TeacherPairs, *arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TeacherPairs, "draw", interrupted)
        train_taught_local(run, tmp_path / "stopped")
    train_taught_local(run, tmp_path / "stopped")
    whole, again = averaged(tmp_path / "whole"), averaged(tmp_path / "stopped")
    for part in ("local", "discriminator"):
        assert all(torch.equal(again[part][key], value) for key, value in whole[part].items()), part


@pytest.mark.parametrize("kept", [("aligner",), ("encoder", "film_head"), ("discriminator",)])
def test_each_stage_trains_exactly_its_parts(folder: Path, tmp_path: Path, kept: tuple[str, ...]) -> None:
    """Gradients reach what is trained and nothing else, and what is kept stays to the last statistic."""
    rates = dict.fromkeys(kept, 0.0) | {"fusion": 2.0}
    config = replace(CONFIG, views="swapped", adversarial=AdversarialConfig(channels=(8, 8, 8, 4)), rates=rates)
    model = load_paper_inverter(str(folder))
    torch.manual_seed(0)
    branch = LocalBranch(BRANCH, model.generator.feature_width)
    for parameter in branch.parameters():  # so that everything has something to say
        torch.nn.init.normal_(parameter, std=0.1)
    loss = PaperLoss(config, image_losses(config.image))
    made = LocalStage(model, branch, TeacherPairs(Teacher(model.generator, TEACHER)), loss, config, config.rates)
    parts = {**dict(branch.named_children()), **loss.modules()}
    before = {name: state(part) for name, part in parts.items()}
    trained = {id(p): rate for rate, group in made.groups() for p in group}
    train(made, replace(LOOP, steps=1, gradient_clip=0.0), tmp_path / "run")
    for name, part in parts.items():
        rate = rates.get(name, 1.0)
        assert {trained.get(id(p), 0.0) for p in part.parameters()} == {rate}, name
        moved = {key for key, value in part.state_dict().items() if not torch.equal(value, before[name][key])}
        if rate == 0:
            assert not moved, name
        else:
            assert {key for key, _ in part.named_parameters()} <= moved, name
            assert all(p.grad is not None for p in part.parameters()), name
            steps = [(p.detach() - before[name][key]).abs().max() for key, p in part.named_parameters()]
            assert float(max(steps)) == pytest.approx(rate * LOOP.learning_rate, rel=0.02), "Adam's first step"


def test_rates_of_parts_that_are_not_there(model: PaperInverter) -> None:
    branch = LocalBranch(replace(BRANCH, mode="projected"), model.generator.feature_width)
    for rates in ({"aligner": 0.0}, {"discriminator": 1.0}, {"encoder": -1.0}):
        with pytest.raises(ConfigError, match=r"expected a number of at least 0 for one of encoder, film_head$"):
            loss = PaperLoss(CONFIG, image_losses(CONFIG.image))
            LocalStage(model, branch, TeacherPairs(Teacher(model.generator, TEACHER)), loss, CONFIG, rates)


def _picture() -> torch.Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run_of(folder: Path, **options: object) -> TaughtLocalRun:
    return replace(TaughtLocalRun(str(folder), branch=BRANCH, loop=LOOP, stage=CONFIG), **options)  # type: ignore[arg-type]


def test_a_trained_branch_is_packed_and_draws_the_same_pictures(folder: Path, tmp_path: Path) -> None:
    train_taught_local(run_of(folder), tmp_path / "run")
    spec = pack_taught(TaughtPackRun(str(folder), "packed", local=tmp_path / "run"), tmp_path / "packed")
    assert spec.local == BRANCH and spec.provenance["detail"]["local"]["figures"]["step"] == 2
    packed, plain = load_paper_inverter(str(tmp_path / "packed")), load_paper_inverter(str(folder))
    branch = LocalBranch(BRANCH, plain.generator.feature_width)
    branch.load_state_dict(averaged(tmp_path / "run")["local"])
    plain_image = shown(plain)
    plain.local = branch.eval()
    assert torch.equal(shown(packed), shown(plain)) and not torch.equal(shown(packed), plain_image)
    before, after = (read_bundle(path).tensors["encoder.safetensors"] for path in (folder, tmp_path / "packed"))
    assert all(torch.equal(after[key], value) for key, value in before.items() if not key.startswith("encoders.local."))


@torch.no_grad()
def shown(model: PaperInverter) -> torch.Tensor:
    return model.synthesize(model.invert(_picture()), model.generator.frontal_camera()).image


def test_a_run_may_start_from_a_bundles_branch_or_from_an_earlier_run(folder: Path, tmp_path: Path) -> None:
    """The bundle's branch is the first step's: what it draws is what the model draws."""
    own = averaged(folder)["local"]
    still = replace(LOOP, steps=1, learning_rate=0.0)
    train_taught_local(run_of(folder, init=folder, loop=still), tmp_path / "same")
    same = averaged(tmp_path / "same")["local"]
    learned = [name for name, _ in LocalBranch(BRANCH, 1).named_parameters() if "film_head" not in name]
    assert all(torch.equal(same[name], own[name]) for name in learned), "all but E_ADA's running statistics"
    source = replace(BRANCH, mode="projected")
    train_taught_local(run_of(folder, branch=source), tmp_path / "local")
    train_taught_local(run_of(folder, init=tmp_path / "local", loop=still), tmp_path / "align")
    begun, left = averaged(tmp_path / "align")["local"], averaged(tmp_path / "local")["local"]
    assert all(torch.equal(begun[key], value) for key, value in left.items()) and len(begun) > len(left)


def test_what_does_not_belong_together_is_one_line(folder: Path, tmp_path: Path) -> None:
    starter = write_tiny_bundle(tmp_path / "starter")
    with pytest.raises(ConfigError, match="holds no local branch; give the folder of a run of `train local`"):
        train_taught_local(run_of(folder, init=starter), tmp_path / "a")
    with pytest.raises(ConfigError, match="its local branch is not of the configured sizes"):
        train_taught_local(run_of(folder, init=folder, branch=replace(BRANCH, channels=8)), tmp_path / "b")
    with pytest.raises(ConfigError, match="name the runs of encoder and pose, which go together, or of local"):
        pack_taught(TaughtPackRun(str(folder)), tmp_path / "c")
    assert to_mapping(read_spec(folder))["local"]["mode"] == "hybrid"


def test_a_branch_is_packed_beside_nothing_else_than_it_was_trained_behind(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, loop=replace(LOOP, steps=1))
    train_taught_local(run, tmp_path / "run")
    bundle = read_bundle(folder)
    other = {
        key: value * 1.01 if key.endswith("bias") else value for key, value in bundle.tensors[ENCODER_FILE].items()
    }
    write_bundle(tmp_path / "other", bundle.spec, bundle.tensors | {ENCODER_FILE: other}, exact=True)
    with pytest.raises(ConfigError, match=r"run: was trained behind another \w*encoder.* than that of the model it is"):
        pack_taught(TaughtPackRun(str(tmp_path / "other"), local=tmp_path / "run"), tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    with pytest.raises(ConfigError, match=r"other options"):
        train_taught_local(replace(run, model=str(tmp_path / "other")), tmp_path / "run")
    # A discriminator goes along.
    give_discriminator(shutil.copytree(folder, tmp_path / "base"), "image")
    pack_taught(TaughtPackRun(str(tmp_path / "base"), local=tmp_path / "run"), tmp_path / "packed")
    kept = [read_bundle(tmp_path / name, discriminator=True).tensors[DISCRIMINATOR_FILE] for name in ("base", "packed")]
    assert all(torch.equal(kept[1][key], value) for key, value in kept[0].items())
    # The same name for other networks.
    train_taught_local(replace(run, model=str(tmp_path / "base")), tmp_path / "again")
    write_bundle(tmp_path / "base", bundle.spec, bundle.tensors | {ENCODER_FILE: other}, exact=True)
    with pytest.raises(ConfigError, match=r"by a run behind another \w*encoder.* than the model has now"):
        train_taught_local(replace(run, model=str(tmp_path / "base")), tmp_path / "again")
