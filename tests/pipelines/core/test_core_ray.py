"""The Ray executor: same bytes as in-process, whatever dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_portrait as fake
import numpy as np
import pytest

import e3dge_video
from e3dge_video.errors import BackendError, InputError
from e3dge_video.pipelines.core.driver import Finished, Happening
from e3dge_video.pipelines.core.events import WorkerDied
from e3dge_video.pipelines.core.local import LocalExecutor
from e3dge_video.pipelines.core.spec import (
    Chunk,
    Graph,
    Interrupted,
    Job,
    MapStage,
    Payload,
    PipelineError,
    Resources,
    RunOptions,
    Unit,
)
from e3dge_video.pipelines.core.worker import Call

pytest.importorskip("ray")
from e3dge_video.pipelines.core import rayexec
from e3dge_video.pipelines.core.rayexec import RayExecutor, RaySession, ray

pytestmark = pytest.mark.usefixtures("ray_session")
FRAMES = 300


@pytest.fixture(scope="module")
def expected() -> bytes:
    return fake.reference_bytes(FRAMES)


@pytest.fixture
def executor(ray_session: RaySession) -> Iterator[RayExecutor]:
    with RayExecutor() as executor:
        yield executor


def output(job: Job) -> bytes:
    return (job.work_dir.parent / "out.bin").read_bytes()


def folder(path: Path, files: int = 0) -> Path:
    path.mkdir()
    for i in range(files):
        (path / str(i)).touch()
    return path


def when(condition: Callable[[], Any], act: Callable[[], Any]) -> threading.Thread:
    """Do something beside the test as soon as a condition holds."""

    def watch() -> None:
        until = time.monotonic() + 30
        while not condition():
            if time.monotonic() > until:
                return
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def chunks_of(job: Job, stage: str) -> list[Path]:
    return list(job.work_dir.glob(f"chunks/{stage}-*/*.safetensors"))


def test_same_bytes_as_in_process_also_for_several_jobs_and_workers(tmp_path: Path, executor: RayExecutor) -> None:
    jobs = [
        fake.portrait_job(tmp_path / str(s), frames=100 * s, chunk=[16, 64][s % 2], seed=s, name=str(s))
        for s in (1, 2, 3)
    ]
    outcomes = executor.run(jobs)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    for seed, job in enumerate(jobs, 1):
        assert output(job) == fake.reference_bytes(100 * seed, seed)
    assert outcomes[1].tasks == {"scan": 13, "prep": 26, "observe": 13, "portrait": 13, "encode": 13}


def test_sigkill_of_each_worker_gives_the_same_bytes(tmp_path: Path, executor: RayExecutor, expected: bytes) -> None:
    """Every unit loses its worker in the middle of its work, one after another."""
    begun = {"scan": "scan", "prep": "observe", "portrait": "observe", "encode": "encode"}
    notes = {unit: folder(tmp_path / unit) for unit in begun}
    job = fake.portrait_job(
        tmp_path / "job",
        frames=FRAMES,
        chunk=16,
        notes=notes,
        scan=fake.Scan(delay_s=0.02),
        portrait=fake.Portrait(delay_s=0.02),
    )

    def kill(unit: str) -> None:
        os.kill(int(next(notes[unit].iterdir()).name), signal.SIGKILL)

    killers = []
    for count, (unit, stage) in enumerate(begun.items()):
        done = 4 + 4 * count
        killers.append(when(lambda s=stage, d=done: len(chunks_of(job, s)) >= d, lambda u=unit: kill(u)))
    [outcome] = executor.run([job])
    for killer in killers:
        killer.join()
    assert outcome.error is None and output(job) == expected
    assert {unit: len(list(place.iterdir())) for unit, place in notes.items()} == dict.fromkeys(notes, 2), "replaced"
    plain = {"scan": 19, "prep": 38, "observe": 19, "portrait": 19, "encode": 19}
    extra = {stage: outcome.tasks[stage] - plain[stage] for stage in plain}
    # `tasks` counts finished bodies: what a kill repeats had not finished, unless its report was lost on the way.
    assert all(0 <= count <= 2 for count in extra.values()), extra


def test_death_seen_together_with_a_result_of_the_worker(
    tmp_path: Path, executor: RayExecutor, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is handled first and leads to more work for a worker that is already gone."""
    dead: list[int] = []

    class Backend(rayexec._RayBackend):
        def poll(self, timeout_s: float) -> list[Happening]:
            found = super().poll(timeout_s)
            workers = [happening.worker for happening in found if isinstance(happening, Finished)]
            if dead or not workers:
                return found
            dead.append(workers[0])
            self._bury(workers[0])
            return [*found, WorkerDied(workers[0], "killed by the test")]

        def submit(self, worker: int, call: Call) -> None:
            if worker in dead:
                dead.append(worker)
            super().submit(worker, call)

    monkeypatch.setattr(rayexec, "_RayBackend", Backend)
    job = fake.portrait_job(tmp_path / "job", frames=FRAMES, chunk=16)
    [outcome] = executor.run([job])
    assert len(dead) > 1, "no call for the dead worker: the test shows nothing"
    assert outcome.error is None and outcome.crashes == 1 and output(job) == expected


def test_each_trouble_stays_with_its_job(
    tmp_path: Path, executor: RayExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's error, a bug, no memory, a poisonous chunk and a hang, beside a job that is fine."""

    def job(name: str, **parts: Any) -> Job:
        return fake.portrait_job(tmp_path / name, frames=200, name=name, one_unit=True, timeout_s=2.0, **parts)

    hang = fake.Trouble(1, "hang", str(folder(tmp_path / "markers", 1)))
    jobs = [
        job("poison", scan=fake.Scan(fake.Trouble(2, "kill"))),
        job("user", scan=fake.Scan(fake.Trouble(1, "raise"))),
        job("bug", encode=fake.Encode(trouble=fake.Trouble(1, "bug"))),
        job("memory", prep=fake.Prep(trouble=fake.Trouble(0, "memory"))),
        job("hang", prep=fake.Prep(trouble=hang)),
        job("fine", seed=2),
    ]
    executor.options = RunOptions(kills_per_chunk=2)
    outcomes = {outcome.job: outcome for outcome in executor.run(jobs)}

    with pytest.raises(InputError, match=r"^clip.mp4: frame 70 cannot be decoded; trim the clip$"):
        outcomes["user"].result()
    bug = outcomes["bug"].error
    assert isinstance(bug, IndexError)
    notes = "".join(bug.__notes__)
    assert "bug: stage encode, frames 64 to 127" in notes and "in strike" in notes
    memory = outcomes["memory"].error
    assert isinstance(memory, PipelineError) and "out of memory" in str(memory)
    poison = outcomes["poison"].error
    assert isinstance(poison, PipelineError) and outcomes["poison"].crashes >= 2
    assert "poison: stage scan, frames 128 to 191, killed its worker 2 times" in str(poison)
    assert outcomes["hang"].error is None and outcomes["hang"].crashes >= 1
    assert output(jobs[4]) == fake.reference_bytes(200)
    assert outcomes["fine"].error is None and output(jobs[5]) == fake.reference_bytes(200, 2)
    assert "a portrait worker died (its process ended unexpectedly); its chunks are computed again" in caplog.text
    assert "no result within 2 s" in caplog.text


def test_setup_error_arrives_as_it_was_raised(tmp_path: Path, executor: RayExecutor) -> None:
    [outcome] = executor.run([fake.portrait_job(tmp_path, broken_setup=True, one_unit=True)])
    assert isinstance(outcome.error, InputError) and "models verify" in str(outcome.error)


def test_impossible_gpu_is_a_user_error(tmp_path: Path, executor: RayExecutor) -> None:
    unit = Unit("gpu", resources=Resources(gpus=99))
    graph = Graph((unit,), (MapStage("scan", "gpu", fake.Scan(), persist=True),))
    [outcome] = executor.run([Job("clip", "k", 10, graph, tmp_path / "work", fake.Clip(1))])
    assert isinstance(outcome.error, BackendError) and "needs 99 GPU" in str(outcome.error)


@dataclass(frozen=True)
class Ask:
    """Reports what a worker process looks like."""

    def __call__(self, chunk: Chunk, tools: Any) -> Payload:
        logging.getLogger("e3dge_video.faces").warning("no face in frame 3")
        logging.getLogger("e3dge_video.faces").info("not worth telling")
        print("noise")
        facts = [os.environ["OMP_NUM_THREADS"], str(Path.cwd()), *sys.path]
        return {"facts": "\n".join(facts).encode(), "large": np.zeros(1 << 18)}


@dataclass(frozen=True)
class Reread:
    def __call__(self, chunk: Chunk, tools: Any, facts: Payload) -> Payload:
        assert isinstance(facts["large"], np.ndarray) and not facts["large"].flags.writeable
        return {"facts": facts["facts"]}


def test_worker_processes_are_clean(
    tmp_path: Path, executor: RayExecutor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph(
        (Unit("scan", resources=Resources(threads=3)),),
        (
            MapStage("ask", "scan", by_value(Ask)(), config=0),
            MapStage("keep", "scan", by_value(Reread)(), {"facts": "ask"}, persist=True, config=0),
        ),
    )
    job = Job("clip", "k", 3, graph, tmp_path / "work", fake.Clip(1))
    monkeypatch.chdir(tmp_path)
    [outcome] = executor.run([job])
    outcome.result()
    from e3dge_video.pipelines.core.plan import plan_job
    from e3dge_video.pipelines.core.store import WorkDir

    with WorkDir(plan_job(job)) as work:
        threads, here, *path = bytes(work.read("keep", 0)["facts"]).decode().split("\n")
    assert threads == "3"
    assert Path(here) == tmp_path, "relative paths mean the same in a worker"
    assert str(tmp_path) not in path and "" not in path
    assert [r.getMessage() for r in caplog.records if r.name == "e3dge_video.faces"] == ["no face in frame 3"]


def by_value(kind: type) -> type:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return kind


SCRIPT = """
import os, signal, sys, threading, time
sys.path[:0] = {paths!r}
import fake_portrait as fake
from pathlib import Path
from e3dge_video.pipelines.core.rayexec import RayExecutor, ray
from e3dge_video.pipelines.core.spec import Interrupted, RunOptions
ray.cloudpickle.register_pickle_by_value(fake)
folder = Path({folder!r})
notes = folder / "notes"
notes.mkdir(exist_ok=True)
{body}
"""

INTERRUPTED = """
job = fake.portrait_job(folder, frames=320, chunk=16, one_unit=True, notes=dict(portrait=notes), {parts})
def press():
    while len(list(folder.glob("work/chunks/encode-*/*.safetensors"))) < 4:
        time.sleep(0.01)
    time.sleep(0.3)
    for _ in range({presses}):
        os.killpg(0, signal.SIGINT)
        time.sleep(1.0)
threading.Thread(target=press, daemon=True).start()
try:
    with RayExecutor({address!r}, options=RunOptions(grace_s=20), object_store_mb=150) as executor:
        executor.run([job])
except Interrupted as stopped:
    print(time.monotonic(), stopped.jobs[0].chunks_kept, stopped.jobs[0].chunks_total)
    sys.exit(130)
"""


def start_script(tmp_path: Path, body: str, **options: Any) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), str(Path(e3dge_video.__file__).parent.parent)]
    code = SCRIPT.format(paths=paths, folder=str(tmp_path), body=body)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    script = tmp_path / "script.py"  # a file: with -c the driver itself would search the current directory first
    script.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C at a terminal reaches the whole group, Ray's processes too
        **options,
    )


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()


def check_stopped(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    """The script ended as it should, and the in-process executor continues from what it left."""
    out, _ = process.communicate(timeout=90)
    ended = time.monotonic()
    assert process.returncode == 130, (tmp_path / "stderr").read_text()
    stopped, kept, total = out.split()
    assert 40 + 4 <= int(kept) < int(total) == 60
    assert ended - float(stopped) < 8, "nothing is waited for after the last press"
    assert not any(alive(int(note.name)) for note in (tmp_path / "notes").iterdir())
    job = fake.portrait_job(tmp_path, frames=320, chunk=16)
    [outcome] = LocalExecutor().run([job])
    assert output(job) == fake.reference_bytes(320)
    repeated = sum(outcome.tasks.get(stage, 0) for stage in ("scan", "observe", "encode"))
    assert repeated == int(total) - int(kept)


def test_ctrl_c_and_a_clean_terminal(tmp_path: Path) -> None:
    """With a Ray of its own, in a directory full of modules of the wrong kind, and with a worker that dies."""
    place = folder(tmp_path / "place")
    for name in ("safetensors", "e3dge_video", "pipelines", "json", "zlib"):
        (place / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    trouble = f"fake.Trouble(1, 'kill', {str(folder(tmp_path / 'markers', 1))!r})"
    parts = f"scan=fake.Scan(trouble={trouble}), portrait=fake.Portrait(delay_s=0.1)"
    process = start_script(tmp_path, INTERRUPTED.format(presses=1, parts=parts, address=None), cwd=place)
    check_stopped(tmp_path, process)
    err = (tmp_path / "stderr").read_text()
    assert err == "a portrait worker died (its process ended unexpectedly); its chunks are computed again\n"


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    """As a guest of the tests' Ray, which must survive it."""
    address = ray.get_runtime_context().gcs_address
    parts = "encode=fake.Encode(trouble=fake.Trouble(4, 'hang'))"
    process = start_script(tmp_path, INTERRUPTED.format(presses=2, parts=parts, address=address))
    check_stopped(tmp_path, process)
    assert ray.get(ray.put(1)) == 1


def test_resume_under_ray_after_a_failure_and_options(tmp_path: Path, ray_session: RaySession, expected: bytes) -> None:
    markers = folder(tmp_path / "markers", 1)
    trouble = fake.Trouble(3, "raise", str(markers))
    job = fake.portrait_job(tmp_path, frames=FRAMES, encode=fake.Encode(trouble=trouble), one_unit=True)
    with RayExecutor(options=RunOptions(budget_mb=0.001, window=2)) as executor:
        [first] = executor.run([job])
        assert isinstance(first.error, InputError)
        [second] = executor.run([job])
    assert second.error is None and output(job) == expected
    assert "scan" not in second.tasks and second.tasks["encode"] <= 5


def test_ctrl_c_in_process(tmp_path: Path, executor: RayExecutor) -> None:
    job = fake.portrait_job(tmp_path, frames=320, chunk=16, scan=fake.Scan(delay_s=0.05), one_unit=True)
    presser = when(lambda: len(chunks_of(job, "scan")) >= 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        executor.run([job])
    presser.join()
    assert signal.getsignal(signal.SIGINT) is before
    [left] = stopped.value.jobs
    assert 3 <= left.chunks_kept < left.chunks_total and left.work_dir == job.work_dir
