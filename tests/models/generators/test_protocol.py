"""What every generator promises, on a tiny one of each kind: nothing above the seam asks which it holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from e3dge_video.config.generators import (
    BackboneConfig,
    DecoderConfig,
    EG3DConfig,
    MappingConfig,
    RaySamplingConfig,
    SuperResolutionConfig,
)
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, SurfaceVolumeConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project, unproject
from e3dge_video.models.generators.base import Generator
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF

CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}
Z = 16
TINY_EG3D = EG3DConfig(
    z_dim=Z,
    w_dim=16,
    resolution=8,
    mapping=MappingConfig(lr_multiplier=1.0, camera="none"),
    backbone=BackboneConfig(plane_resolution=16, plane_channels=6, channels=(16, 16, 8)),
    decoder=DecoderConfig(hidden=12, features=5),
    rays=RaySamplingConfig(coarse=8, fine=6),
    superresolution=SuperResolutionConfig(kind="2X", input_resolution=8, channels=(8, 4)),
)
TINY_STYLESDF = StyleSDFConfig(
    resolution=8,
    siren=SirenConfig(width=Z, depth=3),
    volume=SurfaceVolumeConfig(samples=10),
    decoder=StyleDecoderConfig(w_dim=20, channels=(8, 4), mapping_layers=2, lr_multiplier=1.0),
)


@pytest.fixture(params=["eg3d", "stylesdf"])
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    if request.param == "eg3d":
        model = EG3D(TINY_EG3D)
        with torch.no_grad():
            model.decoder.output.weight[0] *= 20  # something to see
        return model.eval()
    head = StyleSDF(TINY_STYLESDF)
    head.measure_mean(torch.randn(64, Z))
    return head.eval()


def views(generator: Generator, count: int) -> Camera:
    """The frontal camera, moved a little to the side for each further view."""
    front = generator.frontal_camera()
    cam2world = front.cam2world.repeat(count, 1, 1)
    cam2world[:, 0, 3] += torch.linspace(0, 0.02, count)
    return Camera(cam2world, front.intrinsics.expand(count, -1, -1))


def test_shapes(generator: Generator) -> None:
    assert generator.z_dim == Z and generator.to("cpu") is generator
    latents = generator.map(torch.randn(2, Z))
    assert latents.shape == (2, *generator.latent_shape)
    assert latents.shape == (latents + generator.mean_latents).shape
    planes = generator.planes(latents)
    assert len(planes) == 2 and len(planes[:1]) == 1
    seen = generator.sample(planes, torch.zeros(2, 7, 3))
    assert seen.density.shape == (2, 7, 1) and seen.features.shape[:2] == (2, 7)
    rendered = generator.render(planes, views(generator, 2), resolution=8)
    assert rendered.rgb.shape == (2, 3, 8, 8) and rendered.depth.shape == rendered.alpha.shape == (2, 1, 8, 8)
    image = generator.upsample(rendered, latents)
    assert image.shape[:2] == (2, 3) and image.shape[2] == image.shape[3] > 8
    torch.testing.assert_close(generator.synthesize(latents, views(generator, 2)), image)
    assert len(rendered[1:].features) == 1


def test_heads_and_views_pair_up(generator: Generator) -> None:
    camera = views(generator, 3)
    planes = generator.planes(generator.map(torch.randn(3, Z)).detach()).detach()
    together = generator.render(planes, camera)
    for i in range(3):
        alone = generator.render(planes[i : i + 1], camera[i : i + 1])
        torch.testing.assert_close(together[i : i + 1].features, alone.features, **CLOSE)
    one_head = generator.render(planes[:1], camera)
    torch.testing.assert_close(one_head[:1].rgb, together[:1].rgb, **CLOSE)
    assert float((one_head.rgb[0] - one_head.rgb[2]).detach().abs().max()) > 1e-4
    one_view = generator.render(planes, camera[:1])
    torch.testing.assert_close(one_view[:1].rgb, together[:1].rgb, **CLOSE)
    assert float((one_view.rgb[0] - one_view.rgb[2]).detach().abs().max()) > 1e-4
    with pytest.raises(ValueError, match="3 heads and 2 cameras"):
        generator.render(planes, camera[:2])


@pytest.mark.parametrize("block", [3, 40])
def test_block_size_does_not_matter(generator: Generator, block: int) -> None:
    planes, camera = generator.planes(generator.map(torch.randn(2, Z))), views(generator, 2)
    whole = generator.render(planes, camera, random=torch.Generator().manual_seed(3))
    parts = generator.render(planes, camera, random=torch.Generator().manual_seed(3), block=block)
    for name in ("rgb", "features", "depth", "alpha"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), **CLOSE)


def test_draws_make_a_difference_and_repeat(generator: Generator) -> None:
    planes, camera = generator.planes(generator.map(torch.randn(1, Z))), views(generator, 1)
    still = generator.render(planes, camera).features
    assert torch.equal(generator.render(planes, camera).features, still)
    first, again = (generator.render(planes, camera, random=torch.Generator().manual_seed(5)).features for _ in "ab")
    assert torch.equal(first, again) and not torch.equal(first, still)


def test_truncation(generator: Generator) -> None:
    z = torch.randn(2, Z)
    plain, mean = generator.map(z), generator.mean_latents
    rows = generator.latent_shape[0]
    torch.testing.assert_close(generator.map(z, truncation=0.0), mean.expand_as(plain))
    half = generator.map(z, truncation=0.5)
    assert float((half - mean).norm()) < float((plain - mean).norm())
    some = generator.map(z, truncation=0.5, truncation_cutoff=2)
    assert torch.equal(some[:, :2], half[:, :2]) and torch.equal(some[:, 2:], plain[:, 2:])
    assert torch.equal(generator.map(z, truncation=0.5, truncation_cutoff=rows), half)


def test_density_means_the_same_everywhere(generator: Generator) -> None:
    """softplus(density − 1) is the extinction per world unit: it tells how much light a short way through takes."""
    planes, camera = generator.planes(generator.map(torch.randn(1, Z))), views(generator, 1)
    rendered = generator.render(planes, camera)
    surface = unproject(rendered.depth, camera)
    away = surface + 0.5 * torch.nn.functional.normalize(camera.position[:, None] - surface, dim=-1)
    extinction = [torch.nn.functional.softplus(generator.sample(planes, p).density - 1) for p in (surface, away)]
    assert all(bool(torch.isfinite(values).all()) and float(values.min()) >= 0 for values in extinction)
    assert float((extinction[0] - extinction[1]).abs().max()) > 1e-3


def test_depth_is_along_the_ray(generator: Generator) -> None:
    """Unprojected by the library's one camera convention, it gives points that project to their own pixels."""
    camera = views(generator, 2)
    rendered = generator.render(generator.planes(generator.map(torch.randn(2, Z))), camera)
    uv, distance = project(unproject(rendered.depth, camera), camera)
    torch.testing.assert_close(distance, rendered.depth.flatten(1), rtol=1e-5, atol=1e-5)
    line = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(uv[0].view(8, 8, 2)[3, :, 0], line, rtol=0, atol=1e-4)


def test_gradients_reach_codes_and_camera(generator: Generator) -> None:
    latents = generator.map(torch.randn(2, Z)).detach().requires_grad_()
    front = views(generator, 2)
    cam2world = front.cam2world.clone().requires_grad_()
    rendered = generator.render(generator.planes(latents), Camera(cam2world, front.intrinsics))
    (generator.upsample(rendered, latents).square().mean() + rendered.depth.mean()).backward()
    for gradient in (latents.grad, cam2world.grad):
        assert gradient is not None and bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0
