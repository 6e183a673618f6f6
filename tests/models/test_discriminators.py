"""The dual discriminator beyond its reference numbers."""

from __future__ import annotations

import torch

from e3dge_video.models.discriminators import (
    CoordinateConv,
    DualDiscriminator,
    ImageDiscriminator,
    ViewpointDiscriminator,
    append_batch_spread,
)


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


def test_image_discriminator_judges_each_image_by_all_of_it() -> None:
    torch.manual_seed(0)
    network = ImageDiscriminator((8, 8, 4), group=1)
    assert network.resolution == 16
    images = torch.randn(3, 3, 16, 16, requires_grad=True)
    scores = network(images)
    torch.testing.assert_close(scores[1:2], network(images[1:2]))
    [gradient] = torch.autograd.grad(scores[1].sum(), images)
    assert float(gradient[0].abs().max()) == 0 and bool((gradient[1].abs().amax(dim=0) > 0).all())


def test_viewpoint_discriminator_knows_where_things_stand() -> None:
    """A plain convolution with a constant image would give the same everywhere but at the rim."""
    layer = CoordinateConv(1, 2)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.zero_()
        layer.conv.weight[0, 1, 1, 1] = layer.conv.weight[1, 2, 1, 1] = 1.0  # show the rows, show the columns
    rows, columns = layer(torch.zeros(1, 1, 3, 5))[0]
    torch.testing.assert_close(rows[:, 2], torch.tensor([-0.2, 0.0, 1.0]))  # leaky
    torch.testing.assert_close(columns[1], torch.tensor([-0.2, -0.1, 0.0, 0.5, 1.0]))
    network = ViewpointDiscriminator((5, 4, 3))
    score, viewpoint = network(torch.randn(2, 3, network.resolution, network.resolution))
    assert network.resolution == 8 and score.shape == (2, 1) and viewpoint.shape == (2, 2)
