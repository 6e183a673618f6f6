"""The fast path against the plain path, which does every operation of the papers by itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

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
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, SurfaceVolumeConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.models import stylegan2
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.reference import PlainEG3D, PlainStyleSDF
from e3dge_video.models.rendering.sampling import RayDraws
from tests.support.generators import latents_of, orbit

#: Wide enough at the end for the convolutions with fewer multiplications.
CONFIG = EG3DConfig(
    z_dim=16,
    w_dim=16,
    resolution=12,
    mapping=MappingConfig(lr_multiplier=1.0),
    backbone=BackboneConfig(plane_resolution=16, plane_channels=6, channels=(16, 24, 64), clamp=2.0),
    decoder=DecoderConfig(hidden=12, features=64),
    rays=RaySamplingConfig(coarse=8, fine=6),
    superresolution=SuperResolutionConfig(kind="8X", input_resolution=16, channels=(64, 8), clamp=1.0, noise="const"),
)
#: Float32 rounding: values are about 1, densities and what follows from them are steep.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
HEADS_AND_VIEWS = [(1, 1), (2, 2), (1, 3), (3, 1)]


def make(config: EG3DConfig = CONFIG) -> EG3D:
    torch.manual_seed(0)
    generator = EG3D(config).eval()
    with torch.no_grad():  # something to see: density varies strongly, noise is on, biases are not zero
        generator.decoder.output.weight[0] *= 100
        for name, parameter in generator.named_parameters():
            if name.endswith(("noise_strength", "bias")) and "style" not in name:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        generator.decoder.output.bias[0] = 5
    return generator


@pytest.mark.parametrize("axes", ["released", "corrected"])
@pytest.mark.parametrize("near_far", [(2.25, 3.3), "auto"])
@pytest.mark.parametrize("white_back", [False, True])
def test_rendering(axes: PlaneAxes, near_far: Any, white_back: bool) -> None:
    volume = VolumeConfig(box_warp=0.6, plane_axes=axes, white_back=white_back)  # some rays miss the box
    rays = dataclasses.replace(CONFIG.rays, near_far=near_far)
    generator = make(dataclasses.replace(CONFIG, volume=volume, rays=rays))
    plain = PlainEG3D(generator)
    for heads, views in HEADS_AND_VIEWS:
        with torch.no_grad():
            planes = generator.planes(latents_of(generator, heads))
            draws = RayDraws.random((max(heads, views), 144), 8, 6, random=torch.Generator().manual_seed(2))
            fast = generator.render(planes, orbit(views), draws=draws, block=50)
            slow = plain.render(planes, orbit(views), draws=draws)
        assert float(slow.alpha.min()) < 0.5 < float(slow.alpha.max())
        for name in ("rgb", "features", "alpha"):
            torch.testing.assert_close(getattr(fast, name), getattr(slow, name), **CLOSE)
        # A ray's depth is divided by its opacity, and so is its rounding: much for one that sees next to nothing.
        rounding = 1e-8 / slow.alpha.clamp_min(1e-8)
        assert bool(((fast.depth - slow.depth).abs() <= (1e-4 + rounding) * slow.depth).all())


def test_rendering_with_one_pass() -> None:
    generator = make(dataclasses.replace(CONFIG, rays=RaySamplingConfig(coarse=12, fine=0)))
    planes = generator.planes(latents_of(generator, 1)).detach()
    fast, slow = generator.render(planes, orbit(2)), PlainEG3D(generator).render(planes, orbit(2))
    for name in ("features", "depth", "alpha"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), **CLOSE)


@pytest.mark.parametrize("heads", [1, 3])
def test_networks(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make()
    plain, latents, convolutions = PlainEG3D(generator), latents_of(generator, heads), []
    convolve = stylegan2.winograd_conv2d
    monkeypatch.setattr(
        stylegan2, "winograd_conv2d", lambda *a, **k: convolutions.append(a[0].shape[-1]) or convolve(*a, **k)
    )
    with torch.no_grad():
        planes = plain.planes(latents)
        torch.testing.assert_close(generator.planes(latents).values, planes.values, **CLOSE)
        rendered = plain.render(planes, orbit(heads))
        torch.testing.assert_close(generator.upsample(rendered, latents), plain.upsample(rendered, latents), **CLOSE)
    assert convolutions == [16, 32]  # the last layer of the backbone, the second of the super-resolution


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_upsampling_in_half_precision(dtype: torch.dtype, close: float) -> None:
    """Eleven and eight bits of the features; the image is summed in full precision."""
    generator = make()
    latents = latents_of(generator, 2)
    with torch.no_grad():
        rendered = generator.render(generator.planes(latents), orbit(2))
        half, full = generator.upsample(rendered, latents, dtype=dtype), generator.upsample(rendered, latents)
    error = float((half - full).norm() / full.norm())
    assert half.dtype == torch.float32
    assert close / 100 < error < close


def test_one_code_enlarges_all_its_views() -> None:
    generator = make()
    latents = latents_of(generator, 1)
    with torch.no_grad():
        rendered = generator.render(generator.planes(latents), orbit(3))
        expected = PlainEG3D(generator).upsample(rendered, latents)
        torch.testing.assert_close(generator.upsample(rendered, latents), expected, **CLOSE)


def test_gradients() -> None:
    """Of codes, camera and parameters; in relative norm, because a leaky ReLU's slope may flip by rounding."""
    generator = make()
    parameters = [generator.decoder.hidden.weight, generator.backbone.blocks[-1].conv1.weight]
    gradients = []
    for model in (generator, PlainEG3D(generator)):
        latents = latents_of(generator, 2).requires_grad_()
        label = orbit(2).to_eg3d().requires_grad_()
        image = model.synthesize(latents, Camera.from_eg3d(label))
        loss = (image * torch.randn(image.shape, generator=torch.Generator().manual_seed(3))).sum()
        gradients.append(torch.autograd.grad(loss, [latents, label, *parameters]))
    for ours, reference in zip(*gradients, strict=True):
        assert float((ours - reference).norm()) <= 1e-3 * float(reference.norm()) > 0


@pytest.mark.parametrize("heads", [1, 2])
def test_stylesdf(heads: int) -> None:
    config = StyleSDFConfig(
        resolution=12,
        siren=SirenConfig(width=64, depth=2),
        volume=SurfaceVolumeConfig(samples=10),
        decoder=StyleDecoderConfig(w_dim=20, channels=(64, 64, 8), mapping_layers=1, lr_multiplier=1.0),
    )
    torch.manual_seed(0)
    generator = StyleSDF(config).eval()
    plain, latents = PlainStyleSDF(generator), latents_of(generator, heads)
    camera = Camera.from_stylesdf(torch.tensor([[0.2, 0.1], [-0.2, 0.0]][:heads]), generator.half_fov)
    with torch.no_grad():
        planes = generator.planes(latents)
        fast, slow = generator.render(planes, camera, block=50), plain.render(planes, camera)
        for name in ("rgb", "features", "depth", "alpha", "xyz", "sdf"):
            torch.testing.assert_close(getattr(fast, name), getattr(slow, name), **CLOSE)
        torch.testing.assert_close(generator.upsample(slow, latents), plain.upsample(slow, latents), **CLOSE)
