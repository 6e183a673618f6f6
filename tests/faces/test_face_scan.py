"""The scan's schedule, and that a video may be cut into spans anyhow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_face import face_points, scene

from e3dge_video.errors import BackendError
from e3dge_video.faces.landmarks import Face, LandmarkOptions, SearchSquare, load_backend
from e3dge_video.faces.landmarks.base import LandmarkBackend
from e3dge_video.faces.scan import BLOCK, ScanResult, scan_frames

SHAPE = (face_points()[:, :2] * (1, -1) * 100).astype(np.float32)


class Pretender:
    """Knows where the faces are; tracking depends on the previous face, as real back ends do."""

    name = "pretender"
    silhouette_jaw = False

    def __init__(self, faces: Callable[[int], list[float]], loses: set[int] | None = None) -> None:
        self.faces, self.loses = faces, loses or set()
        self.calls: list[tuple[str, int]] = []

    def detect(self, frame: NDArray[np.uint8], index: int) -> list[Face]:
        self.calls.append(("detect", index))
        return [self._face(x) for x in self.faces(index)]

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        self.calls.append(("track", index))
        if index in self.loses or not self.faces(index):
            return None
        near = min(self.faces(index), key=lambda x: abs(x - previous.search.x))
        return self._face(0.9 * near + 0.1 * previous.search.x)

    @staticmethod
    def _face(x: float) -> Face:
        return Face(SHAPE + np.float32((x, 50)), 0.9, SearchSquare(x, 50, 40))


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [scene(0, i % 40) for i in range(count)]


def same(a: ScanResult, b: ScanResult) -> None:
    for name, value in a.arrays().items():
        np.testing.assert_array_equal(value, b.arrays()[name], err_msg=name)


def in_spans(frames: list[NDArray[np.uint8]], backend: LandmarkBackend, size: int) -> ScanResult:
    spans = range(0, len(frames), size)
    # In another order, as workers would.
    parts = {i: scan_frames(frames[i : i + size], i, backend) for i in reversed(spans)}
    return ScanResult.concatenate([parts[i] for i in spans])


@pytest.mark.parametrize("size", [16, 32, 64, 112])
def test_spans_of_any_size_give_the_same_scan(size: int) -> None:
    def faces(i: int) -> list[float]:
        return [50 + i / 3] + ([120.0] if i % 50 > 30 else []) if i % 37 > 5 else []

    frames = pictures(112)
    same(scan_frames(frames, 0, Pretender(faces, {9, 70})), in_spans(frames, Pretender(faces, {9, 70}), size))


def test_detection_runs_on_the_schedule_and_when_a_face_is_lost() -> None:
    backend = Pretender(lambda i: [60.0], loses={21})
    scan_frames(pictures(48), 0, backend)
    assert [i for kind, i in backend.calls if kind == "detect"] == [0, BLOCK, 21, 2 * BLOCK]
    assert sum(kind == "track" for kind, _ in backend.calls) == 48 - 3


def test_detection_runs_at_a_cut_even_if_tracking_would_go_on() -> None:
    backend = Pretender(lambda i: [60.0])
    scan_frames(pictures(5) + [scene(3, i) for i in range(5)], 0, backend)
    assert ("detect", 5) in backend.calls and ("track", 5) not in backend.calls


def test_a_span_may_start_anywhere() -> None:
    backend = Pretender(lambda i: [60.0])
    result = scan_frames(pictures(20), 37, backend)
    assert [i for kind, i in backend.calls if kind == "detect"] == [37, 48]
    assert result.first_index == 37 and len(result) == 20


def test_faces_are_padded_with_nan_and_spans_must_join() -> None:
    one = scan_frames(pictures(16), 0, Pretender(lambda i: [60.0]))
    two = scan_frames(pictures(16), 16, Pretender(lambda i: [30.0, 120.0]))
    both = ScanResult.concatenate([one, two])
    assert both.points.shape == (32, 2, 68, 2) and both.boxes.shape == (32, 2, 4)
    np.testing.assert_array_equal(both.count, [1] * 16 + [2] * 16)
    np.testing.assert_array_equal(np.isnan(both.score).sum(axis=1), 2 - both.count)
    with pytest.raises(ValueError, match="frame 16"):
        ScanResult.concatenate([one, one])
    same(both, ScanResult.from_arrays({k: np.array(v) for k, v in both.arrays().items()}))


@pytest.fixture(scope="module")
def mesh() -> LandmarkBackend:
    try:
        return load_backend(LandmarkOptions(backend="mesh"))
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.media
def test_exactly_the_blank_frames_have_no_face(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, _ = read_clip("hard/blank20.mp4")
    scan = scan_frames(frames, 0, mesh)
    np.testing.assert_array_equal(np.flatnonzero(scan.count == 0), np.arange(25, 45))


@pytest.mark.media
def test_the_real_back_end_gives_the_same_bits_for_any_span(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, _ = read_clip("clips/strong_motion.mp4", 64)
    whole = scan_frames(frames, 0, mesh)
    assert (whole.count == 1).all()
    same(whole, in_spans(frames, mesh, 16))


@pytest.mark.media
def test_two_faces_and_none(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, _ = read_clip("hard/two_faces.mp4", 20)
    assert (scan_frames(frames, 0, mesh).count == 2).all()
    frames, _ = read_clip("hard/no_face.mp4", 20)
    assert (scan_frames(frames, 0, mesh).count == 0).all()
