"""What all tests may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real test media, which lies outside the repository."""
    folder = os.environ.get("E3DGE_TEST_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("E3DGE_TEST_MEDIA does not name the folder with test media")
    return Path(folder)
