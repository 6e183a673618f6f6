import importlib.util

import pytest

from e3dge_video.training.head_views import HeadViews

HELD_OUT = 3


@pytest.fixture(scope="session")
def render_heads(tmp_path_factory):
    """Renders a small data set of two views of 64 px each."""
    if importlib.util.find_spec("anny") is None:
        pytest.skip("procedural heads need the extra [heads]")
    from e3dge_video.heads.dataset import write_dataset

    def render(count, **options):
        folder = tmp_path_factory.mktemp("heads") / "tiny"
        return write_dataset(folder, count, views=2, size=64, workers=1, progress=False, **options)

    return render


@pytest.fixture(scope="session")
def tiny_heads(render_heads):
    """Ten heads."""
    return render_heads(10, seed=5)


@pytest.fixture(scope="session")
def tiny_views(tiny_heads):
    return HeadViews(tiny_heads, HELD_OUT)


@pytest.fixture(scope="session")
def tiny_pairs(render_heads):
    """Eight heads, each followed by its wrinkled copy."""
    return render_heads(8, seed=6, edit_share=1.0, edits=("wrinkles",))
