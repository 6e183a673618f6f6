"""The corpus of odd videos, made once per test run."""

from __future__ import annotations

from collections.abc import Callable

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
