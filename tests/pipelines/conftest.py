"""One Ray for all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

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
