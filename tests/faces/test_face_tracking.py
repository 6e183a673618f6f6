"""One person out of made-up scans."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_face import face_points, scene

from e3dge_video.errors import ConfigError
from e3dge_video.faces.scan import ScanResult
from e3dge_video.faces.signatures import Signatures
from e3dge_video.faces.tracking import Track, TrackOptions, track_person

FPS = 25
SHAPE = face_points()[:, :2] * (1, -1) * 400  # a face about 165 px wide
IN_ROOM = [Signatures.of(scene(room)) for room in range(4)]


def face(x: float, y: float = 200.0, scale: float = 1.0) -> NDArray[np.float32]:
    return (SHAPE * scale + (x, y)).astype(np.float32)


def scanned(frames: list[list[NDArray[np.float32]]], rooms: list[int] | None = None) -> ScanResult:
    """A scan with these faces; `rooms` says which picture each frame shows."""
    places = max([len(f) for f in frames] + [1])
    points = np.full((len(frames), places, 68, 2), np.nan, np.float32)
    score = np.full((len(frames), places), np.nan, np.float32)
    for i, faces in enumerate(frames):
        for j, p in enumerate(faces):
            points[i, j], score[i, j] = p, 1.0
    count = np.array([len(f) for f in frames], dtype=np.int32)
    pictures = Signatures.concatenate([IN_ROOM[r] for r in (rooms or [0] * len(frames))])
    return ScanResult(0, points, score, count, pictures)


def followed(scan: ScanResult, **options: object) -> Track:
    return track_person(scan, np.arange(len(scan)) / FPS, TrackOptions(**options))  # type: ignore[arg-type]


def middles(track: Track) -> NDArray[np.float32]:
    return track.points.mean(axis=1)[:, 0]


def test_one_person_who_shakes_the_head_violently_is_one_run() -> None:
    x = 300 + 60 * np.sin(np.arange(50) * 0.9)  # up to 54 px, or a third of the face, per frame
    track = followed(scanned([[face(v)] for v in x]))
    assert track.valid.all() and (track.run == 0).all() and (track.identity == 0).all()
    np.testing.assert_allclose(middles(track), x + SHAPE[:, 0].mean(), atol=1e-3)


def test_two_people_do_not_swap_whatever_the_order_of_the_scan() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(60):
        pair = [face(150 + 10 * np.sin(i / 5), scale=1.1), face(400 - 10 * np.sin(i / 7), scale=1.0)]
        frames.append(pair if rng.random() < 0.5 else pair[::-1])
    first, second = (followed(scanned(frames), person=k) for k in (0, 1))
    assert np.abs(middles(first) - 150).max() < 15 and np.abs(middles(second) - 400).max() < 15
    assert not followed(scanned(frames), person=2).valid.any()


def test_a_short_gap_is_bridged_and_a_long_one_is_not() -> None:
    def clip(gap: int) -> Track:
        return followed(scanned([[] if 20 <= i < 20 + gap else [face(100.0 + 2 * i)] for i in range(60)]))

    short = clip(7)  # 0.28 s
    assert short.valid.all() and set(short.run) == {0}
    np.testing.assert_array_equal(np.flatnonzero(short.bridged), np.arange(20, 27))
    np.testing.assert_allclose(middles(short), 100 + 2 * np.arange(60) + SHAPE[:, 0].mean(), atol=1e-3)
    long = clip(8)
    np.testing.assert_array_equal(np.flatnonzero(~long.valid), np.arange(20, 28))
    assert set(long.run[:20]) == {0} and set(long.run[28:]) == {1}
    assert np.isnan(long.points[20:28]).all() and np.isnan(long.crop.parameters[20:28]).all()
    # The same person on both sides of the gap.
    assert set(long.identity[long.valid]) == {0}


def test_someone_else_does_not_fill_a_gap() -> None:
    frames = [[face(150, scale=1.8), face(520)] if not 20 <= i < 40 else [face(520)] for i in range(60)]
    track = followed(scanned(frames))
    np.testing.assert_array_equal(track.valid, [not 20 <= i < 40 for i in range(60)])
    assert np.nanmax(middles(track)) < 200


def test_a_cut_ends_the_run_even_when_the_next_face_stands_in_the_same_place() -> None:
    track = followed(scanned([[face(200)]] * 40, [0] * 15 + [2] * 25))
    np.testing.assert_array_equal(np.flatnonzero(track.cuts), [15])
    np.testing.assert_array_equal(track.run, [0] * 15 + [1] * 25)
    np.testing.assert_array_equal(track.identity, [0] * 15 + [1] * 25)


def test_a_person_who_comes_back_to_the_same_shot_is_known() -> None:
    rooms = [0] * 20 + [2] * 20 + [0] * 20
    frames = [[face(200 if r == 0 else 320)] for r in rooms]
    track = followed(scanned(frames, rooms))
    np.testing.assert_array_equal(track.run, [0] * 20 + [1] * 20 + [2] * 20)
    np.testing.assert_array_equal(track.identity, [0] * 20 + [1] * 20 + [0] * 20)


def test_a_large_face_beats_a_small_one_and_a_long_one_a_short_one() -> None:
    sizes = followed(scanned([[face(100, scale=0.5), face(400, scale=1.5)]] * 20))
    assert np.abs(middles(sizes) - 400).max() < 10
    frames = [[face(100)] + ([face(400, scale=1.3)] if i < 10 else []) for i in range(40)]
    lengths = followed(scanned(frames))
    assert lengths.valid.all() and np.abs(middles(lengths) - 100).max() < 10


def test_no_face_at_all() -> None:
    track = followed(scanned([[]] * 12))
    assert not track.valid.any() and np.isnan(track.crop.parameters).all()


def test_it_travels_as_plain_arrays() -> None:
    track = followed(scanned([[face(100.0 + i)] if i != 5 else [] for i in range(20)]))
    again = Track.from_arrays({k: np.array(v) for k, v in track.arrays().items()})
    for name, value in track.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError):
        TrackOptions(person=-1)
    with pytest.raises(ConfigError):
        TrackOptions(crop="square")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="times"):
        track_person(scanned([[face(1)]] * 3), np.arange(2.0))
