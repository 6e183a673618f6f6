"""Scattered frames are the right ones, with decord or without it."""

from __future__ import annotations

import importlib.util
import subprocess

import numpy as np
import pytest

from e3dge_video.io import sampling
from e3dge_video.io.indexing import build_index
from e3dge_video.io.reader import VideoReader
from e3dge_video.io.sampling import sample_frames
from tests.support.video_corpus import read_number

needs_decord = pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord has no wheel here")
WANTED = [37, 3, 20, 3]


@pytest.mark.parametrize("name", ["cfr", "vfr", "edit_list", "transport", "rotated", "late_start", "ten_bit"])
def test_the_right_frames_in_the_order_asked(corpus, name):
    clip = corpus(name)
    wanted = [number % clip.count for number in WANTED]
    frames = sample_frames(clip.path, wanted)
    index = build_index(clip.path)
    assert [frame.number for frame in frames] == wanted
    assert [frame.pts for frame in frames] == index.pts[wanted].tolist()
    turn = (lambda p: np.rot90(p, -1)) if name == "rotated" else (lambda p: p)
    assert [read_number(turn(frame.rgb)) for frame in frames] == [clip.first_number + n for n in wanted]


@needs_decord
def test_decord_serves_plain_files(corpus):
    clip = corpus("cfr")
    index = build_index(clip.path)
    pictures = sampling._by_decord(clip.path, WANTED, index)
    assert pictures is not None and sampling._is_plain(index)
    with VideoReader(clip.path, index) as reader:
        exact = np.stack([reader.read(n, n + 1).rgb[0] for n in WANTED])
    assert np.abs(pictures.astype(int) - exact).mean() < 3


@needs_decord
def test_decord_is_not_believed_where_it_is_wrong(corpus):
    """It counts hidden frames of edit lists and starts late videos at zero: caught before or after asking."""
    for name in ("edit_list", "transport", "late_start"):
        clip = corpus(name)
        index = build_index(clip.path)
        assert not sampling._is_plain(index) or sampling._by_decord(clip.path, [0, 5], index) is None


@pytest.mark.parametrize("fault", ["hangs", "dies", "babbles"])
def test_a_failing_decord_is_replaced(corpus, monkeypatch, fault):
    programs = {"hangs": "import time; time.sleep(60)", "dies": "import os; os._exit(9)", "babbles": "print('hello')"}
    monkeypatch.setattr(sampling, "_DECORD_PROGRAM", programs[fault])
    monkeypatch.setattr(sampling, "_PATIENCE_S", 0.3 if fault == "hangs" else 20.0)
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: object())
    assert [read_number(frame.rgb) for frame in sample_frames(corpus("cfr").path, WANTED)] == WANTED


def test_without_decord_no_process_is_started(corpus, monkeypatch):
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a process was started"))
    assert [read_number(frame.rgb) for frame in sample_frames(corpus("cfr").path, WANTED)] == WANTED


def test_numbers_outside_are_refused(corpus):
    with pytest.raises(IndexError, match="frame 40 asked of 40"):
        sample_frames(corpus("cfr").path, [1, 40])
