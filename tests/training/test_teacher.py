"""A frozen generator as a teacher: what it draws is true, frozen, and decided by the random numbers alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from e3dge_video.errors import ConfigError
from e3dge_video.models.build import build_generator
from e3dge_video.training.teacher import Teacher, TeacherConfig, fitted
from tests.support.tiny_model import GENERATOR, STYLESDF

CONFIGS = {"eg3d": GENERATOR, "stylesdf": STYLESDF}


def teacher(backbone: str, **options) -> Teacher:
    torch.manual_seed(0)
    return Teacher(build_generator(CONFIGS[backbone]), TeacherConfig(image_size=32, **options))


@pytest.mark.parametrize("backbone", CONFIGS)
def test_a_sample_is_what_the_generator_makes_of_code_and_camera(backbone: str) -> None:
    source = teacher(backbone, truncation=0.7)
    batch = source.draw(3, np.random.default_rng(1), views=2)
    assert len(batch.views) == 2 and batch.latents.shape == (3, *source.generator.latent_shape)
    z = torch.from_numpy(np.random.default_rng(1).standard_normal((3, source.generator.z_dim)).astype(np.float32))
    torch.testing.assert_close(batch.latents, source.generator.map(z, truncation=0.7))
    for view in batch.views:
        image = source.generator.synthesize(batch.latents, view.camera)
        torch.testing.assert_close(view.image, fitted(image, 32))
        torch.testing.assert_close(view.camera.cam2world, source.generator.camera_at(view.viewpoint).cam2world)
        assert view.image.shape == (3, 3, 32, 32) and not view.image.requires_grad
    assert (batch.views[0].viewpoint - batch.views[1].viewpoint).abs().min() > 1e-4  # two cameras of each head
    again = source.draw(3, np.random.default_rng(1), views=2)
    assert torch.equal(again.views[1].image, batch.views[1].image)


@pytest.mark.parametrize("backbone", CONFIGS)
def test_cameras_stand_at_their_azimuth_and_elevation(backbone: str) -> None:
    generator = teacher(backbone).generator
    viewpoint = torch.tensor([[0.3, -0.2], [-1.0, 0.4], [0.0, 0.0]], requires_grad=True)
    camera = generator.camera_at(viewpoint)
    x, y, z = (camera.position / camera.position.norm(dim=1, keepdim=True)).unbind(dim=1)
    torch.testing.assert_close(torch.atan2(x, z), viewpoint[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.asin(y), viewpoint[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(camera.cam2world[2], generator.frontal_camera().cam2world[0])
    [slope] = torch.autograd.grad(x.sum(), viewpoint)  # pose estimation needs it
    assert slope[:, 0].min() > 0.1


def test_the_range_of_cameras() -> None:
    gaussian, uniform = (
        teacher("eg3d", spread=(0.4, 0.1)),
        teacher("eg3d", spread=(math.pi, 0.1), distribution="uniform"),
    )
    drawn = gaussian._viewpoints(4000, np.random.default_rng(0), 0.5)
    torch.testing.assert_close(drawn.std(dim=0), torch.tensor([0.2, 0.05]), rtol=0.05, atol=0)
    drawn = uniform._viewpoints(4000, np.random.default_rng(0), 1.0)
    assert 3.1 < drawn[:, 0].max() < math.pi and -0.1 < drawn[:, 1].min() < -0.099
    assert gaussian.share(0) == 0 and gaussian.share(20_000) == 0.5
    assert teacher("eg3d", curriculum=False).share(0) == 1


@pytest.mark.parametrize("backbone", CONFIGS)
def test_the_mean_code_is_the_mean_of_codes(backbone: str) -> None:
    source = teacher(backbone)
    drawn = source.generator.map(torch.randn(3000, source.generator.z_dim))
    mean = source.mean_latents(3000)
    assert mean.shape == source.generator.latent_shape
    error = (mean - drawn.mean(dim=0)).abs() / drawn.std(dim=0).clamp_min(1e-3)
    assert error.max() < 0.15 and torch.equal(mean, source.mean_latents(3000))


@pytest.mark.parametrize(
    ("options", "message"), [({"truncation": 1.5}, "truncation"), ({"spread": (0.1, -1)}, "spread")]
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TeacherConfig(**options)
