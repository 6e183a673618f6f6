"""StyleGAN2 layers: the two orders of computation agree, noise is under control, samples do not mix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from e3dge_video.models.fir import make_filter
from e3dge_video.models.mapping import MappingNetwork, broadcast_latents
from e3dge_video.models.stylegan2 import (
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    channels_last,
    modulated_conv2d,
)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
def test_scaling_kernels_equals_scaling_activations(up: int, demodulate: bool) -> None:
    x, weight, styles = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(3, 4)
    options = {
        "taps": make_filter(),
        "up": up,
        "padding": 1,
        "demodulate": demodulate,
        "flip_weight": up == 1,
        "gain": 1.7,
    }
    fused = modulated_conv2d(x, weight, styles, fused=True, **options)
    unfused = modulated_conv2d(x, weight, styles, fused=False, **options)
    torch.testing.assert_close(fused, unfused, rtol=1e-4, atol=1e-4)
    single = torch.cat([modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1], **options) for i in range(3)])
    torch.testing.assert_close(single, unfused, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False, None])
def test_one_style_serves_many_images(fused: bool | None) -> None:
    x, weight, styles = torch.randn(3, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(1, 4)
    shared = modulated_conv2d(x, weight, styles, padding=1, fused=fused)
    repeated = modulated_conv2d(x, weight, styles.expand(3, -1), padding=1, fused=False)
    torch.testing.assert_close(shared, repeated, rtol=1e-4, atol=1e-4)


def test_demodulation_makes_kernels_of_unit_norm() -> None:
    """The response to an impulse in every input channel in turn has norm 1 over all of them."""
    weight, styles = torch.randn(5, 4, 3, 3), torch.randn(1, 4)
    impulses = torch.zeros(4, 4, 7, 7)
    impulses[range(4), range(4), 3, 3] = 1
    responses = modulated_conv2d(impulses, weight, styles.expand(4, -1), padding=1, fused=False)
    torch.testing.assert_close(responses.square().sum(dim=(0, 2, 3)), torch.ones(5), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_modulated_convolution_gradients(fused: bool) -> None:
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def operation(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, styles, noise=noise, padding=1, fused=fused, gain=1.3)

    assert torch.autograd.gradcheck(operation, (x, weight, styles, noise))


def test_layer_gradients_reach_every_parameter_and_are_right() -> None:
    """The in-place activation must not disturb what the backward pass needs."""
    layer = SynthesisLayer(2, 3, 4, 6, up=2, clamp=0.8).double()
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    layer.taps = layer.taps.double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: layer(x, w), (x, w))
    layer(x, w).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_noise_modes() -> None:
    layer = SynthesisLayer(2, 3, 4, 8)
    torch.nn.init.constant_(layer.noise_strength, 1.0)
    x, w = torch.randn(2, 2, 8, 8), torch.randn(2, 4)

    def seeded(seed: int) -> Tensor:
        return layer(x, w, noise="random", random=torch.Generator().manual_seed(seed))

    assert torch.equal(layer(x, w), layer(x, w))
    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    assert not torch.equal(layer(x, w), layer(x, w, noise="none"))
    torch.testing.assert_close(layer.noise, torch.as_tensor(layer.state_dict()["noise"]))
    silent = SynthesisLayer(2, 3, 4, 8, use_noise=False)
    assert "noise" not in silent.state_dict() and "noise_strength" not in silent.state_dict()
    assert torch.equal(silent(x, w), silent(x, w, noise="none"))


def test_clamp_limits_the_activations() -> None:
    block = SynthesisBlock(2, 3, 4, 8, 3, clamp=0.05)
    x, image = block(torch.randn(1, 2, 4, 4), None, torch.randn(1, 3, 4))
    assert x.abs().max() <= 0.05 and image.abs().max() <= 0.05


def test_samples_of_a_batch_do_not_mix() -> None:
    network = SynthesisNetwork(8, 6, (8, 8, 4)).eval()
    latents = torch.randn(3, network.latent_rows, 8)
    together = network(latents)
    alone = torch.cat([network(latents[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert together.shape == (3, 6, 16, 16)


def test_every_latent_row_has_an_effect_and_later_rows_leave_earlier_blocks_alone() -> None:
    network = SynthesisNetwork(8, 6, (8, 8, 4)).eval()
    latents = torch.randn(1, 6, 8)
    first_images = []
    network.blocks[0].register_forward_hook(lambda *call: first_images.append(call[2][1]))
    base = network(latents)
    for row in range(6):
        changed = latents.clone()
        changed[:, row] += 1
        assert not torch.allclose(network(changed), base)
        assert torch.equal(first_images[-1], first_images[0]) == (row >= 2)


def test_truncation() -> None:
    w, mean = torch.randn(2, 5), torch.randn(5)
    assert torch.equal(broadcast_latents(w, 4), w[:, None].expand(-1, 4, -1))
    assert torch.equal(broadcast_latents(w, 4, mean=mean, truncation=0.0), mean.expand(2, 4, 5))
    half = broadcast_latents(w, 4, mean=mean, truncation=0.5, cutoff=1)
    torch.testing.assert_close(half[:, 0], (w + mean) / 2)
    assert torch.equal(half[:, 1:], w[:, None].expand(-1, 3, -1))


def test_running_mean_of_w() -> None:
    network = MappingNetwork(4, 0, 6, layers=2)
    w = network(torch.randn(512, 4))
    for _ in range(2000):
        network.update_mean(w)
    torch.testing.assert_close(network.mean_latents, w.mean(dim=0), rtol=0.05, atol=0.02)


def test_mapping_ignores_the_length_of_z() -> None:
    network, z = MappingNetwork(8, 3, 6, layers=2), torch.randn(2, 8)
    condition = torch.randn(2, 3)
    torch.testing.assert_close(network(z, condition), network(5 * z, condition), rtol=1e-4, atol=1e-5)


def test_a_wider_network_starts_as_the_narrower_one() -> None:
    narrow = MappingNetwork(8, 3, 6, layers=3, hidden_width=10)
    wide = MappingNetwork(8, 3, 6, layers=3, hidden_width=16, lr_multiplier=1.0)
    narrow.mean_latents.normal_()
    for layer in narrow.layers:
        torch.nn.init.normal_(layer.bias)
    wide.start_from(narrow)
    z, condition = torch.randn(4, 8), torch.randn(4, 3)
    torch.testing.assert_close(wide(z, condition), narrow(z, condition), rtol=1e-4, atol=1e-5)
    assert torch.equal(wide.mean_latents, narrow.mean_latents)
    assert wide.layers[0].weight[10:].abs().min() > 0  # the new units see z: they can learn
    with pytest.raises(ValueError, match="a layer of 16 units does not fit into one of 10"):
        narrow.start_from(wide)
    with pytest.raises(ValueError, match="another number of layers"):
        MappingNetwork(8, 3, 6, layers=2).start_from(narrow)


def test_channels_last_is_recognised_whatever_the_stride_of_a_single_image() -> None:
    x = torch.randn(240).as_strided((1, 8, 5, 6), (8, 1, 48, 8))
    assert torch.equal(channels_last(x), x)
    assert channels_last(x).stride() == (240, 1, 48, 8)
    several = torch.randn(2, 8, 5, 6)
    assert torch.equal(channels_last(several), several)
    assert channels_last(several).stride() == (240, 1, 48, 8)
