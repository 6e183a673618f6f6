"""The Ray executor. The only file of the project that imports ray.

One actor per worker, plain calls, and no retry by Ray (`max_restarts=0`, `max_task_retries=0`): a dead actor is an
event for the scheduler, which starts another and submits the chunk again. A call returns a small report and the
result as two objects, so that large results travel from actor to actor without passing the driver.

On a Ray that we start ourselves actors reserve no CPUs (`num_cpus=0`): four units must run on a laptop with one core,
where Ray would wait for ever for the fourth; the thread counts of the units bound the load instead. On a cluster that
we join, where others compute too, they reserve what `Resources` says, scaled down together if the cluster is too small
for all. GPUs are always reserved.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import site
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import e3dge_video
from e3dge_video.errors import BackendError, E3DGEError
from e3dge_video.pipelines.core import events
from e3dge_video.pipelines.core.driver import Driver, Finished, Happening, uninterrupted
from e3dge_video.pipelines.core.jobstate import Task
from e3dge_video.pipelines.core.progress import Progress
from e3dge_video.pipelines.core.spec import Job, Outcome, Payload, RunOptions, Unit
from e3dge_video.pipelines.core.threads import thread_environment
from e3dge_video.pipelines.core.worker import Call, Report, Worker

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# Read when ray is imported. The message is for people who debug Ray; ours says what happens to the video.
with _environment(RAY_DEDUP_LOGS_SKIP_REGEX="A worker died or was killed while executing a task"):
    import ray
from ray import exceptions as ray_errors  # noqa: E402

_DEATHS = (
    ray_errors.RayActorError,
    ray_errors.NodeDiedError,
    ray_errors.WorkerCrashedError,
    ray_errors.OutOfMemoryError,
    ray_errors.LocalRayletDiedError,
)
_CLOSE_S = 5.0  # for idle workers to close their tools in good order


class RayExecutor:
    """Runs jobs on Ray. Use as a context manager, or call `close`.

    Bodies should hold absolute paths: workers may run on other machines, and while Ray starts this process is for a
    moment in another directory (see `RaySession.connect`).

    Args:
        address: A Ray cluster to join; None joins `RAY_ADDRESS` if that is set, else starts Ray on this machine for
            as long as the executor is open. A Ray that is already initialised in this process is used as it is.
        object_store_mb: Shared memory of a Ray started here; None: a quarter of the memory, at most 2 GB.
        options: Limits. The default memory budget is half of the object store.
        progress: Is told how far the stages are.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        object_store_mb: int | None = None,
        options: RunOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.options = options or RunOptions()
        self.progress = progress
        self.session = RaySession(address, object_store_mb)

    def run(self, jobs: Iterable[Job]) -> list[Outcome]:
        """Run all jobs; see `Driver.run`. Ray starts with the first chunk to compute, not before."""
        budget_mb = self.options.budget_mb
        budget = self.session.store_bytes() // 2 if budget_mb is None else int(budget_mb * 2**20)
        return Driver(_RayBackend(self.session, self.options), budget, self.options, self.progress).run(jobs)

    def close(self) -> None:
        """Shut Ray down if it was started here."""
        self.session.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RaySession:
    """The connection to Ray, made when first needed.

    Args:
        address: See `RayExecutor`.
        object_store_mb: See `RayExecutor`.
    """

    def __init__(self, address: str | None = None, object_store_mb: int | None = None) -> None:
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self.joined = self.address not in (None, "local")
        self.object_store_mb = object_store_mb or _default_store_mb()
        self._started = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def connect(self) -> None:
        """Start or join Ray, unless that is done."""
        if ray.is_initialized():
            return
        # Ray puts the driver's current directory before everything else on the workers' path, where a stray
        # `torch.py` or `pipelines/` would hide the real one. So Ray is started from an empty one; `Worker.setup`
        # goes back, so that relative paths mean the same in a worker.
        self._folder = tempfile.TemporaryDirectory(prefix="e3dge-ray-", ignore_cleanup_errors=True)
        place = (
            {"address": self.address}
            if self.joined
            else {
                "address": "local",
                "include_dashboard": False,
                "num_cpus": 0,  # else Ray starts as many idle workers in advance
                "object_store_memory": self.object_store_mb * 2**20,
            }
        )
        began = time.monotonic()
        self._started = True
        try:
            with (
                contextlib.chdir(self._folder.name),
                _environment(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"),
            ):
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **place)
        except Exception as error:
            self.close()
            what = f"no Ray cluster answers at {self.address}" if self.joined else "Ray could not be started"
            root: BaseException = error
            while root.__cause__ or root.__context__:
                root = root.__cause__ or root.__context__  # type: ignore[assignment]
            why = _first_line(root).split(". ")[0]
            if "token" in why:
                why += "; see RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
            raise BackendError(f"{what} ({why}); --executor local works without Ray") from error
        logger.debug("connected to Ray in %.1f s", time.monotonic() - began)

    def store_bytes(self) -> int:
        """Size of the object store that results pass through. [bytes]"""
        if self.joined:
            self.connect()
        if ray.is_initialized():
            sizes = [int(node["Resources"].get("object_store_memory", 0)) for node in _nodes()]
            return min((size for size in sizes if size), default=0)
        return self.object_store_mb * 2**20

    def close(self) -> None:
        if self._started:
            self._started = False
            with uninterrupted():
                ray.shutdown()
        if self._folder is not None:
            self._folder.cleanup()

    def actor_options(self, units: Iterable[Unit], unit: Unit) -> dict[str, Any]:
        """Options of an actor for `unit`, one of `units` that are to run at the same time."""
        resources = unit.resources
        environment = thread_environment(resources.threads) | {"PYTHONPATH": _python_path()}
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 1,
            "num_cpus": 0,
            "num_gpus": resources.gpus,
            "runtime_env": {"env_vars": environment},
        }
        if self.joined:
            total = ray.cluster_resources()
            wanted = sum(other.resources.cpus * other.workers for other in units)
            scale = min(1.0, total.get("CPU", 0.0) / wanted) if wanted else 1.0
            options["num_cpus"] = round(resources.cpus * scale, 2)
            options["memory"] = resources.memory_mb * 2**20 or None
            options["scheduling_strategy"] = "SPREAD"
        return options

    def check_gpus(self, unit: Unit) -> None:
        """Raise `BackendError` if no node has the GPUs of one worker."""
        most = max(node["Resources"].get("GPU", 0.0) for node in _nodes())
        if unit.resources.gpus > most:
            raise BackendError(
                f"unit {unit.name} needs {unit.resources.gpus:g} GPU, Ray offers {most:g}; use --device cpu"
            )


@dataclass
class _Seat:
    """A worker as the driver knows it."""

    unit: Unit
    due: float  # when its actor is to be started
    actor: Any = None
    ready: bool = False
    busy_since: float = 0.0
    calls: list[Task] = field(default_factory=list)


class _RayBackend:
    slots = 2  # the second call waits in the actor, its inputs already there
    limit: int | None = None
    threaded_barriers = True

    def __init__(self, session: RaySession, options: RunOptions) -> None:
        self.session = session
        self.options = options
        self._seats: dict[int, _Seat] = {}
        self._waiting: dict[Any, tuple[int, Task | None, Any]] = {}  # report → (worker, task or setup, result)
        self._failed: list[Happening] = []

    def start_worker(self, worker: int, unit: Unit, delay_s: float) -> None:
        self._seats[worker] = _Seat(unit, time.monotonic() + delay_s)

    def stop_worker(self, worker: int) -> None:
        # Without a handle the actor ends by itself once it has closed its tools.
        if (seat := self._seats.pop(worker, None)) is None:
            return
        for ref in [ref for ref, (number, _, _) in self._waiting.items() if number == worker]:
            del self._waiting[ref]
        if seat.actor is not None:
            seat.actor.close.remote()

    def submit(self, worker: int, call: Call) -> None:
        if (seat := self._seats.get(worker)) is None:
            return
        inputs = list(call.inputs.items())  # references must be arguments of their own to be resolved by Ray
        report, result = seat.actor.run.options(num_returns=2).remote(
            call.body, call.chunk, call.where, [name for name, _ in inputs], *(value for _, value in inputs)
        )
        self._waiting[report] = (worker, call.task, result)
        if not seat.calls:
            seat.busy_since = time.monotonic()
        seat.calls.append(call.task)

    def poll(self, timeout_s: float) -> list[Happening]:
        self._start_due()
        found, self._failed = self._failed, []
        if found:
            return found
        if not self._waiting:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(list(self._waiting), num_returns=1, timeout=timeout_s, fetch_local=False)
        if done:
            done, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0, fetch_local=False)
        ready = set(done)
        dead: dict[int, str] = {}
        # In order of submission, deaths last: what an actor finished before it died counts.
        for ref in [ref for ref in self._waiting if ref in ready]:
            worker, task, result = self._waiting.pop(ref)
            happening = self._report(ref, worker, task, result)
            if isinstance(happening, events.WorkerDied):
                dead.setdefault(worker, happening.reason)
                continue
            found.append(happening)
            if isinstance(happening, events.SetupFailed):
                self._bury(worker)
        dead.update(self._overdue())
        for worker, reason in dead.items():
            self._bury(worker)
            found.append(events.WorkerDied(worker, reason))
        return found

    def fetch(self, handle: Any) -> Payload | None:
        try:
            payload: Payload = ray.get(handle)
        except ray_errors.RayError as error:
            logger.warning("a result was lost (%s)", _first_line(error))
            return None
        return payload

    def close(self) -> None:
        """Give idle workers a moment to close their tools, then kill all of them."""
        if not ray.is_initialized():
            return
        idle = [seat.actor for seat in self._seats.values() if seat.actor is not None and seat.ready and not seat.calls]
        with contextlib.suppress(Exception):
            closing = [actor.close.remote() for actor in idle]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S, fetch_local=False)
        for worker in list(self._seats):
            self._bury(worker)
        self._waiting.clear()

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker, seat in self._seats.items():
            if seat.actor is not None or seat.due > now:
                continue
            try:
                self.session.connect()
                self.session.check_gpus(seat.unit)
            except E3DGEError as error:
                seat.due = float("inf")  # until the scheduler has given the unit up
                self._failed.append(events.SetupFailed(worker, error))
                continue
            units = {seat.unit.name: seat.unit for seat in self._seats.values()}
            seat.actor = ray.remote(Worker).options(**self.session.actor_options(units.values(), seat.unit)).remote()
            seat.busy_since = time.monotonic()
            self._waiting[seat.actor.setup.remote(seat.unit, str(Path.cwd()))] = (worker, None, None)

    def _report(self, ref: Any, worker: int, task: Task | None, result: Any) -> Happening:
        seat = self._seats[worker]
        seat.busy_since = time.monotonic()
        if task is not None:
            seat.calls.remove(task)
        try:
            report: Report = ray.get(ref)
        except _DEATHS as error:
            return events.WorkerDied(worker, _cause_of_death(error))
        except ray_errors.RayError as error:
            if result is not None:
                with contextlib.suppress(Exception):
                    ray.get(result, timeout=0)  # else Ray complains at the terminal that nobody looked at the error
            cause = error.cause if isinstance(error, ray_errors.RayTaskError) else error
            if isinstance(cause, ray_errors.ObjectLostError) and task is not None:
                return events.InputsLost(task, (), worker)
            failure = cause if isinstance(cause, Exception) else error
            return self._failure(worker, task, failure)
        for name, level, message in report.logs:
            logging.getLogger(name).log(level, "%s", message)
        if report.error:
            return self._failure(worker, task, _unpickled(report.error))
        if task is None:
            seat.ready = True
            return events.WorkerReady(worker)
        return Finished(worker, task, result, report.nbytes, report.seconds)

    def _failure(self, worker: int, task: Task | None, error: Exception) -> Happening:
        return events.SetupFailed(worker, error) if task is None else events.TaskFailed(worker, task, error)

    def _overdue(self) -> dict[int, str]:
        """Workers that take suspiciously long: a decoder can spin for ever in native code."""
        now = time.monotonic()
        found = {}
        for worker, seat in self._seats.items():
            waited = now - seat.busy_since
            if seat.actor is None:
                continue
            if not seat.ready and waited > self.options.setup_timeout_s:
                found[worker] = f"not placed and set up within {waited:.0f} s"
            elif seat.calls and waited > seat.unit.timeout_s:
                found[worker] = f"no result within {waited:.0f} s"
        return found

    def _bury(self, worker: int) -> None:
        seat = self._seats.pop(worker)
        for ref in [ref for ref, (number, _, _) in self._waiting.items() if number == worker]:
            del self._waiting[ref]
        if seat.actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(seat.actor)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _default_store_mb() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
    room = memory // 4
    shared = Path("/dev/shm")  # Ray falls back to slow files on disk if this is too small
    if shared.is_dir():
        status = os.statvfs(shared)
        room = min(room, int(0.8 * status.f_bavail * status.f_frsize))
    return max(128, min(2048, room // 2**20))


def _python_path() -> str:
    """Where workers find this very package: nowhere special if it is installed, else in the checkout."""
    root = str(Path(e3dge_video.__file__).parent.parent)
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    return os.pathsep.join(inherited if root in installed else [root, *inherited])


def _unpickled(data: bytes) -> Exception:
    try:
        error: Exception = pickle.loads(data)
    except Exception as why:  # its class cannot be imported here
        error = RuntimeError(f"an error in a worker could not be read: {why}")
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause_of_death(error: Exception) -> str:
    """A few words out of Ray's page of text."""
    text = str(error)
    if isinstance(error, ray_errors.OutOfMemoryError) or "memory pressure" in text or "OutOfMemory" in text:
        return "killed because the machine ran out of memory"
    if isinstance(error, ray_errors.NodeDiedError) or "node has died" in text:
        return "its machine was lost"
    if isinstance(error, ray_errors.ActorUnavailableError):
        return "it cannot be reached"
    return "its process ended unexpectedly"
