import importlib.util

import pytest

from e3dge_video.training.head_views import HeadViews

HELD_OUT = 3


@pytest.fixture(scope="session")
def tiny_heads(tmp_path_factory):
    """A data set of ten heads, two views of 64 px each."""
    if importlib.util.find_spec("anny") is None:
        pytest.skip("procedural heads need the extra [heads]")
    from e3dge_video.heads.dataset import write_dataset

    folder = tmp_path_factory.mktemp("heads") / "tiny"
    write_dataset(folder, 10, views=2, size=64, seed=5, workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_views(tiny_heads):
    return HeadViews(tiny_heads, HELD_OUT)
