"""E0 and E_ξ on heads that a frozen generator makes up, for both kinds of generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from e3dge_video.config.encoders import PSPConfig, StyleHeadConfig
from e3dge_video.errors import ConfigError
from e3dge_video.models.build import build_generator, build_psp, with_samples
from e3dge_video.models.encoders.pose_encoder import ViewpointEncoder
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.training.geometry_supervision import GeometryWeights
from e3dge_video.training.image_losses import ImageLossConfig, image_losses
from e3dge_video.training.pose_stage import PoseStage, TaughtPoseConfig, TaughtPoses
from e3dge_video.training.shape_teaching import geometry_supervision
from e3dge_video.training.taught_global_stage import TaughtGlobalConfig, TaughtGlobalStage
from e3dge_video.training.teacher import Teacher, TeacherConfig
from tests.support.tiny_model import GENERATOR, PSP, STYLESDF

CONFIGS = {"eg3d": GENERATOR, "stylesdf": STYLESDF}
TEACHER = TeacherConfig(image_size=32, curriculum=False, truncation=1.0)
CONFIG = TaughtGlobalConfig(
    batch=3,
    geometry=GeometryWeights(anywhere=32),
    image=ImageLossConfig(perceptual_network="features-ours", identity=0),
    teacher=TEACHER,
    evaluate_heads=6,
)
GEOMETRY = {"eg3d": {"surface", "depth", "points"}, "stylesdf": {"surface", "normal", "points", "eikonal"}}


def fall(stage: TaughtGlobalStage | PoseStage, steps: int, rate: float) -> dict[str, float]:
    """Each loss after some steps on one and the same batch, over what it was at first."""
    optimizer = torch.optim.Adam(stage.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        losses = stage.losses(30_000, np.random.default_rng(0))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    return {name: history[-1][name] / value for name, value in history[0].items()}


def solid(backbone: str) -> EG3D | StyleSDF:
    """A generator whose heads can be seen: denser than random weights would be."""
    torch.manual_seed(0)
    generator = build_generator(CONFIGS[backbone])
    if isinstance(generator, EG3D):
        with torch.no_grad():
            generator.decoder.output.weight[0].mul_(20)
            generator.decoder.output.bias[0].fill_(20)
    return generator


def stage(backbone: str) -> TaughtGlobalStage:
    teacher = Teacher(solid(backbone), TEACHER)
    encoder = build_psp(PSP, CONFIGS[backbone])
    return TaughtGlobalStage(encoder, teacher, image_losses(CONFIG.image), CONFIG)


@pytest.mark.parametrize("backbone", CONFIGS)
def test_e0_learns_the_teachers_heads(backbone: str) -> None:
    trained = stage(backbone)
    falls = fall(trained, 25, 1e-2)
    assert falls.keys() == {"code", "l2", "features", "raw_l2", "raw_features"} | GEOMETRY[backbone]
    assert falls["code"] < 0.97 and falls["l2"] < 0.8 and falls["points"] < 0.9
    trained.encoder.eval()
    with torch.no_grad():
        figures, sheet = trained.evaluate({"encoder": trained.encoder})
    assert np.isfinite(figures["code_r2"]) and sheet is not None and sheet.shape == (256, 3 * 128, 3)
    with torch.no_grad():
        assert trained.evaluate({"encoder": trained.encoder})[0] == figures


@pytest.mark.parametrize("backbone", CONFIGS)
def test_gradients_reach_all_of_e0_and_nothing_of_the_generator(backbone: str) -> None:
    trained = stage(backbone)
    torch.stack(list(trained.losses(0, np.random.default_rng(0)).values())).sum().backward()
    for name, parameter in trained.encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert {id(p) for p in trained.parameters()} == {id(p) for p in trained.encoder.parameters()}
    assert all(p.grad is None and not p.requires_grad for p in trained.generator.parameters())


@pytest.mark.parametrize("backbone", CONFIGS)
def test_every_geometry_term_alone_moves_the_codes(backbone: str) -> None:
    """Of a student with other codes; the teacher's own codes lose nothing but what no code can win."""
    taught = stage(backbone)
    batch = taught.teacher.draw(2, np.random.default_rng(3))
    [view] = batch.views
    for latents, own in ((batch.latents.roll(1, 0), False), (batch.latents.clone(), True)):
        latents = latents.requires_grad_()
        planes = taught.generator.planes(latents)
        rendering = taught.supervision.render(planes, view.camera, None)
        losses = taught.supervision.losses(
            batch.planes, view.camera, view.rendered, planes, rendering, np.random.default_rng(0)
        )
        assert losses.keys() == GEOMETRY[backbone]
        for name, value in losses.items():
            if own and name in ("depth", "normal", "points"):
                assert float(value.detach()) < 1e-6, name
            elif not own:
                [slope] = torch.autograd.grad(value, latents, retain_graph=True)
                assert float(value.detach()) > 0 and slope.abs().max() > 0, name


def test_codes_are_compared_where_they_mean_something() -> None:
    """StyleSDF's narrower rows are filled up with zeros, which must not water the error down."""
    generator = build_generator(STYLESDF)
    supervision = geometry_supervision(generator, GeometryWeights())
    field, decoder = torch.ones(1, 2, 32), torch.ones(1, 4, 24)
    ones, zeros = generator.pack(field, decoder), torch.zeros(1, *generator.latent_shape)
    assert float(supervision.code_error(ones, zeros)) == pytest.approx(1)


@pytest.mark.parametrize("backbone", CONFIGS)
def test_stages_compute_in_bf16(backbone: str) -> None:
    trained = stage(backbone)
    exact = trained.losses(0, np.random.default_rng(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = trained.losses(0, np.random.default_rng(0))
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in half.values())
    assert float(half["code"].detach()) == pytest.approx(float(exact["code"].detach()), rel=0.05)
    torch.stack(list(half.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in trained.encoder.parameters())


@pytest.mark.parametrize("backbone", CONFIGS)
def test_the_pose_head_learns_and_e0_stays(backbone: str) -> None:
    teacher = Teacher(solid(backbone), TEACHER)
    encoder = build_psp(PSP, CONFIGS[backbone])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    head = ViewpointEncoder(*encoder.feature_shape)
    trained = PoseStage(encoder, head, TaughtPoses(teacher, TaughtPoseConfig(6, TEACHER, evaluate_heads=12)))
    assert fall(trained, 25, 3e-3)["pose"] < 0.5
    assert {id(p) for p in trained.parameters()} == {id(p) for p in head.parameters()}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():
        figures, _ = trained.evaluate({"pose_encoder": head})
    assert figures.keys() == {"yaw_median", "pitch_median"}


def test_rows_read_the_levels_that_the_paper_gives_them() -> None:
    encoder = build_psp(replace(PSP, heads=PSPConfig().heads), replace(GENERATOR, backbone=EG3D_256))
    assert encoder.psp.maps == [2] * 5 + [1] * 4 + [0] * 5
    assert [len(head.convs) for head in encoder.psp.heads] == [5] * 5 + [6] * 4 + [7] * 5
    image = torch.randn(1, 3, 32, 32)
    maps = encoder.psp.pyramid(image)
    whole = encoder.psp.offsets(maps)
    maps[1] = maps[1] + 1
    changed = (encoder.psp.offsets(maps) - whole).abs().amax(dim=(0, 2)) > 0
    assert changed.tolist() == [False] * 5 + [True] * 4 + [False] * 5


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="predict 14 rows, the generator's codes have 6"):
        build_psp(replace(PSP, heads=PSPConfig().heads), GENERATOR)
    with pytest.raises(ConfigError, match="levels are 128, 64, 32, 16; got"):
        build_psp(replace(PSP, heads=(StyleHeadConfig(6, 8),)), GENERATOR)


def test_samples_along_rays() -> None:
    assert with_samples(GENERATOR, 20).rays.coarse == 20
    assert with_samples(STYLESDF, 20).volume.samples == 20


EG3D_256 = replace(GENERATOR.backbone, plane_resolution=256, channels=(8, 8, 8, 8, 8, 8, 8))
