"""From a job to a plan: the chunk grid, the keys of the stages, the nodes to be scheduled. Pure functions.

Stages become *nodes*. Barriers cut the graph into *sections*: section 0 before any barrier, section n after
n of them. A transient result never waits for a barrier (that would hold the whole video in memory): a
transient stage read on both sides of one becomes two nodes, and its chunk is computed once per section. So
all transient results of a chunk live and die within one section, and the memory budget can be kept per
(section, chunk).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np

from e3dge_video.pipelines.core.spec import (
    BarrierStage,
    Chunk,
    GraphError,
    Job,
    MapStage,
    Stage,
    validate_job,
)


@dataclass(frozen=True)
class Node:
    """One stage in one section."""

    name: str  # the stage's name, or name@section where a transient stage is computed again in a later section
    stage: str
    section: int
    height: int  # stages between this one and the end of the graph; 0 = nobody reads it
    unit: str  # empty for barriers
    persist: bool
    bytes_per_frame: float
    inputs: tuple[tuple[str, str], ...]  # (argument, node)

    @property
    def barrier(self) -> bool:
        return not self.unit

    @property
    def label(self) -> str:
        """Name for people: the stage, and whether this is its second time over the frames."""
        return self.stage if self.name == self.stage else f"{self.stage} again"


@dataclass(frozen=True)
class JobPlan:
    """Everything the scheduler must know about a job."""

    job: Job
    chunks: tuple[Chunk, ...]
    nodes: Mapping[str, Node]  # each after its inputs
    keys: Mapping[str, str]  # stage → key of its results

    @property
    def targets(self) -> tuple[str, ...]:
        """Nodes whose results are the point of the job: those that nobody reads."""
        return tuple(node.name for node in self.nodes.values() if node.height == 0)

    def consumers(self, name: str) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes.values() if any(source == name for _, source in node.inputs))


def plan_job(job: Job) -> JobPlan:
    """Check a job and lay it out."""
    validate_job(job)
    return JobPlan(job, cut_chunks(job), lay_out_nodes(job.graph.stages), stage_keys(job))


def cut_chunks(job: Job) -> tuple[Chunk, ...]:
    """The absolute grid: chunk k is [kC, (k+1)C), the last one shorter."""
    starts = range(0, job.frames, job.chunk_frames)
    return tuple(
        Chunk(index, start, min(start + job.chunk_frames, job.frames), job.frames, job.params)
        for index, start in enumerate(starts)
    )


def lay_out_nodes(stages: Iterable[Stage]) -> dict[str, Node]:
    """Assign sections and split transient stages that are read in several of them."""
    by_name = {stage.name: stage for stage in stages}
    section: dict[str, int] = {}
    for stage in by_name.values():
        below = max((section[source] for source in stage.inputs.values()), default=0)
        section[stage.name] = below + isinstance(stage, BarrierStage)

    def kept(stage: Stage) -> bool:
        return isinstance(stage, BarrierStage) or stage.persist

    # A transient stage has a node in every section where it is read, directly or through another transient
    # one.
    places: dict[str, set[int]] = {name: {section[name]} if kept(stage) else set() for name, stage in by_name.items()}
    for stage in reversed(by_name.values()):
        for source in stage.inputs.values():
            if not kept(by_name[source]):
                places[source] |= places[stage.name]
    height: dict[str, int] = dict.fromkeys(by_name, 0)
    for stage in reversed(by_name.values()):
        for source in stage.inputs.values():
            height[source] = max(height[source], height[stage.name] + 1)

    def node_name(name: str, place: int) -> str:
        return name if kept(by_name[name]) or place == min(places[name]) else f"{name}@{place}"

    nodes: dict[str, Node] = {}
    for stage in by_name.values():
        for place in sorted(places[stage.name]):
            name = node_name(stage.name, place)
            inputs = tuple((argument, node_name(source, place)) for argument, source in stage.inputs.items())
            nodes[name] = Node(
                name=name,
                stage=stage.name,
                section=place,
                height=height[stage.name],
                unit=stage.unit if isinstance(stage, MapStage) else "",
                persist=isinstance(stage, MapStage) and stage.persist,
                bytes_per_frame=stage.bytes_per_frame if isinstance(stage, MapStage) else 0.0,
                inputs=inputs,
            )
    return nodes


def stage_keys(job: Job) -> dict[str, str]:
    """Key of each stage's results: a change of a stage changes its key and those of all stages after it.

    The chunk size is left out, since results may not depend on it; the store keeps chunk sizes apart by
    folder.
    """
    keys: dict[str, str] = {}
    for stage in job.graph.stages:
        config = stage.body if stage.config is None else stage.config
        if stage.config is None and not is_dataclass(config):
            raise GraphError(
                f"{job.name}: stage {stage.name}: the body is no dataclass, so give config=... for its key"
            )
        inputs = [(argument, keys[source]) for argument, source in sorted(stage.inputs.items())]
        try:
            keys[stage.name] = fingerprint(job.key, job.frames, stage.name, stage.version, config, inputs)
        except TypeError as error:
            raise GraphError(f"{job.name}: stage {stage.name}: {error}") from error
    return keys


def fingerprint(*values: Any) -> str:
    """SHA-256 over plain values, dataclasses and arrays, the same in every process. [64 hex digits]"""
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    # Every value is written as (type, length, content), so that different structures cannot run into each
    # other.
    def put(kind: str, content: bytes = b"") -> None:
        digest.update(f"{kind}:{len(content)}:".encode())
        digest.update(content)

    if value is None or isinstance(value, bool | int | float | str | Fraction | np.generic | PurePath):
        plain = value.item() if isinstance(value, np.generic) else value
        kind = "path" if isinstance(value, PurePath) else type(plain).__name__
        put(kind, (repr(plain) if isinstance(plain, float) else str(plain)).encode())
    elif isinstance(value, Enum):
        put("enum", f"{type(value).__name__}.{value.name}".encode())
    elif isinstance(value, bytes):
        put("bytes", value)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        put("array", f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif is_dataclass(value) and not isinstance(value, type):
        put("dataclass", type(value).__name__.encode())
        for entry in fields(value):
            put("field", entry.name.encode())
            _feed(digest, getattr(value, entry.name))
    elif isinstance(value, Mapping):
        put("mapping", str(len(value)).encode())
        for name in sorted(value):
            _feed(digest, name)
            _feed(digest, value[name])
    elif isinstance(value, list | tuple):
        put("sequence", str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    elif isinstance(value, set | frozenset):
        put("set", "".join(sorted(fingerprint(item) for item in value)).encode())
    else:
        raise TypeError(f"a {type(value).__name__} cannot enter a key; use plain values, dataclasses and arrays")
