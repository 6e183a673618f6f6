"""LPIPS's published parameters → ours: torchvision's backbone, and the weights of its maps from the package `lpips`.

Pure functions on plain values; no file is read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from e3dge_video.models.perceptual import CONVS, PerceptualDistance, PerceptualNet
from e3dge_video.weights.state import check_state, ignored_by_reason, shapes_of

#: Foreign parameters that we do not take over, and why.
IGNORED = {r"classifier\..*": "names objects; images are compared in the maps before it"}
_ADVICE = "is one of the files damaged, or of another network?"


def lpips_to_native(
    backbone: Mapping[str, Tensor], heads: Mapping[str, Tensor], network: PerceptualNet
) -> dict[str, Tensor]:
    """Rename the parameters to those of `PerceptualDistance`. Every foreign key is used or in `IGNORED`.

    Args:
        backbone: State dictionary of torchvision's `alexnet` or `vgg16`.
        heads: State dictionary of LPIPS 0.1 for this network (`weights/v0.1/alex.pth` of the package).
        network: Which one it is.

    Raises:
        ModelError: Missing, unknown, misshapen or non-finite parameters, in one line.
    """
    left_out = {key for keys in ignored_by_reason(backbone, IGNORED).values() for key in keys}
    place, names = 0, {}
    for index, conv in enumerate(CONVS[network]):
        place += conv.pool > 0  # torchvision counts activations and poolings, too
        names[f"features.{place}."] = f"convs.{index}."
        place += 2
    native = {}
    for key, value in backbone.items():
        if key not in left_out:
            prefix, _, parameter = key.rpartition(".")
            native[names.get(f"{prefix}.", f"{prefix}.") + parameter] = value.float()
    for key, value in heads.items():
        plain = value.flatten() if value.ndim == 4 and value.numel() == value.shape[1] else value  # a 1×1 convolution
        native[re.sub(r"^lin(\d+)\.model\.1\.weight$", r"weights.\1", key)] = plain.float()
    with torch.device("meta"):
        expected = shapes_of(PerceptualDistance(network))
    check_state(native, expected, complaint=f"LPIPS weights ({network}): not whole", advice=_ADVICE)
    return native
