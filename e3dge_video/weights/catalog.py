"""Where bundles are found: shipped with the package, then the user's cache, or any folder by path."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from e3dge_video.config.paths import cache_root
from e3dge_video.errors import ModelError


def bundle_roots() -> list[Path]:
    """Folders that hold bundles, in the order in which they are searched."""
    return [Path(str(files("e3dge_video") / "bundles")), imported_bundles()]


def imported_bundles() -> Path:
    """Folder in the user's cache that imported bundles are written to."""
    return cache_root() / "models"


def installed_bundles() -> Iterator[Path]:
    """Folders of all bundles found by name; the first of a name wins."""
    seen = set()
    for root in bundle_roots():
        for path in sorted(root.glob("*/model.json")):
            if path.parent.name not in seen and not path.parent.name.startswith("."):  # a dot: not whole yet
                seen.add(path.parent.name)
                yield path.parent


def find_bundle(name: str) -> Path:
    """Folder of a bundle given by name or by path.

    Raises:
        ModelError: Nothing there; the message lists what is.
    """
    if (Path(name) / "model.json").is_file():
        return Path(name)
    for folder in installed_bundles():
        if folder.name == name:
            return folder
    known = ", ".join(folder.name for folder in installed_bundles()) or "none"
    raise ModelError(f"{name}: no such model bundle; installed: {known} (a folder with a model.json also serves)")
