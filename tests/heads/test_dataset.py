"""Data sets on disk: same bytes whatever the workers, resume, reading, errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from e3dge_video.errors import InputError
from e3dge_video.heads.dataset import HeadDataset, write_dataset
from e3dge_video.heads.decode import decode
from e3dge_video.heads.latent import Z_DIM

SMALL = {
    "count": 4,
    "views": 2,
    "size": 32,
    "seed": 3,
    "maps": ("depth", "label", "normal"),
    "edit_share": 0.5,
    "shard_rows": 2,
    "progress": False,
}


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("heads") / "one", **SMALL)  # type: ignore[arg-type]


def test_worker_count_does_not_change_the_bytes(folder: Path, tmp_path: Path) -> None:
    again = write_dataset(tmp_path / "two", **SMALL, workers=2)  # type: ignore[arg-type]
    assert _digests(again) == _digests(folder)


def test_resume_renders_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before = _digests(copy)
    (copy / "shard_00001.safetensors").unlink()
    (copy / "shard_00001.safetensors.999.tmp").write_bytes(b"half a shard")
    untouched = (copy / "shard_00000.safetensors").stat().st_mtime_ns
    write_dataset(copy, **SMALL)  # type: ignore[arg-type]
    (copy / "shard_00001.safetensors.999.tmp").unlink()
    assert _digests(copy) == before
    assert (copy / "shard_00000.safetensors").stat().st_mtime_ns == untouched


def test_reader_gives_consistent_rows(folder: Path) -> None:
    data = HeadDataset(folder)
    assert len(data) >= SMALL["count"] and data.small("z").shape == (len(data), Z_DIM)  # type: ignore[operator]
    for row in range(len(data)):
        rgba, depth, label = (data.array(name, row) for name in ("rgba", "depth", "label"))
        assert rgba.shape == (2, 32, 32, 4) and depth.dtype == np.float16
        np.testing.assert_array_equal(depth > 0, label > 0)
        assert (rgba[..., 3][depth > 0] >= 64).all()
        years = decode(np.asarray(data.array("z", row))).phenotype.age_years
        age = data.array("attributes", row)[data.attribute_names.index("age")]
        assert age == pytest.approx((years - 8) / 80, abs=1e-5)
    for plain, edited in data.pairs():
        assert data.array("identity", plain) == data.array("identity", edited)
        np.testing.assert_array_equal(data.array("cameras", plain), data.array("cameras", edited))
    with pytest.raises(IndexError):
        data.array("z", len(data))


def test_other_numbers_in_the_same_folder_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="rendered differently"):
        write_dataset(folder, **{**SMALL, "seed": 4})  # type: ignore[arg-type]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no head data set"):
        HeadDataset(tmp_path)
    with pytest.raises(InputError, match="count, views"):
        write_dataset(tmp_path / "bad", count=1, maps=("colour",), progress=False)
