"""A discriminator that sees through a trained encoder: what learns, what stays, what is judged."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from e3dge_video.models.encoders.backbone import FeaturePyramid
from e3dge_video.models.encoders.ir_se50 import IRSE50
from e3dge_video.models.projected_discriminator import ProjectedDiscriminator

Body = FeaturePyramid | IRSE50
BODIES: dict[str, Callable[[], Body]] = {
    "starter": lambda: FeaturePyramid(8, (8, 16), (1, 1), 8),
    "paper": lambda: IRSE50(((8, 1), (16, 1))),
}


@pytest.fixture(params=BODIES)
def body(request: pytest.FixtureRequest) -> Body:
    torch.manual_seed(0)
    made = BODIES[request.param]()
    for name, value in made.named_buffers():
        if name.endswith("running_var"):
            value.copy_(torch.rand_like(value) + 0.5)
    return made


def test_only_the_judges_learn(body: Body) -> None:
    network = ProjectedDiscriminator(body, 32, width=8).train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    network(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved and not any(key.startswith("body.") for key in moved), "its statistics included"
    assert all(any(key.startswith(f"judges.{k}.") for key in moved) for k in range(len(network.judges)))
    assert any(key.startswith("pixels.") for key in moved)


def test_each_place_is_judged_by_every_map_and_by_its_pixels(body: Body) -> None:
    network = ProjectedDiscriminator(body, 32, width=8).eval()
    image = torch.randn(2, 3, 64, 64, requires_grad=True)
    rendered = torch.randn(2, 3, 16, 16, requires_grad=True)
    scores = network(image, rendered)
    # The pixels' judge and one for every map: 8 places each way, or as many as the map has.
    assert scores.shape == (2, 64 + sum(min(8, 32 >> k) ** 2 for k in sides(body)))
    torch.testing.assert_close(scores[:1], network(image[:1], rendered[:1]), rtol=1e-4, atol=1e-5)
    scores[0].sum().backward()
    assert all(float(x.grad[0].abs().sum()) > 0 and not x.grad[1].any() for x in (image, rendered))


def sides(body: Body) -> range:
    """Halvings of the picture after the stem and each stage."""
    first = 1 if isinstance(body, FeaturePyramid) else 0
    return range(first, first + 1 + len(body.stages))


def test_it_hears_what_the_encoder_sees_and_not_how_loud(body: Body) -> None:
    """A stage that speaks ten times louder is judged the same: maps of trained networks differ much in size."""
    network, louder = (ProjectedDiscriminator(copy.deepcopy(body), 32, width=8) for _ in range(2))
    louder.load_state_dict(network.state_dict())
    with torch.no_grad():
        norm = louder.body.stem[1]
        norm.weight.mul_(10)
        norm.bias.mul_(10)
        maps, loud = (
            x._maps(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))) for x in (network, louder)
        )
    torch.testing.assert_close(loud[0], maps[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps[1].square().mean(dim=1), torch.ones_like(maps[1][:, 0]))
