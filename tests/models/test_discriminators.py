"""The dual discriminator beyond its reference numbers."""

from __future__ import annotations

import torch

from e3dge_video.models.discriminators import DualDiscriminator, append_batch_spread


def test_batch_spread_is_the_mean_deviation_within_each_group() -> None:
    x = torch.randn(6, 2, 3, 3)
    ours = append_batch_spread(x, group=3)
    assert torch.equal(ours[:, :2], x)
    for first in range(2):  # with 6 samples in groups of 3, sample i shares its group with i ± 2
        members = x[first::2]
        spread = (
            sum(
                (members[:, c, i, j] - members[:, c, i, j].mean()).square().mean().sqrt()
                for c in range(2)
                for i in range(3)
                for j in range(3)
            )
            / 18
        )
        torch.testing.assert_close(ours[first::2, 2], spread.expand(3, 3, 3), rtol=1e-4, atol=1e-4)


def test_both_images_and_the_camera_matter_and_receive_gradients() -> None:
    network = DualDiscriminator((8, 8, 4), mapping_layers=2)
    assert network.resolution == 16
    image = torch.randn(4, 3, 16, 16, requires_grad=True)
    rendered = torch.randn(4, 3, 8, 8, requires_grad=True)
    label = torch.randn(4, 25, requires_grad=True)
    network(image, rendered, label).sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in (image, rendered, label))


def test_without_a_camera() -> None:
    assert DualDiscriminator((8, 4), camera_dim=0)(torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)).shape == (2, 1)
