"""The StyleSDF generator as a whole, in a size that runs in milliseconds, and what only it promises."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, SurfaceVolumeConfig
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.meshes import surface_mesh, unwarp_frustum
from e3dge_video.models.generators.base import FeatureModulation
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.rendering.compositing import sdf_extinction
from e3dge_video.models.rendering.sampling import RayDraws
from tests.support.generators import latents_of

TINY = StyleSDFConfig(
    resolution=8,
    siren=SirenConfig(width=12, depth=3),
    volume=SurfaceVolumeConfig(samples=10),
    decoder=StyleDecoderConfig(w_dim=20, channels=(8, 4), mapping_layers=2, lr_multiplier=1.0),
)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def make(**changes: Any) -> StyleSDF:
    torch.manual_seed(0)
    generator = StyleSDF(dataclasses.replace(TINY, **changes)).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return generator


def cameras(count: int) -> Camera:
    return Camera.from_stylesdf(torch.stack([torch.linspace(-0.4, 0.4, count), torch.linspace(0.1, -0.1, count)], 1))


def test_a_code_holds_both_widths() -> None:
    generator = make()
    assert generator.latent_shape == (4 + 4, 20)
    field_codes, decoder_codes = torch.randn(2, 4, 12), torch.randn(2, 4, 20)
    latents = generator.pack(field_codes, decoder_codes)
    assert torch.equal(generator.unpack(latents)[0], field_codes)
    assert torch.equal(generator.unpack(latents)[1], decoder_codes)
    assert torch.equal(generator.planes(latents).values, field_codes)
    filled = latents.clone()
    filled[:, :4, 12:] = torch.randn(2, 4, 8)
    assert torch.equal(generator.synthesize(filled, cameras(2)), generator.synthesize(latents, cameras(2)))


def test_each_row_steers_its_own_layer() -> None:
    generator = make()
    latents, camera = latents_of(generator, 1), cameras(1)
    plain = generator.render(generator.planes(latents), camera)
    image = generator.upsample(plain, latents)
    for row in range(8):
        changed = latents.clone()
        changed[:, row] += 0.5
        rendered = generator.render(generator.planes(changed), camera)
        assert torch.equal(rendered.sdf, plain.sdf) == (row >= 3), row  # the colour layer leaves the shape alone
        assert torch.equal(rendered.rgb, plain.rgb) == (row >= 4), row
        assert not torch.allclose(generator.upsample(rendered, changed), image), row


def test_density_of_a_sample_is_the_extinction_that_is_rendered() -> None:
    generator = make()
    planes, points = generator.planes(latents_of(generator, 2)), torch.randn(2, 50, 3) * 0.1
    sdf, _ = generator.signed_distance(planes, points)
    expected = sdf_extinction(sdf, generator.renderer.beta)
    torch.testing.assert_close(F.softplus(generator.sample(planes, points).density - 1), expected, **CLOSE)
    density = make(volume=SurfaceVolumeConfig(mode="density"))
    raw, _ = density.signed_distance(planes, points)
    torch.testing.assert_close(density.sample(planes, points).density, raw + 1)


def test_a_sample_far_outside_is_empty_and_has_a_gradient() -> None:
    generator = make()
    with torch.no_grad():
        generator.renderer.siren.to_sdf.bias.fill_(30.0)
    points = torch.zeros(1, 1, 3, requires_grad=True)
    density = generator.sample(generator.planes(latents_of(generator, 1)), points).density
    assert float(F.softplus(density.detach() - 1)) < 1e-20
    [gradient] = torch.autograd.grad(density.sum(), points)
    assert bool(gradient.isfinite().all())


def test_gradient_of_the_distance_is_per_world_unit() -> None:
    generator = make().double()
    planes, points = generator.planes(latents_of(make(), 1).double()), torch.randn(1, 6, 3, dtype=torch.float64) * 0.05
    _, gradient = generator.signed_distance(planes, points)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        above, below = (generator.signed_distance(planes, points + sign * step)[0] for sign in (1, -1))
        torch.testing.assert_close(gradient[..., axis], ((above - below) / 2e-6)[..., 0], rtol=1e-6, atol=1e-6)


def test_gradient_costs_no_graph_when_none_is_wanted() -> None:
    generator = make()
    planes, camera = generator.planes(latents_of(generator, 1)), cameras(1)
    with torch.no_grad():
        sums = generator.render_rays(planes, generator.renderer.rays(camera, 4), gradient=True)
    assert sums.gradient is not None and not sums.gradient.requires_grad and not sums.sdf.requires_grad
    assert not sums.features.requires_grad


def test_static_directions_turn_with_the_head() -> None:
    """Seen from elsewhere, a pixel of a static model still looks the same way to its colour layer."""
    for static in (True, False):
        generator = make(volume=SurfaceVolumeConfig(static_directions=static))
        looks = generator.renderer.rays(cameras(3), 4).looks
        assert torch.equal(looks[0], looks[2]) == static
        torch.testing.assert_close(looks.norm(dim=-1), torch.ones(3, 16))


def test_surface_points_lie_where_the_depth_says() -> None:
    generator = make()
    camera = cameras(2)
    rendered = generator.render(generator.planes(latents_of(generator, 2)), camera)
    distance = (rendered.xyz.flatten(2) - camera.position[:, :, None]).norm(dim=1)
    torch.testing.assert_close(distance, rendered.depth.flatten(1), **CLOSE)


def sphere_generator(**volume: Any) -> StyleSDF:
    """A generator whose every head is a ball of radius 0.06, a true distance in world units."""

    def sphere(points: Tensor, films: object) -> tuple[Tensor, Tensor]:
        return points.norm(dim=-1, keepdim=True) * 0.12 - 0.06, points.new_zeros(*points.shape[:2], 12)

    generator = make(volume=SurfaceVolumeConfig(**volume))
    generator.renderer.siren.geometry = sphere  # type: ignore[method-assign]
    with torch.no_grad():
        generator.renderer.beta.fill_(1e-4)
    return generator


def test_rendering_of_a_sphere() -> None:
    """A field that is a true distance is rendered as its surface, from every side."""
    generator = sphere_generator(samples=400)
    with torch.no_grad():
        rendered = generator.render(generator.planes(latents_of(generator, 1)), cameras(3), resolution=9)
    middle = rendered.xyz[:, :, 4, 4]
    torch.testing.assert_close(middle.norm(dim=-1), torch.full((3,), 0.06), rtol=0, atol=1e-3)
    assert float(rendered.alpha[:, 0, 4, 4].min()) > 0.99 and float(rendered.alpha[:, 0, 0, 0].max()) < 1e-3


def test_mesh_of_a_sphere() -> None:
    """Released conventions: the box counts as 0.24 wide although the view is 0.235, and cells by their first corner."""
    generator = sphere_generator()
    volume = generator.distance_volume(generator.planes(latents_of(generator, 1)), resolution=48)
    mesh = surface_mesh(unwarp_frustum(volume, *generator.renderer.near_far)[0], side=0.24)
    radii = torch.from_numpy(mesh.vertices).norm(dim=-1)
    assert float((radii - 0.06).abs().max()) < 0.06 * 0.03 + 0.24 / 48


def test_noise_of_the_decoder() -> None:
    generator = make()
    latents = latents_of(generator, 1)
    rendered = generator.render(generator.planes(latents), cameras(1))
    plain = generator.upsample(rendered, latents)
    assert torch.equal(generator.upsample(rendered, latents, noise="const"), plain)
    assert not torch.allclose(generator.upsample(rendered, latents, noise="none"), plain)
    random = [
        generator.upsample(rendered, latents, noise="random", random=torch.Generator().manual_seed(2)) for _ in "ab"
    ]
    assert torch.equal(*random) and not torch.allclose(random[0], plain)


def test_noise_of_the_density_is_for_training() -> None:
    generator = make(volume=SurfaceVolumeConfig(mode="density", density_noise=2.0))
    planes, camera = generator.planes(latents_of(generator, 1)), cameras(1)
    regular = RayDraws(torch.zeros(1, 1, 1), torch.zeros(1, 1, 0))
    still = generator.render(planes, camera, draws=regular).rgb
    noisy = [generator.render(planes, camera, draws=regular, random=torch.Generator().manual_seed(7)).rgb for _ in "ab"]
    assert torch.equal(*noisy) and not torch.allclose(noisy[0], still)


def test_mixing_changes_only_the_decoder() -> None:
    generator = make()
    first, second = latents_of(generator, 2).split(1)
    mixed = generator.mix(first, second, 1)
    assert torch.equal(mixed[:, :5], first[:, :5]) and torch.equal(mixed[:, 5:], second[:, 5:])
    assert torch.equal(generator.planes(mixed).values, generator.planes(first).values)


def test_decoder_wants_its_own_size() -> None:
    generator = make()
    latents = latents_of(generator, 1)
    rendered = generator.render(generator.planes(latents), cameras(1), resolution=16)
    with pytest.raises(ConfigError, match="takes renderings of 8 px, got 16"):
        generator.upsample(rendered, latents)


def test_a_renderer_alone_is_a_generator() -> None:
    generator = make(decoder=None)
    assert generator.latent_shape == (4, 12) and generator.config.image_resolution == 8
    latents = latents_of(generator, 2)
    rendered = generator.render(generator.planes(latents), cameras(2))
    assert torch.equal(generator.synthesize(latents, cameras(2)), rendered.rgb)


@pytest.mark.parametrize("block", [7, 1000])
def test_volume_of_distances_is_the_field_along_the_rays(block: int) -> None:
    generator = make()
    planes = generator.planes(latents_of(generator, 2))
    volume = generator.distance_volume(planes, resolution=6, block=block)
    assert volume.shape == (2, 6, 6, 6)
    rays = generator.renderer.rays(generator.frontal_camera(), 6)
    depths = generator.renderer.depths(samples=6)[0, 0]
    point = rays.origins[0, 2 * 6 + 3] + depths[4] * rays.directions[0, 2 * 6 + 3]
    expected, _ = generator.signed_distance(planes, point.expand(2, 1, 3))
    torch.testing.assert_close(volume[:, 4, 2, 3], expected[:, 0, 0], **CLOSE)


def test_training_jitters_all_samples_of_a_ray_together() -> None:
    generator = make()
    draws = torch.rand(1, 5, 1)
    moved = generator.renderer.depths(draws) - generator.renderer.depths()
    torch.testing.assert_close(moved, (draws * 0.024).expand(1, 5, 10), rtol=0, atol=1e-6)


def test_local_detail_changes_colours_only() -> None:
    """Eq. 9 acts behind the distance; it is a function of the point, so the size of the blocks plays no part."""
    generator = make().requires_grad_(False)
    planes = generator.planes(latents_of(generator, 2))

    def detail(points: Tensor) -> FeatureModulation:
        wave = torch.sin(40 * points.sum(dim=-1, keepdim=True)).expand(-1, -1, 12)
        return FeatureModulation(0.5 * wave, wave.square())

    plain = generator.render(planes, cameras(2))
    detailed = generator.render(planes, cameras(2), modulation=detail)
    assert torch.equal(plain.sdf, detailed.sdf) and torch.equal(plain.xyz, detailed.xyz)
    assert float((plain.rgb - detailed.rgb).abs().max()) > 1e-3
    blocks = generator.render(planes, cameras(2), modulation=detail, block=10)
    torch.testing.assert_close(blocks.features, detailed.features, **CLOSE)


def test_no_local_detail_is_the_identity() -> None:
    generator = make()
    planes = generator.planes(latents_of(generator, 1))
    none = torch.zeros(1, 1, 1)
    same = generator.render(planes, cameras(1), modulation=lambda points: FeatureModulation(none, none))
    assert torch.equal(same.features, generator.render(planes, cameras(1)).features)
