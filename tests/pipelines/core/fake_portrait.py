"""A small numpy copy of the real pipeline's shape: scan, track, prep, observe, settle, portrait, encode, mux.

`prep` is transient and read on both sides of the `settle` barrier; `portrait` uses a float32 matmul in fixed padded
batches, so that results do not depend on the chunk size.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from e3dge_video.errors import InputError
from e3dge_video.pipelines.core.spec import (
    BarrierResult,
    BarrierStage,
    Chunk,
    Graph,
    Job,
    MapStage,
    Payload,
    Resources,
    Unit,
)

SIDE = 12
BATCH = 8


@dataclass(frozen=True)
class Clip:
    """Parameters of a fake video: its frames follow from the seed."""

    seed: int


@dataclass(frozen=True)
class Trouble:
    """Something bad that a body does at one chunk, as long as a marker file can be taken away (or for ever)."""

    chunk: int
    kind: str  # kill, raise, bug, hang, memory
    markers: str = ""  # folder with files; each occurrence removes one; empty: every time

    def strike(self, chunk: int) -> None:
        if chunk != self.chunk:
            return
        if self.markers:
            left = sorted(Path(self.markers).iterdir())
            if not left:
                return
            left[0].unlink()
        match self.kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise InputError("clip.mp4: frame 70 cannot be decoded; trim the clip")
            case "bug":
                raise IndexError("list index out of range")
            case "memory":
                raise MemoryError("8 GB asked")
            case "hang":
                time.sleep(3600)


def frames(chunk: Chunk) -> np.ndarray:
    """[n, SIDE, SIDE] float32"""
    return np.stack(
        [
            np.random.default_rng([chunk.params.seed, i]).standard_normal((SIDE, SIDE), np.float32)
            for i in range(chunk.start, chunk.stop)
        ]
    )


@dataclass(frozen=True)
class Scan:
    trouble: Trouble | None = None
    delay_s: float = 0.0

    def __call__(self, chunk: Chunk, tools: Any) -> Payload:
        if self.trouble:
            self.trouble.strike(chunk.index)
        time.sleep(self.delay_s)
        return {"points": frames(chunk).mean(axis=1).astype(np.float64)}


@dataclass(frozen=True)
class Track:
    radius: int = 5

    def __call__(self, chunks: Sequence[Chunk], points: Sequence[Payload]) -> BarrierResult:
        assert [p["points"].shape[0] for p in points] == [len(c) for c in chunks]
        whole = np.concatenate([p["points"] for p in points])
        smooth = np.stack(
            [whole[max(0, i - self.radius) : i + self.radius + 1].mean(axis=0) for i in range(len(whole))]
        )
        return BarrierResult([{"affine": smooth[c.start : c.stop]} for c in chunks], value=len(whole))


@dataclass(frozen=True)
class Prep:
    gain: float = 1.0
    trouble: Trouble | None = None

    def __call__(self, chunk: Chunk, tools: Any, track: Payload) -> Payload:
        if self.trouble:
            self.trouble.strike(chunk.index)
        return {"crop": frames(chunk) * np.float32(self.gain) + track["affine"][:, None, :].astype(np.float32)}


@dataclass(frozen=True)
class Observe:
    trouble: Trouble | None = None

    def __call__(self, chunk: Chunk, tools: Any, crops: Payload) -> Payload:
        if self.trouble:
            self.trouble.strike(chunk.index)
        return {"codes": in_batches(crops["crop"], tools).mean(axis=1).astype(np.float64)}


@dataclass(frozen=True)
class Settle:
    def __call__(self, chunks: Sequence[Chunk], codes: Sequence[Payload], track: Sequence[Payload]) -> BarrierResult:
        identity = np.concatenate([p["codes"] for p in codes]).mean()
        return BarrierResult([{"identity": np.array(identity)} for _ in chunks], value=float(identity))


@dataclass(frozen=True)
class Portrait:
    edit: float = 0.0
    trouble: Trouble | None = None
    delay_s: float = 0.0

    def __call__(self, chunk: Chunk, tools: Any, crops: Payload, settled: Payload) -> Payload:
        if self.trouble:
            self.trouble.strike(chunk.index)
        time.sleep(self.delay_s)
        return {"rgb": in_batches(crops["crop"] + np.float32(settled["identity"] + self.edit), tools)}


@dataclass(frozen=True)
class Encode:
    level: int = 6
    trouble: Trouble | None = None

    def __call__(self, chunk: Chunk, tools: Any, images: Payload) -> Payload:
        if self.trouble:
            self.trouble.strike(chunk.index)
        # Frame by frame, so that the joined stream does not show the chunk size.
        return {"segment": b"".join(zlib.compress(image.tobytes(), self.level) for image in images["rgb"])}


@dataclass(frozen=True)
class Mux:
    out: str
    trouble: Trouble | None = None

    def __call__(self, chunks: Sequence[Chunk], segments: Sequence[Payload]) -> BarrierResult:
        if self.trouble:
            self.trouble.strike(0)
        data = b"".join(bytes(p["segment"]) for p in segments)
        Path(self.out).write_bytes(data)
        return BarrierResult(value=hashlib.sha256(data).hexdigest())


def in_batches(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A float32 "network" in padded batches of fixed shape."""
    flat = images.reshape(len(images), -1)
    padded = np.concatenate([flat, np.repeat(flat[-1:], -len(flat) % BATCH, axis=0)])
    done = [np.tanh(padded[i : i + BATCH] @ weights) for i in range(0, len(padded), BATCH)]
    return np.concatenate(done)[: len(flat)]


@dataclass(frozen=True)
class LoadWeights:
    """Setup of the portrait unit; notes each process that runs it."""

    notes: str = ""
    error: bool = False

    def __call__(self) -> np.ndarray:
        if self.error:
            raise InputError("model starter: generator.safetensors is missing; run models verify")
        if self.notes:
            (Path(self.notes) / str(os.getpid())).touch()
        return np.random.default_rng(7).standard_normal((SIDE * SIDE, 32), np.float32)


@dataclass(frozen=True)
class Note:
    """Setup that only writes its process id down, to be killed by it."""

    notes: str = ""

    def __call__(self) -> None:
        if self.notes:
            (Path(self.notes) / str(os.getpid())).touch()


def portrait_graph(
    out: Path,
    *,
    scan: Scan | None = None,
    track: Track | None = None,
    prep: Prep | None = None,
    observe: Observe | None = None,
    portrait: Portrait | None = None,
    encode: Encode | None = None,
    mux_trouble: Trouble | None = None,
    notes: dict[str, Path] | None = None,
    workers: int = 1,
    broken_setup: bool = False,
    timeout_s: float = 60.0,
    one_unit: bool = False,
) -> Graph:
    note = {name: str(folder) for name, folder in (notes or {}).items()}
    units: tuple[Unit, ...] = (
        Unit("scan", Note(note.get("scan", "")), workers=workers, timeout_s=timeout_s),
        Unit("prep", Note(note.get("prep", "")), workers=workers, timeout_s=timeout_s),
        Unit(
            "portrait",
            LoadWeights(note.get("portrait", ""), broken_setup),
            workers=workers,
            resources=Resources(threads=1),
            timeout_s=timeout_s,
        ),
        Unit("encode", Note(note.get("encode", "")), workers=workers, timeout_s=timeout_s),
    )
    stages: tuple[MapStage | BarrierStage, ...] = (
        MapStage("scan", "scan", scan or Scan(), persist=True, bytes_per_frame=8 * SIDE),
        BarrierStage("track", track or Track(), {"points": "scan"}),
        MapStage("prep", "prep", prep or Prep(), {"track": "track"}, bytes_per_frame=4 * SIDE * SIDE),
        MapStage("observe", "portrait", observe or Observe(), {"crops": "prep"}, persist=True, bytes_per_frame=8),
        BarrierStage("settle", Settle(), {"codes": "observe", "track": "track"}),
        MapStage(
            "portrait", "portrait", portrait or Portrait(), {"crops": "prep", "settled": "settle"}, bytes_per_frame=128
        ),
        MapStage("encode", "encode", encode or Encode(), {"images": "portrait"}, persist=True, bytes_per_frame=128),
        BarrierStage("mux", Mux(str(out), mux_trouble), {"segments": "encode"}),
    )
    # Trouble is no part of what a stage computes, so it stays out of the keys.
    stages = tuple(replace(stage, config=essence(stage.body)) for stage in stages)
    if one_unit:  # all in one process: starts sooner
        units = (units[2],)
        stages = tuple(replace(s, unit="portrait") if isinstance(s, MapStage) else s for s in stages)
    return Graph(units, stages)


def essence(body: Any) -> Any:
    harmless = {"trouble": None, "delay_s": 0.0, "out": ""}
    return replace(body, **{f.name: harmless[f.name] for f in fields(body) if f.name in harmless})


def portrait_job(
    folder: Path, *, frames: int = 300, chunk: int = 64, seed: int = 1, name: str = "clip", **parts: Any
) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    graph = portrait_graph(folder / "out.bin", **parts)
    return Job(name, f"seed {seed}", frames, graph, folder / "work", Clip(seed), chunk)


def reference_bytes(frame_count: int, seed: int = 1, edit: float = 0.0, gain: float = 1.0) -> bytes:
    """What the whole pipeline should write, computed in one go without it."""
    clip = Chunk(0, 0, frame_count, frame_count, Clip(seed))
    points = Scan()(clip, None)
    affine = Track()([clip], [points]).per_chunk[0]
    crops = Prep(gain)(clip, None, affine)
    weights = LoadWeights()()
    codes = Observe()(clip, weights, crops)
    settled = Settle()([clip], [codes], [affine]).per_chunk[0]
    rgb = Portrait(edit)(clip, weights, crops, settled)
    return bytes(Encode()(clip, None, rgb)["segment"])
