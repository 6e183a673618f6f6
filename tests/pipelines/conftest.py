"""One Ray and one tiny model for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.support.portraits import Studio
from tests.support.talking_clip import write_talk
from tests.support.tiny_model import write_tiny_bundle

if TYPE_CHECKING:
    from e3dge_video.pipelines.core.rayexec import RaySession


@pytest.fixture(scope="session")
def ray_session() -> Iterator[RaySession]:
    """Starting Ray takes seconds."""
    rayexec = pytest.importorskip("e3dge_video.pipelines.core.rayexec")
    session = rayexec.RaySession("local", object_store_mb=200)
    session.connect()
    yield session
    session.close()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A clip of 68 frames: two shots, a gap without a face longer than what is bridged, across chunk borders."""
    folder = tmp_path_factory.mktemp("studio")
    talk = write_talk(folder, frames=68, missing=range(26, 38), cut=50)
    return Studio(write_tiny_bundle(folder / "tiny"), talk)
