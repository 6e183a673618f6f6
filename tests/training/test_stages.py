"""Every stage on a data set of ten heads: it learns, trains what it says and nothing else, and reports figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from e3dge_video.config.generators import EG3DConfig
from e3dge_video.errors import ConfigError
from e3dge_video.heads.latent import Z_DIM
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.pose_encoder import PoseEncoder
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.matting import MatteNet
from e3dge_video.training.attribute_stage import AttributeConfig, AttributeStage
from e3dge_video.training.encoder_data import draw_batch, noisy_landmarks
from e3dge_video.training.generator_stage import PointConfig, PointStage, initialise_density
from e3dge_video.training.global_stage import GlobalConfig, GlobalStage, visible_metric
from e3dge_video.training.head_pairs import HeadPairs
from e3dge_video.training.mapping_stage import MappingStage, MappingStageConfig
from e3dge_video.training.matte_stage import MatteStage, MatteStageConfig
from e3dge_video.training.points_stage import FacePointsConfig, FacePointsStage
from e3dge_video.training.render_stage import RenderConfig, RenderStage
from tests.support.tiny_model import ENCODER, GENERATOR, MATTE


def generator(seed: int = 0) -> EG3D:
    torch.manual_seed(seed)
    return EG3D(GENERATOR)


def run(stage, steps: int, rate: float) -> list[dict[str, float]]:
    """Train for a few steps; losses by step."""
    optimizer = torch.optim.Adam(stage.parameters(), lr=rate)
    history = []
    for step in range(steps):
        torch.manual_seed(step)
        losses = stage.losses(step, np.random.default_rng([0, step]))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    return history


def fell(history, name: str) -> float:
    """Mean of the last five losses over mean of the first five."""
    values = [losses[name] for losses in history]
    return float(np.mean(values[-5:]) / np.mean(values[:5]))


def test_point_stage_learns_color_and_occupancy(tiny_views):
    net = generator()
    initialise_density(net, 20)
    stage = PointStage(
        net, tiny_views, PointConfig(held_out=3, identities=2, views=2, pixels=256, evaluate_identities=2)
    )
    history = run(stage, 40, 5e-3)
    assert fell(history, "color") < 0.75 and fell(history, "occupancy") < 0.9
    with torch.no_grad():
        figures, sheet = stage.evaluate({"generator": net})
    assert figures["psnr"] > 5 and sheet.shape[0] == 3 * 64


def test_point_stage_labels_points_rightly(tiny_views):
    """Solid points lie behind the seen surface, empty ones before it; surface points carry the pixel's colour."""
    stage = PointStage(generator(), tiny_views, PointConfig(held_out=3, identities=2, views=2, pixels=512))
    batch = stage.draw(np.random.default_rng(3))
    assert batch.surface.shape == (2, 1024, 3) and batch.points.shape == (2, 3072, 3)
    assert 0.1 < batch.solid.mean() < 0.6
    # A head stands around the pivot: what is solid is closer to it than what is empty.
    pivot = torch.tensor([0.0, 0.0, 0.05])
    solid = (batch.points - pivot).norm(dim=-1)[batch.solid > 0.99]
    empty = (batch.points - pivot).norm(dim=-1)[batch.solid == 0]
    assert solid.mean() < empty.mean() and solid.max() < 0.75
    assert batch.color.min() >= -1 and batch.color.max() <= 1
    assert batch.importance.mean() == pytest.approx(1.0, abs=1e-4)


def test_relief_is_what_stands_out_on_the_skin(tiny_views):
    view = tiny_views.view(0, 0)
    rgba, label = np.full((64, 64, 4), 255, np.uint8), np.zeros((64, 64), np.uint8)
    rgba[..., :3] = 40
    label[16:48, 16:48] = tiny_views.skin_label
    rgba[16:48, 16:48, :3] = np.linspace(150, 160, 32)[None, :, None]  # shading is no relief, nor is the skin's edge
    rgba[30, 20:44, :3] -= 25
    relief = tiny_views.relief(replace(view, rgba=rgba, label=label))
    assert relief[30, 22:42].min() > 0.9
    assert relief[label == 0].max() == 0
    assert np.delete(relief, range(24, 37), axis=0).max() < 0.2


def test_relief_weighs_points_and_pixels(tiny_views):
    sizes = {"held_out": 3, "identities": 2, "views": 2, "pixels": 512}
    even, weighed = (
        PointStage(generator(), tiny_views, PointConfig(**sizes, relief_weight=weight)).draw(np.random.default_rng(3))
        for weight in (0.0, 5.0)
    )
    torch.testing.assert_close(even.surface, weighed.surface, rtol=0, atol=0)
    ratio = weighed.importance / even.importance.clamp_min(1e-6)
    ratio = ratio[even.importance > 0]
    assert ratio.max() / ratio.min() == pytest.approx(6, rel=0.05)  # the plainest skin against a full fold
    losses = [
        RenderStage(generator(), tiny_views, RenderConfig(held_out=3, identities=2, patch=16, relief_weight=weight))
        .losses(0, np.random.default_rng(4))
        for weight in (0.0, 3.0)
    ]  # fmt: skip
    for name, value in losses[0].items():
        factor = float(losses[1][name].detach() / value.detach())
        assert 1.01 < factor < 4 if name in ("color", "image") else factor == pytest.approx(1, abs=1e-5)


def test_pairs_share_their_surface_and_change_on_it(tiny_pairs):
    pairs = HeadPairs(tiny_pairs, Z_DIM)
    z, points, change = pairs.draw(8, 512, np.random.default_rng(1))
    assert z.shape == (8, 2, Z_DIM) and points.shape == change.shape == (8, 512, 3)
    assert (z[:, 1] - z[:, 0]).abs().sum() > 1  # the second is the edited one
    assert change.mean() < -0.008  # furrows are darker than smooth skin
    assert 0.15 < (change.abs().mean(dim=-1) > 0.02).float().mean() < 0.95  # changed places are drawn more often
    assert points.norm(dim=-1).max() < 0.75


def test_pairs_teach_what_an_edit_changes(tiny_views, tiny_pairs):
    net = generator()
    sizes = {"held_out": 3, "identities": 1, "views": 1, "pixels": 128}
    stage = PointStage(net, tiny_views, PointConfig(**sizes, pairs=tiny_pairs, pairs_per_step=4))
    assert fell(run(stage, 60, 1e-2), "pairs") < 0.95
    stage = RenderStage(
        generator(), tiny_views, RenderConfig(held_out=3, identities=1, patch=16, pairs=tiny_pairs, pairs_per_step=4)
    )
    assert fell(run(stage, 60, 1e-2), "pairs") < 0.97
    assert "pairs" not in PointStage(net, tiny_views, PointConfig(**sizes)).losses(0, np.random.default_rng(0))


def test_a_data_set_without_pairs_is_refused(tiny_heads):
    with pytest.raises(ConfigError, match="holds no pairs of heads; render it with --pairs"):
        HeadPairs(tiny_heads, Z_DIM)


def test_point_stage_leaves_super_resolution_alone(tiny_views):
    net = generator()
    stage = PointStage(net, tiny_views, PointConfig(held_out=3, identities=2, views=1, pixels=64))
    trained = {id(p) for p in stage.parameters()}
    assert not trained & {id(p) for p in net.superresolution.parameters()}
    assert {id(p) for p in net.mapping.parameters()} <= trained


def test_point_stage_can_keep_the_mapping(tiny_views):
    net = generator()
    stage = PointStage(net, tiny_views, PointConfig(held_out=3, identities=2, views=1, pixels=64, keep_mapping=True))
    trained = {id(p) for p in stage.parameters()}
    assert not trained & {id(p) for p in net.mapping.parameters()}
    assert {id(p) for p in net.backbone.parameters()} <= trained


def test_mapping_stage_puts_the_appearance_into_w():
    torch.manual_seed(0)
    net = EG3D(replace(GENERATOR, z_dim=Z_DIM, w_dim=64))
    stage = MappingStage(net, MappingStageConfig(codes=3000, held_out=300, batch=128, category_weight=2.0))
    assert stage.weight[stage.category].min() == pytest.approx(2 * float(stage.weight[~stage.category].max()))
    assert 20 < stage.category.sum() < 40  # the styles of hair, beards, glasses and clothing
    trained = {id(p) for p in stage.parameters()}
    assert not trained & {id(p) for p in net.backbone.parameters()}
    history = run(stage, 250, 1e-2)
    assert fell(history, "appearance") < 0.85
    with torch.no_grad():
        figures, _ = stage.evaluate(stage.modules())
    assert figures["r2_mean"] > 0.15 and 0.5 < figures["w_size"] < 1.5


def test_render_stage_learns_and_keeps_the_mapping(tiny_views):
    net = generator()
    initialise_density(net, 20)
    stage = RenderStage(net, tiny_views, RenderConfig(held_out=3, identities=2, patch=8, evaluate_identities=2))
    before = [p.clone() for p in net.mapping.parameters()]
    history = run(stage, 30, 5e-3)
    assert fell(history, "color") < 0.9 and fell(history, "image") < 0.9
    assert all(torch.equal(a, b) for a, b in zip(before, net.mapping.parameters(), strict=True))
    net.eval()
    with torch.no_grad():
        figures, _ = stage.evaluate({"generator": net})
    assert np.isfinite(figures["psnr_final"])


def test_patches_are_judged_up_to_the_border_of_the_picture(tiny_views):
    """Super-resolution must learn what to do at the picture's border, and not be blamed for a patch's own."""
    stage = RenderStage(generator(), tiny_views, RenderConfig(held_out=3, patch=8))
    size, last = 8 * stage.scale, stage.resolution - 8
    margin = stage.scale
    judged = {corner: stage._judged(*corner)[0] for corner in ((0, 0), (last, last), (last // 2, last // 2))}
    assert judged[0, 0][:-margin, :-margin].all() and judged[0, 0].sum() == (size - margin) ** 2
    assert judged[last, last][margin:, margin:].all() and judged[last, last].sum() == (size - margin) ** 2
    assert judged[last // 2, last // 2].sum() == (size - 2 * margin) ** 2


def test_face_points_stage_beats_the_mean_head(tiny_views):
    net = generator()
    points = FacePoints(net.latent_shape[1])
    stage = FacePointsStage(points, net, tiny_views, FacePointsConfig(held_out=3, batch=7, noise=0.0))
    history = run(stage, 120, 3e-3)
    assert fell(history, "points") < 0.5


def test_visible_metric_is_what_the_picture_changes(tiny_views):
    """Code directions with a large weight in the metric change the picture more than those with a small one."""
    net = generator().eval()
    with torch.no_grad():
        latents = net.map(torch.from_numpy(tiny_views.z[:7]))[:, 0]
    metric = visible_metric(net, latents, tiny_views, probes=64)
    values, vectors = torch.linalg.eigh(metric @ metric.T)
    w = net.map(torch.from_numpy(tiny_views.z[:2]))

    def change(direction):
        with torch.no_grad():
            camera = tiny_views.camera(0, 0)
            a, b = (net.render(net.planes(c), camera).rgb for c in (w, w + 0.3 * direction))
        return float((a - b).abs().mean())

    strong, weak = (sum(change(vectors[:, k]) for k in ks) for ks in ((-1, -2, -3), (0, 1, 2)))
    assert values[-1] > 10 * values[0].clamp_min(0) and strong > 1.5 * weak


def test_global_stage_learns_every_term(tiny_views):
    net = generator()
    torch.manual_seed(1)
    encoder = GlobalEncoder(ENCODER, net.latent_shape)
    config = GlobalConfig(
        held_out=3, batch=6, generator_from=0.5, generator_batch=2, generator_points=64, evaluate_heads=3
    )
    stage = GlobalStage(encoder, PoseEncoder(*encoder.feature_shape), net, FacePoints(32), tiny_views, config, steps=60)
    history = run(stage, 60, 2e-3)
    assert fell(history, "code") < 0.95 and fell(history, "pose") < 0.9
    assert "density" not in history[0] and {"density", "color"} <= history[-1].keys()
    assert all(not p.requires_grad for p in net.parameters())
    encoder.eval()
    with torch.no_grad():
        figures, sheet = stage.evaluate({"encoder": encoder, "pose_encoder": stage.pose_encoder})
    assert figures["code_r2"] > -1 and sheet.shape[0] == 3 * 128


def test_matte_stage_learns(tiny_views):
    net = MatteNet(MATTE)
    stage = MatteStage(net, tiny_views, MatteStageConfig(held_out=3, batch=6))
    assert fell(run(stage, 40, 5e-3), "cross_entropy") < 0.9
    net.eval()
    with torch.no_grad():
        figures, _ = stage.evaluate({"matte": net})
    assert 0 <= figures["iou"] <= 1


def test_attribute_stage_learns(tiny_views):
    net = AttributeNet(len(tiny_views.attribute_names), size=32)
    stage = AttributeStage(net, tiny_views, AttributeConfig(held_out=3, batch=7))
    assert fell(run(stage, 40, 3e-3), "attributes") < 0.7


def test_encoder_batches_are_exact_without_disturbance(tiny_views):
    batch = draw_batch(tiny_views, np.array([0, 1, 2]), np.random.default_rng(0), None, landmark_noise=0)
    assert batch.image.shape == (3, 3, 64, 64) and batch.image.abs().max() <= 1
    record = tiny_views.view(1, batch.views[1])
    outside = record.rgba[..., 3] == 0
    assert batch.image[1][:, torch.from_numpy(outside)].abs().max() < 1e-6
    # The nose tip is on the head.
    u, v = (batch.landmarks[:, 30] * 64).long().T
    assert all(batch.matte[k, 0, v[k], u[k]] > 0.9 for k in range(3))


def test_landmark_noise_has_the_size_asked_for(tiny_views):
    clean = draw_batch(tiny_views, np.arange(7), np.random.default_rng(0), None, landmark_noise=0).landmarks
    noisy = noisy_landmarks(clean, np.random.default_rng(1), 0.05)
    eyes = (clean[:, 36:42].mean(1) - clean[:, 42:48].mean(1)).norm(dim=1)
    relative = (noisy - clean).norm(dim=-1).mean(dim=1) / eyes
    assert 0.03 < relative.mean() < 0.25


def test_sizes_that_do_not_fit_are_refused(tiny_views):
    from dataclasses import replace

    from e3dge_video.errors import ConfigError

    wrong = EG3D(replace(GENERATOR, superresolution=replace(GENERATOR.superresolution, input_resolution=64)))
    with pytest.raises(ConfigError, match="64 px, the generator makes 128"):
        RenderStage(wrong, tiny_views, RenderConfig(held_out=3))
    assert EG3DConfig().image_resolution == 512


@pytest.mark.parametrize("name", ["points", "render", "attributes", "matte"])
def test_stages_can_be_trained_in_bf16(tiny_views, tiny_pairs, name):
    makers = {
        "points": lambda: PointStage(
            generator(), tiny_views, PointConfig(held_out=3, identities=1, views=1, pixels=64, pairs=tiny_pairs)
        ),
        "render": lambda: RenderStage(
            generator(), tiny_views, RenderConfig(held_out=3, identities=1, patch=16, pairs=tiny_pairs)
        ),
        "attributes": lambda: AttributeStage(
            AttributeNet(len(tiny_views.attribute_names)), tiny_views, AttributeConfig(held_out=3, batch=2)
        ),
        "matte": lambda: MatteStage(MatteNet(MATTE), tiny_views, MatteStageConfig(held_out=3, batch=2)),
    }
    stage = makers[name]()
    with torch.autocast("cpu", torch.bfloat16):
        losses = stage.losses(0, np.random.default_rng(0))
    total = sum(value.float() for value in losses.values())
    total.backward()
    assert torch.isfinite(total) and all(p.grad is None or p.grad.isfinite().all() for p in stage.parameters())
