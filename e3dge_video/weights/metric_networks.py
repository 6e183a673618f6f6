"""Networks that images are measured with, from the files their authors publish; nothing in them is executed."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from e3dge_video.errors import ModelError
from e3dge_video.faces.landmarks.model_files import installed
from e3dge_video.models.encoders.ir_se50 import FaceRecognizer
from e3dge_video.models.perceptual import PerceptualDistance, PerceptualNet
from e3dge_video.weights.convert_e3dge import recognizer_to_native
from e3dge_video.weights.convert_lpips import lpips_to_native
from e3dge_video.weights.fetch import destination
from e3dge_video.weights.public_files import public_file
from e3dge_video.weights.torch_files import read_torch

Network = TypeVar("Network", bound=nn.Module)
#: Backbones of LPIPS among the published files.
_BACKBONES: dict[PerceptualNet, str] = {"alex": "torchvision-alexnet", "vgg": "torchvision-vgg16"}


def load_perceptual(
    network: PerceptualNet = "alex", *, backbone: Path | None = None, heads: Path | None = None
) -> PerceptualDistance:
    """LPIPS 0.1, in evaluation mode.

    Args:
        network: Which network sees the images.
        backbone: Torchvision's file of it; None: where `models fetch` and torch hub put it.
        heads: The weights of its maps; None: those in the installed package `lpips`.

    Raises:
        ModelError: A file is not there, cannot be read, or holds something else.
    """
    backbone = _fetched(_BACKBONES[network]) if backbone is None else backbone
    heads = _packaged(network) if heads is None else heads
    convs, weights = _tensors(backbone), _tensors(heads)
    try:
        native = lpips_to_native(convs, weights, network)
    except ModelError as error:
        raise ModelError(f"{backbone} and {heads}: {error}") from error
    with torch.device("meta"):
        distance = PerceptualDistance(network)
    return _ready(distance, native)


def load_recognizer(file: Path | None = None) -> FaceRecognizer:
    """The face recogniser of the identity metric and loss, in evaluation mode.

    Args:
        file: `model_ir_se50.pth`; None: where `models fetch ir-se50` puts it.

    Raises:
        ModelError: It is not there, cannot be read, or holds something else.
    """
    file = _fetched("ir-se50") if file is None else file
    foreign = _tensors(file)
    try:
        native = recognizer_to_native(foreign)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error
    with torch.device("meta"):
        recognizer = FaceRecognizer()
    return _ready(recognizer, native)


def _ready(network: Network, native: dict[str, Tensor]) -> Network:
    network.load_state_dict(native, assign=True)
    network.requires_grad_(False)
    return network.eval()


def _fetched(name: str) -> Path:
    path = destination(public_file(name))
    if not path.is_file():
        raise ModelError(f"{path}: is not there; get it by `e3dge-video models fetch {name}`, or name the file")
    return path


def _packaged(network: PerceptualNet) -> Path:
    package = installed("lpips")
    path = None if package is None else package / "weights" / "v0.1" / f"{network}.pth"
    if path is None or not path.is_file():
        raise ModelError(
            f"the weights of LPIPS for {network} come with the package lpips, which is not installed; "
            "pip install lpips, or name the file"
        )
    return path


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; check the path")
    values = read_torch(path)
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in values.items()):
        raise ModelError(f"{path}: is no table of tensors alone, as the published file is; name the right file")
    return values
