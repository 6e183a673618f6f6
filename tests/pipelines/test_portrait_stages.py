"""Small parts of the portrait pipeline, each against a plain reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from e3dge_video.faces.scan import BLOCK
from e3dge_video.io.indexing import build_index
from e3dge_video.io.segments import H264
from e3dge_video.pipelines.graph import beside, captions, frame_span
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.pipelines.report import second_difference
from e3dge_video.pipelines.stages.assemble import portrait_arrays
from e3dge_video.pipelines.stages.batches import BATCH, batches
from e3dge_video.pipelines.stages.clip import CHUNK_GRID, ClipParams, Indexes, Readers
from e3dge_video.pipelines.stages.depth import DEPTH_OFFSET, DEPTH_RANGE, DEPTH_SCALE, colored_depth
from e3dge_video.pipelines.stages.model import depth_codes
from e3dge_video.pipelines.stages.panels import caption, side_by_side
from e3dge_video.pipelines.stages.track import nearest_valid
from tests.support.portraits import Studio
from tests.support.talking_clip import write_talk


def test_chunks_lie_on_every_grid() -> None:
    assert CHUNK_GRID % BLOCK == CHUNK_GRID % H264().gop == CHUNK_GRID % BATCH == 0


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_nearest_valid(valid: list[bool]) -> None:
    """A frame's own picture, else the last one before it, else the first after it."""

    def stand_in(k: int) -> int:
        before = [i for i in range(k + 1) if valid[i]]
        return before[-1] if before else valid.index(True)

    assert nearest_valid(np.array(valid)).tolist() == [stand_in(k) for k in range(len(valid))]


def test_batches_are_full_and_stand_on_the_grid() -> None:
    parts = batches(19)
    assert [part.tolist() for part, _ in parts] == [
        [0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [16, 17, 18, 18, 18, 18, 18, 18]
    ]  # fmt: skip
    assert [count for _, count in parts] == [8, 8, 3]


def test_depth_codes_are_exact_to_half_a_step_and_zero_outside() -> None:
    depth = torch.linspace(1.6, 3.4, 64).reshape(1, 1, 8, 8)
    alpha = torch.ones_like(depth)
    alpha[..., :2] = 0.4
    codes = depth_codes(depth, alpha)
    assert codes.dtype == np.uint16 and codes.shape == (1, 8, 8)
    assert (codes[..., :2] == 0).all() and (codes[..., 2:] > 0).all()
    back = codes[..., 2:] * DEPTH_SCALE + DEPTH_OFFSET
    assert np.abs(back - depth[:, 0, :, 2:].numpy()).max() <= 0.51 * DEPTH_SCALE
    far = torch.full((1, 1, 1, 2), 1e6)
    far[..., 0] = -1e6
    assert depth_codes(far, torch.ones_like(far)).tolist() == [[[1, 65535]]]


def test_depth_colours_are_fixed_and_warm_when_near() -> None:
    near, far = (round((d - DEPTH_OFFSET) / DEPTH_SCALE) for d in DEPTH_RANGE)
    row = np.array([[[0, near - 500, near, (near + far) // 2, far, far + 500]]], np.uint16)
    colours = colored_depth(row)[0, 0].astype(int)
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1].tolist() == colours[2].tolist() and colours[4].tolist() == colours[5].tolist()
    assert colours[2, 0] > 2 * colours[2, 2], "red before blue"
    assert colours[4, 2] > colours[4, 0], "blue before red"


@settings(max_examples=60, deadline=None)
@given(text=st.text("abcXYZ ,.:0123456789+-", max_size=60), width=st.integers(16, 700))
def test_captions_stay_inside_their_panel(text: str, width: int) -> None:
    picture = caption(text, width)
    assert picture.shape[1] == width and picture.shape[0] % 2 == 0
    written = np.flatnonzero((picture > 60).any(axis=(0, 2)))
    if len(written):
        assert written[0] >= 1 and written[-1] <= width - 2, "not a pixel at the edge"


@pytest.mark.parametrize("width", [128, 256, 512])
def test_usual_captions_are_shown_whole_and_large_enough(width: int) -> None:
    for text in ("input", "reconstruction", "result: age 1", "view orbit", "depth"):
        picture = caption(text, width)
        rows = np.flatnonzero((picture > 100).any(axis=(1, 2)))
        assert rows[-1] - rows[0] >= 7 * max(1, width / 256), "letters of at least seven pixels"
        longer = caption(text + "m", width)
        assert (longer > 100).sum() > (picture > 100).sum(), "nothing was cut off"


def test_panels_stand_side_by_side() -> None:
    panels = [np.full((3, 40, 40, 3), 50 * k, np.uint8) for k in range(3)]
    row = side_by_side(panels, ("a", "b", "c"))
    assert row.shape == (3, 24 + 40, 120, 3)
    for k in range(3):
        assert (row[:, 24:, 40 * k : 40 * (k + 1)] == 50 * k).all()
        np.testing.assert_array_equal(row[0, :24, 40 * k : 40 * (k + 1)], caption("abc"[k], 40))


def test_captions_name_edits_and_views(studio: Studio) -> None:
    from e3dge_video.geometry.views import parse_view
    from e3dge_video.inversion.editing import Edit

    options = studio.options()
    assert captions(options, beside(options.views[0])) == (
        "input", "reconstruction", "result: no edit", "view orbit", "depth"
    )  # fmt: skip
    edited = replace(
        options,
        edits=(Edit("age", ((0.0, 1.0),)), Edit("smile", ((0.0, 0.0), (1.0, 0.5)))),
        views=(parse_view("frontal"),),
    )
    assert captions(edited, beside(edited.views[0]))[2:4] == (
        "result: age 1, smile over time, view frontal",
        "view input",
    )


def test_frame_span_counts_from_the_first_frame(studio: Studio, tmp_path: Path) -> None:
    from fractions import Fraction

    talk = write_talk(tmp_path, frames=20, pts=list(range(6000, 6480, 24)), sound=False)
    index = build_index(talk.video)

    def span(start: str | None, end: str | None) -> tuple[int, int]:
        times = {"start_s": None if start is None else Fraction(start), "end_s": None if end is None else Fraction(end)}
        return frame_span(talk.video, index, replace(studio.options(), **times))

    assert span(None, None) == (0, 20)
    assert span("0", "0.04") == (0, 1)
    assert span("0.04", "0.12") == (1, 3), "a frame belongs to the time at which it appears"
    assert span("0.0401", "0.1201") == (2, 4)
    assert span("0.76", None) == (19, 20)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(3, 12), st.integers(1, 3)), elements=st.floats(-9, 9)),
    st.randoms(use_true_random=False),
)
def test_second_difference_looks_inside_runs_only(values: np.ndarray, random: object) -> None:
    run = np.sort(random.choices([0, 1, 2], k=len(values)))  # type: ignore[attr-defined]
    expected = [
        np.linalg.norm(values[k] - 2 * values[k + 1] + values[k + 2])
        for k in range(len(values) - 2)
        if run[k] == run[k + 1] == run[k + 2]
    ]
    assert second_difference(values, run) == pytest.approx(np.mean(expected) if expected else 0.0)
    assert second_difference(values, np.full(len(values), -1)) == 0.0


def test_a_scene_in_several_chunks_has_one_anchor() -> None:
    first, second = (np.full((2, 3), value, np.float32) for value in (1.0, 2.0))

    def part(anchors: list[np.ndarray], anchor: list[int]) -> dict[str, np.ndarray]:
        count = len(anchor)
        return {
            "anchors": np.stack(anchors),
            "anchor": np.array(anchor),
            "expression": np.zeros((count, 4), np.float32),
            "cam2world": np.zeros((count, 4, 4), np.float32),
        }

    track = {name: np.zeros(5) for name in ("crop", "landmarks", "run", "source", "time_s")}
    whole = portrait_arrays(track, [part([first, second], [0, 0, 1, 1, 0])])
    split = portrait_arrays(track, [part([first], [0, 0]), part([first, second], [1, 1, 0])])
    assert whole["anchors"].shape == (2, 2, 3) and whole["anchor"].tolist() == [0, 0, 1, 1, 0]
    for name, value in whole.items():
        np.testing.assert_array_equal(split[name], value, err_msg=name)


def test_json_files_hold_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1.5, float("nan"), (float("inf"), "é")], "y": {"z": -float("inf")}})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"x": [1.5, None, [None, "é"]], "y": {"z": None}}
    assert "NaN" not in text and "é" in text


def test_workers_keep_a_few_videos_open(tmp_path: Path) -> None:
    clips = []
    for number in range(6):
        talk = write_talk(tmp_path, name=f"{number}.mp4", frames=2, sound=False)
        index = tmp_path / f"{number}.npz"
        index.write_bytes(build_index(talk.video).to_bytes())
        clips.append(ClipParams(talk.video, index, 0, 2))
    readers = Readers()
    first = readers.of(clips[0])
    for clip in clips[1:4]:
        readers.of(clip)
    assert readers.of(clips[0]) is first
    readers.of(clips[4])
    assert readers.of(clips[0]) is first and len(readers._readers) == 4, "the one not used for longest was closed"
    assert clips[1] not in readers._readers
    readers.close()
    assert not readers._readers
    indexes = Indexes()
    assert indexes.of(clips[5]) is indexes.of(clips[5]) and len(indexes.of(clips[5])) == 2
