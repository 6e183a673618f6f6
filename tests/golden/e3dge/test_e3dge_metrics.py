"""Image metrics, the face recogniser and LPIPS against the reference, on two images of noise."""

from __future__ import annotations

from functools import cache, partial

import pytest
import torch
from e3dge_reference import MODULE, close, description, formula_input, formula_state, outputs, tensors
from torch import Tensor

from e3dge_video.evaluation.metrics import (
    identity_similarity,
    mean_absolute_error,
    mean_squared_error,
    peak_signal_to_noise,
    reported_similarity,
    structural_similarity,
)
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.models.perceptual import PerceptualDistance
from e3dge_video.training.image_losses import ImageLoss, ImageLossConfig
from e3dge_video.weights.convert_e3dge import recognizer_to_native
from e3dge_video.weights.convert_lpips import lpips_to_native

FILE = "metrics_formula"


@cache
def images() -> tuple[Tensor, Tensor]:
    noise, other = formula_input("metric_x", 2, 3, 256, 256), formula_input("metric_dy", 2, 3, 256, 256)
    return (0.5 * noise).clamp(-1, 1), (0.5 * noise + 0.2 * other).clamp(-1, 1)


@cache
def recognizer() -> FaceRecognizer:
    state = formula_state(description(FILE)["shapes"]["id"], description(FILE)["rules_id"])
    with torch.device("meta"):
        network = FaceRecognizer()
    network.load_state_dict(
        recognizer_to_native({key.removeprefix("id."): value for key, value in state.items()}), assign=True
    )
    return network.eval().requires_grad_(False)


@cache
def perceptual() -> PerceptualDistance:
    """The reference's parameters take the way of the published files, under the names that those have."""
    shapes = description(FILE)["shapes"]["lpips"]
    state = formula_state(
        {key: shape for key, shape in shapes.items() if not key.endswith(("mean", "std"))},
        description(FILE)["rules_lpips"],
    )
    parts = {"lpips.net.layers.": "features.", "lpips.lin.": "lin"}
    backbone, heads = (
        {key.replace(theirs, published): value for key, value in state.items() if key.startswith(theirs)}
        for theirs, published in parts.items()
    )
    network = PerceptualDistance()
    heads = {key.replace(".1.weight", ".model.1.weight"): value for key, value in heads.items()}
    network.load_state_dict(lpips_to_native(backbone, heads, "alex"))
    return network.requires_grad_(False)


@cache
def identity(which: int) -> Tensor:
    return recognizer()(images()[which])


@cache
def lpips() -> Tensor:
    return perceptual()(*images())


def unit(image: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1]."""
    return (image + 1) / 2


def measured(key: str) -> Tensor:
    """Our value of a reference tensor."""
    x, y = images()
    ssim_1 = partial(structural_similarity, data_range=1.0)
    return {
        "mae": lambda: mean_absolute_error(x, y).mean(),
        "l2": lambda: mean_squared_error(x, y).mean(),
        # The reference takes a batch as one image.
        "psnr_01": lambda: peak_signal_to_noise(x.flatten(0, 1)[None], y.flatten(0, 1)[None])[0],
        "ssim_window5": lambda: reported_similarity(x, y).mean(),
        "ssim_map_mean_window5": lambda: ssim_1(x, y, window=5).mean(),
        "ssim_map_mean_window5_range01": lambda: ssim_1(unit(x), unit(y), window=5).mean(),
        "ssim_map_mean_window11_range01": lambda: ssim_1(unit(x), unit(y), window=11).mean(),
        "id.feat_x": lambda: identity(0),
        "id.feat_y": lambda: identity(1),
        "id.loss": lambda: 1 - (identity(0) * identity(1)).sum(dim=1).mean(),
        "lpips": lambda: lpips().mean(),
        "lpips_b0": lambda: lpips()[0],
    }[key]()


@pytest.mark.parametrize("key", outputs(FILE))
def test_metrics(key: str) -> None:
    # One minus a cosine of 0.98: 32 bit leave four digits of it.
    spread = 1.0 if key == "id.loss" else None
    close(key, measured(key), tensors(FILE)[key], MODULE, spread=spread)


def test_the_training_loss_is_made_of_them() -> None:
    """L_rec of section 6: the reference's own values under the paper's weights."""
    loss, known = ImageLoss(ImageLossConfig(), perceptual(), recognizer(), {}), tensors(FILE)
    values = loss(*images())
    assert values.keys() == {"l2", "lpips", "identity"}
    close("l2", values["l2"], known["l2"], MODULE)
    close("lpips", values["lpips"], 0.8 * known["lpips"], MODULE)
    close("identity", values["identity"], 0.1 * known["id.loss"], MODULE, spread=0.1)


def test_identity_of_a_pair() -> None:
    x, y = (image[:1] for image in images())
    expected = (identity(0)[:1] * identity(1)[:1]).sum(dim=1)
    torch.testing.assert_close(identity_similarity(recognizer(), x, y), expected)


def test_the_reported_similarity_is_the_shifted_one() -> None:
    """SSIM is 1 for equal images; what the paper's tables call SSIM is nearer to 1 than it for all others."""
    x, y = images()
    torch.testing.assert_close(structural_similarity(x, x), torch.ones(2))
    plain = structural_similarity(x, y, window=5, data_range=1.0)
    torch.testing.assert_close(reported_similarity(x, y), (1 + plain) / 2)
    assert bool((reported_similarity(x, y) > plain).all())
