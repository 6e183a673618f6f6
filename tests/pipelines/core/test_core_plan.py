"""The chunk grid, the keys and the layout of nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import fake_portrait as fake
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e3dge_video.pipelines.core.plan import cut_chunks, fingerprint, plan_job
from e3dge_video.pipelines.core.spec import (
    BarrierResult,
    BarrierStage,
    Graph,
    GraphError,
    Job,
    MapStage,
    Unit,
    validate_job,
)


@given(frames=st.integers(1, 2000), chunk=st.integers(1, 130))
def test_chunks_partition_the_frames_on_an_absolute_grid(frames: int, chunk: int) -> None:
    graph = Graph((), ())
    chunks = cut_chunks(Job("clip", "k", frames, graph, Path("w"), None, chunk))
    assert [i for c in chunks for i in range(c.start, c.stop)] == list(range(frames))
    assert all(c.start == c.index * chunk and 0 < len(c) <= chunk for c in chunks)


def test_transient_stage_read_on_both_sides_of_a_barrier_is_computed_in_each_section(tmp_path: Path) -> None:
    nodes = plan_job(fake.portrait_job(tmp_path)).nodes
    sections = {name: node.section for name, node in nodes.items()}
    assert sections == {
        "scan": 0, "track": 1, "prep": 1, "prep@2": 2, "observe": 1, "settle": 2, "portrait": 2, "encode": 2, "mux": 3
    }  # fmt: skip
    assert dict(nodes["observe"].inputs) == {"crops": "prep"}
    assert dict(nodes["portrait"].inputs) == {"crops": "prep@2", "settled": "settle"}
    heights = [nodes[name].height for name in ("scan", "prep", "observe", "portrait", "encode", "mux")]
    assert heights == sorted(heights, reverse=True) and heights[-1] == 0


def test_changing_a_stage_changes_its_key_and_those_after_it(tmp_path: Path) -> None:
    before = plan_job(fake.portrait_job(tmp_path)).keys
    after = plan_job(fake.portrait_job(tmp_path, portrait=fake.Portrait(edit=0.5))).keys
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"portrait", "encode", "mux"}
    other_video = plan_job(fake.portrait_job(tmp_path, seed=2)).keys
    assert all(before[name] != other_video[name] for name in before)


def test_keys_do_not_depend_on_chunk_size_work_folder_or_units(tmp_path: Path) -> None:
    one = plan_job(fake.portrait_job(tmp_path / "a", chunk=16)).keys
    two = plan_job(fake.portrait_job(tmp_path / "a", chunk=64, workers=3)).keys
    assert one == two


@dataclass(frozen=True)
class Settings:
    rate: Fraction
    values: tuple[float, ...]


def test_fingerprint_tells_values_types_and_nesting_apart() -> None:
    array = np.arange(6, dtype=np.float32)
    different = [
        None, True, 1, 1.0, "1", b"1", Path("1"), Fraction(1), (1,), ((1,),), ("a", "b"), ("ab",), ("a", ("b",)),
        {"a": 1}, {"a": 2}, {"b": 1}, {1, 2}, array, array.reshape(2, 3), array.astype(np.float64), array + 1,
        Settings(Fraction(1), (1.0,)), Settings(Fraction(1), (2.0,)), float("inf"), (), {}, "",
    ]  # fmt: skip
    assert len({fingerprint(value) for value in different}) == len(different)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) == fingerprint((1, 2))
    assert fingerprint(np.float64(0.5)) == fingerprint(0.5)


def test_fingerprint_refuses_what_has_no_stable_value() -> None:
    with pytest.raises(TypeError, match="cannot enter a key"):
        fingerprint(object())


def broken(job: Job, **stage: MapStage | BarrierStage) -> Job:
    stages = tuple(stage.get(s.name, s) for s in job.graph.stages)
    return replace(job, graph=Graph(job.graph.units, stages))


def test_wiring_mistakes_are_named(tmp_path: Path) -> None:
    job = fake.portrait_job(tmp_path)
    validate_job(job)

    def body(*_: object) -> BarrierResult:
        return BarrierResult()

    cases = {
        "not a stage before it": broken(job, scan=MapStage("scan", "scan", fake.Scan(), {"x": "prep"}, persist=True)),
        "wants unit gpu": broken(job, scan=MapStage("scan", "gpu", fake.Scan(), persist=True)),
        "reads transient prep": broken(job, settle=BarrierStage("settle", body, {"x": "prep"}, config=0)),
        "read by nobody": broken(job, mux=MapStage("mux", "encode", fake.Scan())),
        "barrier without inputs": broken(job, track=BarrierStage("track", body, {}, config=0)),
        "name is taken": broken(job, mux=MapStage("scan", "encode", fake.Scan(), persist=True)),
        "at least one frame": replace(job, frames=0),
        "two units": replace(job, graph=Graph((Unit("scan"), Unit("scan")), job.graph.stages)),
    }
    for message, bad in cases.items():
        with pytest.raises(GraphError, match=message):
            validate_job(bad)
    with pytest.raises(GraphError, match=r"no dataclass, so give config"):
        plan_job(broken(job, track=BarrierStage("track", body, {"points": "scan"})))
