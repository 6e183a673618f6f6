"""LPIPS and the face recogniser from the files their authors publish."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.models.perceptual import PerceptualNet
from e3dge_video.weights import metric_networks
from e3dge_video.weights.metric_networks import load_perceptual, load_recognizer
from tests.support.e3dge_checkpoint import filled, foreign_recognizer

FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


@pytest.fixture(autouse=True)
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in which published files are looked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    for folder in (tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "cache" / "downloads"):
        folder.mkdir(parents=True)
    return tmp_path / "torch" / "hub" / "checkpoints"


def refusal(**files: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_perceptual(**files)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("network", ["alex", "vgg"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_is_the_package_itself(network: PerceptualNet, downloads: Path) -> None:
    """With its own weights of the maps, behind a backbone of random numbers."""
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    official = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
    backbone = {re.sub(r"^slice\d+", "features", key): value for key, value in official.net.state_dict().items()}
    torch.save({**backbone, "classifier.6.bias": torch.zeros(1000)}, downloads / FILES[network])
    image, truth = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    distance = load_perceptual(network)(image, truth)
    assert distance.shape == (2,) and bool((distance > 1e-3).all())
    torch.testing.assert_close(distance, official(image, truth).flatten(), rtol=1e-4, atol=0)


def test_what_is_not_there(downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = refusal()
    assert line.startswith(str(downloads / FILES["alex"])) and "`e3dge-video models fetch torchvision-alexnet`" in line
    assert f"{tmp_path / 'none.pth'}: no such file" in refusal(backbone=tmp_path / "none.pth", heads=tmp_path / "x")
    (downloads / FILES["alex"]).touch()
    monkeypatch.setattr(metric_networks, "installed", lambda package: None)
    assert "the package lpips, which is not installed" in refusal()
    with pytest.raises(ModelError, match=r"model_ir_se50.pth: is not there; get it by `.* models fetch ir-se50`"):
        load_recognizer()


CONVS = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
BACKBONE = {f"features.{place}.weight": torch.zeros(shape) for place, shape in CONVS.items()}
BACKBONE |= {f"features.{place}.bias": torch.zeros(shape[0]) for place, shape in CONVS.items()}
HEADS = {f"lin{level}.model.1.weight": torch.ones(1, shape[0], 1, 1) for level, shape in enumerate(CONVS.values())}


def without(tensors: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name != key}


@pytest.mark.parametrize(
    ("backbone", "heads", "message"),
    [
        (without(BACKBONE, "features.3.bias"), HEADS, "1 missing (convs.1.bias)"),
        (BACKBONE, without(HEADS, "lin4.model.1.weight"), "1 missing (weights.4)"),
        (BACKBONE | {"features.12.bias": torch.zeros(1)}, HEADS, "1 unknown (features.12.bias)"),
        (BACKBONE, HEADS | {"lin5.model.1.weight": torch.ones(1, 2, 1, 1)}, "1 unknown (weights.5)"),
        (BACKBONE | {"features.3.bias": torch.zeros(7)}, HEADS, "1 misshapen (convs.1.bias (7,) instead of (192,))"),
        (BACKBONE, HEADS | {"lin0.model.1.weight": torch.ones(1, 3, 1, 1)}, "1 misshapen (weights.0 (3,)"),
        (BACKBONE | {"features.0.bias": torch.full([64], torch.nan)}, HEADS, "1 not finite (convs.0.bias)"),
        (HEADS, BACKBONE, "15 unknown"),
        ({"state_dict": BACKBONE}, HEADS, "backbone.pth: is no table of tensors alone"),
        ([torch.zeros(1)], HEADS, "backbone.pth: holds list, no table of tensors"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, backbone: Any, heads: Any, message: str) -> None:
    files = {"backbone": tmp_path / "backbone.pth", "heads": tmp_path / "heads.pth"}
    torch.save(BACKBONE, files["backbone"]), torch.save(HEADS, files["heads"])
    assert not load_perceptual(**files).training
    torch.save(backbone, files["backbone"]), torch.save(heads, files["heads"])
    assert message in refusal(**files)


def test_the_recognizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = filled(foreign_recognizer())
    file = tmp_path / "cache" / "downloads" / "model_ir_se50.pth"
    torch.save(state, file)
    recognizer = load_recognizer()
    assert not recognizer.training and torch.equal(recognizer.linear.bias, state["output_layer.3.bias"].float())
    del state["output_layer.3.bias"]
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"model_ir_se50.pth: IR-SE50 weights: not whole: 1 missing \(linear.bias\)"):
        load_recognizer()
