"""The worker's side: running one stage body the same way in every executor, and a process that does so."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from e3dge_video.errors import E3DGEError
from e3dge_video.pipelines.core.jobstate import Task
from e3dge_video.pipelines.core.spec import Chunk, MapBody, Payload, PipelineError, Unit
from e3dge_video.pipelines.core.store import check_payload, payload_bytes
from e3dge_video.pipelines.core.threads import limit_threads


@dataclass(frozen=True)
class Call:
    """What a worker is asked to do."""

    task: Task
    job: str
    stage: str
    body: MapBody
    chunk: Chunk
    inputs: Mapping[str, Any]  # payloads, or the executor's handles of them

    @property
    def where(self) -> str:
        return f"{self.job}: stage {self.stage}, frames {self.chunk.start} to {self.chunk.stop - 1}"


def run_body(body: MapBody, chunk: Chunk, tools: Any, inputs: Mapping[str, Payload], where: str) -> Payload:
    """Run a body; returns arrays that cannot be written into, as they come out of an object store."""
    payload = check_payload(body(chunk, tools, **inputs), where)
    return {name: read_only(value) if isinstance(value, np.ndarray) else value for name, value in payload.items()}


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written into."""
    view = array.view()
    view.flags.writeable = False
    return view


def explain(error: Exception, where: str) -> Exception:
    """The error to report for a failed body: a user's error as it is, memory with advice, a bug with its place."""
    if isinstance(error, E3DGEError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "ArrayMemoryError"):
        advice = "use smaller chunks, a smaller model or fewer workers"
        explained = PipelineError(f"{where}: out of memory ({error}); {advice}")
        explained.__cause__ = error
        return explained
    error.add_note(f"in {where}")
    return error


@dataclass(frozen=True)
class Report:
    """What a call says besides its result."""

    nbytes: int = 0
    seconds: float = 0.0
    error: bytes = b""  # pickled exception
    logs: tuple[tuple[str, int, str], ...] = ()  # (logger, level, message)


class Worker:
    """What runs in a worker process: the tools of one unit and the bodies that use them. Errors are returned."""

    def setup(self, unit: Unit, directory: str) -> Report:
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(directory)
        self.unit = unit
        with captured_logs() as logs:
            try:
                self.tools = unit.setup()
            except Exception as error:
                return Report(error=pickled(error), logs=tuple(logs))
        limit_threads(unit.resources.threads)
        return Report(logs=tuple(logs))

    def run(self, body: Any, chunk: Any, where: str, names: list[str], *values: Any) -> tuple[Report, Any]:
        limit_threads(self.unit.resources.threads)
        began = time.perf_counter()
        with captured_logs() as logs:
            try:
                payload = run_body(body, chunk, self.tools, dict(zip(names, values, strict=True)), where)
            except Exception as error:
                return Report(error=pickled(error), logs=tuple(logs)), None
        return Report(payload_bytes(payload), time.perf_counter() - began, logs=tuple(logs)), payload

    def close(self) -> None:
        if self.unit.close:
            self.unit.close(self.tools)


@contextlib.contextmanager
def captured_logs() -> Iterator[list[tuple[str, int, str]]]:
    """Collect the project's warnings, which would otherwise end in a log file of Ray."""
    logs: list[tuple[str, int, str]] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logs.append((record.name, record.levelno, record.getMessage()))

    collector = Collector(logging.WARNING)
    project = logging.getLogger("e3dge_video")
    project.addHandler(collector)
    try:
        yield logs
    finally:
        project.removeHandler(collector)


def pickled(error: Exception) -> bytes:
    """An exception to be raised in the driver, with the worker's traceback as a note."""
    trace = "".join(traceback.format_exception(error))
    if not isinstance(error, E3DGEError):
        error.add_note(f"in a worker process:\n{trace}")
    error.__cause__ = error.__context__ = None
    try:
        data = pickle.dumps(error.with_traceback(None))
        pickle.loads(data)
    except Exception:  # some exceptions cannot be pickled, or not be made again from their message
        data = pickle.dumps(RuntimeError(f"in a worker process:\n{trace}"))
    return data
