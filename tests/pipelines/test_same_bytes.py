"""The result depends on the clip, the options and the model: not on chunks, executors, crashes and stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.editing import Edit
from e3dge_video.pipelines.core.local import LocalExecutor
from e3dge_video.pipelines.core.spec import Interrupted, Job
from tests.support import portraits
from tests.support.portraits import Altered, NoteProcess, Slow, Stopping, Studio, differing, result_bytes, with_body

#: An edit that comes and goes and two views: everything that a frame's time and number enter.
OPTIONS = {
    "edits": (Edit("age", ((0.2, 0.0), (1.4, 1.5))), Edit("smile", ((0.0, -0.5),))),
    "views": (parse_view("input"), parse_view("ellipse")),
}


@pytest.fixture(scope="module")
def expected(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    studio.run(out, **OPTIONS)
    return result_bytes(out)


@pytest.mark.parametrize("chunk", [16, 48, 128])
def test_chunk_size(studio: Studio, expected: dict[str, bytes], tmp_path: Path, chunk: int) -> None:
    studio.run(tmp_path / "out", chunk_frames=chunk, **OPTIONS)
    assert differing(result_bytes(tmp_path / "out"), expected) == []


def test_other_options_give_other_bytes(studio: Studio, expected: dict[str, bytes], tmp_path: Path) -> None:
    """The comparisons of this file would see a difference."""
    studio.run(tmp_path / "out", **OPTIONS | {"smooth_s": 0.3})
    assert {"rgb.mp4", "depth.mkv", "compare.mp4", "portrait.safetensors", "cameras.json"} <= set(
        differing(result_bytes(tmp_path / "out"), expected)
    )


def test_threads_of_the_executor(studio: Studio, expected: dict[str, bytes], tmp_path: Path) -> None:
    studio.run(tmp_path / "out", LocalExecutor(threads=3), chunk_frames=32, **OPTIONS)
    assert differing(result_bytes(tmp_path / "out"), expected) == []


@pytest.mark.parametrize("polls", [7, 13, 22, 28])
def test_stop_and_resume(studio: Studio, expected: dict[str, bytes], tmp_path: Path, polls: int) -> None:
    """In every section: while scanning, observing, rendering, and with the last chunk still to be encoded."""
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match="the same command continues from there") as stopped:
        studio.run(out, Stopping(polls), chunk_frames=16, **OPTIONS)
    assert not out.exists() and 0 < stopped.value.jobs[0].chunks_kept < 15
    report = studio.run(out, chunk_frames=16, **OPTIONS).report
    assert report["time"]["resumed"]
    assert differing(result_bytes(out), expected) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_resume_makes_use_of_what_is_there_and_no_resume_does_not(studio: Studio, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stopped_run() -> None:
        with pytest.raises(Interrupted):
            studio.run(out, Stopping(24), chunk_frames=16, overwrite=True)

    stopped_run()
    resumed = studio.run(out, chunk_frames=16).report["time"]["tasks"]
    assert "scan" not in resumed and resumed["encode"] < 5
    stopped_run()
    afresh = studio.run(out, chunk_frames=16, resume=False, overwrite=True).report["time"]["tasks"]
    assert afresh["scan"] == afresh["encode"] == 5


def test_changed_landmarks_are_not_resumed_from(studio: Studio, tmp_path: Path) -> None:
    talk = replace(studio.talk, landmarks=tmp_path / "points.npz")
    talk.landmarks.write_bytes(studio.talk.landmarks.read_bytes())
    mine = replace(studio, talk=talk)
    with pytest.raises(Interrupted):
        mine.run(tmp_path / "out", Stopping(24), chunk_frames=16)
    import numpy as np

    np.savez(talk.landmarks, points=talk.points + 3.0)
    assert mine.run(tmp_path / "out", chunk_frames=16).report["time"]["tasks"]["scan"] == 5


def test_ray(studio: Studio, expected: dict[str, bytes], tmp_path: Path, ray_session: object) -> None:
    from e3dge_video.pipelines.core.rayexec import RayExecutor

    with RayExecutor() as executor:
        studio.run(tmp_path / "out", executor, chunk_frames=32, **OPTIONS)
    assert differing(result_bytes(tmp_path / "out"), expected) == []


def test_sigkill_of_any_actor(studio: Studio, expected: dict[str, bytes], tmp_path: Path, ray_session: object) -> None:
    """Every unit loses its worker in the middle of its work."""
    from e3dge_video.pipelines.core.rayexec import RayExecutor, ray

    ray.cloudpickle.register_pickle_by_value(portraits)
    notes = {unit: tmp_path / unit for unit in ("scan", "prep", "portrait", "encode")}
    for folder in notes.values():
        folder.mkdir()

    def noted(job: Job) -> Job:
        units = tuple(replace(u, setup=NoteProcess(u.setup, str(notes[u.name]))) for u in job.graph.units)
        job = replace(job, graph=replace(job.graph, units=units))
        for stage in ("scan", "prep", "observe", "portrait", "encode"):
            job = with_body(job, stage, lambda body: Slow(body, 0.15))
        return job

    def chunks(stage: str) -> int:
        return len(list((tmp_path / "out.partial").glob(f"work/chunks/{stage}-*/*.safetensors")))

    def kill(unit: str) -> None:
        os.kill(int(next(notes[unit].iterdir()).name), signal.SIGKILL)

    killers = [
        when(lambda: chunks("scan") >= 1, lambda: kill("scan")),
        when(lambda: chunks("observe") >= 1, lambda: kill("prep")),
        when(lambda: chunks("observe") >= 3, lambda: kill("portrait")),
        when(lambda: chunks("encode") >= 2, lambda: kill("encode")),
    ]
    with RayExecutor() as executor:
        report = studio.run(tmp_path / "out", Altered(executor, noted), chunk_frames=16, **OPTIONS).report
    for killer in killers:
        killer.join()
    assert {unit: len(list(folder.iterdir())) for unit, folder in notes.items()} == dict.fromkeys(notes, 2), "replaced"
    assert report["time"]["workers_lost"] >= 1
    assert differing(result_bytes(tmp_path / "out"), expected) == []


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something beside the test as soon as a condition holds."""

    def watch() -> None:
        until = time.monotonic() + 120
        while not condition():
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread
