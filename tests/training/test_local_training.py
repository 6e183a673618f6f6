"""The paper's training of the local branch on a generator's own heads, and the way of the result into a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from e3dge_video.config.load import to_mapping
from e3dge_video.errors import ConfigError
from e3dge_video.inversion.load import load_paper_inverter
from e3dge_video.inversion.paper import PaperInverter
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.training.image_losses import ImageLossConfig, image_losses
from e3dge_video.training.local_losses import AdversarialConfig, PaperLoss
from e3dge_video.training.local_stage import LocalStage, TaughtLocalConfig
from e3dge_video.training.loop import LoopConfig
from e3dge_video.training.runs import averaged
from e3dge_video.training.taught_runs import TaughtLocalRun, TaughtPackRun, pack_taught, train_taught_local
from e3dge_video.training.teacher import Teacher, TeacherConfig
from e3dge_video.training.teacher_pairs import TeacherPairs
from e3dge_video.weights.bundle import read_bundle, read_spec
from tests.support.tiny_model import BRANCH, write_tiny_bundle, write_tiny_hybrid, write_tiny_paper

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
    before, history = state(model), []
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for _ in range(12):
        losses = made.losses(0, np.random.default_rng(3))  # the same pair again and again
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
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
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return model.synthesize(model.invert(picture), model.generator.frontal_camera()).image


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
    train_taught_local(run_of(folder), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"was trained on the model .*, not on"):
        pack_taught(TaughtPackRun(str(starter), local=tmp_path / "run"), tmp_path / "d")
    assert to_mapping(read_spec(folder))["local"]["mode"] == "hybrid"
