"""Torch checkpoints, by torch's own reader of weights only, after a look at what it would be made to do."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from e3dge_video.errors import ModelError
from e3dge_video.weights.plain_pickle import Builder, Record, read_pickle

#: First pickle of the older format: the magic number.
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
ZIPPED = b"PK\x03\x04"
_MAX_STEPS = 2_000_000  # with optimisers' states, checkpoints have some 200 000
_MAX_PICKLE = 64_000_000  # bytes of the description of a zipped checkpoint; the numbers stand beside it


def read_torch(path: Path) -> dict[Any, Any]:
    """The table that a `.pt` file holds, on the CPU. Nothing in the file is executed.

    Raises:
        ModelError: Damaged, too large for what it is, or more than tensors and plain values.
    """
    try:
        _look(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).partition("\n")[0][:200]
        if "weights only" in reason.lower() or "weights_only" in reason.lower():
            reason = "it refers to more than tensors and plain values, and nothing in it is executed"
        raise ModelError(f"{path}: cannot be read as a torch checkpoint ({reason}); is it complete?") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds {type(values).__name__}, no table of tensors; it is no checkpoint of a model")
    return values


def _look(path: Path) -> None:
    """Refuse what torch's reader would unpack without a limit, or crash on: tables whose keys are nested tuples."""
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if data[: len(ZIPPED)] != ZIPPED:
        place = 0
        for _ in range(5):  # magic number, version, system, the checkpoint itself, names of its storages
            _, place = _describe(data, place, path)
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # Torch never compresses; what would grow when it is unpacked is a bomb.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ModelError(f"{path}: unpacks to more than its own size, as no torch checkpoint does")
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                if entry.file_size > _MAX_PICKLE:
                    raise ModelError(
                        f"{path}: describes more tensors than any checkpoint has; is it what it should be?"
                    )
                _describe(memoryview(archive.read(entry)), 0, path)


def _describe(data: memoryview, place: int, path: Path) -> tuple[Any, int]:
    return read_pickle(data, str(path), _Anything(), start=place, steps=_MAX_STEPS, persistent=lambda key: None)


class _Anything(Mapping[str, Builder]):
    """Lets any name pass: which ones may be used is torch's own list."""

    def __getitem__(self, name: str) -> Builder:
        if name == "collections.OrderedDict":
            return _table
        return lambda *arguments: Record(name)

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _table(pairs: Any = ()) -> dict[str, Any]:
    """An ordered table, empty or, as Python 2 wrote it, with all its pairs; torch's reader will hash their keys."""
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
    ):
        raise ValueError("a table is made of pairs")
    if not all(isinstance(key, str) for key, _ in pairs):
        raise ValueError("a key is no text")
    return dict(pairs)
