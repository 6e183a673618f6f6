"""Is a bundle what it was when it was made: the same bytes, and the same picture from them on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.inversion.load import discriminator_of, generator_of, paper_inverter_of
from e3dge_video.weights.bundle import BundleSpec, read_bundle
from e3dge_video.weights.catalog import find_bundle
from e3dge_video.weights.check_image import TOLERANCE, check_image, largest_difference


@dataclass(frozen=True)
class Verification:
    """A bundle that is as it should be.

    Attributes:
        folder: Where it lies.
        spec: Its specification.
        image: Its check image: a fixed code from the frontal camera, nominally in [-1, 1]. [3, H, H]
        difference: Largest difference to the check figures stored in it; None if it has none.
    """

    folder: Path
    spec: BundleSpec
    image: Tensor
    difference: float | None


def verify_bundle(name: str) -> Verification:
    """Compare every file of a bundle with its SHA-256, load its generator strictly (with the paper's encoders and
    its discriminator, if it has them) and render the check image.

    Args:
        name: Name or folder of the bundle.

    Raises:
        ModelError: A file is missing or was changed, the tensors do not fit the options, or the picture is another one.
    """
    folder = find_bundle(name)
    bundle = read_bundle(folder, discriminator=True)
    discriminator_of(bundle)
    papers = bundle.spec.hybrid is not None or bundle.spec.psp is not None
    generator = paper_inverter_of(bundle).generator if papers else generator_of(bundle)
    image = check_image(generator)
    if not torch.isfinite(image).all():
        raise ModelError(f"{folder}: its check image has values that are no finite numbers; install or import it again")
    stored = bundle.spec.check
    difference = None if stored is None else largest_difference(image, stored)
    if difference is not None and difference > TOLERANCE:
        raise ModelError(
            f"{folder}: its check image differs by {difference:.2g} from what it was when the bundle was made (allowed "
            f"{TOLERANCE:g}), although its files are unchanged; this machine or version computes something else"
        )
    return Verification(folder, bundle.spec, image, difference)
