"""The work folder of a job: one checksummed file per persisted chunk, written whole or not at all.

`chunks/<stage>-<key>-c<chunk frames>/000012.safetensors`. A chunk counts as done if its file is there under its
final name, carries the full key and has the length its header promises; the checksum is verified when the file is
read. Nothing else is recorded, so there is no journal to disagree with the files. Files are not synced to disk one
by one: after a power cut a torn file fails its checksum and its chunk is computed again.

Only the driver writes, one process per folder (`WorkDir` holds a lock).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.numpy

from e3dge_video.pipelines.core.plan import JobPlan
from e3dge_video.pipelines.core.spec import Payload, PipelineError

logger = logging.getLogger(__name__)

_KEY_DIGITS = 16  # of a stage's key in folder names; the whole key is inside the files
_SUFFIX = ".safetensors"


class DamagedChunkError(Exception):
    """A chunk file is missing or is not what was written. The chunk must be computed again."""

    def __init__(self, stage: str, chunk: int, why: str) -> None:
        self.stage, self.chunk = stage, chunk
        super().__init__(f"chunk {chunk} of {stage}: {why}")


class WorkDir:
    """Chunk files of one job. Use as a context manager: it holds the folder's lock.

    Args:
        plan: The job, whose `work_dir` is created if needed.
    """

    def __init__(self, plan: JobPlan) -> None:
        self.plan = plan
        self.path = plan.job.work_dir.absolute()
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> WorkDir:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+b")
        except OSError as error:
            raise PipelineError(f"{self.path}: cannot be used as a work folder ({error.strerror})") from error
        try:
            _lock_file(self._lock)
        except BlockingIOError:
            owner = _read_owner(self._lock)
            self._lock.close()
            self._lock = None
            raise PipelineError(
                f"{self.path}: in use by {owner}; wait for it to end, or give this run another folder"
            ) from None
        except OSError as error:  # some network file systems cannot lock
            logger.warning("%s: no locking here (%s); do not start the same job twice", self.path, error)
        _write_owner(self._lock)
        for leftover in self.path.glob("chunks/*/*.tmp"):  # of a run that was killed while writing
            leftover.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()  # releases the lock; the file stays, since removing it would race with a newcomer
            self._lock = None

    def stored(self) -> dict[str, set[int]]:
        """Persisted stage → chunks of this plan whose file is there and whole. Checksums are verified on reading."""
        found: dict[str, set[int]] = {}
        for node in self.plan.nodes.values():
            if node.persist:
                folder = self._folder(node.stage)
                names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
                found[node.name] = {
                    chunk.index
                    for chunk in self.plan.chunks
                    if self._path(node.stage, chunk.index).name in names and self._is_whole(node.stage, chunk.index)
                }
        return found

    def write(self, stage: str, chunk: int, payload: Payload) -> None:
        """Write the result of a chunk: to a temporary name, then rename."""
        target = self._path(stage, chunk)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(encode(payload, self.plan.keys[stage]))
        temporary.replace(target)

    def read(self, stage: str, chunk: int) -> Payload:
        """Read the result of a chunk; removes the file and raises `DamagedChunkError` if it is not as written."""
        target = self._path(stage, chunk)
        try:
            return decode(target.read_bytes(), self.plan.keys[stage])
        except FileNotFoundError as error:
            raise DamagedChunkError(stage, chunk, "the file is gone") from error
        except ValueError as error:
            logger.warning("%s is damaged (%s); its frames are computed again", target, error)
            target.unlink(missing_ok=True)
            raise DamagedChunkError(stage, chunk, str(error)) from error

    def _folder(self, stage: str) -> Path:
        name = f"{stage}-{self.plan.keys[stage][:_KEY_DIGITS]}-c{self.plan.job.chunk_frames}"
        return self.path / "chunks" / name

    def _path(self, stage: str, chunk: int) -> Path:
        return self._folder(stage) / f"{chunk:06d}{_SUFFIX}"

    def _is_whole(self, stage: str, chunk: int) -> bool:
        path = self._path(stage, chunk)
        try:
            with path.open("rb") as file:
                header, data_start = _read_header(file.read(8), file)
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
            own = json.loads(header["__metadata__"]["e3dge"])
            return own["key"] == self.plan.keys[stage] and path.stat().st_size == data_start + end
        except (OSError, ValueError, KeyError, TypeError):
            return False


class StoredResults(Sequence[Payload]):
    """Results of one stage in chunk order, each read from its file when asked for."""

    def __init__(self, work_dir: WorkDir, stage: str) -> None:
        self._work_dir, self._stage = work_dir, stage

    def __len__(self) -> int:
        return len(self._work_dir.plan.chunks)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._work_dir.read(self._stage, position)


def check_payload(payload: object, who: str) -> Payload:
    """Return the result of a body if it can be stored and sent, else raise `TypeError`."""
    if not isinstance(payload, Mapping):
        raise TypeError(f"{who} returned a {type(payload).__name__}; expected a dict of arrays and byte strings")
    for name, value in payload.items():
        array = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        if not isinstance(name, str) or not (array or isinstance(value, bytes)):
            kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"{who} returned {name!r} of type {kind}; expected arrays of numbers and byte strings")
    return payload


def payload_bytes(payload: Payload) -> int:
    """Size of a result in memory. [bytes]"""
    return sum(value.nbytes if isinstance(value, np.ndarray) else len(value) for value in payload.values())


def payload_digest(payload: Payload) -> str:
    """SHA-256 over names, types, shapes and contents, whatever the order of the names. [64 hex digits]"""
    digest = hashlib.sha256()
    for name in sorted(payload):
        value = payload[name]
        if isinstance(value, np.ndarray):
            value = _little_endian(value)
            digest.update(f"{name}\0{value.dtype.str}{value.shape}\0".encode())
            digest.update(value.data)
        else:
            digest.update(f"{name}\0bytes{len(value)}\0".encode())
            digest.update(value)
    return digest.hexdigest()


def encode(payload: Payload, key: str) -> bytes:
    """A result as a safetensors file; the same result and key give the same bytes."""
    strings = sorted(name for name, value in payload.items() if isinstance(value, bytes))
    arrays = {
        name: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else _little_endian(value)
        for name, value in payload.items()
    }
    # One metadata entry, because safetensors does not promise an order among several.
    own = {"key": key, "sha256": payload_digest(payload), "bytes": strings}
    return safetensors.numpy.save(arrays, metadata={"e3dge": json.dumps(own, sort_keys=True)})


def decode(data: bytes, key: str) -> Payload:
    """The result in a chunk file; `ValueError` if it is damaged or has another key."""
    try:
        header, _ = _read_header(data[:8], data[8:])
        own = json.loads(header["__metadata__"]["e3dge"])
        arrays = safetensors.numpy.load(data)
        payload: dict[str, np.ndarray | bytes] = {
            name: array.tobytes() if name in own["bytes"] else array for name, array in arrays.items()
        }
        written_key, digest = own["key"], own["sha256"]
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"not a chunk file: {error}") from error
    if written_key != key:
        raise ValueError("belongs to other settings")
    if digest != payload_digest(payload):
        raise ValueError("the checksum does not match")
    return payload


def _little_endian(array: np.ndarray) -> np.ndarray:
    order = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray turns 0-d into 1-d
    return order.astype(order.dtype.newbyteorder("<"), copy=False)


def _read_header(prefix: bytes, rest: bytes | IO[bytes]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(prefix, "little")
    if len(prefix) != 8 or not 0 < length < 1 << 24:
        raise ValueError("no header")
    text = rest[:length] if isinstance(rest, bytes) else rest.read(length)
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, 8 + length


def _lock_file(file: IO[bytes]) -> None:
    """Lock a file until it is closed or the process dies; `BlockingIOError` if somebody else holds it."""
    if os.name == "nt":
        import msvcrt

        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_owner(file: IO[bytes]) -> None:
    # After the locked first byte, which others cannot read on Windows.
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f" process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()


def _read_owner(file: IO[bytes]) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        file.seek(1)
        if text := file.read(200).decode():
            return text
    return "another run"
