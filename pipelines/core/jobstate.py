"""What is needed, ready, running and held of one job: the demand side of the scheduler. Pure.

Work is pulled from the end, like `make`: a task is required only if a required task reads its result and
that result is neither in the work folder nor in memory. A lost result is simply required again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import IntEnum
from heapq import heappop, heappush
from math import ceil
from typing import NamedTuple

from e3dge_video.pipelines.core.plan import JobPlan, Node


class Task(NamedTuple):
    """One chunk of one node of one job. Barriers have the chunk `WHOLE`."""

    job: int
    node: str
    chunk: int


WHOLE = -1


class Status(IntEnum):
    """Of one task: not required (or released); required; inputs there; given to a worker; result there."""

    IDLE = 0
    WAITING = 1
    READY = 2
    RUNNING = 3
    DONE = 4


class JobState:
    """Task statuses of one open job, and the memory its results take.

    Args:
        index: Number of the job, the first field of its tasks.
        plan: Its nodes and chunks.
        stored: For each persisted node the chunks found in the work folder.
        window: Chunks in work past the oldest unfinished one, per section.
    """

    def __init__(self, index: int, plan: JobPlan, stored: Mapping[str, Collection[int]], window: int) -> None:
        self.index = index
        self.plan = plan
        self.window = window
        self.consumers = {name: plan.consumers(name) for name in plan.nodes}
        count = len(plan.chunks)
        self.status = {n.name: [Status.IDLE] * (1 if n.barrier else count) for n in plan.nodes.values()}
        self.ready: dict[str, list[int]] = {n.name: [] for n in plan.nodes.values() if not n.barrier}
        self.remaining: dict[str, int] = dict.fromkeys((n.unit for n in plan.nodes.values() if n.unit), 0)
        self.kills: dict[Task, int] = {}
        self.losses: dict[Task, int] = {}
        self.reserved = 0
        self.frames_done: dict[str, int] = {}
        self.frames_total: dict[str, int] = {}
        self._charged: dict[Task, int] = {}
        self._bytes_per_frame = {n.stage: n.bytes_per_frame for n in plan.nodes.values()}
        sections = 1 + max(n.section for n in plan.nodes.values())
        self._unfinished = [[0] * count for _ in range(sections)]  # required tasks not done, per section and chunk
        self._oldest = [0] * sections
        self._admitted: list[set[int]] = [set() for _ in range(sections)]
        # Required barrier → results of its inputs that are missing.
        self._barrier_waits: dict[str, int] = {}

        for name, chunks in stored.items():
            for chunk in chunks:
                self.status[name][chunk] = Status.DONE
                self._count_frames(plan.nodes[name], chunk, total=1, done=1)
        for name in plan.targets:
            if plan.nodes[name].barrier:
                self._require_barrier(plan.nodes[name])
            else:
                for chunk in range(count):
                    self._require(plan.nodes[name], chunk)

    # questions

    @property
    def finished(self) -> bool:
        """Whether everything required is done."""
        return not any(self.remaining.values()) and all(
            self.status[name][0] == Status.DONE for name in self._barrier_waits
        )

    def available(self, node: str, chunk: int) -> bool:
        """Whether the result of a node for a chunk can be read."""
        return self.status[node][0 if self.plan.nodes[node].barrier else chunk] == Status.DONE

    def estimate(self, node: Node, chunk: int) -> int:
        """Expected size of a result. [bytes]"""
        return ceil(self._bytes_per_frame[node.stage] * len(self.plan.chunks[chunk]))

    def sections(self) -> range:
        return range(len(self._unfinished))

    def next_admissible(self, section: int) -> int | None:
        """Oldest chunk that could go through this section now: within the window, all results from before there."""
        unfinished = self._unfinished[section]
        oldest = self._oldest[section]
        while oldest < len(unfinished) and not unfinished[oldest]:
            oldest += 1
        self._oldest[section] = oldest
        for chunk in range(oldest, min(oldest + self.window, len(unfinished))):
            if unfinished[chunk] and chunk not in self._admitted[section] and self._reachable(section, chunk):
                return chunk
        return None

    def footprint(self, section: int, chunk: int) -> int:
        """Bytes that the chunk will need to get through the section."""
        return sum(self.estimate(node, chunk) for node in self._pending(section, chunk))

    def ready_chunk(self, node: str) -> int | None:
        """Oldest chunk that could be given to a worker now."""
        heap = self.ready[node]
        while heap and self.status[node][heap[0]] != Status.READY:
            heappop(heap)
        return heap[0] if heap else None

    def ready_barriers(self) -> list[str]:
        """Barriers that are required and whose inputs are all done."""
        return [
            name for name, waits in self._barrier_waits.items() if waits == 0 and self.status[name][0] == Status.WAITING
        ]

    # changes

    def admit(self, section: int, chunk: int) -> None:
        """Reserve the memory of a chunk and let its tasks become ready."""
        self._admitted[section].add(chunk)
        pending = list(self._pending(section, chunk))
        for node in pending:
            self._charge(Task(self.index, node.name, chunk), self.estimate(node, chunk))
        for node in pending:
            self._make_ready(node, chunk)

    def start(self, task: Task) -> None:
        self._set(task, Status.RUNNING)

    def requeue(self, task: Task) -> None:
        """The worker died or lost an input: the task is to be run again."""
        self._set(task, Status.WAITING)
        self._make_ready(self.plan.nodes[task.node], task.chunk)

    def complete(self, task: Task, nbytes: int) -> list[Task]:
        """Note a result; returns the transient results that nobody needs any more."""
        node = self.plan.nodes[task.node]
        if not node.barrier:
            self._measure(node, task.chunk, nbytes)
            self._charge(task, 0 if node.persist else nbytes)
            self._count_frames(node, task.chunk, done=1)
            self.remaining[node.unit] -= 1
            self._unfinished[node.section][task.chunk] -= 1
            if not self._unfinished[node.section][task.chunk]:
                self._admitted[node.section].discard(task.chunk)
        self._set(task, Status.DONE)
        for consumer in self.consumers[node.name]:
            if consumer.barrier:
                if consumer.name in self._barrier_waits:
                    self._barrier_waits[consumer.name] -= 1
            else:
                for chunk in range(len(self.plan.chunks)) if node.barrier else (task.chunk,):
                    self._make_ready(consumer, chunk)
        if node.barrier:
            return []
        return self._release({source for _, source in node.inputs}, task.chunk)

    def lose(self, task: Task) -> None:
        """A result that was done cannot be read any more: make it again if somebody needs it."""
        node = self.plan.nodes[task.node]
        self.losses[task] = self.losses.get(task, 0) + 1
        if self.status[node.name][task.chunk] != Status.DONE:
            return
        self._set(task, Status.IDLE)
        self._charge(task, 0)
        self._count_frames(node, task.chunk, total=-1, done=-1)
        wanted = False
        for consumer in self.consumers[node.name]:
            if consumer.barrier:
                if consumer.name in self._barrier_waits:
                    self._barrier_waits[consumer.name] += 1
                wanted |= self.status[consumer.name][0] in (Status.WAITING, Status.RUNNING)
                continue
            status = self.status[consumer.name][task.chunk]
            if status == Status.READY:
                self.status[consumer.name][task.chunk] = Status.WAITING
            wanted |= status in (Status.WAITING, Status.READY, Status.RUNNING)
        if wanted:
            self._require(node, task.chunk)

    def held(self) -> list[Task]:
        """Transient results in memory."""
        return [
            Task(self.index, node.name, chunk)
            for node in self.plan.nodes.values()
            if not node.persist and not node.barrier
            for chunk, status in enumerate(self.status[node.name])
            if status == Status.DONE
        ]

    # inside

    def _set(self, task: Task, status: Status) -> None:
        self.status[task.node][0 if task.chunk == WHOLE else task.chunk] = status

    def _pending(self, section: int, chunk: int) -> Iterator[Node]:
        for node in self.plan.nodes.values():
            if (
                node.section == section
                and not node.barrier
                and self.status[node.name][chunk] in (Status.WAITING, Status.READY)
            ):
                yield node

    def _reachable(self, section: int, chunk: int) -> bool:
        """Whether barriers and earlier sections have delivered all that the chunk needs to get through."""
        return all(
            self.available(source, chunk)
            for node in self._pending(section, chunk)
            for _, source in node.inputs
            if self.plan.nodes[source].barrier or self.plan.nodes[source].section < section
        )

    def _charge(self, task: Task, nbytes: int) -> None:
        self.reserved += nbytes - self._charged.pop(task, 0)
        if nbytes:
            self._charged[task] = nbytes

    def _measure(self, node: Node, chunk: int, nbytes: int) -> None:
        rate = nbytes / len(self.plan.chunks[chunk])
        self._bytes_per_frame[node.stage] = max(self._bytes_per_frame[node.stage], rate)

    def _count_frames(self, node: Node, chunk: int, *, total: int = 0, done: int = 0) -> None:
        frames = len(self.plan.chunks[chunk])
        self.frames_total[node.label] = self.frames_total.get(node.label, 0) + total * frames
        self.frames_done[node.label] = self.frames_done.get(node.label, 0) + done * frames

    def _require(self, node: Node, chunk: int) -> None:
        if self.status[node.name][chunk] != Status.IDLE:
            return
        self.status[node.name][chunk] = Status.WAITING
        self._count_frames(node, chunk, total=1)
        self.remaining[node.unit] += 1
        self._unfinished[node.section][chunk] += 1
        self._oldest[node.section] = min(self._oldest[node.section], chunk)
        for _, source in node.inputs:
            origin = self.plan.nodes[source]
            if origin.barrier:
                self._require_barrier(origin)
            else:
                self._require(origin, chunk)
        if chunk in self._admitted[node.section]:
            self._charge(Task(self.index, node.name, chunk), self.estimate(node, chunk))
            self._make_ready(node, chunk)

    def _require_barrier(self, barrier: Node) -> None:
        if self.status[barrier.name][0] != Status.IDLE:
            return
        self.status[barrier.name][0] = Status.WAITING
        for _, source in barrier.inputs:
            origin = self.plan.nodes[source]
            if origin.barrier:
                self._require_barrier(origin)
            else:
                for chunk in range(len(self.plan.chunks)):
                    self._require(origin, chunk)
        sources = {source for _, source in barrier.inputs}
        missing = sum(status != Status.DONE for source in sources for status in self.status[source])
        self._barrier_waits[barrier.name] = missing

    def _make_ready(self, node: Node, chunk: int) -> None:
        if (
            self.status[node.name][chunk] == Status.WAITING
            and chunk in self._admitted[node.section]
            and all(self.available(source, chunk) for _, source in node.inputs)
        ):
            self.status[node.name][chunk] = Status.READY
            heappush(self.ready[node.name], chunk)

    def _release(self, names: set[str], chunk: int) -> list[Task]:
        """Of the results `names`, forget the transient ones without a reader to come."""
        released = []
        for name in sorted(names):
            node = self.plan.nodes[name]
            if node.barrier or node.persist or self.status[name][chunk] != Status.DONE:
                continue
            needs = (self.status[consumer.name][chunk] for consumer in self.consumers[name])
            if not any(need in (Status.WAITING, Status.READY, Status.RUNNING) for need in needs):
                task = Task(self.index, name, chunk)
                self._set(task, Status.IDLE)
                self._charge(task, 0)
                released.append(task)
        return released
