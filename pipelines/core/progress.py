"""How far a run is: bars on a terminal, a line now and then in a log, JSON lines for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TextIO

from tqdm import tqdm

from e3dge_video.pipelines.core.state import StageProgress

Mode = Literal["auto", "bar", "line", "json", "none"]


class Progress(Protocol):
    """Is called after every event of a run; decides itself how often to show something."""

    def update(self, stages: Sequence[StageProgress], jobs_done: int, jobs: int) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class NoProgress:
    """Shows nothing."""

    def update(self, stages: Sequence[StageProgress], jobs_done: int, jobs: int) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


def make_progress(mode: Mode = "auto", stream: TextIO | None = None) -> Progress:
    """The kind of progress that suits a stream (standard error by default)."""
    stream = stream or sys.stderr
    if mode == "auto":
        mode = "bar" if stream.isatty() else "line"
    if mode == "bar":
        return BarProgress(stream)
    if mode == "line":
        return LineProgress(stream)
    return JsonProgress(stream) if mode == "json" else NoProgress()


@dataclass(frozen=True)
class Pace:
    """How fast a stage is.

    Attributes:
        fps: Frames per second.
        left_s: Time left at this rate; 0 when it is done. [s]
    """

    fps: float
    left_s: float


class Rates:
    """Pace of each stage over its last completions.

    Chunks arrive in lumps: until the next is due, nothing arriving means nothing. From then on the waiting counts, so
    that a stage that hangs slows down visibly. A stage's clock starts with its first running task, not with the run.
    """

    def __init__(self, span_s: float = 30.0, points: int = 4) -> None:
        self.span_s, self.points = span_s, points
        self._marks: dict[str, deque[tuple[float, int]]] = {}

    def update(self, stage: StageProgress, now: float) -> Pace | None:
        """Note where a stage is; returns its pace, None while unknown."""
        marks = self._marks.get(stage.stage)
        if marks is None:
            if not stage.running:
                return None
            marks = self._marks[stage.stage] = deque([(now, stage.done)])
        if stage.done != marks[-1][1]:
            marks.append((now, stage.done))
        while len(marks) > self.points and now - marks[1][0] > self.span_s:
            marks.popleft()
        (began, at_first), (ended, at_last) = marks[0], marks[-1]
        if at_last <= at_first or ended <= began:
            return None
        if stage.done >= stage.total:
            return Pace((at_last - at_first) / (ended - began), 0.0)
        due = (ended - began) / (len(marks) - 1)  # usual time between completions
        waited = now - ended
        fps = (at_last - at_first) / (ended - began + max(0.0, waited - due))
        return Pace(fps, max(0.0, (stage.total - stage.done) / fps - min(waited, due)))


class LineProgress:
    """One line every `interval_s`, and one when all is done."""

    def __init__(self, stream: TextIO, interval_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.interval_s, self.clock = stream, interval_s, clock
        self._rates = Rates()
        self._next = clock() + interval_s
        self._line = self._shown = ""
        self._complete = False

    def update(self, stages: Sequence[StageProgress], jobs_done: int, jobs: int) -> None:
        now = self.clock()
        parts = [f"{jobs_done}/{jobs} videos"] if jobs > 1 else []
        for stage in stages:
            pace = self._rates.update(stage, now)
            text = f"{stage.stage} {stage.done}/{stage.total}"
            if pace is not None:
                text += f" ({pace.fps:.1f} fps)"
            if pace is not None and pace.left_s:
                text += f" {tqdm.format_interval(pace.left_s)} left"
            parts.append(text)
        self._line = " | ".join(parts)
        self._complete = all(stage.done == stage.total for stage in stages)
        if now >= self._next:
            self._next = now + self.interval_s
            self._write()

    def message(self, text: str) -> None:
        _say(self.stream, text)

    def close(self) -> None:
        if self._complete and self._line != self._shown:  # after an error its own line says enough
            self._write()

    def _write(self) -> None:
        self._shown = self._line
        _say(self.stream, self._line)


class JsonProgress:
    """One JSON object per line, at most one a second and one at the end."""

    def __init__(self, stream: TextIO, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.interval_s, self.clock = stream, interval_s, clock
        self._rates = Rates()
        self._began = clock()
        self._next = self._began
        self._state: dict[str, object] = {}
        self._shown: dict[str, object] = {}

    def update(self, stages: Sequence[StageProgress], jobs_done: int, jobs: int) -> None:
        now = self.clock()
        entries = []
        for stage in stages:
            pace = self._rates.update(stage, now)
            entries.append(
                {
                    "stage": stage.stage,
                    "frames_done": stage.done,
                    "frames": stage.total,
                    "running": stage.running,
                    "fps": None if pace is None else round(pace.fps, 2),
                    "eta_s": None if pace is None else round(pace.left_s, 1),
                }
            )
        self._state = {"videos_done": jobs_done, "videos": jobs, "stages": entries}
        if now >= self._next:
            self._next = now + self.interval_s
            self._write()

    def message(self, text: str) -> None:
        _say(self.stream, json.dumps({"event": "message", "text": text}))

    def close(self) -> None:
        if self._state != self._shown:
            self._write()

    def _write(self) -> None:
        self._shown = self._state
        line = {"event": "progress", "elapsed_s": round(self.clock() - self._began, 1), **self._state}
        _say(self.stream, json.dumps(line))


class BarProgress:
    """One tqdm bar per stage in frames, and one in videos if there are several."""

    FORMAT = "{desc:<10} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}{postfix}"

    def __init__(self, stream: TextIO, interval_s: float = 0.2, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.interval_s, self.clock = stream, interval_s, clock
        self._rates = Rates()
        self._next = clock()
        self._bars: dict[str, tqdm] = {}
        self._size: dict[str, Any] = {"dynamic_ncols": True} if _knows_its_size(stream) else {"ncols": 80, "nrows": 24}
        self._latest: tuple[Sequence[StageProgress], int, int] = ((), 0, 0)

    def update(self, stages: Sequence[StageProgress], jobs_done: int, jobs: int) -> None:
        self._latest = (stages, jobs_done, jobs)
        now = self.clock()
        paces = [self._rates.update(stage, now) for stage in stages]
        if now < self._next:
            return
        self._next = now + self.interval_s
        if jobs > 1:
            self._draw("all", jobs_done, jobs, "videos", "")
        for stage, pace in zip(stages, paces, strict=True):
            note = "" if pace is None else f"{pace.fps:.1f} fps"
            note += f", {tqdm.format_interval(pace.left_s)} left" if pace is not None and pace.left_s else ""
            self._draw(stage.stage, stage.done, stage.total, "frames", note)

    def _draw(self, name: str, done: int, total: int, unit: str, note: str) -> None:
        if name not in self._bars:
            self._bars[name] = tqdm(
                desc=name, total=total, unit=unit, file=self.stream, bar_format=self.FORMAT, **self._size
            )
        bar = self._bars[name]
        bar.total, bar.n, bar.postfix = total, done, note
        bar.refresh()

    def message(self, text: str) -> None:
        tqdm.write(text, file=self.stream)

    def close(self) -> None:
        self._next = self.clock()
        self.update(*self._latest)
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


def _knows_its_size(stream: TextIO) -> bool:
    """Some pseudo-terminals say that they have no columns; tqdm would believe them and show nothing."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):  # not a terminal: tqdm finds a way
        return True


def _say(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()
