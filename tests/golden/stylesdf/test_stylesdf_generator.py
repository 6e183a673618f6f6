"""Whole StyleSDF generators against the reference: a small one block by block, the full-size one by its outputs."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from stylesdf_reference import (
    base_name,
    camera_of,
    close,
    description,
    formula_noise,
    formula_state,
    generator_of,
    outputs,
    part_of,
    state_of,
    tensors,
)
from torch import Tensor, nn

from e3dge_video.config.stylesdf import FFHQ_1024
from e3dge_video.models.discriminators import ImageDiscriminator, ViewpointDiscriminator
from e3dge_video.models.fir import upfirdn2d
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from e3dge_video.training.losses import r1_penalty
from e3dge_video.weights.convert_stylesdf import image_discriminator_to_native, volume_discriminator_to_native

SMALL, LARGE = "full_small", "full_1024_formula"


@cache
def small() -> StyleSDF:
    return generator_of(state_of(SMALL))


def rendered_as(rendered: SurfaceRender, name: str) -> dict[str, Tensor]:
    """A rendering under the reference's names."""
    return {
        f"{name}.thumb": rendered.rgb,
        f"{name}.features": rendered.features,
        f"{name}.xyz": rendered.xyz,
        f"{name}.bg_weight": 1 - rendered.alpha,
        f"{name}.sdf": rendered.sdf.permute(0, 2, 3, 1)[..., None],
    }


@cache
def small_outputs() -> dict[str, Tensor]:
    data, model = tensors(SMALL), small()
    latents, others, camera = model.map(data["in.z"]), model.map(data["in.z2"]), camera_of(data)
    field_codes, decoder_codes = model.unpack(latents)
    rendered = model.render(model.planes(latents), camera)
    blocks = activations(model)
    found = {
        "out.w_renderer": field_codes[:, 0],
        "out.w_decoder": decoder_codes[:, 0],
        "wplus_from_w.decoder": decoder_codes,
        "infer.rgb": model.upsample(rendered, latents),
        "zeronoise.rgb": model.upsample(rendered, latents, noise="none"),
        **rendered_as(rendered, "infer"),
    }
    found |= {f"infer.act.{name}": value for name, value in blocks.items()}
    mixed = model.mix(latents, others, 3)
    again = model.render(model.planes(mixed), camera)
    found |= {"mix3.thumb": again.rgb, "mix3.rgb": model.upsample(again, mixed)}

    model.measure_mean(data["trunc.latents_z"])
    field_mean, decoder_mean = model.unpack(model.mean_latents[None])
    latents = model.map(data["in.z"], truncation=0.5)
    truncated = model.render(model.planes(latents), camera)
    return found | {
        "trunc.mean_renderer": field_mean[:, 0],
        "trunc.mean_decoder": decoder_mean[:, 0],
        "trunc0.5.thumb": truncated.rgb,
        "trunc0.5.rgb": model.upsample(truncated, latents),
    }


def activations(model: StyleSDF) -> dict[str, Tensor]:
    """Fill itself with the outputs of the decoder's layers, under their official names, when the decoder runs."""
    found: dict[str, Tensor] = {}
    decoder = model.decoder
    assert decoder is not None

    def record(layer: nn.Module, name: str, element: int | None = None) -> None:
        def hook(_module: nn.Module, _arguments: object, output: object) -> None:
            value = output if element is None else output[element]  # type: ignore[index]
            found.setdefault(name, value)  # type: ignore[arg-type]

        layer.register_forward_hook(hook)

    record(decoder.conv, "conv1")
    record(decoder.to_rgb, "to_rgb1")
    for index, block in enumerate(decoder.blocks):
        record(block.conv0, f"convs.{2 * index}")
        record(block.conv1, f"convs.{2 * index + 1}")
        record(block, f"to_rgbs.{index}", 1)  # the image so far
    return found


@pytest.mark.parametrize("key", outputs(SMALL, r"(in|state|upfirdn)\..*|trunc\.latents_z"))
def test_small_generator(key: str) -> None:
    reference = tensors(SMALL)[key]
    close(key, part_of(key, small_outputs()[base_name(key)], reference), reference)


@pytest.mark.parametrize("key", outputs(SMALL, r"(?!upfirdn\.up).*"))
def test_resampling(key: str) -> None:
    data = tensors(SMALL)
    match = re.fullmatch(r"upfirdn\.up(\d)_down(\d)_pad(-?\d)_(-?\d)", key)
    assert match is not None
    up, down, before, after = map(int, match.groups())
    padding = [before, after, before, after]
    close(key, upfirdn2d(data["upfirdn.x"], data["upfirdn.k"], up=up, down=down, padding=padding), data[key])


@cache
def large_outputs() -> dict[str, Tensor]:
    """The full-size generator. Weights come from a formula, so that no file has to hold them."""
    data = tensors(LARGE)
    model = generator_of(formula_state("generator", rules="generator", filter_gain=4.0))
    assert model.config == FFHQ_1024
    z = torch.from_numpy(formula_noise("input.z", [1, 256])).float()
    latents, camera = model.map(z), camera_of(data)
    field_codes, decoder_codes = model.unpack(latents)
    rendered = model.render(model.planes(latents), camera)
    image = model.upsample(rendered, latents)
    means = model.pack(
        data["trunc.mean_renderer"][:, None].expand(-1, 9, -1), data["trunc.mean_decoder"][:, None].expand(-1, 10, -1)
    )
    model.mean_latents.copy_(means[0])
    latents = model.map(z, truncation=0.5)
    truncated = model.render(model.planes(latents), camera)
    plain = rendered_as(rendered, "out")
    return {
        **plain,
        "out.w_renderer": field_codes[:, 0],
        "out.w_decoder": decoder_codes[:, 0],
        "out.rgb_avgpool64": nn.functional.avg_pool2d(image, 16),
        "out.rgb_crop_b0_480_512": image[..., 480:512, 480:512],
        "features": plain["out.features"],
        "sdf": plain["out.sdf"],
        "rgb": image,
        "trunc0.5.thumb": truncated.rgb,
        "trunc0.5.rgb": model.upsample(truncated, latents),
    }


@pytest.mark.parametrize("key", outputs(LARGE, r"in\..*|trunc\.mean_.*|v?disc\..*"))
def test_large_generator(key: str) -> None:
    name, _, part = key.rpartition(".")
    if part == "first":
        value = large_outputs()[name].flatten()[:64]
    elif part == "strided":
        value = large_outputs()[name].flatten()[:: description()["summaries"][name]["stride"]]
    else:
        value = large_outputs()[key]
    close(key, value, tensors(LARGE)[key])


@pytest.mark.parametrize("name", ["sdf", "features", "rgb", "trunc0.5.rgb"])
def test_large_generator_as_a_whole(name: str) -> None:
    """Statistics over all numbers, where only samples of them are stored."""
    recorded, value = description()["summaries"][name], large_outputs()[name].double()
    assert list(value.shape) == recorded["shape"]
    found = {"mean": value.mean(), "std": value.std(), "min": value.min(), "max": value.max()}
    for statistic, ours in found.items():
        assert float(ours) == pytest.approx(recorded[statistic], rel=1e-4, abs=1e-5), statistic
    assert float(value.abs().sum()) == pytest.approx(recorded["abs_sum"], rel=1e-5)


def test_parameter_counts() -> None:
    counts = description()["param_counts"]
    with torch.device("meta"):
        model = StyleSDF(FFHQ_1024)
        image, volume = ImageDiscriminator([512] * 5 + [256, 128, 64, 32]), ViewpointDiscriminator()

    def count(*parts: nn.Module) -> int:
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    unused = sum(512 if size == 512 else 2 * size for size in (512, 256, 128, 64, 32))  # `decoder.conv*.bias`
    assert count(model) + unused == counts["generator"]
    assert count(model.renderer) == counts["renderer"]
    assert model.decoder is not None
    assert count(model.decoder) + unused == counts["decoder"]
    assert count(image) == counts["disc1024"] and count(volume) == counts["vdisc"]


def test_image_discriminator() -> None:
    data = tensors(LARGE)
    discriminator = ImageDiscriminator([512] * 5 + [256, 128, 64, 32])
    state = formula_state("disc", rules='disc (key prefix "disc.")', prefix="disc.")
    discriminator.load_state_dict(image_discriminator_to_native(state))
    discriminator.requires_grad_(False)
    image = large_outputs()["rgb"].clone().requires_grad_()
    score = discriminator(image)
    torch.testing.assert_close(score, data["disc.of_rgb"], rtol=1e-4, atol=1e-5)
    penalty = r1_penalty(score, image)
    torch.testing.assert_close(penalty, data["disc.r1_penalty_rgb_b0"], rtol=1e-3, atol=0.0)


def test_volume_discriminator() -> None:
    data = tensors(LARGE)
    discriminator = ViewpointDiscriminator()
    state = formula_state("vdisc", rules='vdisc (key prefix "vdisc.")', prefix="vdisc.")
    discriminator.load_state_dict(volume_discriminator_to_native(state))
    score, viewpoint = discriminator(data["out.thumb"])
    torch.testing.assert_close(score, data["vdisc.gan_of_thumb"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(viewpoint, data["vdisc.view_of_thumb"], rtol=1e-4, atol=1e-5)
