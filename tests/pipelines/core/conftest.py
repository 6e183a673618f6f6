"""Bodies of the fake pipeline reach Ray's workers by value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e3dge_video.pipelines.core.rayexec import RaySession


@pytest.fixture(scope="session")
def ray_session(ray_session: RaySession) -> RaySession:
    """The session's Ray, whose workers cannot import from the tests' folder."""
    import fake_portrait

    from e3dge_video.pipelines.core import rayexec

    rayexec.ray.cloudpickle.register_pickle_by_value(fake_portrait)
    return ray_session
