"""L_rec is what it says it is, with and without the networks that others publish."""

from __future__ import annotations

import logging

import pytest
import torch

from e3dge_video.errors import ModelError
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.models.perceptual import PerceptualDistance
from e3dge_video.training import image_losses as module
from e3dge_video.training.image_losses import ImageLoss, ImageLossConfig, image_losses
from e3dge_video.training.losses import structural_distance


class Recognizer(FaceRecognizer):
    """A recogniser of nothing but mean colours: the real one has 44 million weights."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-2:] == (256, 256)
        return torch.nn.functional.normalize(image.mean(dim=(2, 3)), dim=1)


def perceptual() -> PerceptualDistance:
    torch.manual_seed(0)
    network = PerceptualDistance()
    for weight in network.weights:
        weight.data.uniform_()
    return network


def images() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_perceptual", lambda network: perceptual())
    monkeypatch.setattr(module, "load_recognizer", Recognizer)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("weights.pth: is not there; get it")

    monkeypatch.setattr(module, "load_perceptual", refuse)
    monkeypatch.setattr(module, "load_recognizer", refuse)


def test_with_the_published_networks_it_is_the_papers_loss(at_hand: None) -> None:
    image, truth = images()
    loss = image_losses(ImageLossConfig())
    assert loss.names == {"l2": "mean squared error × 1", "lpips": "lpips-alex × 0.8", "identity": "ir-se50 × 0.1"}
    values = loss(image, truth)
    torch.testing.assert_close(values["l2"], (image - truth).square().mean())
    torch.testing.assert_close(values["lpips"], 0.8 * perceptual()(image, truth).mean())
    colors = (torch.nn.functional.normalize(x.mean(dim=(2, 3)), dim=1) for x in (image, truth))
    cosine = torch.stack(list(colors)).prod(dim=0).sum(dim=1).mean()
    torch.testing.assert_close(values["identity"], 0.1 * (1 - cosine))
    assert not any(p.requires_grad for p in loss.parameters())


def test_without_them_it_says_what_it_is(missing: None, caplog: pytest.LogCaptureFixture) -> None:
    image, truth = images()
    with caplog.at_level(logging.WARNING):
        loss = image_losses(ImageLossConfig())
    assert "our structural features stand in for LPIPS" in caplog.text and "no identity loss" in caplog.text
    assert loss.description == (
        "l2: mean squared error × 1; features: features-ours × 0.8; "
        "identity: none: the weights of ir-se50 are not there"
    )
    values = loss(image, truth)
    assert values.keys() == {"l2", "features"}
    torch.testing.assert_close(values["features"], 0.8 * structural_distance(image, truth).mean())


@pytest.mark.parametrize(
    "options",
    [{"perceptual_network": "lpips-alex"}, {"perceptual_network": "lpips-vgg"}, {"identity_network": "ir-se50"}],
)
def test_what_is_asked_for_by_name_has_no_stand_in(missing: None, options: dict) -> None:
    with pytest.raises(ModelError, match="is not there"):
        image_losses(ImageLossConfig(**options))


def test_a_weight_of_zero_leaves_a_part_out(at_hand: None, caplog: pytest.LogCaptureFixture) -> None:
    loss = image_losses(ImageLossConfig(l2=2, perceptual=0, identity=0))
    image, truth = images()
    assert loss(image, truth).keys() == loss.names.keys() == {"l2"} and caplog.text == ""
    torch.testing.assert_close(loss(image, truth)["l2"], 2 * (image - truth).square().mean())
    named = image_losses(ImageLossConfig(perceptual_network="features-ours", identity=0))
    assert named.names["features"] == "features-ours × 0.8" and caplog.text == ""


def test_losses_are_computed_in_full_precision(at_hand: None) -> None:
    image, truth = images()
    values = ImageLoss(ImageLossConfig(), None, None, {})(image.half(), truth.half())
    assert all(value.dtype == torch.float32 for value in values.values())
