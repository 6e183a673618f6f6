"""The EG3D generator as a whole, in a size that runs in milliseconds."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from e3dge_video.config.generators import (
    BackboneConfig,
    DecoderConfig,
    EG3DConfig,
    MappingConfig,
    PlaneAxes,
    RaySamplingConfig,
    SuperResolutionConfig,
    VolumeConfig,
)
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, camera_rays
from e3dge_video.models.generators.base import Generator, Planes
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.eg3d.triplane import PLANE_AXES, PointDecoder, TriPlaneField
from tests.support.generators import latents_of, orbit

TINY = EG3DConfig(
    z_dim=16,
    w_dim=16,
    resolution=8,
    mapping=MappingConfig(lr_multiplier=1.0),
    backbone=BackboneConfig(plane_resolution=16, plane_channels=6, channels=(16, 16, 8)),
    decoder=DecoderConfig(hidden=12, features=5),
    rays=RaySamplingConfig(coarse=8, fine=6),
    superresolution=SuperResolutionConfig(kind="2X", input_resolution=8, channels=(8, 4)),
)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def make(seed: int = 0, **changes: Any) -> EG3D:
    torch.manual_seed(seed)
    generator = EG3D(dataclasses.replace(TINY, **changes)).eval()
    with torch.no_grad():  # something to see: density varies strongly, noise is on
        generator.decoder.output.weight[0] *= 20
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return generator


def test_it_fits_the_protocol_and_its_shapes() -> None:
    generator: Generator = make()
    latents = generator.map(torch.randn(2, 16))
    assert latents.shape == (2, *generator.latent_shape) == (2, 6, 16)
    planes = generator.planes(latents)
    assert planes.values.shape == (2, 3, 6, 16, 16) and len(planes) == 2
    seen = generator.sample(planes, torch.zeros(2, 7, 3))
    assert seen.density.shape == (2, 7, 1) and seen.features.shape == (2, 7, 5)
    rendered = generator.render(planes, orbit(2), resolution=9)
    assert rendered.rgb.shape == (2, 3, 9, 9) and rendered.features.shape == (2, 5, 9, 9)
    assert rendered.depth.shape == rendered.alpha.shape == (2, 1, 9, 9)
    assert torch.equal(rendered.rgb, rendered.features[:, :3])
    assert generator.upsample(rendered, latents).shape == (2, 3, 16, 16)
    assert generator.mean_latents.shape == (16,)


def test_synthesize_is_its_steps() -> None:
    generator = make()
    latents, camera = latents_of(generator, 2), orbit(2)
    steps = generator.upsample(generator.render(generator.planes(latents), camera), latents)
    assert torch.equal(generator.synthesize(latents, camera), steps)


def test_rows_and_columns_of_the_rendering_are_those_of_the_rays() -> None:
    generator = make()
    planes, camera = generator.planes(latents_of(generator, 1)), orbit(1)
    rendered = generator.render(planes, camera, resolution=5)
    sums = generator.render_rays(planes, camera_rays(camera, 5))
    for row, column in itertools.product(range(5), range(5)):
        pixel = rendered.features[0, :, row, column]
        torch.testing.assert_close(pixel, sums.features[0, row * 5 + column])
        torch.testing.assert_close(rendered.depth[0, 0, row, column], sums.depth[0, row * 5 + column])


@pytest.mark.parametrize("block", [3, 40])
def test_block_size_does_not_matter(block: int) -> None:
    generator = make()
    planes, camera = generator.planes(latents_of(generator, 2)), orbit(2)
    random = torch.Generator()
    whole = generator.render(planes, camera, random=random.manual_seed(3))
    parts = generator.render(planes, camera, random=random.manual_seed(3), block=block)
    for name in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), **CLOSE)


def test_heads_of_a_batch_do_not_mix() -> None:
    generator = make()
    latents, camera = latents_of(generator, 3), orbit(3)
    together = generator.synthesize(latents, camera)
    alone = torch.cat([generator.synthesize(latents[i : i + 1], camera[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)


def test_planes_of_one_head_serve_many_views() -> None:
    generator = make()
    latents, camera = latents_of(generator, 1), orbit(4)
    planes = generator.planes(latents)
    together = generator.render(planes, camera)
    for i in range(4):
        alone = generator.render(planes, camera[i : i + 1])
        torch.testing.assert_close(together[i : i + 1].features, alone.features, **CLOSE)
        torch.testing.assert_close(together[i : i + 1].depth, alone.depth, **CLOSE)
        image = generator.upsample(together, latents)[i : i + 1]
        torch.testing.assert_close(image, generator.synthesize(latents, camera[i : i + 1]), **CLOSE)
    random = torch.Generator()
    repeated = Planes(planes.values.expand(4, -1, -1, -1, -1))
    torch.testing.assert_close(
        generator.render(planes, camera, random=random.manual_seed(2)).features,
        generator.render(repeated, camera, random=random.manual_seed(2)).features,
        **CLOSE,
    )


def test_one_camera_serves_many_heads() -> None:
    generator = make()
    planes, camera = generator.planes(latents_of(generator, 3)), orbit(1)
    together = generator.render(planes, camera)
    alone = [generator.render(planes[i : i + 1], camera).features for i in range(3)]
    torch.testing.assert_close(together.features, torch.cat(alone), **CLOSE)
    with pytest.raises(ValueError, match="3 heads and 2 cameras"):
        generator.render(planes, orbit(2))


def test_one_head_may_be_sampled_at_a_batch_of_points() -> None:
    generator = make()
    planes, points = generator.planes(latents_of(generator, 1)), torch.rand(4, 5, 3) - 0.5
    together = generator.sample(planes, points)
    for i in range(4):
        torch.testing.assert_close(together.density[i : i + 1], generator.sample(planes, points[i : i + 1]).density)


def slow_read(plane: Tensor, across: float, along: float) -> Tensor:
    """Bilinear read at [-1, 1] coordinates of the pixel edges; pixels outside are zero."""
    channels, height, width = plane.shape
    x, y = (across + 1) * width / 2 - 0.5, (along + 1) * height / 2 - 0.5
    total = torch.zeros(channels)
    for i, j in itertools.product((int(y // 1), int(y // 1) + 1), (int(x // 1), int(x // 1) + 1)):
        if 0 <= i < height and 0 <= j < width:
            total += plane[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


@pytest.mark.parametrize("axes", ["released", "corrected"])
@pytest.mark.parametrize("size", [(8, 8), (8, 5)])
@pytest.mark.parametrize("differentiable", [False, True])
def test_field_is_three_bilinear_reads(axes: PlaneAxes, size: tuple[int, int], differentiable: bool) -> None:
    torch.manual_seed(0)
    planes, decoder = torch.randn(2, 3, 4, *size), PointDecoder(4, 6, 3).requires_grad_(differentiable)
    planes.requires_grad_(differentiable)
    points = (torch.rand(2, 12, 3) - 0.5) * 2  # some outside the box
    seen = TriPlaneField(planes, decoder, box_warp=1.5, axes=axes)(points)
    for head, point in itertools.product(range(2), range(12)):
        place = (points[head, point] * 2 / 1.5).tolist()
        reads = [
            slow_read(plane, place[a], place[b]) for plane, (a, b) in zip(planes[head], PLANE_AXES[axes], strict=True)
        ]
        expected = decoder((sum(reads) / 3)[None, None])
        torch.testing.assert_close(seen.density[head, point], expected.density[0, 0], **CLOSE)
        torch.testing.assert_close(seen.features[head, point], expected.features[0, 0], **CLOSE)


def test_only_corrected_axes_tell_y_and_z_apart() -> None:
    """In released axes no plane holds (y, z): what depends on both must come from sums."""
    assert {frozenset(pair) for pair in PLANE_AXES["released"]} == {frozenset({0, 1}), frozenset({0, 2})}
    assert len({frozenset(pair) for pair in PLANE_AXES["corrected"]}) == 3


def test_evaluation_repeats_itself_and_training_does_not() -> None:
    generator = make()
    planes, camera = generator.planes(latents_of(generator, 1)), orbit(1)
    assert torch.equal(generator.render(planes, camera).features, generator.render(planes, camera).features)
    generator.train()
    assert not torch.equal(generator.render(planes, camera).features, generator.render(planes, camera).features)
    seeded = [generator.render(planes, camera, random=torch.Generator().manual_seed(4)).features for _ in range(2)]
    assert torch.equal(*seeded)


def test_noise_of_the_planes() -> None:
    generator = make()
    latents = latents_of(generator, 1)
    assert torch.equal(generator.planes(latents).values, generator.planes(latents, noise="const").values)
    assert not torch.equal(generator.planes(latents).values, generator.planes(latents, noise="none").values)
    random = [generator.planes(latents, noise="random", random=torch.Generator().manual_seed(1)).values for _ in "ab"]
    assert torch.equal(*random)
    assert not torch.equal(random[0], generator.planes(latents).values)


def test_gradients_reach_codes_planes_camera_and_weights() -> None:
    generator = make()
    latents = latents_of(generator, 2).requires_grad_()
    label = orbit(2).to_eg3d().requires_grad_()
    planes = generator.planes(latents)
    planes.values.retain_grad()
    rendered = generator.render(planes, Camera.from_eg3d(label))
    image = generator.upsample(rendered, latents)
    (image.square().mean() + rendered.depth.mean() + rendered.alpha.mean()).backward()
    for value in (latents, label, planes.values):
        assert bool(value.grad.isfinite().all()) and float(value.grad.abs().sum()) > 0
    for name, parameter in generator.named_parameters():
        unused = name.startswith("mapping.")
        assert unused or (parameter.grad is not None and bool(parameter.grad.isfinite().all())), name


def test_gradient_of_a_point_sample_is_right() -> None:
    generator = make(superresolution=SuperResolutionConfig(kind="none")).double()
    planes = generator.planes(latents_of(make(), 1).double()).values.detach()[:, :, :, 5:11, 5:11].requires_grad_()
    points = torch.tensor([[[0.11, -0.23, 0.31], [0.02, 0.4, -0.17]]], dtype=torch.float64, requires_grad=True)

    def density(planes: Tensor, points: Tensor) -> Tensor:
        return generator.sample(Planes(planes), points).density

    assert torch.autograd.gradcheck(density, (planes, points))


def test_rays_of_the_callers_choice() -> None:
    generator = make()
    planes = generator.planes(latents_of(generator, 2))
    all_rays = camera_rays(orbit(2), 8)
    some = torch.tensor([3, 17, 40])
    picked = generator.render_rays(planes, Rays(all_rays.origins[:, some], all_rays.directions[:, some]))
    torch.testing.assert_close(picked.features, generator.render_rays(planes, all_rays).features[:, some], **CLOSE)


def test_mapping_depends_on_the_camera_only_if_configured() -> None:
    z, left, right = torch.randn(2, 16), orbit(2), Camera.orbit(torch.tensor([0.5, 0.6]), 0.0)
    conditioned = make()
    assert not torch.allclose(conditioned.map(z, left), conditioned.map(z, right))
    torch.testing.assert_close(conditioned.map(z), conditioned.map(z, conditioned.frontal_camera()))
    with pytest.raises(ConfigError, match="2 codes z need as many cameras, or one; got 3"):
        conditioned.map(z, orbit(3))
    zeroed = make(mapping=MappingConfig(camera="zeroed"))
    assert torch.equal(zeroed.map(z, left), zeroed.map(z, right))
    free = make(mapping=MappingConfig(camera="none"))
    assert free.map(z).shape == (2, 6, 16) and not any("embed" in name for name in free.state_dict())


def test_truncation_goes_to_the_mean() -> None:
    generator = make()
    generator.mapping.mean_latents.fill_(0.5)
    z = torch.randn(2, 16)
    assert torch.equal(generator.map(z, truncation=0.0), torch.full((2, 6, 16), 0.5))
    full, partly = generator.map(z), generator.map(z, truncation=0.3, truncation_cutoff=2)
    assert torch.equal(partly[:, 2:], full[:, 2:])
    torch.testing.assert_close(partly[:, :2], 0.5 + 0.3 * (full[:, :2] - 0.5))


def test_without_super_resolution_the_rendering_is_the_image() -> None:
    generator = make(superresolution=SuperResolutionConfig(kind="none"))
    latents, camera = latents_of(generator, 1), orbit(1)
    rendered = generator.render(generator.planes(latents), camera)
    assert torch.equal(generator.upsample(rendered, latents), rendered.rgb)


@pytest.mark.parametrize(("kind", "size"), [("8XDC", 32), ("8X", 32), ("4X", 16), ("2X", 16)])
def test_every_kind_of_super_resolution(kind: Any, size: int) -> None:
    generator = make(superresolution=SuperResolutionConfig(kind=kind, input_resolution=8, channels=(8, 4)))
    assert generator.config.image_resolution == size
    assert generator.synthesize(latents_of(generator, 2), orbit(2)).shape == (2, 3, size, size)


def test_white_background() -> None:
    generator = make(volume=VolumeConfig(white_back=True))
    with torch.no_grad():
        generator.decoder.output.bias[0] = -1e4
    rendered = generator.render(generator.planes(latents_of(generator, 1)), orbit(1))
    assert torch.equal(rendered.rgb, torch.ones_like(rendered.rgb))
    assert torch.equal(rendered.alpha, torch.zeros_like(rendered.alpha))


def test_state_fits_a_second_generator_exactly() -> None:
    first, second = make(seed=0), make(seed=1)
    second.load_state_dict(first.state_dict())
    latents, camera = latents_of(first, 1), orbit(1)
    assert torch.equal(first.synthesize(latents, camera), second.synthesize(latents, camera))
    assert not any(name.endswith("taps") for name in first.state_dict())
