"""What an importer is: it knows the checkpoints of one project and says what they are in our terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from e3dge_video.models.generators.base import Generator
from e3dge_video.weights.boundaries import Boundary
from e3dge_video.weights.bundle import BundleSpec
from e3dge_video.weights.foreign import ForeignFile


@dataclass(frozen=True)
class Converted:
    """A foreign model in our terms.

    Attributes:
        spec: Its specification; name, check figures and the origin of the files are filled in later.
        tensors: Tensors of each of our files, fp32.
        generator: The generator itself, loaded, in evaluation mode.
        used: Number of foreign tensors that were taken over.
        ignored: Reason → foreign names that were not taken over for it.
    """

    spec: BundleSpec
    tensors: dict[str, dict[str, Tensor]]
    generator: Generator
    used: int
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def provenance(self, files: Sequence[ForeignFile]) -> dict[str, Any]:
        """What is written down about where the bundle comes from."""
        origin = [{**entry, "kind": file.kind} for file in files for entry in file.files]
        return {"imported": origin, **self.spec.provenance, "used": self.used, "ignored": self.ignored}


@dataclass(frozen=True)
class Importer:
    """The checkpoints of one project.

    Attributes:
        name: The project.
        recognises: Whether a file is one of its model files.
        convert: Its model files, with any options, and boundaries for them by name → the model with its edits. Raises
            `ModelError` if they do not make one.
    """

    name: str
    recognises: Callable[[ForeignFile], bool]
    convert: Callable[[Sequence[ForeignFile], Mapping[str, Boundary]], Converted]
