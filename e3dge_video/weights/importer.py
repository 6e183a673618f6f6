"""What an importer is: it knows the checkpoints of one project and says what they are in our terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.errors import ModelError
from e3dge_video.models.generators.base import Generator
from e3dge_video.weights.boundaries import Boundary
from e3dge_video.weights.bundle import DISCRIMINATOR_FILE, BundleSpec
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

    def judged_by(
        self,
        config: DiscriminatorConfig,
        tensors: Mapping[str, Tensor],
        file: Path,
        entry: str,
        ignored: Mapping[str, Sequence[str]],
    ) -> Converted:
        """The same with the discriminator that the generator was trained against.

        Args:
            config: Its sizes.
            tensors: Its tensors, under our names.
            file: Where it comes from.
            entry: Its name there.
            ignored: Reason → foreign names of its own that were not taken over for it.

        Raises:
            ModelError: It judges pictures of another size than the generator's.
        """
        spec = self.spec
        if config.resolution != spec.resolution:
            raise ModelError(
                f"{file}: {entry} judges pictures of {config.resolution} px, but the generator draws "
                f"{spec.resolution} px; import the model without --discriminator"
            )
        left_out = {reason: [key for key in keys if key != entry] for reason, keys in self.ignored.items()}
        for reason, keys in ignored.items():
            left_out[reason] = left_out.get(reason, []) + [f"{entry}.{key}" for key in keys]
        provenance = {**spec.provenance, "discriminator": f"{file.name}: {entry}"}
        return replace(
            self,
            spec=replace(spec, discriminator=config, provenance=provenance),
            tensors={**self.tensors, DISCRIMINATOR_FILE: dict(tensors)},
            used=self.used + len(tensors),
            ignored={reason: keys for reason, keys in left_out.items() if keys},
        )


@dataclass(frozen=True)
class Importer:
    """The checkpoints of one project.

    Attributes:
        name: The project.
        recognises: Whether a file is one of its model files.
        convert: Its model files, with any options, boundaries for them by name, and whether to keep the discriminator →
            the model with its edits. Raises `ModelError` if they do not make one.
    """

    name: str
    recognises: Callable[[ForeignFile], bool]
    convert: Callable[[Sequence[ForeignFile], Mapping[str, Boundary], bool], Converted]
