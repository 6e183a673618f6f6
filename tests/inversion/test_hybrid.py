"""The inverter over StyleSDF with every kind of local branch, on a tiny generator with untrained encoders."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest
import torch
from torch import Tensor

from e3dge_video.config.encoders import HybridEncodersConfig
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, SurfaceVolumeConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.hybrid import HybridInversion, HybridInverter
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.fusion import ResidualMLP
from e3dge_video.models.encoders.hybrid import HybridEncoders
from e3dge_video.models.generators.stylesdf.generator import StyleSDF

Local = Literal["none", "aligned", "hybrid"]
TINY = StyleSDFConfig(
    resolution=8,
    siren=SirenConfig(width=12, depth=3),
    volume=SurfaceVolumeConfig(samples=6),
    decoder=StyleDecoderConfig(w_dim=20, channels=(8, 4), mapping_layers=2, lr_multiplier=1.0),
)
SIDE = Camera.from_stylesdf(torch.tensor([[0.2, -0.1]]))


@cache
def inverter(local: Local) -> HybridInverter:
    torch.manual_seed(0)
    generator = StyleSDF(TINY)
    generator.measure_mean(torch.randn(16, 12))
    encoders = HybridEncoders(HybridEncodersConfig(4, 12, 4, 20, local=local))
    return HybridInverter(generator, ViewpointDiscriminator((8, 8, 8)), encoders).eval().requires_grad_(False)


@cache
def image() -> Tensor:
    return torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1)) * 2 - 1


@cache
def inverted(local: Local) -> HybridInversion:
    return inverter(local).invert(image())


def test_without_a_local_branch_the_global_reconstruction_is_all() -> None:
    model, inversion = inverter("none"), inverted("none")
    assert inversion.detail is None
    plain = model.generator.render(model.generator.planes(inversion.latents), SIDE)
    assert torch.equal(model.render(inversion, SIDE).features, plain.features)
    assert model.synthesize(inversion, SIDE).shape == (1, 3, 16, 16)


def test_residual_and_codes() -> None:
    """Δ is what the coarse reconstruction lacks of the reduced picture; untrained offsets are small but there."""
    model, inversion = inverter("none"), inverted("none")
    small = torch.nn.functional.avg_pool2d(image(), 2)
    coarse = inversion.coarse.rgb.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)
    torch.testing.assert_close(small, coarse + inversion.residual, rtol=0, atol=1e-6)
    field, decoder = model.generator.unpack(inversion.latents - model.generator.mean_latents)
    assert len(field[0].unique(dim=0)) == 4, "every row of the field has a head of its own"
    assert len(decoder[0].unique(dim=0)) == 1, "the decoder's rows share one"


@pytest.mark.parametrize("local", ["aligned", "hybrid"])
def test_detail_starts_as_nothing_and_changes_colours_only(local: Local) -> None:
    model, inversion = inverter(local), inverted(local)
    assert inversion.detail is not None
    assert (inversion.detail.features is None) == (local == "aligned")
    planes = model.generator.planes(inversion.latents)
    plain = model.generator.render(planes, SIDE)
    detail = model.detail(inversion, plain, SIDE)
    assert detail is not None
    assert torch.equal(model.generator.render(planes, SIDE, modulation=detail).features, plain.features)
    head = detail.branch.film_head
    assert isinstance(head.mlp, ResidualMLP)
    torch.manual_seed(2)
    torch.nn.init.normal_(head.mlp.shortcut.weight, std=0.1)  # something to say
    try:
        rendered = model.generator.render(planes, SIDE, modulation=detail)
        assert float((rendered.rgb - plain.rgb).abs().max()) > 1e-3
        assert torch.equal(rendered.xyz, plain.xyz)
    finally:
        torch.nn.init.zeros_(head.mlp.shortcut.weight)


def test_edits_realign_the_residual() -> None:
    model, inversion = inverter("hybrid"), inverted("hybrid")
    edited = model.edit(inversion, inversion.latents + 0.3)
    assert torch.equal(edited.residual, inversion.residual)
    assert not torch.equal(edited.coarse.rgb, inversion.coarse.rgb)
    assert edited.detail is not None and inversion.detail is not None
    before, after = inversion.detail.features, edited.detail.features
    assert before is not None and after is not None and not torch.equal(before, after)
