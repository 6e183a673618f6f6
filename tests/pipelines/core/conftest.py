"""One Ray for all tests of the session: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e3dge_video.pipelines.core.rayexec import RaySession


@pytest.fixture(scope="session")
def ray_session() -> Iterator[RaySession]:
    rayexec = pytest.importorskip("e3dge_video.pipelines.core.rayexec")
    import fake_portrait

    session = rayexec.RaySession("local", object_store_mb=200)
    session.connect()
    # Workers cannot import from the tests' folder.
    rayexec.ray.cloudpickle.register_pickle_by_value(fake_portrait)
    yield session
    session.close()
