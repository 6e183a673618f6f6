"""Landmarks from files, and the small rules that all back ends share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from e3dge_video.errors import BackendError, ConfigError
from e3dge_video.faces.landmarks import Face, LandmarkOptions, SearchSquare, load_backend
from e3dge_video.faces.landmarks.base import largest_first, overlap
from e3dge_video.faces.landmarks.mesh import IBUG_MIRROR, MESH_TO_IBUG

FRAME = np.zeros((4, 4, 3), dtype=np.uint8)


def points(x: float, size: float = 50.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (rng.uniform(0, size, (68, 2)) + np.array((x, 10))).astype(np.float32)


def test_arrays_with_several_faces_scores_and_indices(tmp_path: Path) -> None:
    data = np.full((3, 2, 68, 2), np.nan, dtype=np.float32)
    data[0, 0], data[0, 1], data[2, 1] = points(10), points(200, 80), points(12)
    path = tmp_path / "points.npz"
    np.savez(path, points=data, index=[5, 6, 7], score=[[0.5, 0.9], [0, 0], [0, 0.7]])
    backend = load_backend(LandmarkOptions(backend="file", points_file=path))
    assert [len(backend.detect(FRAME, i)) for i in range(4, 9)] == [0, 2, 0, 1, 0]
    large, small = backend.detect(FRAME, 5)
    np.testing.assert_array_equal(large.points, points(200, 80))
    assert (large.score, small.score) == pytest.approx((0.9, 0.5))
    tracked = backend.track(FRAME, 7, small)
    assert tracked is not None and tracked.score == pytest.approx(0.7)
    assert backend.track(FRAME, 7, large) is None


def test_one_face_per_frame_and_json(tmp_path: Path) -> None:
    plain = tmp_path / "plain.npz"
    np.savez(plain, points=np.stack([points(1), points(2)]))
    assert len(load_backend(LandmarkOptions(points_file=plain)).detect(FRAME, 1)) == 1
    entries = [points(1).tolist(), None, [points(3).tolist(), points(300).tolist()]]
    listed, keyed = tmp_path / "list.json", tmp_path / "keyed.json"
    listed.write_text(json.dumps(entries))
    keyed.write_text(json.dumps({"2": entries[2], "0": entries[0]}))
    for path in (listed, keyed):
        backend = load_backend(LandmarkOptions(points_file=path))
        assert [len(backend.detect(FRAME, i)) for i in range(4)] == [1, 0, 2, 0]
        np.testing.assert_allclose(backend.detect(FRAME, 0)[0].points, points(1))


@pytest.mark.parametrize("content", [b"", b"[[1, 2, 3]]", b"{", b'{"a": null}', b"\x00\x01"])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    for name in ("bad.json", "bad.npz"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BackendError, match=name):
            load_backend(LandmarkOptions(backend="file", points_file=path))
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, points=np.zeros((3, 5, 2)))
    with pytest.raises(BackendError, match="68"):
        load_backend(LandmarkOptions(backend="file", points_file=wrong))
    with pytest.raises(BackendError, match="no such"):
        load_backend(LandmarkOptions(backend="file", points_file=tmp_path / "none.npz"))
    with pytest.raises(ConfigError, match="points_file"):
        load_backend(LandmarkOptions(backend="file"))


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="views"):
        LandmarkOptions(views=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_faces"):
        LandmarkOptions(max_faces=0)
    with pytest.raises(ConfigError, match="unknown landmark back end"):
        load_backend(LandmarkOptions(backend="haar"))  # type: ignore[arg-type]


def test_the_same_face_found_twice_counts_once() -> None:
    square = SearchSquare(0, 0, 1)
    faces = [Face(points(0), 0.8, square), Face(points(3), 0.9, square), Face(points(200, 90), 0.7, square)]
    kept = largest_first(faces, 4)
    assert [f.score for f in kept] == [0.7, 0.9]
    assert [f.score for f in largest_first(faces, 1)] == [0.7]
    assert overlap(np.array((0, 0, 2, 2.0)), np.array((1, 0, 3, 2.0))) == pytest.approx(1 / 3)
    assert overlap(np.array((0, 0, 2, 2.0)), np.array((5, 0, 7, 2.0))) == 0


def test_the_mirror_map_is_its_own_inverse_and_fits_the_vertices() -> None:
    np.testing.assert_array_equal(IBUG_MIRROR[IBUG_MIRROR], np.arange(68))
    assert MESH_TO_IBUG.shape == (68, 2) and MESH_TO_IBUG.min() >= 0 and MESH_TO_IBUG.max() < 468
    # iBUG points on the midline are their own mirror images: chin, nose bridge and tip, lip centres.
    np.testing.assert_array_equal(np.flatnonzero(np.arange(68) == IBUG_MIRROR), [8, 27, 28, 29, 30, 33, 51, 57, 62, 66])
    # A point built from two vertices has a mirror image built from two.
    two = MESH_TO_IBUG[:, 0] != MESH_TO_IBUG[:, 1]
    np.testing.assert_array_equal(two, two[IBUG_MIRROR])


def test_squares_measure_how_far_they_moved() -> None:
    base = SearchSquare(100, 100, 50, 3.1)
    assert base.moved_from(base) == 0
    assert SearchSquare(105, 100, 50, 3.1).moved_from(base) == pytest.approx(0.1)
    assert SearchSquare(100, 100, 55, 3.1).moved_from(base) == pytest.approx(np.log(1.1))
    assert SearchSquare(100, 100, 50, -3.1).moved_from(base) == pytest.approx(2 * np.pi - 6.2)
