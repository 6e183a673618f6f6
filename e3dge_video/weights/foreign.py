"""Files of other projects: what each one is, told from its bytes, and its contents as plain values and tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.weights.boundaries import boundary_files, read_boundaries
from e3dge_video.weights.bundle import sha256
from e3dge_video.weights.eg3d_pickle import EG3DPickle
from e3dge_video.weights.torch_files import LEGACY, ZIPPED, read_torch

Kind = Literal["EG3D pickle", "torch file", "safetensors file", "options", "boundaries"]

_MAX_OPTIONS = 1_000_000  # bytes of a JSON file
_MAX_NAME = 200  # characters of a tensor's name


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """A file, or a folder of boundaries, that another project wrote.

    Attributes:
        path: Where it lies.
        kind: What it is.
        values: Its contents, nested as in the file: tensors and plain values; empty for an EG3D pickle.
        pickle: The opened EG3D pickle, if it is one.
        files: Name, size in bytes and SHA-256 of it, or of each file of a folder.
    """

    path: Path
    kind: Kind
    values: Mapping[str, Any]
    pickle: EG3DPickle | None = None
    files: list[dict[str, Any]] = field(default_factory=list)


def read_foreign(path: Path) -> ForeignFile:
    """Find out what a file is and read it, without executing anything in it.

    Raises:
        ModelError: Not there, not known, damaged, or it tries to do more than hold values.
    """
    if path.is_dir():
        boundaries = read_boundaries(path)
        return ForeignFile(path, "boundaries", boundaries, files=[_origin(file) for file in boundary_files(path)])
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if not head:
        raise ModelError(f"{path}: is empty; the download failed, get it again")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise ModelError(
            f"{path}: is a web page saved under this name, not a checkpoint; open the address in a browser, "
            "confirm the download there and save the file itself"
        )
    if head.startswith((ZIPPED, LEGACY)):
        return ForeignFile(path, "torch file", _checked_names(read_torch(path), path), files=[_origin(path)])
    if head[:1] == b"\x80":
        return ForeignFile(path, "EG3D pickle", {}, EG3DPickle(path), files=[_origin(path)])
    if len(head) > 8 and head[8:9] == b"{":
        return ForeignFile(path, "safetensors file", _read_safetensors(path), files=[_origin(path)])
    if head.lstrip()[:1] == b"{":
        return ForeignFile(path, "options", _read_options(path), files=[_origin(path)])
    raise ModelError(
        f"{path}: is none of the files that can be imported (EG3D pickle, torch checkpoint, safetensors, JSON options, "
        "folder of boundaries)"
    )


def tensor_groups(values: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """State dictionaries in a checkpoint: `{"": …}` if it is one itself, else by the name under which each stands."""
    flat = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    groups = {"": flat} if flat else {}
    for name, inner in values.items():
        if isinstance(inner, Mapping):
            found = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
            if found:
                groups[name] = found
    return groups


def checked_floats(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors in fp32.

    Raises:
        ModelError: One holds no floating-point numbers, some that are not finite, or more than are stored.
    """
    for key, value in tensors.items():
        if not value.is_floating_point() or value.layout is not torch.strided:
            raise ModelError(
                f"{source}: {key} holds {value.dtype} instead of floats; the file is damaged, get it again"
            )
        # A view may show the same few numbers again and again: it would fill the memory when it is worked with.
        if value.is_meta or value.nbytes > value.untyped_storage().nbytes():
            raise ModelError(f"{source}: {key} describes more values than are stored; the file is damaged")
        if not torch.isfinite(value).all():
            raise ModelError(f"{source}: {key} has values that are NaN or infinite; the file is damaged, get it again")
    return {key: value.float() for key, value in tensors.items()}


def _origin(path: Path) -> dict[str, Any]:
    name = f"{path.parent.name}/{path.name}" if path.name == "boundary.npy" else path.name
    return {"name": name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        values = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); is the download complete?") from error
    return _checked_names(values, path)


def _checked_names(values: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """The same table, if its names are fit for one line."""
    for table in (values, *(inner for inner in values.values() if isinstance(inner, Mapping))):
        for key in table:
            if not isinstance(key, str | int) or not str(key).isprintable() or len(str(key)) > _MAX_NAME:
                raise ModelError(f"{path}: {repr(key)[:_MAX_NAME]} is no name of a tensor; the file is damaged")
    return {str(key): value for key, value in values.items()}


def _read_options(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_OPTIONS:
            raise ValueError(f"larger than {_MAX_OPTIONS} bytes")
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as JSON options ({error})") from error
