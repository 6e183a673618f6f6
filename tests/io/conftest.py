"""The corpus of odd videos, made once per test run, and the folder of real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from video_cases import MAKERS, Clip


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clip]:
    """Give the clip of a name in `MAKERS`; made when first asked for."""
    folder = tmp_path_factory.mktemp("corpus")
    made: dict[str, Clip] = {}

    def get(name: str) -> Clip:
        if name not in made:
            made[name] = MAKERS[name](folder, name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def media() -> Path:
    """The shared folder of real test media."""
    folder = os.environ.get("E3DGE_TEST_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("E3DGE_TEST_MEDIA is not set to the folder of test media")
    return Path(folder)
