"""Checkpoints that their authors publish: where, how large, under which licence. Facts in `public_files.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from e3dge_video.errors import ModelError


@dataclass(frozen=True)
class PublicFile:
    """A published checkpoint.

    Attributes:
        name: What `models fetch` calls it.
        file: Its file name.
        what: What it is, in words.
        licence: Name of its licence.
        terms: Where the licence can be read.
        url: Where it can be downloaded; None: no address is known that gives the file itself.
        page: The page on which it is published, if there is no such address.
        bytes: Its size; None: not publicly known.
        md5: The hash its authors state; None: not publicly known.
        sha256_prefix: First digits of its SHA-256, which torch hub's file names carry; None: not publicly known.
        folder: Where it is looked for: among our downloads, or where torch hub keeps weights.
        importable: Whether `models import` is what it is for.
        beside: Names of the files that an import needs beside it.
    """

    name: str
    file: str
    what: str
    licence: str
    terms: str
    url: str | None = None
    page: str | None = None
    bytes: int | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    folder: Literal["downloads", "torch_hub"] = "downloads"
    importable: bool = True
    beside: tuple[str, ...] = ()


@cache
def public_files() -> dict[str, PublicFile]:
    """All known published checkpoints, by name."""
    facts = json.loads((files("e3dge_video") / "weights" / "public_files.json").read_text(encoding="utf-8"))
    found = {}
    for entry in facts["files"]:
        licence = facts["licences"][entry["licence"]]
        values = {**entry, "licence": licence["name"], "terms": licence["terms"]}
        values["beside"] = tuple(entry.get("beside", ()))
        found[entry["name"]] = PublicFile(**values)
    return found


def public_file(name: str) -> PublicFile:
    """The published checkpoint of this name.

    Raises:
        ModelError: None is called so.
    """
    known = public_files()
    if name not in known:
        raise ModelError(f"{name}: no published checkpoint is known by this name; known are {', '.join(known)}")
    return known[name]


def published_as(path: Path) -> PublicFile | None:
    """The published checkpoint that a file is, byte for byte; None: none of those whose size and MD5 are known."""
    size = path.stat().st_size
    alike = [entry for entry in public_files().values() if entry.bytes == size and entry.md5 is not None]
    if not alike:
        return None
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return next((entry for entry in alike if entry.md5 == md5), None)
