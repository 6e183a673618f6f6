"""Official StyleSDF parameter names → ours, on a made-up tiny checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from e3dge_video.config.stylesdf import AFHQ_512, ViewpointConfig
from e3dge_video.errors import ModelError
from e3dge_video.models.discriminators import ImageDiscriminator, ViewpointDiscriminator
from e3dge_video.models.fir import make_filter
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights.convert_stylesdf import (
    IGNORED,
    image_discriminator_to_native,
    stylesdf_config,
    stylesdf_to_native,
    volume_discriminator_to_native,
)
from tests.support.stylesdf_checkpoint import (
    Foreign,
    foreign_image_discriminator,
    foreign_renderer,
    foreign_state,
    foreign_volume_discriminator,
)


def test_options_show_in_the_shapes() -> None:
    config = stylesdf_config(foreign_state(), viewpoint=ViewpointConfig(spread=(0.15, 0.15)))
    assert (config.siren.width, config.siren.depth, config.siren.mapping_layers) == (6, 2, 3)
    assert config.decoder is not None
    assert (config.decoder.w_dim, config.decoder.channels, config.decoder.mapping_layers) == (7, (5, 4, 3), 2)
    assert (config.resolution, config.image_resolution) == (8, 32)
    assert config.viewpoint == AFHQ_512.viewpoint
    assert stylesdf_config(foreign_renderer()).decoder is None


@pytest.mark.parametrize("make", [foreign_state, foreign_renderer])
def test_every_key_is_used_or_ignored_for_a_reason(make: Callable[[], Foreign]) -> None:
    foreign = make()
    config = stylesdf_config(foreign)
    native = stylesdf_to_native(foreign, config, mean_samples=4)
    StyleSDF(config).load_state_dict(native)  # strict
    taken = {value.data_ptr() for value in native.values()}  # views without axes of length 1 share their memory
    unused = {key for key, value in foreign.items() if value.data_ptr() not in taken}
    assert unused == {key for key in foreign if any(re.fullmatch(pattern, key) for pattern in IGNORED)}
    assert len(native) - 1 + len(unused) == len(foreign)  # the mean codes are measured


def test_renaming_keeps_values() -> None:
    foreign = foreign_state()
    native = stylesdf_to_native(foreign, stylesdf_config(foreign), mean_samples=4)
    for ours, theirs in {
        "mapping.layers.2.weight": "style.2.weight",
        "renderer.beta": "renderer.sigmoid_beta",
        "renderer.siren.layers.1.linear.bias": "renderer.network.pts_linears.1.bias",
        "renderer.siren.layers.0.scale.weight": "renderer.network.pts_linears.0.gamma.weight",
        "renderer.siren.color_layer.shift.bias": "renderer.network.views_linears.beta.bias",
        "renderer.siren.to_sdf.weight": "renderer.network.sigma_linear.weight",
        "decoder.mapping.layers.0.weight": "decoder.style.1.weight",
        "decoder.conv.bias": "decoder.conv1.activate.bias",
        "decoder.conv.noise": "decoder.noises.noise_0",
        "decoder.to_rgb.style.bias": "decoder.to_rgb1.conv.modulation.bias",
        "decoder.blocks.0.conv1.noise": "decoder.noises.noise_2",
        "decoder.blocks.1.conv0.weight": "decoder.convs.2.conv.weight",
        "decoder.blocks.1.conv1.noise_strength": "decoder.convs.3.noise.weight",
        "decoder.blocks.1.to_rgb.bias": "decoder.to_rgbs.1.bias",
    }.items():
        assert torch.equal(native[ours].flatten(), foreign[theirs].flatten()), ours


def test_the_mean_is_measured_the_same_every_time() -> None:
    foreign = foreign_state()
    config = stylesdf_config(foreign)
    state = torch.random.get_rng_state()
    first, again = (stylesdf_to_native(foreign, config, mean_samples=64)["mean_latents"] for _ in "ab")
    assert torch.equal(first, again) and torch.equal(torch.random.get_rng_state(), state)
    generator = StyleSDF(config)
    generator.load_state_dict(stylesdf_to_native(foreign, config))
    others = generator.map(torch.randn(20_000, 6, generator=torch.Generator().manual_seed(1))).detach()
    error = (others.mean(dim=0) - generator.mean_latents).abs() / (others.std(dim=0) + 1e-6)
    assert float(error.max()) < 0.06  # a mean of 10,000 is off by 0.01 standard deviations


def spoiled(key: str, value: Any) -> Callable[[Foreign], None]:
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("renderer.sigmoid_beta"), r"1 missing \(renderer.beta\)"),
        (lambda s: s.pop("decoder.convs.1.conv.weight"), r"1 missing \(decoder.blocks.0.conv1.weight\)"),
        (lambda s: s.pop("style.0.weight"), r"style.0.weight is missing"),
        (lambda s: [s.pop(f"style.1.{part}") for part in ("weight", "bias")], r"layers style.\* are missing"),
        (lambda s: s.pop("decoder.noises.noise_0"), r"decoder.noises.noise_0 is missing"),
        (spoiled("decoder.extra.bias", torch.zeros(1)), r"1 unknown \(decoder.extra.bias\)"),
        (spoiled("style.0.bias", torch.zeros(7)), r"1 misshapen \(mapping.layers.0.bias \(7,\) instead of \(6,\)\)"),
        (
            spoiled("decoder.to_rgb1.conv.weight", torch.zeros(2, 3, 5, 1, 1)),
            r"1 misshapen \(decoder.to_rgb.weight \(2, 3, 5, 1, 1\) instead of \(3, 5, 1, 1\)\)",
        ),
        (spoiled("style.1.bias", torch.full([6], torch.nan)), r"1 not finite \(mapping.layers.1.bias\)"),
        (
            spoiled("decoder.convs.0.conv.blur.kernel", make_filter()),
            r"decoder.convs.0.conv.blur.kernel is not the filter \[1, 3, 3, 1\]",
        ),
        (lambda s: s.clear(), "style.0.weight is missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_line(change: Callable[[Foreign], Any], message: str) -> None:
    state = foreign_state()
    change(state)
    with pytest.raises(ModelError, match=message) as caught:
        stylesdf_to_native(state, stylesdf_config(state))
    assert "\n" not in str(caught.value)


def test_discriminators_take_every_parameter() -> None:
    foreign = foreign_image_discriminator()
    native = image_discriminator_to_native(foreign)
    image = ImageDiscriminator((5, 4, 3))
    image.load_state_dict(native)
    assert len(native) == sum(not key.endswith("kernel") for key in foreign)
    assert torch.equal(native["blocks.1.conv0.bias"], foreign["convs.2.conv1.1.bias"])
    assert image(torch.randn(2, 3, 16, 16)).shape == (2, 1)

    foreign = foreign_volume_discriminator()
    native = volume_discriminator_to_native(foreign)
    volume = ViewpointDiscriminator((5, 5, 4))
    volume.load_state_dict(native)
    assert len(native) == len(foreign)
    assert torch.equal(native["blocks.1.conv1.conv.bias"], foreign["convs.2.conv2.activation.bias"])
    score, viewpoint = volume(torch.randn(2, 3, 8, 8))
    assert score.shape == (2, 1) and viewpoint.shape == (2, 2)


@pytest.mark.parametrize(
    ("convert", "make", "message"),
    [
        (image_discriminator_to_native, foreign_image_discriminator, "not a whole image discriminator: 1 missing"),
        (volume_discriminator_to_native, foreign_volume_discriminator, "not a whole volume discriminator: 1 missing"),
    ],
)
def test_a_broken_discriminator_is_one_clear_line(
    convert: Callable[[Foreign], object], make: Callable[[], Foreign], message: str
) -> None:
    state = make()
    state.pop(next(key for key in state if key.startswith("final") and key.endswith("bias")))
    with pytest.raises(ModelError, match=message) as caught:
        convert(state)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"layers convs.\* are missing"):
        convert(foreign_renderer())
