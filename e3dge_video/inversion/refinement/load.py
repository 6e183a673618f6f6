"""The objective with the networks that are at hand; which ones is settled once, for every worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from e3dge_video.faces.landmarks.model_files import installed
from e3dge_video.inversion.refinement.objective import Objective
from e3dge_video.weights.bundle import sha256
from e3dge_video.weights.fetch import destination
from e3dge_video.weights.metric_networks import load_perceptual, load_recognizer
from e3dge_video.weights.public_files import public_file


@dataclass(frozen=True)
class MetricFiles:
    """SHA-256 of the metric networks' files, empty where there is none.

    Attributes:
        perceptual: AlexNet behind LPIPS.
        recognizer: IR-SE50 of the identity term.
    """

    perceptual: str = ""
    recognizer: str = ""


def find_metric_files() -> MetricFiles:
    """Those that `e3dge-video models fetch` has put on this machine; nothing is downloaded."""

    def hash_of(name: str) -> str:
        path = destination(public_file(name))
        return sha256(path) if path.is_file() else ""

    # The weights of LPIPS itself are a package's.
    return MetricFiles(hash_of("torchvision-alexnet") if installed("lpips") is not None else "", hash_of("ir-se50"))


@lru_cache(maxsize=1)
def load_objective(files: MetricFiles, device: str = "cpu") -> Objective:
    """What is lowered, with these networks.

    Raises:
        ModelError: A file is not on this machine, or holds something else.
    """
    return Objective(
        perceptual=load_perceptual().to(device) if files.perceptual else None,
        recognizer=load_recognizer().to(device) if files.recognizer else None,
    )
