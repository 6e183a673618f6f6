"""From files of other projects to a bundle under a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from e3dge_video.errors import ModelError
from e3dge_video.weights.boundaries import Boundary
from e3dge_video.weights.bundle import BundleSpec
from e3dge_video.weights.check_image import check_figures, check_image
from e3dge_video.weights.foreign import ForeignFile, read_foreign, tensor_groups
from e3dge_video.weights.import_e3dge import E3DGE_IMPORTER
from e3dge_video.weights.import_eg3d import EG3D_IMPORTER
from e3dge_video.weights.import_stylesdf import STYLESDF_IMPORTER
from e3dge_video.weights.importer import Importer
from e3dge_video.weights.install import check_name, install_bundle

#: All known projects; the first that recognises a file imports it. E3DGE's models contain StyleSDF's, so it goes first.
IMPORTERS: tuple[Importer, ...] = (EG3D_IMPORTER, E3DGE_IMPORTER, STYLESDF_IMPORTER)


@dataclass(frozen=True)
class Imported:
    """An import that is done.

    Attributes:
        folder: Where the bundle lies.
        spec: Its specification.
        project: Whose checkpoints they were.
        used: Number of foreign tensors taken over.
        ignored: Number of foreign entries left out; the reasons stand in the provenance.
    """

    folder: Path
    spec: BundleSpec
    project: str
    used: int
    ignored: int


def import_model(files: Sequence[Path], name: str, *, overwrite: bool = False, discriminator: bool = False) -> Imported:
    """Read checkpoints of another project, and any folders of boundaries for them, and install them as a bundle.

    Nothing in the files is executed. The bundle appears under its name whole or not at all.

    Args:
        files: The files and folders.
        name: Name of the bundle.
        overwrite: Replace an imported bundle of this name.
        discriminator: Keep what the generator was trained against, for adversarial training.

    Raises:
        ModelError: In one line: a file that cannot be read or is not known, tensors that do not fit, a name in use.
    """
    check_name(name, overwrite=overwrite)
    foreign = [read_foreign(path) for path in files]
    models = [file for file in foreign if file.kind != "boundaries"]
    importer = _importer(models, foreign)
    converted = importer.convert(models, _boundaries(foreign), discriminator)
    image = check_image(converted.generator)
    if not torch.isfinite(image).all():
        raise ModelError(f"{models[0].path}: its generator draws pictures that are no finite numbers; it is damaged")
    spec = replace(converted.spec, name=name, provenance=converted.provenance(foreign), check=check_figures(image))
    folder, written = install_bundle(spec, converted.tensors, overwrite=overwrite)
    ignored = sum(len(names) for names in converted.ignored.values())
    return Imported(folder, written, importer.name, converted.used, ignored)


def _importer(models: Sequence[ForeignFile], foreign: Sequence[ForeignFile]) -> Importer:
    for importer in IMPORTERS:
        if any(importer.recognises(file) for file in models):
            return importer
    known = ", ".join(importer.name for importer in IMPORTERS)
    if not models:
        raise ModelError(f"{foreign[0].path}: boundaries belong to a generator; give its checkpoint, too")
    file = models[0]
    groups = {f"{group}.": tensors for group, tensors in tensor_groups(file.values).items()}
    names = [(group + key).removeprefix(".") for group, tensors in groups.items() for key in tensors]
    holds = f"its tensors are called {', '.join(names[:3])}, …" if names else "it holds no tensors"
    raise ModelError(f"{file.path}: is no checkpoint that this version can import ({holds}); it can import: {known}")


def _boundaries(foreign: Sequence[ForeignFile]) -> dict[str, Boundary]:
    """The boundaries of all folders, by name."""
    found: dict[str, Boundary] = {}
    for file in foreign:
        if file.kind == "boundaries":
            if twice := file.values.keys() & found.keys():
                raise ModelError(f"{file.path}: boundary {min(twice)} is in another folder, too; give one of them")
            found |= file.values
    return found
