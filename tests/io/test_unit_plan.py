"""The division of a stream into units that decode by themselves, on made-up packet lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from e3dge_video.io.index import plan_units
from e3dge_video.io.packets import PacketTable


@st.composite
def streams(draw):
    """Packets in decoding order as encoders make them: GOPs of I, then P with B before it, some GOPs open."""
    pts, keys = [], []
    shown = 0
    for gop in range(draw(st.integers(1, 6))):
        leading = draw(st.integers(0, 3)) if gop else 0  # pictures shown before the keyframe, decoded after it
        pts += [shown + leading, *range(shown, shown + leading)]
        keys += [True] + [False] * leading
        shown += leading + 1
        for _ in range(draw(st.integers(0, 4))):
            between = draw(st.integers(0, 3))
            pts += [shown + between, *range(shown, shown + between)]
            keys += [False] * (between + 1)
            shown += between + 1
    return np.array(pts), np.array(keys)


def table_of(pts, keys):
    numbers = np.arange(len(pts))
    return PacketTable(
        pts, numbers, numbers * 100, np.full(len(pts), 100), np.ones(len(pts), int), keys, np.zeros_like(keys), False
    )


@settings(max_examples=200, deadline=None)
@given(streams())
def test_every_frame_lies_in_one_unit_that_holds_all_it_needs(stream):
    pts, keys = stream
    shown = np.argsort(pts)
    units = plan_units(table_of(pts, keys), shown, pts[shown], shown + 1)
    assert units[0, 2] == 0 and (np.diff(units[:, 2]) > 0).all() and (np.diff(units[:, 0]) > 0).all()
    firsts = np.append(units[:, 2], len(pts))
    for (start, stop, first), end in zip(units.tolist(), firsts[1:].tolist(), strict=True):
        assert keys[start]
        packets = shown[first:end]
        assert (packets >= start).all() and (packets < stop).all()
        assert pts[shown[first]] == pts[start]  # the keyframe is the first one shown: nothing leads it
        # …and no unit is longer than need be: a keyframe inside is one whose leading frames belong here, or the end.
        later = [k for k in np.flatnonzero(keys) if start < k < stop]
        assert all((packets > k).any() or k == stop - 1 for k in later)


def test_frames_shown_before_a_keyframe_belong_to_the_unit_before():
    #            I  P  B  I* B  B  P     (* open: two frames after it in the file are shown before it)
    pts = np.array([0, 2, 1, 5, 3, 4, 6])
    keys = np.array([1, 0, 0, 1, 0, 0, 0], bool)
    shown = np.argsort(pts)
    units = plan_units(table_of(pts, keys), shown, pts[shown], shown + 1)
    assert units.tolist() == [[0, 6, 0], [3, 7, 5]]


def test_a_stream_without_keyframes_is_one_unit():
    pts = np.arange(5)
    units = plan_units(table_of(pts, np.zeros(5, bool)), pts, pts, pts + 1)
    assert units.tolist() == [[0, 5, 0]]
