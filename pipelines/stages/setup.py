"""Loading the model into a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.load import load_portrait_model
from e3dge_video.inversion.paper import PaperInverter


@dataclass(frozen=True)
class SetupModel:
    """Load the inverter.

    Attributes:
        model: Folder of the bundle.
        device: Where the networks run.
        threads: Threads of the networks on a CPU; like the device, part of the result's last bits.
        files: SHA-256 of the bundle's files: a changed model is another result.
        toon: Degree of toonification, 0 to 1.
    """

    model: Path
    device: str
    threads: int
    files: tuple[tuple[str, str], ...]
    toon: float = 0.0

    def __call__(self) -> Inverter | PaperInverter:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        return load_portrait_model(str(self.model), device=self.device, toon=self.toon)
