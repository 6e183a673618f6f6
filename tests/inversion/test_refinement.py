"""Test-time optimisation on small random generators, whose right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.face_template import MEAN_68
from e3dge_video.geometry.projection import project, unproject
from e3dge_video.inversion.refinement.frames import FrameRefinementConfig, RefinedFrames, quick, refine_frames
from e3dge_video.inversion.refinement.key_frames import between_key_frames, choose_key_frames, detail_region
from e3dge_video.inversion.refinement.objective import Objective, head_weight, objective_terms
from e3dge_video.inversion.refinement.personalization import (
    CODES,
    OFFSETS,
    OWN_CODES,
    OWN_POSES,
    KeyFrames,
    PersonalizationConfig,
    Personalizer,
)
from e3dge_video.inversion.refinement.registration import moved, read_at
from e3dge_video.models.build import build_generator
from e3dge_video.models.generators.base import Generator, Planes
from e3dge_video.models.generators.eg3d.generator import EG3D
from tests.support.tiny_model import GENERATOR, STYLESDF

POSE = FrameRefinementConfig(steps=12, pose_lr=5e-3)
CODE = replace(POSE, code_lr=2e-2)
CLIP = PersonalizationConfig(
    key_frames=4, rounds=2, steps=6, batch=2, weight_lr=5e-3, code_lr=5e-3, own_code_lr=0.0, anchor_points=64
)
OWN = replace(CLIP, own_code_lr=2e-3, own_pose_lr=1e-3)
with_and_without_own = pytest.mark.parametrize("clip", [CLIP, OWN], ids=["shared", "own"])


@pytest.fixture(scope="module", params=[GENERATOR, STYLESDF], ids=["eg3d", "stylesdf"])
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    made = build_generator(request.param)
    if isinstance(made, EG3D):  # a solid head
        with torch.no_grad():
            made.decoder.output.bias[0].fill_(20)
    return made.eval().requires_grad_(False)


def cameras(generator: Generator, yaw: list[float]) -> Camera:
    """The frontal camera turned by these angles."""
    front = generator.frontal_camera()
    pose = front.pose().repeat(len(yaw), 1)
    pose[:, 0] += torch.tensor(yaw)
    return Camera(Camera.from_pose(pose).cam2world, front.intrinsics.repeat(len(yaw), 1, 1))


def size_of(generator: Generator) -> int:
    return generator.config.resolution  # type: ignore[attr-defined,no-any-return]


@torch.no_grad()
def scene(generator: Generator, yaw: list[float], away: float = 0.06) -> tuple[Tensor, Tensor, Tensor, Camera]:
    """Pictures seen from other cameras and of other codes than those to start from; with weights, codes, cameras."""
    latents = generator.map(torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(3)))
    latents = latents.expand(len(yaw), -1, -1).contiguous()
    random = torch.randn(latents.shape, generator=torch.Generator().manual_seed(4))
    image = generator.synthesize(latents + 0.1 * random, cameras(generator, [a + away for a in yaw]))
    return image, torch.ones_like(image[:, :1]), latents, cameras(generator, yaw)


def refined(generator: Generator, order: list[int], config: FrameRefinementConfig, **changes: float) -> RefinedFrames:
    image, weight, latents, camera = scene(generator, [-0.1, 0.0, 0.15, 0.2], **changes)
    index = torch.tensor(order)
    return refine_frames(
        generator, image[index], weight[index], latents[index], camera[index], Objective(), size_of(generator), config
    )


def test_losses_fall_and_codes_lower_them_further(generator: Generator) -> None:
    assert isinstance(generator, nn.Module)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    pose, both = (refined(generator, [0, 1, 2], config) for config in (POSE, CODE))
    assert (pose.loss_after < pose.loss_before).all() and (both.loss_after < pose.loss_after).all()
    assert float(pose.offset.abs().max()) == 0 < float(both.offset.abs().max())
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_a_pose_moves_towards_the_true_one() -> None:
    torch.manual_seed(0)
    generator = build_generator(GENERATOR).eval().requires_grad_(False)
    camera = cameras(generator, [0.0, 0.1])
    with torch.no_grad():
        generator.decoder.output.bias[0].fill_(20)
        latents = generator.map(torch.randn(2, generator.z_dim))
        image = generator.synthesize(latents, cameras(generator, [0.04, 0.06]))
    found = refine_frames(
        generator, image, torch.ones_like(image[:, :1]), latents, camera, Objective(), 16, replace(POSE, steps=40)
    )
    yaw = (found.camera.pose() - camera.pose())[:, 0]
    assert float(yaw[0]) > 0.01 and float(yaw[1]) < -0.01


@pytest.mark.parametrize("config", [POSE, CODE], ids=["pose", "pose+code"])
def test_a_frame_does_not_see_its_batch(generator: Generator, config: FrameRefinementConfig) -> None:
    """To the last bit, also where a neighbour stops earlier."""
    stopping = replace(config, window=3, tolerance=0.05)
    first, second = refined(generator, [0, 1, 2], stopping), refined(generator, [0, 3, 3], stopping)
    for name in ("offset", "loss_before", "loss_after", "steps"):
        assert torch.equal(getattr(first, name)[0], getattr(second, name)[0]), name
    assert torch.equal(first.camera.cam2world[0], second.camera.cam2world[0])
    assert not torch.equal(first.camera.cam2world[0], first.camera.cam2world[1])


def test_a_frame_that_cannot_get_better_stops(generator: Generator) -> None:
    image, weight, latents, camera = scene(generator, [0.0, 0.1])
    weight[0] = 0
    config = replace(POSE, window=4, tolerance=0.01)
    found = refine_frames(generator, image, weight, latents, camera, Objective(), size_of(generator), config)
    assert int(found.steps[0]) == 4 < int(found.steps[1])
    torch.testing.assert_close(found.camera.cam2world[0], camera.cam2world[0])


@pytest.mark.parametrize("config", [POSE, CODE], ids=["pose", "pose+code"])
def test_a_gradient_that_is_no_number_moves_nothing(generator: Generator, config: FrameRefinementConfig) -> None:
    image, weight, latents, camera = scene(generator, [0.0, 0.1])

    class Broken(Objective):
        def __call__(self, shown: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
            gate = torch.arange(len(shown), dtype=shown.dtype)  # the root of zero has no slope
            return super().__call__(shown, truth, weight) + torch.sqrt(gate + 0 * shown.mean(dim=(1, 2, 3)))

    found = refine_frames(generator, image, weight, latents, camera, Broken(), size_of(generator), config)
    assert bool(
        found.camera.cam2world.isfinite().all() and found.offset.isfinite().all() and found.loss_after.isfinite().all()
    )
    torch.testing.assert_close(found.camera.cam2world[0], camera.cam2world[0])
    assert float(found.loss_after[1]) < float(found.loss_before[1])


def test_the_background_is_not_learned(generator: Generator) -> None:
    image, weight, latents, camera = scene(generator, [0.0, 0.1])
    weight[..., : image.shape[-1] // 2] = 0
    other = torch.where(weight > 0, image, -image)
    results = [
        refine_frames(generator, picture, weight, latents, camera, Objective(), size_of(generator), CODE)
        for picture in (image, other)
    ]
    assert torch.equal(results[0].offset, results[1].offset)


def test_the_quick_schedule_renders_coarsely(generator: Generator) -> None:
    config = quick(POSE)
    assert config.coarseness == 2 and config.code_lr == 0 and quick(CODE).code_lr > 0
    found = refined(generator, [0, 1], replace(config, steps=8))
    assert (found.loss_after < found.loss_before).all()


def test_the_objective_sees_each_frame_alone_and_the_mask_only() -> None:
    image, truth = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).unbind()
    weight = torch.zeros(3, 1, 32, 32)
    weight[..., 8:24, 8:24] = 1
    loss = Objective()(image, truth, weight)
    assert loss.shape == (3,) and bool((loss > 0.01).all())
    assert torch.equal(Objective()(image, image, weight), torch.zeros(3))
    outside = torch.where(weight > 0, image, torch.rand_like(image))
    torch.testing.assert_close(Objective()(outside, truth, weight), loss)
    assert torch.equal(Objective()(image[1:2], truth[1:2], weight[1:2]), loss[1:2])


def test_stand_ins_are_named() -> None:
    assert objective_terms(perceptual=True, recognizer=True) == ["L2", "LPIPS", "identity"]
    alone = "; ".join(objective_terms(perceptual=False, recognizer=False))
    assert "stands in for LPIPS" in alone and "no identity term" in alone


def test_a_recogniser_of_ones_adds_nothing_and_lpips_replaces_the_stand_in() -> None:
    image, truth = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).unbind()
    weight = torch.ones(2, 1, 32, 32)

    class Known(nn.Module):
        def forward(self, picture: Tensor) -> Tensor:
            assert picture.shape[-1] == 256
            return torch.tensor([[0.6, 0.8]]).expand(len(picture), -1)

    class Five(nn.Module):
        def forward(self, picture: Tensor, other: Tensor) -> Tensor:
            return torch.full((len(picture),), 5.0)

    plain = (image - truth).square().flatten(1).mean(dim=1)
    measured = Objective(perceptual=Five(), recognizer=Known())(image, truth, weight)  # type: ignore[arg-type]
    torch.testing.assert_close(measured, plain + 0.8 * 5)


def test_weights_need_head_and_foreground() -> None:
    alpha, matte = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 32, 32)
    alpha[..., 2:6, 2:6], matte[..., :16] = 1, 1
    weight = head_weight(alpha, matte)
    assert float(weight[0, 0, 16, 14]) == 1
    assert float(weight[0, 0, 16, 17]) == 0 == float(weight[0, 0, 4, 4])


def test_shading_moves_a_rendering_by_alpha_times_its_change() -> None:
    """What a tuning step assumes, exact where a head has one colour."""
    torch.manual_seed(0)
    generator = build_generator(GENERATOR).eval().requires_grad_(False)
    planes, camera = Planes(torch.zeros(1, 3, 8, 16, 16)), generator.frontal_camera()
    points = 0.1 * torch.randn(1, 256, 3)
    generator.decoder.output.bias[0].fill_(3)
    before, shade = generator.render(planes, camera), generator.shade(planes, points)
    generator.decoder.output.bias[1:].add_(torch.linspace(-1, 1, 8))
    after, moved = generator.render(planes, camera), generator.shade(planes, points)
    change = (moved.features - shade.features)[0, 0].view(1, -1, 1, 1)
    torch.testing.assert_close(after.features, before.features + before.alpha * change, atol=1e-5, rtol=1e-5)
    assert float(before.alpha.max()) > 0.1 and float(change.abs().max()) > 0.1


def key_frames(generator: Generator) -> KeyFrames:
    image, weight, latents, camera = scene(generator, [-0.2, -0.1, 0.1, 0.2], away=0.0)
    image = 0.5 * image.flip(1) + 0.4  # somebody of quite other colours
    matte = weight.clone()
    matte[..., :4] = 0
    detail = torch.zeros_like(weight)
    return KeyFrames(image, matte, detail, latents, camera, torch.tensor([0, 0, 1, 1]), 3, size_of(generator))


@with_and_without_own
def test_tuning_lowers_the_loss_of_a_copy(generator: Generator, clip: PersonalizationConfig) -> None:
    assert isinstance(generator, nn.Module)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    tuner = Personalizer(generator, key_frames(generator), Objective(), clip)
    state = tuner.begin()
    for _ in range(CLIP.rounds):
        state = tuner.round(state)
    assert len(state.losses) == CLIP.rounds + 1 and state.step == 12
    assert state.losses[-1] < 0.9 * state.losses[0]
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert state.weights.keys() <= before.keys() and not any("mapping" in name.split(".") for name in state.weights)
    assert (state.values.keys() >= set(OFFSETS)) == (clip is OWN)
    moved = [name for name, value in state.weights.items() if not torch.equal(value, before[name])]
    assert len(moved) > 4
    codes = state.values[CODES]
    assert codes.shape[0] == 3 and float(codes[:2].abs().amin(dim=(1, 2)).max()) >= 0
    assert bool((codes[:2].abs().amax(dim=(1, 2)) > 0).all()), "scenes with key frames get codes of their own"
    assert float(codes[2].abs().max()) == 0, "a scene without any does not"


@with_and_without_own
def test_tuning_goes_on_from_a_kept_state_to_the_same_bits(generator: Generator, clip: PersonalizationConfig) -> None:
    tuner = Personalizer(generator, key_frames(generator), Objective(), clip)
    middle = tuner.round(tuner.begin())
    end = tuner.round(middle)
    again = Personalizer(generator, key_frames(generator), Objective(), clip).round(middle)
    assert again.losses == end.losses
    for kind in ("values", "first", "second"):
        for name, value in getattr(end, kind).items():
            assert torch.equal(getattr(again, kind)[name], value), (kind, name)
    for name in set(OFFSETS) & end.values.keys():
        assert not torch.equal(end.values[name], middle.values[name]), name


@with_and_without_own
def test_what_the_matte_hides_is_not_learned(generator: Generator, clip: PersonalizationConfig) -> None:
    frames = key_frames(generator)
    other = replace(frames, image=torch.where(frames.matte > 0, frames.image, -frames.image))
    ends = [Personalizer(generator, f, Objective(), replace(clip, rounds=1)) for f in (frames, other)]
    states = [tuner.round(tuner.begin()) for tuner in ends]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values.values(), states[1].values.values(), strict=True))


def one_scene(generator: Generator) -> KeyFrames:
    frames = key_frames(generator)
    return replace(frames, matte=torch.ones_like(frames.matte), scene=torch.zeros(4, dtype=torch.long))


def test_what_is_one_frames_alone_goes_into_its_own_code(generator: Generator) -> None:
    frames, config = one_scene(generator), replace(CLIP, steps=12, weight_lr=0.0, own_code_lr=5e-3)
    latents = frames.latents.clone()
    latents[0] += 0.3 * torch.randn(latents[0].shape, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        frames = replace(frames, image=generator.synthesize(latents, frames.camera))
    tuner = Personalizer(generator, frames, Objective(), config)
    sizes = tuner.round(tuner.begin()).values[OWN_CODES].square().mean(dim=(1, 2))
    assert float(sizes[0]) > 1.2 * float(sizes[1:].max())


def test_own_poses_find_the_frame_whose_camera_was_wrong_within_their_limit() -> None:
    torch.manual_seed(0)
    generator = build_generator(GENERATOR).eval().requires_grad_(False)
    generator.decoder.output.bias[0].fill_(20)
    frames, offset = one_scene(generator), torch.zeros(4, 6)
    offset[0, 3] = 0.03
    true = moved(frames.camera, offset)
    with torch.no_grad():  # its surface, painted with what the unmoved cameras see
        seen = generator.synthesize(frames.latents, frames.camera)
        depth = generator.render(generator.planes(frames.latents), true, resolution=frames.resolution).depth
        surface = unproject(depth, true)
        frames = replace(frames, image=read_at(seen, frames.matte, surface, true, frames.camera)[0])
    config = replace(CLIP, steps=16, weight_lr=0.0, code_lr=0.0, own_pose_lr=4e-3, own_pose_limit=0.04)

    def found(config: PersonalizationConfig) -> Tensor:
        tuner = Personalizer(generator, frames, Objective(), config)
        return tuner.round(tuner.begin()).values[OWN_POSES]

    def error(camera: Camera) -> Tensor:
        return (project(surface, camera)[0] - project(surface, true)[0]).norm(dim=-1).mean(dim=1)

    own = found(config)
    before, after = error(frames.camera), error(moved(frames.camera, own))
    assert float(after[0]) < 0.3 * float(before[0]) and float(after[1:].max()) < 0.3 * float(before[0])
    assert float(own.abs().max()) <= config.own_pose_limit
    assert float(found(replace(config, steps=2, own_pose_lr=0.1)).abs().max()) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"own_pose_limit": 0.0}, "own_pose_limit is 0; give radians"),
        ({"own_pose_limit": 0.5}, "own_pose_limit is 0.5; give radians"),
        ({"own_pose_lr": -1e-3}, "own_pose_lr is -0.001; give a rate above 0"),
        ({"own_code_lr": -1e-3}, "own_code_lr is -0.001; give a rate above 0"),
    ],
)
def test_rates_and_limits_of_own_offsets_are_checked(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CLIP, **wrong)  # type: ignore[arg-type]


def test_a_picture_is_read_where_the_moved_camera_sees_the_surface() -> None:
    """A picture that says where it is: what is read is where the points project to, and only foreground is."""
    camera = Camera.orbit([0.0, 0.2], [0.0, 0.1])  # type: ignore[arg-type]
    offset = torch.tensor([[0.01, 0.0, 0.0, 0.004, 0.0, 0.0], [0.0, -0.01, 0.01, 0.0, 0.002, 0.0]])
    depth = 2.7 + 0.05 * torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    points, seen_by = unproject(depth, camera), moved(camera, offset)
    axis = (torch.arange(32) + 0.5) / 32
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    image = torch.stack([u, v, u * v]).repeat(2, 1, 1, 1)
    matte = torch.ones(2, 1, 32, 32)
    matte[..., :10] = 0
    read, readable = read_at(image, matte, points, camera, seen_by)
    expected = project(points, seen_by)[0].transpose(1, 2).unflatten(2, (32, 32))
    sure = readable.bool().expand(-1, 2, -1, -1)
    torch.testing.assert_close(read[:, :2][sure], expected[sure], atol=1e-5, rtol=0)
    assert float((expected - image[:, :2]).abs().amax()) > 0.005
    assert float(readable[..., 14:30].mean()) > 0.9 and float(readable[..., :8].max()) == 0
    hidden = torch.where(matte > 0, image, torch.full_like(image, 9.0))
    other, again = read_at(hidden, matte, points, camera, seen_by)
    assert torch.equal(again, readable) and torch.equal(other * readable, read * readable)


def test_own_offsets_between_key_frames_are_linear_in_time() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.06, 20))
    scene_of, keys = np.repeat([4, 7, 9], [10, 7, 3]), np.array([2, 5, 8, 12])
    own = np.random.default_rng(1).normal(size=(4, 2, 3))
    found = between_key_frames(own, keys, times, scene_of)
    assert found.shape == (20, 2, 3)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(found[:10, i, j], np.interp(times[:10], times[keys[:3]], own[:3, i, j]))
    np.testing.assert_array_equal(found[10:17], np.broadcast_to(own[3], (7, 2, 3)))
    assert np.abs(found[17:]).max() == 0, "a scene without key frames keeps what it has"


def test_the_anchor_holds_the_geometry() -> None:
    torch.manual_seed(0)
    generator = build_generator(GENERATOR).eval().requires_grad_(False)
    generator.decoder.output.bias[0].fill_(20)
    frames = key_frames(generator)
    points = 0.1 * torch.randn(len(frames), 512, 3, generator=torch.Generator().manual_seed(5))

    def change(anchor: float) -> float:
        config = replace(CLIP, steps=12, anchor_weight=anchor, drift_weight=0.0, code_weight=0.0)
        tuner = Personalizer(generator, frames, Objective(), config)
        state = tuner.round(tuner.begin())
        codes = frames.latents + state.values[CODES][frames.scene]
        with torch.no_grad():
            before = generator.sample(generator.planes(frames.latents), points).density
            return float((tuner.tuned.sample(tuner.tuned.planes(codes), points).density - before).abs().mean())

    assert change(100.0) < 0.5 * change(0.0)


def test_key_frames_differ_and_every_scene_has_some() -> None:
    rng = np.random.default_rng(0)
    scene_of = np.repeat([0, -1, 1], [40, 5, 10])
    angles = np.zeros((55, 3))
    angles[:, 0] = np.linspace(-0.5, 0.5, 55)
    expression = 0.01 * rng.normal(size=(55, 4))
    expression[17] = 3
    chosen = choose_key_frames(angles, expression, scene_of, 10)
    assert len(chosen) == len(set(chosen)) == 10 and (np.diff(chosen) > 0).all()
    assert (scene_of[chosen] >= 0).all() and {0, 17, 39} <= set(chosen)
    assert (scene_of[chosen] == 1).sum() == 2
    assert choose_key_frames(angles[:3], expression[:3], np.zeros(3, int), 10).tolist() == [0, 1, 2]
    many = choose_key_frames(angles, expression, np.arange(55), 10)
    assert len(many) == 10, "more scenes than key frames"


def test_detail_lies_on_eyes_and_mouth() -> None:
    points = torch.as_tensor(MEAN_68[:, :2], dtype=torch.float32)[None] + 0.5
    region = detail_region(points, 64)[0, 0]
    for part in (slice(36, 42), slice(42, 48), slice(48, 68)):
        u, v = points[0, part].mean(dim=0) * 64
        assert float(region[int(v), int(u)]) > 0.9
    u, v = points[0, 8] * 64
    assert float(region[min(int(v), 63), int(u)]) < 0.1 and float(region.mean()) < 0.4
