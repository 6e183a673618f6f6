"""The in-process executor: same bytes whatever the chunk size, the threads, the company and the interruptions."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fake_portrait as fake
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import e3dge_video
from e3dge_video.errors import InputError
from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.driver import Driver, Happening
from e3dge_video.pipelines.core.local import LocalExecutor, _LocalBackend
from e3dge_video.pipelines.core.spec import (
    BarrierStage,
    Chunk,
    Graph,
    Interrupted,
    Job,
    MapStage,
    Outcome,
    Payload,
    PipelineError,
    RunOptions,
)
from e3dge_video.pipelines.core.state import Scheduler
from e3dge_video.pipelines.core.store import WorkDir
from e3dge_video.pipelines.core.worker import Call

FRAMES = 300
PERSISTED = ("scan", "observe", "encode")


@pytest.fixture(scope="module")
def expected() -> bytes:
    return fake.reference_bytes(FRAMES)


def run(job: Job, **options: object) -> Outcome:
    [outcome] = LocalExecutor(**options).run([job])  # type: ignore[arg-type]
    return outcome


def output(job: Job) -> bytes:
    return (job.work_dir.parent / "out.bin").read_bytes()


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("chunk", [16, 32, 64, 128, 1000])
def test_result_does_not_depend_on_chunk_size_or_threads(
    tmp_path: Path, expected: bytes, chunk: int, threads: int
) -> None:
    job = fake.portrait_job(tmp_path, frames=FRAMES, chunk=chunk, workers=2)
    outcome = run(job, threads=threads)
    assert outcome.result()["track"] == FRAMES
    assert output(job) == expected
    chunks = -(-FRAMES // chunk)
    assert outcome.tasks == {
        "scan": chunks, "prep": 2 * chunks, "observe": chunks, "portrait": chunks, "encode": chunks
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 90), budget=st.sampled_from([0.0, 0.01, 100.0]), window=st.integers(1, 5))
def test_result_does_not_depend_on_length_budget_or_window(
    tmp_path_factory: pytest.TempPathFactory, frames: int, budget: float, window: int
) -> None:
    job = fake.portrait_job(tmp_path_factory.mktemp("job"), frames=frames, chunk=16)
    run(job, options=RunOptions(budget_mb=budget, window=window)).result()
    assert output(job) == fake.reference_bytes(frames)


def test_several_jobs_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    def jobs() -> list[Job]:
        return [fake.portrait_job(tmp_path / str(s), frames=50 * s, chunk=32, seed=s, name=str(s)) for s in range(1, 6)]

    outcomes = LocalExecutor(2, RunOptions(max_open=3)).run(iter(jobs()))
    assert [outcome.job for outcome in outcomes] == ["1", "2", "3", "4", "5"]
    for seed, job in enumerate(jobs(), 1):
        assert output(job) == fake.reference_bytes(50 * seed, seed)


def test_one_bad_job_does_not_hurt_the_others(tmp_path: Path) -> None:
    good = [fake.portrait_job(tmp_path / f"good{i}", frames=100, seed=i, name=f"good{i}") for i in (1, 2)]
    bad = fake.portrait_job(tmp_path / "bad", frames=200, name="bad", scan=fake.Scan(fake.Trouble(2, "raise")))
    busy = fake.portrait_job(tmp_path / "busy", name="busy")
    with WorkDir(fake_plan(busy)):
        outcomes = LocalExecutor().run([good[0], bad, busy, good[1]])
    errors = {outcome.job: outcome.error for outcome in outcomes}
    assert errors["good1"] is None and errors["good2"] is None
    assert isinstance(errors["bad"], InputError) and "frame 70" in str(errors["bad"])
    assert isinstance(errors["busy"], PipelineError) and "in use" in str(errors["busy"])
    assert output(good[1]) == fake.reference_bytes(100, 2)
    with WorkDir(fake_plan(bad)):  # its lock was released
        pass


def fake_plan(job: Job):  # type: ignore[no-untyped-def]
    from e3dge_video.pipelines.core.plan import plan_job

    return plan_job(job)


def test_errors_arrive_as_they_were_raised(tmp_path: Path) -> None:
    outcome = run(fake.portrait_job(tmp_path / "a", scan=fake.Scan(fake.Trouble(1, "raise"))))
    with pytest.raises(InputError, match=r"^clip.mp4: frame 70 cannot be decoded; trim the clip$"):
        outcome.result()
    assert outcome.tasks["scan"] == 1, "no blind retry"

    bug = run(fake.portrait_job(tmp_path / "b", encode=fake.Encode(trouble=fake.Trouble(1, "bug")))).error
    assert isinstance(bug, IndexError)
    assert "clip: stage encode, frames 64 to 127" in "".join(bug.__notes__)

    memory = run(fake.portrait_job(tmp_path / "c", prep=fake.Prep(trouble=fake.Trouble(0, "memory")))).error
    assert isinstance(memory, PipelineError)
    assert "stage prep, frames 0 to 63: out of memory" in str(memory) and "smaller chunks" in str(memory)

    setup = run(fake.portrait_job(tmp_path / "d", broken_setup=True)).error
    assert isinstance(setup, InputError) and "models verify" in str(setup)

    mux = run(fake.portrait_job(tmp_path / "e", mux_trouble=fake.Trouble(0, "bug"))).error
    assert isinstance(mux, IndexError) and "stage mux" in "".join(mux.__notes__)


def test_full_disk_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: WorkDir, stage: str, chunk: int, payload: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WorkDir, "write", write)
    error = run(fake.portrait_job(tmp_path)).error
    assert isinstance(error, PipelineError) and "No space left on device" in str(error)


class StoppingBackend(_LocalBackend):
    """Raises Ctrl-C when asked for the n-th time what happened."""

    def __init__(self, polls: int) -> None:
        super().__init__(0)
        self.polls = polls

    def poll(self, timeout_s: float) -> list[Happening]:
        self.polls -= 1
        if self.polls < 0:
            raise KeyboardInterrupt
        return super().poll(timeout_s)


class LosingBackend(_LocalBackend):
    """Loses some results, as a cluster does with a machine."""

    def __init__(self, losses: int) -> None:
        super().__init__(0)
        self.inputs_left = self.results_left = losses

    def submit(self, worker: int, call: Call) -> None:
        if self.inputs_left and call.chunk.index == 1 and call.stage in ("observe", "portrait"):
            self.inputs_left -= 1
            self._new.append(events.InputsLost(call.task, (), worker))
        else:
            super().submit(worker, call)

    def fetch(self, handle: Any) -> Any:
        if self.results_left and "segment" in handle:
            self.results_left -= 1
            return None
        return super().fetch(handle)


def test_lost_results_are_computed_again(tmp_path: Path, expected: bytes) -> None:
    job = fake.portrait_job(tmp_path, frames=FRAMES)
    [outcome] = Driver(LosingBackend(2), 10**9, RunOptions()).run([job])
    assert outcome.error is None and output(job) == expected
    assert outcome.tasks == {"scan": 5, "prep": 12, "observe": 5, "portrait": 5, "encode": 7}
    [outcome] = Driver(LosingBackend(100), 10**9, RunOptions()).run([fake.portrait_job(tmp_path / "b")])
    assert isinstance(outcome.error, PipelineError) and "was lost 5 times" in str(outcome.error)


def test_resume_after_a_stop_at_any_event_gives_the_same_bytes(tmp_path: Path) -> None:
    expected = fake.reference_bytes(100)
    stops = 0
    for polls in range(1000):
        job = fake.portrait_job(tmp_path / str(polls), frames=100, chunk=32)
        try:
            Driver(StoppingBackend(polls), 10**9, RunOptions()).run([job])
        except Interrupted as stopped:
            stops += 1
            [left] = stopped.jobs
            assert not (job.work_dir.parent / "out.bin").exists()
            outcome = run(job)
            assert output(job) == expected
            again = sum(outcome.tasks.get(stage, 0) for stage in PERSISTED)
            assert left.chunks_kept + again == left.chunks_total == 12, "finished chunks are not computed again"
        else:
            break
    assert stops > 24


def test_resume_computes_only_what_a_missing_result_needs(tmp_path: Path) -> None:
    job = fake.portrait_job(tmp_path, frames=320)
    run(job)
    assert run(job).tasks == {}
    folders = {folder.name.split("-")[0]: folder for folder in (job.work_dir / "chunks").iterdir()}
    (folders["encode"] / "000003.safetensors").unlink()
    assert run(job).tasks == {"prep": 1, "portrait": 1, "encode": 1}
    (folders["encode"] / "000003.safetensors").unlink()
    (folders["observe"] / "000000.safetensors").unlink()
    assert run(job).tasks == {"prep": 2, "observe": 1, "portrait": 1, "encode": 1}
    (folders["scan"] / "000001.safetensors").unlink()
    assert run(job).tasks == {}, "nobody needs the scan any more"


def test_changed_late_stage_reuses_early_chunks(tmp_path: Path) -> None:
    run(fake.portrait_job(tmp_path, frames=FRAMES))
    edited = fake.portrait_job(tmp_path, frames=FRAMES, portrait=fake.Portrait(edit=0.5))
    assert run(edited).tasks == {"prep": 5, "portrait": 5, "encode": 5}
    assert output(edited) == fake.reference_bytes(FRAMES, edit=0.5)
    other_crop = fake.portrait_job(tmp_path, frames=FRAMES, prep=fake.Prep(gain=2.0))
    assert "scan" not in run(other_crop).tasks
    assert output(other_crop) == fake.reference_bytes(FRAMES, gain=2.0)
    run(fake.portrait_job(tmp_path, frames=FRAMES, chunk=128)).result()
    assert output(edited) == fake.reference_bytes(FRAMES)


def test_damaged_chunks_are_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = fake.portrait_job(tmp_path, frames=FRAMES)
    run(job)
    (tmp_path / "out.bin").unlink()
    for file in sorted((job.work_dir / "chunks").glob("*/000002.safetensors")):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    # Only the mux reads; it finds chunk 2 of `encode` damaged, whose making reads nothing else from disk but `observe`.
    outcome = run(job)
    assert outcome.error is None
    assert outcome.tasks == {"scan": 1, "prep": 2, "observe": 1, "portrait": 1, "encode": 1}
    assert output(job) == fake.reference_bytes(FRAMES)
    assert "is damaged" in caplog.text


def test_damaged_input_of_a_worker_is_computed_again(tmp_path: Path) -> None:
    clip = fake.portrait_job(tmp_path, frames=FRAMES)
    graph = Graph(
        clip.graph.units,
        (
            MapStage("scan", "scan", fake.Scan(), persist=True),
            MapStage("again", "encode", Again(), {"points": "scan"}, persist=True),
            BarrierStage("track", fake.Track(), {"points": "again"}),
        ),
    )
    job = replace(clip, graph=graph)
    assert run(job).error is None
    [scan, again] = [next((job.work_dir / "chunks").glob(f"{name}-*")) for name in ("scan", "again")]
    for file in again.iterdir():
        file.unlink()
    damaged = scan / "000001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    outcome = run(job)
    assert outcome.error is None and outcome.tasks == {"scan": 1, "again": 5}


@dataclass(frozen=True)
class Again:
    def __call__(self, chunk: Chunk, tools: object, points: Payload) -> Payload:
        return points


def test_bodies_cannot_write_into_their_inputs(tmp_path: Path) -> None:
    class Vandal(fake.Observe):
        def __call__(self, chunk, tools, crops):  # type: ignore[no-untyped-def]
            crops["crop"][:] = 0
            return super().__call__(chunk, tools, crops)

    error = run(fake.portrait_job(tmp_path, observe=Vandal())).error
    assert isinstance(error, ValueError) and "read-only" in str(error)


def test_stall_is_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "stalled", True)
    with pytest.raises(RuntimeError, match="nothing can begin"):
        run(fake.portrait_job(tmp_path))


def test_driver_runs_in_any_thread(tmp_path: Path, expected: bytes) -> None:
    job = fake.portrait_job(tmp_path, frames=FRAMES)
    thread = threading.Thread(target=run, args=(job,))
    thread.start()
    thread.join()
    assert output(job) == expected


def test_library_works_without_ray_and_one_file_imports_it() -> None:
    root = Path(e3dge_video.__file__).parent
    modules = [path for path in (root / "pipelines" / "core").glob("*.py") if path.stem not in ("rayexec", "__init__")]
    assert len(modules) > 8
    names = ", ".join(f"e3dge_video.pipelines.core.{path.stem}" for path in modules)
    code = f"import sys; sys.modules['ray'] = None; import {names}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root.parent)

    def imports_ray(path: Path) -> bool:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "ray" for name in names):
                return True
        return False

    everything = [*root.glob("**/*.py"), *(root / "pipelines").glob("**/*.py")]
    assert {path.name for path in everything if imports_ray(path)} == {"rayexec.py"}


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path[:0] = {paths!r}
import fake_portrait as fake
from pathlib import Path
from typing import Any
from e3dge_video.pipelines.core.local import LocalExecutor
from e3dge_video.pipelines.core.spec import Interrupted
job = fake.portrait_job(Path({folder!r}), frames=320, portrait=fake.Portrait(delay_s={delay}))
def press():
    while not list(Path({folder!r}).glob("work/chunks/observe-*/000004.safetensors")):
        time.sleep(0.02)
    time.sleep(0.3)
    for _ in range({presses}):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
threading.Thread(target=press, daemon=True).start()
began = time.monotonic()
try:
    LocalExecutor().run([job])
except Interrupted as stopped:
    print(stopped.jobs[0].chunks_kept, stopped.jobs[0].chunks_total, stopped)
    sys.exit(130)
"""


@pytest.mark.parametrize(("presses", "delay"), [(1, 0.2), (2, 20.0)])
def test_ctrl_c(tmp_path: Path, presses: int, delay: float) -> None:
    here = str(Path(__file__).parent)
    root = str(Path(e3dge_video.__file__).parent.parent)
    script = INTERRUPTED.format(paths=[here, root], folder=str(tmp_path), presses=presses, delay=delay)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 130, done.stderr
    kept, total = map(int, done.stdout.split()[:2])
    assert 10 <= kept < total == 15
    assert "the same command continues" in done.stdout
    job = fake.portrait_job(tmp_path, frames=320)
    outcome = run(job)
    assert sum(outcome.tasks.get(stage, 0) for stage in PERSISTED) == total - kept
    assert output(job) == fake.reference_bytes(320)
