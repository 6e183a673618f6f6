"""Cuts, flashes and repeated frames on made-up pictures."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from synthetic_face import scene

from e3dge_video.faces.signatures import Signatures, repeated_frames, scene_cuts


def signatures(pictures: list[NDArray[np.uint8]]) -> Signatures:
    return Signatures.concatenate([Signatures.of(p) for p in pictures])


def test_a_cut_is_found_and_violent_motion_is_none() -> None:
    shake = [scene(0, 45 * np.sin(1.7 * i)) for i in range(20)]
    other = [scene(3, 45 * np.sin(1.9 * i)) for i in range(20)]
    cuts = scene_cuts(signatures(shake + other))
    np.testing.assert_array_equal(np.flatnonzero(cuts), [20])


def test_a_flash_and_a_fade_are_no_cuts() -> None:
    flash = [scene(0, i) for i in range(20)]
    flash[9] = np.full_like(flash[9], 255)
    assert not scene_cuts(signatures(flash)).any()
    fade = [scene(0, i, light=1 - i / 20) for i in range(20)]
    assert not scene_cuts(signatures(fade)).any()


def test_a_long_blank_between_two_shots_is_two_cuts() -> None:
    pictures = [scene(0, i) for i in range(10)] + [np.full((90, 160, 3), 128, np.uint8)] * 10
    pictures += [scene(0, i) for i in range(10)]
    np.testing.assert_array_equal(np.flatnonzero(scene_cuts(signatures(pictures))), [10, 20])


def test_repeated_frames_are_found_under_noise() -> None:
    rng = np.random.default_rng(0)
    places = [i if i % 5 else i - 1 for i in range(1, 41)]
    pictures = [
        np.clip(scene(0, 2 * p - 40) + rng.normal(0, 0.7, (90, 160, 3)), 0, 255).astype(np.uint8) for p in places
    ]
    expected = np.array([False] + [a == b for a, b in itertools.pairwise(places)])
    np.testing.assert_array_equal(repeated_frames(signatures(pictures)), expected)


def test_short_clips() -> None:
    for count in (0, 1, 2):
        clip = signatures([scene(0)] * 2)[:count]
        assert scene_cuts(clip).shape == repeated_frames(clip).shape == (count,)
