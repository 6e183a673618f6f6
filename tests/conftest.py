"""What all tests may ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.portraits import Studio


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real test media, which lies outside the repository."""
    folder = os.environ.get("E3DGE_TEST_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("E3DGE_TEST_MEDIA does not name the folder with test media")
    return Path(folder)


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A tiny model and a clip of 68 frames: two shots, and a gap without a face longer than what is bridged."""
    from tests.support.portraits import Studio
    from tests.support.talking_clip import write_talk
    from tests.support.tiny_model import write_tiny_bundle

    folder = tmp_path_factory.mktemp("studio")
    talk = write_talk(folder, frames=68, missing=range(26, 38), cut=50)
    return Studio(write_tiny_bundle(folder / "tiny"), talk)
