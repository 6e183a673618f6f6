"""The scheduler's promises, under random graphs, random executors and random misfortune."""

from __future__ import annotations

import random
from pathlib import Path

import fake_portrait as fake
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_simulation import Simulation, random_graph

from e3dge_video.errors import InputError
from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.jobstate import Task
from e3dge_video.pipelines.core.plan import plan_job
from e3dge_video.pipelines.core.spec import PipelineError
from e3dge_video.pipelines.core.state import Scheduler

SEEDS = st.integers(0, 2**32 - 1)


def simulation(seed: int, **fate: object) -> Simulation:
    rng = random.Random(seed)
    graph = random_graph(rng)
    # Most jobs share a graph, as the videos of a data set do; units of one name must be equal anyway.
    graphs = [graph] * rng.randint(1, 3)
    return Simulation(
        rng,
        graphs,
        frames=[rng.randint(1, 40) for _ in graphs],
        budget=rng.choice([0, 30, 100, 300, 10_000]),
        window=rng.randint(1, 8),
        slots=rng.randint(1, 2),
        limit=rng.choice([None, None, 1, 3]),
        stored_share=rng.choice([0.0, 0.0, 0.5, 1.0]),
        **fate,  # type: ignore[arg-type]
    )


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_every_schedule_ends_and_computes_each_result_once(seed: int) -> None:
    run = simulation(seed)
    run.run()
    assert set(run.closed.values()) == {None}
    assert all(count == 1 for count in run.runs.values())


@settings(max_examples=250, deadline=None)
@given(SEEDS)
def test_every_schedule_ends_under_deaths_losses_and_failures(seed: int) -> None:
    rng = random.Random(seed)
    run = simulation(seed, kills=rng.randint(0, 12), losses=rng.randint(0, 6), failures=rng.choice([0, 0, 1, 2]))
    run.run()
    allowed = (PipelineError, InputError)
    assert all(error is None or isinstance(error, allowed) for error in run.closed.values())


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_few_kills_never_fail_a_job_and_cost_few_repeats(seed: int) -> None:
    run = simulation(seed, kills=2)
    run.run()
    assert set(run.closed.values()) == {None}
    assert all(count == 1 for count in run.runs.values()), "only unfinished tasks are repeated"


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_wrong_size_estimates_never_stall(seed: int) -> None:
    run = simulation(seed, kills=3, wrong_sizes=True)
    run.run()


def opened(tmp_path: Path, frames: int = 320, budget: int = 10**9, **options: int) -> tuple[Scheduler, list]:
    """A scheduler with the fake portrait job, all workers ready; and the actions so far."""
    scheduler = Scheduler(budget, **options)
    plan = plan_job(fake.portrait_job(tmp_path, frames=frames))
    actions = scheduler.handle(events.JobOpened(0, plan, {}))
    actions += scheduler.handle(events.JobsExhausted())
    for worker in list(scheduler.workers):
        actions += scheduler.handle(events.WorkerReady(worker))
    return scheduler, actions


def test_a_chunk_that_kills_three_workers_fails_its_job_with_one_reason(tmp_path: Path) -> None:
    scheduler, actions = opened(tmp_path)
    for death in range(3):
        [victim] = [a for a in actions if isinstance(a, events.Submit) and a.task == Task(0, "scan", 0)]
        actions = scheduler.handle(events.WorkerDied(victim.worker, "its process ended unexpectedly"))
        starts = [a for a in actions if isinstance(a, events.StartWorker)]
        if death < 2:
            [start] = starts
            assert start.delay_s == [0.0, 0.5][death]
            actions = scheduler.handle(events.WorkerReady(start.worker))
    [close] = [a for a in actions if isinstance(a, events.CloseJob)]
    assert isinstance(close.error, PipelineError)
    assert "stage scan, frames 0 to 63, killed its worker 3 times" in str(close.error)
    assert scheduler.finished


def test_only_the_running_task_of_a_dead_worker_is_blamed(tmp_path: Path) -> None:
    scheduler, actions = opened(tmp_path, slots=2)
    [first, second] = [a for a in actions if isinstance(a, events.Submit)]
    assert (first.task.chunk, second.task.chunk) == (0, 1) and first.worker == second.worker
    scheduler.handle(events.WorkerDied(first.worker, "killed"))
    assert scheduler.jobs[0].kills == {first.task: 1}


def test_a_unit_that_dies_without_work_is_given_up_after_backing_off(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9)
    plan = plan_job(fake.portrait_job(tmp_path))
    actions = scheduler.handle(events.JobOpened(0, plan, {}))
    delays = []
    for _ in range(10):
        starts = [a for a in actions if isinstance(a, events.StartWorker) and a.unit.name == "scan"]
        if not starts:
            break
        delays.append(starts[0].delay_s)
        actions = scheduler.handle(events.WorkerDied(starts[0].worker, "killed"))
    assert delays == [0.0, 0.0, 0.5, 1.0, 2.0]
    [close] = [a for a in actions if isinstance(a, events.CloseJob)]
    assert "worker scan died 5 times" in str(close.error)


def test_a_completed_task_ends_the_back_off(tmp_path: Path) -> None:
    scheduler, actions = opened(tmp_path)
    for chunk in range(4):  # no chunk kills twice, but workers die again and again
        [submit] = [a for a in actions if isinstance(a, events.Submit)]
        scheduler.handle(events.TaskDone(submit.worker, submit.task, 0))
        actions = scheduler.handle(events.WorkerDied(submit.worker, "killed"))
        [start] = [a for a in actions if isinstance(a, events.StartWorker)]
        assert start.delay_s == 0.0
        actions = scheduler.handle(events.WorkerReady(start.worker))
        assert submit.task.chunk == chunk


@pytest.mark.parametrize(("nbytes", "in_work"), [(10, 2), (60 * 2**20, 1)])
def test_results_larger_than_declared_narrow_the_run(tmp_path: Path, nbytes: int, in_work: int) -> None:
    scheduler, actions = opened(tmp_path, frames=64 * 8, budget=100 * 2**20, slots=2, window=2)
    for submit in [a for a in actions if isinstance(a, events.Submit)]:
        scheduler.handle(events.TaskDone(submit.worker, submit.task, nbytes))
    assert len(scheduler.inflight) == in_work
    assert scheduler.reserved <= 100 * 2**20


def test_setup_error_fails_the_jobs_that_need_the_unit_and_no_other(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9)
    plan = plan_job(fake.portrait_job(tmp_path))
    needs = {"scan": set(range(5)), "observe": set(), "encode": set()}
    complete = {"scan": set(range(5)), "observe": set(range(5)), "encode": set(range(5))}
    actions = scheduler.handle(events.JobOpened(0, plan, needs))
    scheduler.handle(events.JobOpened(1, plan, complete))
    [portrait] = [a for a in actions if isinstance(a, events.StartWorker) and a.unit.name == "portrait"]
    error = InputError("model missing")
    actions = scheduler.handle(events.SetupFailed(portrait.worker, error))
    assert [(a.job, a.error) for a in actions if isinstance(a, events.CloseJob)] == [(0, error)]
    assert 1 in scheduler.jobs
    assert events.CloseJob(2, error) in scheduler.handle(events.JobOpened(2, plan, needs)), "later ones at once"


def test_complete_work_folder_needs_no_worker(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9)
    plan = plan_job(fake.portrait_job(tmp_path))
    actions = scheduler.handle(events.JobOpened(0, plan, {"encode": set(range(5))}))
    assert actions == [events.RunBarrier(Task(0, "mux", -1))]


def test_late_stages_first_then_old_chunks(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9, limit=1)
    plan = plan_job(fake.portrait_job(tmp_path, frames=192))
    queue = scheduler.handle(events.JobOpened(0, plan, {}))
    order = []
    while queue:
        action = queue.pop(0)
        match action:
            case events.StartWorker(worker, _, _):
                queue += scheduler.handle(events.WorkerReady(worker))
            case events.Submit(task, worker):
                order.append(f"{task.node}{task.chunk}")
                queue += scheduler.handle(events.TaskDone(worker, task, 1000))
            case events.RunBarrier(task):
                order.append(task.node)
                assert scheduler.reserved == 0, "memory is given back"
                queue += scheduler.handle(events.BarrierDone(task))
    assert order == [
        "scan0", "scan1", "scan2", "track",
        "prep0", "observe0", "prep1", "observe1", "prep2", "observe2", "settle",
        "prep@20", "portrait0", "encode0", "prep@21", "portrait1", "encode1", "prep@22", "portrait2", "encode2", "mux",
    ]  # fmt: skip


def test_next_chunk_goes_to_the_worker_that_did_the_one_before(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9)
    plan = plan_job(fake.portrait_job(tmp_path, frames=640, workers=2))
    submitted: dict[int, int] = {}

    def note(actions: list) -> None:
        submitted.update({a.task.chunk: a.worker for a in actions if isinstance(a, events.Submit)})

    note(scheduler.handle(events.JobOpened(0, plan, {})))
    for worker in list(scheduler.workers):
        note(scheduler.handle(events.WorkerReady(worker)))
    first, second = submitted[0], submitted[1]
    assert first < second
    scheduler.limit = 0  # hold back until both are free
    scheduler.handle(events.TaskDone(first, Task(0, "scan", 0), 0))
    scheduler.handle(events.TaskDone(second, Task(0, "scan", 1), 0))
    scheduler.limit = 1
    note(scheduler.handle(events.JobsExhausted()))
    assert submitted[2] == second and 3 not in submitted


def test_stop_begins_nothing_new(tmp_path: Path) -> None:
    scheduler, actions = opened(tmp_path, slots=2)
    running = [a for a in actions if isinstance(a, events.Submit)]
    assert scheduler.handle(events.Stop()) == []
    assert scheduler.worth_waiting_for() == len(running) == 2
    for submit in running:
        assert scheduler.handle(events.TaskDone(submit.worker, submit.task, 0)) == []
    assert scheduler.worth_waiting_for() == 0


def test_lone_chunk_larger_than_the_budget_runs_alone(tmp_path: Path) -> None:
    rng = random.Random(3)
    graph = fake.portrait_job(tmp_path).graph
    tight = Simulation(rng, [graph] * 2, [40, 40], budget=1)
    tight.run()
    assert set(tight.closed.values()) == {None}
    roomy = Simulation(rng, [graph] * 2, [40, 40], budget=10**9)
    roomy.run()
    one_chunk = 4 * (4 * fake.SIDE**2 + 128 + 128)
    assert tight.most_bytes <= one_chunk < roomy.most_bytes


def test_a_second_job_with_other_units_is_refused(tmp_path: Path) -> None:
    scheduler = Scheduler(10**9)
    scheduler.handle(events.JobOpened(0, plan_job(fake.portrait_job(tmp_path / "a")), {}))
    other = plan_job(fake.portrait_job(tmp_path / "b", workers=2))
    [close] = [a for a in scheduler.handle(events.JobOpened(1, other, {})) if isinstance(a, events.CloseJob)]
    assert close.job == 1 and isinstance(close.error, PipelineError)


def test_stall_is_seen(tmp_path: Path) -> None:
    scheduler, _ = opened(tmp_path)
    assert not scheduler.stalled
    scheduler.workers.clear()
    assert scheduler.stalled


@pytest.mark.parametrize("window", [1, 2, 5])
def test_window_bounds_the_chunks_in_work(tmp_path: Path, window: int) -> None:
    scheduler, actions = opened(tmp_path, frames=64 * 20, window=window, slots=2)
    seen = 0
    while submits := [a for a in actions if isinstance(a, events.Submit)]:
        seen = max(seen, *(a.task.chunk for a in submits))
        done = [a for a in submits if a.task.chunk != 0]  # chunk 0 hangs
        if not done:
            break
        actions = [b for a in done for b in scheduler.handle(events.TaskDone(a.worker, a.task, 0))]
    assert seen == window - 1
