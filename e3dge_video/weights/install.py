"""Put a bundle under its name in the user's cache: whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.weights.boundaries import on_layers
from e3dge_video.weights.bundle import EDITS_FILE, Bundle, BundleSpec, EditSpec, write_bundle
from e3dge_video.weights.catalog import bundle_roots, imported_bundles


def check_name(name: str, *, overwrite: bool = False) -> None:
    """Refuse a name before any work is done for it.

    Raises:
        ModelError: It cannot be a folder's name, is taken by a shipped model, or by an imported one that may not be
            overwritten.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ModelError(
            f"--as {name}: a model's name has only letters, digits and . _ - and begins with one of the first"
        )
    target = imported_bundles() / name
    for root in bundle_roots():
        if root != target.parent and (root / name).exists():
            raise ModelError(f"--as {name}: is the name of a model that comes with e3dge-video; choose another one")
    if target.exists() and not overwrite:
        raise ModelError(f"{target}: is there already; choose another name with --as, or give --overwrite")


def install_bundle(
    spec: BundleSpec, tensors: Mapping[str, Mapping[str, Tensor]], *, overwrite: bool = False
) -> tuple[Path, BundleSpec]:
    """Write a bundle, weights in fp32, under `spec.name`.

    Args:
        spec: Its specification.
        tensors: Tensors of each file.
        overwrite: Replace an imported model of this name.

    Returns:
        Its folder, and its specification with the files' SHA-256.

    Raises:
        ModelError: The name cannot be used, or the bundle cannot be written.
    """
    check_name(spec.name, overwrite=overwrite)
    target = imported_bundles() / spec.name
    partial, former = (target.with_name(f".{spec.name}.{os.getpid()}.{kind}") for kind in ("partial", "former"))
    try:
        written = write_bundle(partial, replace(spec, files={}), tensors, exact=True)
        if target.exists():
            target.rename(former)
        partial.rename(target)
    except OSError as error:
        if former.exists() and not target.exists():
            former.rename(target)
        raise ModelError(f"{target}: cannot be written ({error}); is the disk full or the folder not yours?") from error
    finally:
        for leftover in (partial, former):
            shutil.rmtree(leftover, ignore_errors=True)
    return target, written


def install_with_edits(
    source: Bundle,
    name: str,
    directions: Mapping[str, Tensor],
    edits: Mapping[str, EditSpec],
    *,
    origin: Mapping[str, Any],
    overwrite: bool = False,
) -> tuple[Path, BundleSpec]:
    """Write a copy of a bundle with further edits; those of the same names are replaced.

    Args:
        source: The bundle, read with its discriminator if it has one.
        name: Name of the copy.
        directions: One for each edit, in all rows, whatever its layers. [L, W] each
        edits: How each may be used.
        origin: How each was found, for the provenance.
        overwrite: Replace an imported model of this name.

    Raises:
        ModelError: The name cannot be used, or the copy cannot be written.
    """
    spec = source.spec
    added = {**spec.provenance.get("added_edits", {}), **origin}
    spec = replace(spec, name=name, edits={**spec.edits, **edits}, provenance={**spec.provenance, "added_edits": added})
    moved = {edit: on_layers(direction, edits[edit]) for edit, direction in directions.items()}
    tensors = {**source.tensors, EDITS_FILE: {**source.tensors.get(EDITS_FILE, {}), **moved}}
    return install_bundle(spec, tensors, overwrite=overwrite)
