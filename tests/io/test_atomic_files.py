"""Files appear whole or not at all."""

from __future__ import annotations

import pytest

from e3dge_video.io import atomic


def test_a_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "a.bin"
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists() and temporary.parent == tmp_path
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    atomic.write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
