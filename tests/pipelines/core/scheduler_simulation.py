"""Runs the scheduler against random executors and checks its promises at every step."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e3dge_video.errors import InputError
from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.jobstate import WHOLE, Task
from e3dge_video.pipelines.core.plan import JobPlan, plan_job
from e3dge_video.pipelines.core.spec import BarrierStage, Graph, Job, MapStage, Stage, Unit
from e3dge_video.pipelines.core.state import Scheduler


def body(*_: object) -> None: ...


def random_graph(rng: random.Random) -> Graph:
    """A valid graph of 1 to 8 stages over 1 to 3 units."""
    units = tuple(Unit(f"unit{i}", workers=rng.randint(1, 3)) for i in range(rng.randint(1, 3)))
    kinds: list[str] = []
    inputs: list[list[int]] = []
    for index in range(rng.randint(1, 8)):
        readable = [i for i in range(index) if kinds[i] != "transient"]
        kind = rng.choice(["transient", "transient", "persisted", "barrier"]) if readable or index == 0 else "persisted"
        kind = "persisted" if kind == "barrier" and not readable else kind
        choices = readable if kind == "barrier" else list(range(index))
        count = min(len(choices), rng.randint(1 if kind == "barrier" else 0, 2))
        kinds.append(kind)
        inputs.append(sorted(rng.sample(choices, count)))
    read = {source for sources in inputs for source in sources}
    stages: list[Stage] = []
    for index, (kind, sources) in enumerate(zip(kinds, inputs, strict=True)):
        wiring = {f"input{i}": f"stage{i}" for i in sources}
        if kind == "barrier":
            stages.append(BarrierStage(f"stage{index}", body, wiring, config=0))
        else:
            persist = kind == "persisted" or index not in read
            size = float(rng.choice([0, 1, 5, 20]))
            unit = rng.choice(units).name
            stages.append(MapStage(f"stage{index}", unit, body, wiring, persist, size, config=0))
    return Graph(units, tuple(stages))


@dataclass
class Simulation:
    """One run: `kills` and `losses` are what fate may still do.

    Args:
        wrong_sizes: Results are larger than estimated, so that the budget can be overrun but nothing may stall.
    """

    rng: random.Random
    graphs: list[Graph]
    frames: list[int]
    budget: int
    window: int = 3
    slots: int = 2
    limit: int | None = None
    kills: int = 0
    losses: int = 0
    failures: int = 0
    wrong_sizes: bool = False
    stored_share: float = 0.0
    scheduler: Scheduler = field(init=False)
    closed: dict[int, Exception | None] = field(default_factory=dict)
    runs: dict[Task, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.budget, window=self.window, slots=self.slots, limit=self.limit)
        self.plans: dict[int, JobPlan] = {}
        self.disk: set[Task] = set()
        self.held: dict[Task, int] = {}
        self.barriers: set[Task] = set()  # done
        self.running: dict[int, list[Task]] = {}
        self.starting: dict[int, str] = {}
        self.idle_units: dict[int, str] = {}
        self.pending_barriers: list[Task] = []
        self.pending_events: list[events.Event] = []
        self.most_bytes = self.losses_so_far = self.largest_footprint = 0

    def run(self) -> None:
        opened = 0
        for step in range(20_000):
            if self.pending_events:
                self.send(self.pending_events.pop(0))
                continue
            if opened < len(self.graphs) and (not self.scheduler.jobs or self.rng.random() < 0.2):
                self.open(opened)
                opened += 1
                if opened == len(self.graphs):
                    self.send(events.JobsExhausted())
                continue
            if self.scheduler.finished:
                break
            assert not self.scheduler.stalled, f"stalled after {step} events"
            self.happen()
        else:
            raise AssertionError("does not end")
        live = {task.job for tasks in self.running.values() for task in tasks}
        assert not [task for task in self.held if task.job not in live], "results are kept after the end"
        assert set(self.closed) == set(range(len(self.graphs)))

    def open(self, index: int) -> None:
        job = Job(f"job{index}", "key", self.frames[index], self.graphs[index], Path("unused"), None, 4)
        plan = self.plans[index] = plan_job(job)
        footprint = sum(int(node.bytes_per_frame * 4) for node in plan.nodes.values())
        self.largest_footprint = max(self.largest_footprint, footprint)
        stored = {
            node.name: {c.index for c in plan.chunks if self.rng.random() < self.stored_share}
            for node in plan.nodes.values()
            if node.persist
        }
        self.disk |= {Task(index, name, chunk) for name, chunks in stored.items() for chunk in chunks}
        self.send(events.JobOpened(index, plan, stored))

    def size(self, task: Task) -> int:
        plan = self.plans[task.job]
        size = int(plan.nodes[task.node].bytes_per_frame * len(plan.chunks[task.chunk]))
        return size * 3 + 1 if self.wrong_sizes else size

    def happen(self) -> None:
        """Let one of the things that can happen happen."""
        options: list[events.Event] = [events.WorkerReady(worker) for worker in self.starting]
        options += [events.TaskDone(w, tasks[0], self.size(tasks[0])) for w, tasks in self.running.items() if tasks]
        options += [events.BarrierDone(task) for task in self.pending_barriers]
        event = self.rng.choice(options)
        workers = [*self.running, *self.starting]
        if self.kills and workers and self.rng.random() < 0.15:
            self.kills -= 1
            event = events.WorkerDied(self.rng.choice(workers), "killed")
        elif self.losses and isinstance(event, events.TaskDone) and self.rng.random() < 0.3:
            lost = [task for task in self.inputs(event.task) if task in self.held or task in self.disk]
            if lost:
                self.losses -= 1
                self.losses_so_far += 1
                event = events.InputsLost(event.task, (self.rng.choice(lost),), event.worker)
        elif self.failures and isinstance(event, events.TaskDone) and self.rng.random() < 0.1:
            self.failures -= 1
            event = events.TaskFailed(event.worker, event.task, InputError("bad frame"))
        match event:
            case events.WorkerReady(worker):
                self.idle_units[worker] = self.starting.pop(worker)
                self.running[worker] = []
            case events.WorkerDied(worker, _):
                self.running.pop(worker, None)
                self.starting.pop(worker, None)
                self.idle_units.pop(worker, None)
            case events.TaskDone(worker, task, nbytes):
                self.running[worker].remove(task)
                self.runs[task] = self.runs.get(task, 0) + 1
                if self.plans[task.job].nodes[task.node].persist:
                    self.disk.add(task)
                else:
                    self.held[task] = nbytes
            case events.InputsLost(task, lost, worker):
                assert worker is not None
                self.running[worker].remove(task)
                for gone in lost:
                    self.held.pop(gone, None)
                    self.disk.discard(gone)
            case events.TaskFailed(worker, task, _):
                self.running[worker].remove(task)
            case events.BarrierDone(task):
                self.pending_barriers.remove(task)
                self.barriers.add(task)
        self.send(event)

    def inputs(self, task: Task) -> list[Task]:
        nodes = self.plans[task.job].nodes
        return [
            Task(task.job, source, WHOLE if nodes[source].barrier else task.chunk)
            for _, source in nodes[task.node].inputs
        ]

    def send(self, event: events.Event) -> None:
        for action in self.scheduler.handle(event):
            self.take(action)
        self.check()

    def take(self, action: events.Action) -> None:
        match action:
            case events.StartWorker(worker, unit, delay_s):
                assert 0 <= delay_s <= 30
                self.starting[worker] = unit.name
                count = sum(name == unit.name for name in [*self.starting.values(), *self.idle_units.values()])
                assert count <= unit.workers
            case events.StopWorker(worker):
                assert not self.running.pop(worker, [])
                self.starting.pop(worker, None)
                self.idle_units.pop(worker, None)
            case events.Submit(task, worker):
                node = self.plans[task.job].nodes[task.node]
                assert self.idle_units[worker] == node.unit
                for source in self.inputs(task):
                    assert source in (self.barriers | self.disk | set(self.held)), f"{task} without {source}"
                assert task not in self.held
                assert all(task not in tasks for tasks in self.running.values()), "computed twice at a time"
                self.running[worker].append(task)
                assert len(self.running[worker]) <= self.slots
            case events.RunBarrier(task):
                plan = self.plans[task.job]
                for _, source in plan.nodes[task.node].inputs:
                    if plan.nodes[source].barrier:
                        assert Task(task.job, source, WHOLE) in self.barriers
                    else:
                        assert all(Task(task.job, source, chunk.index) in self.disk for chunk in plan.chunks)
                self.pending_barriers.append(task)
            case events.Release(task):
                self.held.pop(task, None)
            case events.CloseJob(index, error):
                assert index not in self.closed
                self.closed[index] = error
                if error is None:
                    self.check_complete(index)
                    assert not [task for task in self.held if task.job == index]

    def check_complete(self, index: int) -> None:
        plan = self.plans[index]
        for name in plan.targets:
            if plan.nodes[name].barrier:
                assert Task(index, name, WHOLE) in self.barriers
            else:
                assert all(Task(index, name, chunk.index) in self.disk for chunk in plan.chunks)

    def check(self) -> None:
        running = [task for tasks in self.running.values() for task in tasks]
        assert self.limit is None or len(running) <= self.limit
        live = {**self.held, **{task: self.size(task) for task in running}}
        nodes: Mapping[Task, tuple[int, int, int]] = {
            task: (task.job, self.plans[task.job].nodes[task.node].section, task.chunk) for task in live
        }
        total = sum(live.values())
        self.most_bytes = max(self.most_bytes, total)
        if not self.wrong_sizes and total > self.budget:
            # A lost result is made again although the chunk that waits for it holds memory.
            grace = self.losses_so_far * self.largest_footprint
            lone = len({nodes[task] for task in live if live[task]}) == 1
            assert lone or total <= self.budget + grace, "over the budget with several chunks"
        for job, section in {place[:2] for place in nodes.values()}:
            chunks = [place[2] for place in nodes.values() if place[:2] == (job, section)]
            # (a lost old chunk goes back to work beside younger ones)
            assert max(chunks) - min(chunks) < self.window or self.losses_so_far
