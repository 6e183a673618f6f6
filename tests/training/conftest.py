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


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory):
    """A data set of eight heads, each followed by its wrinkled copy."""
    if importlib.util.find_spec("anny") is None:
        pytest.skip("procedural heads need the extra [heads]")
    from e3dge_video.heads.dataset import write_dataset

    folder = tmp_path_factory.mktemp("heads") / "pairs"
    write_dataset(folder, 8, views=2, size=64, seed=6, workers=1, edit_share=1.0, edits=("wrinkles",), progress=False)
    return folder
