"""Imports that must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from e3dge_video.errors import ModelError
from e3dge_video.weights.importing import import_model


def refusal(cache: Path, *files: Path) -> str:
    """The one line with which an import is refused; it leaves nothing behind."""
    with pytest.raises(ModelError) as caught:
        import_model(files, "new")
    assert not cache.exists()
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line
