"""Rates, lines, JSON and bars."""

from __future__ import annotations

import io
import json

import pytest

from e3dge_video.pipelines.core import progress
from e3dge_video.pipelines.core.progress import BarProgress, JsonProgress, LineProgress, Pace, Rates, make_progress
from e3dge_video.pipelines.core.state import StageProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_counts_from_the_stages_own_start_and_decays_when_it_hangs() -> None:
    rates = Rates(span_s=30, points=4)

    def pace(done: int, running: int, now: float) -> Pace:
        found = rates.update(StageProgress("portrait", done, 640, running), now)
        assert found is not None
        return found

    assert rates.update(StageProgress("portrait", 64, 640, 0), 0.0) is None, "waiting, with a chunk from an earlier run"
    assert rates.update(StageProgress("portrait", 64, 640, 1), 50.0) is None
    for count in range(1, 4):
        assert pace(64 + 64 * count, 1, 50.0 + 10 * count).fps == pytest.approx(6.4)
    # Chunks come every 10 s: halfway to the next nothing has changed but the time.
    assert pace(256, 1, 80.0).left_s == pytest.approx(60.0)
    assert pace(256, 1, 85.0) == Pace(pytest.approx(6.4), pytest.approx(55.0))
    # It is 50 s late.
    assert pace(256, 1, 140.0).fps == pytest.approx(192 / 80)
    # Old marks are forgotten: after a slow start the rate becomes that of the last chunks.
    for count in range(4, 9):
        latest = pace(64 + 64 * count, 1, 140.0 + 16 * (count - 3))
    assert latest.fps == pytest.approx(4.0)
    # A finished stage keeps its rate.
    done = pace(640, 0, 236.0)
    assert done.left_s == 0 and pace(640, 0, 900.0) == done


def test_line_comes_every_ten_seconds_and_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    line = LineProgress(stream, clock=clock)
    for second in range(26):
        clock.now = 100.0 + second
        line.update([StageProgress("scan", 10 * second, 1000, 1), StageProgress("encode", 0, 1000, 0)], 0, 1)
    assert stream.getvalue() == (
        "scan 100/1000 (10.0 fps) 01:30 left | encode 0/1000\nscan 200/1000 (10.0 fps) 01:20 left | encode 0/1000\n"
    )
    line.close()
    assert len(stream.getvalue().splitlines()) == 2, "an error speaks for itself"
    line.update([StageProgress("scan", 1000, 1000, 0), StageProgress("encode", 1000, 1000, 0)], 1, 1)
    line.close()
    assert stream.getvalue().splitlines()[2].startswith("scan 1000/1000")
    line.close()
    assert len(stream.getvalue().splitlines()) == 3


def test_json_lines_can_be_read_by_a_program() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = JsonProgress(stream, clock=clock)
    for tenth in range(21):
        clock.now = 100.0 + tenth / 10
        lines.update([StageProgress("scan", 64 * tenth, 2000, 1)], 0, 2)
    lines.message("stopping")
    lines.close()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "progress", "message"]
    assert events[1] == {
        "event": "progress", "elapsed_s": 1.0, "videos_done": 0, "videos": 2,
        "stages": [
            {"stage": "scan", "frames_done": 640, "frames": 2000, "running": 1, "fps": 640.0, "eta_s": 2.1}
        ],
    }  # fmt: skip


def test_bars_show_frames_rate_and_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    bars = BarProgress(stream, clock=clock)
    for second in range(5):
        clock.now = 100.0 + second
        bars.update([StageProgress("scan", 50 * second, 1000, 1)], 1, 3)
    bars.close()
    shown = stream.getvalue()
    assert "200/1000 frames, 50.0 fps, 00:16 left" in shown and "1/3 videos" in shown
    assert " 20%" in shown


def test_mode_follows_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(make_progress("auto", Terminal()), BarProgress)
    assert isinstance(make_progress("auto", io.StringIO()), LineProgress)
    assert isinstance(make_progress("json", Terminal()), JsonProgress)
    quiet = make_progress("none")
    assert isinstance(quiet, progress.NoProgress)
    quiet.update([], 0, 0)
    quiet.close()
