"""Pairs of views, and the stages that learn local detail from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.projection import project, sample_map, unproject
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.load import load_inverter
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.residual_blender import CANDIDATES, INPUTS, ResidualBlender
from e3dge_video.training.augmentation import AugmentationConfig
from e3dge_video.training.blend_stage import BlendStage, BlendStageConfig
from e3dge_video.training.lifted_stage import LiftedStage
from e3dge_video.training.local_losses import HeadLoss
from e3dge_video.training.local_stage import LocalStage, LocalStageConfig, TwoViews
from e3dge_video.training.loop import LoopConfig
from e3dge_video.training.pack import PackRun, pack
from e3dge_video.training.runs import LocalRun, train_local
from e3dge_video.training.view_pairs import HeadViewPairs, PairConfig
from tests.support.tiny_model import BRANCH, write_tiny_bundle
from tests.support.training_runs import learned

CLEAN = AugmentationConfig(blur=0, rescale=0, sharpen=0, jpeg=0, noise=0)


@pytest.fixture(scope="module")
def edited_heads(render_heads) -> Path:
    """Heads, each followed by its copy with an open mouth."""
    return render_heads(6, seed=8, edit_share=1.0, edits=("mouth_open",))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Inverter:
    return load_inverter(str(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny")))


def pairs(folder: Path, **options: object) -> HeadViewPairs:
    config = PairConfig(data=folder, held_out=3, occluder=0, augmentation=CLEAN, landmark_noise=0)
    return HeadViewPairs(replace(config, **options))  # type: ignore[arg-type]


def test_both_views_show_the_same_detail(tiny_heads: Path) -> None:
    """A point of the head has the same colour change in both views: the second view read at the first one's points."""
    plain = pairs(tiny_heads, pattern=0, recolor=0, color=0).held_out(0)
    drawn = pairs(tiny_heads, pattern=1, recolor=0, color=0).held_out(0)
    # The draws differ from the first pattern on; members and cameras do not.
    assert torch.equal(plain.camera.cam2world, drawn.camera.cam2world)
    change = (drawn.truth - plain.truth)[0]
    assert float(change.abs().mean()) > 5e-3
    source = pairs(tiny_heads)
    row = int(source.test_rows[0])
    first = next(v for v in range(2) if np.allclose(source.data.cameras[row, v], drawn.camera.to_eg3d()[0]))
    depth = torch.from_numpy(source.data.view(row, first).depth.astype(np.float32))[None, None]
    uv, distance = project(unproject(depth, drawn.camera[:1]), drawn.camera[1:])
    other = torch.from_numpy(source.data.view(row, 1 - first).depth.astype(np.float32))[None, None]
    seen = ((sample_map(other, uv)[0, 0] - distance[0]).abs() < 0.01) & (depth.flatten() > 0)
    a, b = change[0].flatten(1)[:, seen], sample_map(change[1:], uv)[0][:, seen]
    assert int(seen.sum()) > 200
    assert float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) > 0.7


def test_pictures_stand_for_their_truth(tiny_heads: Path) -> None:
    """Without what a camera does, the input shows the truth wherever the head is."""
    drawn = pairs(tiny_heads, pattern=1, recolor=1, color=1).draw(3, np.random.default_rng(0))
    inside = drawn.alpha == 1
    assert inside.float().mean() > 0.2
    torch.testing.assert_close(*(v[inside.expand_as(v)] for v in (drawn.image, drawn.truth)), rtol=0, atol=1e-5)
    assert float(drawn.truth[(drawn.alpha == 0).expand_as(drawn.truth)].max()) == -1
    assert drawn.image.shape == (3, 2, 3, 64, 64) and len(drawn.camera) == 6 and drawn.landmarks.shape == (3, 2, 68, 2)


def test_pairs_with_edits(tiny_heads: Path, edited_heads: Path) -> None:
    drawn = pairs(edited_heads, edits=True).draw(2, np.random.default_rng(0))
    assert not torch.equal(drawn.z[:, 0], drawn.z[:, 1])
    same = pairs(tiny_heads).draw(2, np.random.default_rng(0))
    assert torch.equal(same.z[:, 0], same.z[:, 1])
    with pytest.raises(ConfigError, match="holds no pairs of heads"):
        pairs(tiny_heads, edits=True)
    with pytest.raises(ConfigError, match="holds out 3 pairs, 4 are wanted"):
        pairs(tiny_heads).held_out(3)


@pytest.mark.parametrize("mode", ["projected", "aligned", "hybrid"])
def test_local_stage_trains_the_branch_alone(model: Inverter, tiny_heads: Path, mode: str) -> None:
    torch.manual_seed(0)
    branch = LocalBranch(replace(BRANCH, mode=mode), model.generator.feature_width)
    config = LocalStageConfig(heads=1, evaluate_heads=1)
    stage = LocalStage(model, branch, pairs(tiny_heads, color=0), HeadLoss(config), config)
    history = learned(stage)
    assert history[-1]["neural"] < 0.97 * history[0]["neural"]
    assert ("alignment" in history[0]) == (mode != "projected")
    assert all(p.grad is not None for p in branch.parameters())
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        figures, sheet = stage.evaluate({"local": branch.eval()})
    assert set(figures) == {f"{kind}_{view}" for kind in ("global", "local") for view in ("source", "novel")}
    assert sheet is not None and sheet.shape == (64, 7 * 64, 3)


def test_source_view_alone(model: Inverter, tiny_heads: Path) -> None:
    """Each picture is compared with itself: what the two views hold plays no part in one another."""
    branch = LocalBranch(replace(BRANCH, mode="projected"), model.generator.feature_width)
    config = LocalStageConfig(heads=1, views="source", camera="true")
    losses = LocalStage(model, branch, pairs(tiny_heads), HeadLoss(config), config).losses(0, np.random.default_rng(1))
    assert set(losses) == {"image", "neural", "edges", "contrast"}


def test_misfit_leaves_more_to_the_residual(model: Inverter, tiny_heads: Path) -> None:
    """Codes at the mean head are one and the same, and the residual holds what they lost; the pictures stay."""
    pair, views = pairs(tiny_heads).held_out(0), TwoViews(model)
    own, half, mean = (views.invert(pair, None if s is None else torch.tensor([s])) for s in (None, 0.5, 1.0))
    expected = model.generator.mean_latents.expand_as(own.latents)
    torch.testing.assert_close(mean.latents, expected)
    torch.testing.assert_close(half.latents, (own.latents + expected) / 2)
    assert float((mean.residual - own.residual).abs().mean()) > 1e-3
    branch = LocalBranch(replace(BRANCH, mode="projected"), model.generator.feature_width)
    made = []
    for misfit in (0.0, 0.8):
        config = LocalStageConfig(heads=1, misfit=misfit)
        stage = LocalStage(model, branch, pairs(tiny_heads), HeadLoss(config), config)
        made.append(float(stage.losses(0, np.random.default_rng(1))["image"].detach()))
    assert made[0] != made[1]


def test_edits_are_learned_from_pairs_of_them(model: Inverter, tiny_heads: Path, edited_heads: Path) -> None:
    """Each picture is drawn with its codes moved by exactly the edit, and should look like the other one."""
    edits, generator = pairs(edited_heads, edits=True), model.generator
    pair, views = edits.held_out(0), TwoViews(model)
    inverted = views.invert(pair)
    moved = views.moved(inverted, pair)
    w = generator.map(pair.z[0])
    torch.testing.assert_close(moved.latents - inverted.latents, w.flip(0) - w, rtol=0, atol=1e-5)
    again = views.moved(replace(inverted, latents=moved.latents), replace(pair, z=pair.z.flip(1)))
    torch.testing.assert_close(again.latents, inverted.latents, rtol=0, atol=1e-5)
    (shown,) = views.pictures(pair, None)
    assert shown.view == "edited" and torch.equal(shown.truth, pair.truth[0].flip(0))

    torch.manual_seed(0)
    branch = LocalBranch(replace(BRANCH, mode="hybrid", realign="changed"), generator.feature_width)
    config = LocalStageConfig(heads=1, evaluate_heads=1)
    made = {}
    for share in (0.0, 1.0):
        stage = LocalStage(
            model, branch, pairs(tiny_heads), HeadLoss(config), config, edits=edits if share else None, edit_share=share
        )
        made[share] = stage.losses(0, np.random.default_rng(1))
        torch.stack(list(made[share].values())).sum().backward()
    assert set(made[0.0]) == set(made[1.0]) and float(made[0.0]["image"]) != float(made[1.0]["image"])
    assert all(p.grad is None for p in model.parameters())
    figures, sheet = stage.evaluate({"local": branch.eval()})
    shown_as = {f"{kind}_{view}" for kind in ("global", "local") for view in ("source", "novel", "edited")}
    assert set(figures) == shown_as and sheet is not None and sheet.shape == (64, (7 + 4) * 64, 3)


@pytest.mark.parametrize("edited", [False, True])
def test_beneath_the_lift_counts_what_is_shown(
    model: Inverter, tiny_heads: Path, edited_heads: Path, edited: bool
) -> None:
    torch.manual_seed(0)
    branch = LocalBranch(BRANCH, model.generator.feature_width)
    source = pairs(edited_heads, edits=True) if edited else pairs(tiny_heads, color=0)
    config = LocalStageConfig(heads=1, evaluate_heads=1, views="lifted", misfit=0.9)
    stage = LiftedStage(model, branch, pairs(tiny_heads, color=0), config, config, source, float(edited))
    pair = source.held_out(0)
    with torch.no_grad():
        drawn = stage.draw(branch.eval(), pair, ("lift",))
        user = model.with_branch(branch)
        seen = user.invert(pair.image[0], landmarks=pair.landmarks[0])
        moved = user.edit(seen, seen.latents + pair.edit_of(model.generator)) if edited else None
        shown = user.synthesize(seen, pair.camera[torch.tensor([1, 0])], moved).image
    torch.testing.assert_close(drawn.finished["lift"], shown, rtol=0, atol=1e-5)
    assert torch.equal(drawn.truth, pair.truth[0].flip(0)) and 0 < drawn.judged.mean() < 1
    assert model.local is None, "the model itself stays as it is"
    history = learned(stage)
    assert set(history[0]) == {f"{of}_{term}" for of in ("lift", "alone") for term in ("image", "edges", "contrast")}
    assert history[-1]["lift_image"] < history[0]["lift_image"]
    assert any(p.grad is not None and bool(p.grad.any()) for p in branch.parameters())
    assert all(p.grad is None for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = stage.draw(branch.eval(), pair, ("lift",))
    with torch.no_grad():
        full = stage.draw(branch.eval(), pair, ("lift",))
    assert float((half.finished["lift"].float() - full.finished["lift"]).abs().mean()) < 0.02
    with torch.no_grad():
        figures, sheet = stage.evaluate({"local": branch.eval()})
    views = ("novel", "edited") if edited else ("novel",)
    assert set(figures) == {f"{beneath}lift_{view}" for beneath in ("", "local_") for view in views}
    assert sheet is not None


def test_a_branch_goes_into_the_bundle_that_it_was_trained_behind(tiny_heads: Path, tmp_path: Path) -> None:
    base, other = write_tiny_bundle(tmp_path / "base"), write_tiny_bundle(tmp_path / "other", seed=1)
    branch = replace(BRANCH, mode="projected")
    loop = LoopConfig(steps=1, device="cpu", threads=1, tensorboard=False)
    stage = LocalStageConfig(heads=1, evaluate_heads=1, pairs=pairs(tiny_heads).config)
    train_local(LocalRun(str(base), branch=branch, loop=loop, stage=stage), tmp_path / "run")
    assert pack(PackRun(base=base, local=tmp_path / "run"), tmp_path / "packed").local == branch
    # That the model has another branch by now is no matter; G, E0, E_ξ and the matte are.
    pack(PackRun(base=tmp_path / "packed", local=tmp_path / "run"), tmp_path / "again")
    with pytest.raises(ConfigError, match="behind another generator and encoder and pose_encoder and matte than that"):
        pack(PackRun(base=other, local=tmp_path / "run"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_blend_stage_learns_and_keeps_its_examples(
    model: Inverter, tiny_heads: Path, edited_heads: Path, tmp_path: Path
) -> None:
    config = BlendStageConfig(
        views=pairs(tiny_heads).config, edits=pairs(edited_heads, edits=True).config, examples=3, held_out=1, batch=2
    )
    torch.manual_seed(0)
    blender = ResidualBlender((8, 12))
    stage = BlendStage(model, blender, config, tmp_path)
    assert stage.train["views"].features.shape == (6, INPUTS, 32, 32)
    assert not stage.train["views"].features[:, 16].any() and stage.train["edits"].features[:, 16].any()
    with torch.no_grad():
        before, _ = stage.evaluate({"blender": blender})
    for kind in ("views", "edits"):
        assert before[f"{kind}_blend"] == pytest.approx(before[f"{kind}_lift"], rel=0.05), "it begins as the plain lift"
    optimizer = torch.optim.Adam(blender.parameters(), lr=5e-3)
    history = []
    for step in range(60):
        losses = stage.losses(step, np.random.default_rng(step))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append(losses)
    colors = [float(losses[name].detach()) for losses in history for name in losses if name.endswith("color")]
    assert np.mean(colors[-10:]) < 0.95 * np.mean(colors[:10])
    again = BlendStage(model, ResidualBlender((8, 12)), config, tmp_path)
    assert torch.equal(again.train["edits"].truth, stage.train["edits"].truth)
    with pytest.raises(ConfigError, match="holds 6 examples, not 4"):
        BlendStage(model, blender, replace(config, examples=2), tmp_path)


def test_shares_of_a_fresh_blend_are_the_lifts() -> None:
    blender, weight = ResidualBlender((8, 12)), torch.rand(1, 1, 32, 32)
    whole = torch.ones_like(weight)
    made = blender(torch.randn(1, INPUTS, 16, 16), weight, torch.rand(1, 1, 32, 32), whole)
    assert made.shape == (1, len(CANDIDATES), 32, 32)
    torch.testing.assert_close(made.sum(dim=1), torch.ones(1, 32, 32))
    torch.testing.assert_close(made[:, :1], weight, rtol=0, atol=0.03)
    unseen = blender(torch.randn(1, INPUTS, 16, 16), torch.zeros_like(weight), torch.zeros_like(weight), whole)
    assert float(unseen[:, :2].max()) < 1e-6
