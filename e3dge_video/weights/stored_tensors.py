"""Tensors inside a pickle: torch's own byte layout of a storage, taken apart without torch's unpickler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.weights.plain_pickle import Name, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_AXES = 8
_MAX_STEPS = 100  # of each of the pickles before the values; torch writes some 40

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """The numbers behind tensors.

    Attributes:
        dtype: Their type.
        data: Their bytes, little-endian.
    """

    dtype: torch.dtype
    data: memoryview

    def __len__(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor described, not yet made. Its values lie inside its storage and are no more than those of it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("offset, size and stride must be whole numbers")
        if len(self.size) != len(self.stride) or len(self.size) > _MAX_AXES:
            raise ValueError(f"size {self.size[:_MAX_AXES]} does not go with stride {self.stride[:_MAX_AXES]}")
        if self.count > len(self.storage) or (self.count and self.offset + self._span > len(self.storage)):
            raise ValueError(f"a tensor of size {self.size} does not fit its {len(self.storage)} stored values")

    @property
    def count(self) -> int:
        """Its values."""
        return math.prod(self.size)

    @property
    def _span(self) -> int:
        """Stored values from its first to its last one."""
        return 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))

    def load(self) -> Tensor:
        """A tensor of its own, contiguous."""
        dtype = self.storage.dtype
        if not self.count:
            return torch.empty(self.size, dtype=dtype)
        begin, end = self.offset * dtype.itemsize, (self.offset + self._span) * dtype.itemsize
        values = torch.frombuffer(bytearray(self.storage.data[begin:end]), dtype=dtype)
        return values.as_strided(self.size, self.stride).contiguous()


def stored_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """What `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2` stand for.

    Raises:
        ValueError: The tensor does not fit its storage.
    """
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor needs a storage, a size and a stride")
    return StoredTensor(storage, offset, size, stride)


def stored_parameter(tensor: Any, *_: Any) -> StoredTensor:
    """What `torch._utils._rebuild_parameter` stands for.

    Raises:
        ValueError: Not made from a tensor.
    """
    if not isinstance(tensor, StoredTensor):
        raise ValueError("a parameter needs a tensor")
    return tensor


def read_storage(data: Any, source: str) -> Storage:
    """What `torch.storage._load_from_bytes` stands for: four small pickles, the number of values, the values.

    Raises:
        ModelError: Damaged, or not this layout.
    """
    where = f"{source}: a tensor in it"
    if not isinstance(data, memoryview):
        raise ModelError(f"{where} has no bytes; the file is damaged, get it again")
    place, parts = 0, []
    for _ in range(5):
        value, place = read_pickle(data, where, _STORAGE_NAMES, start=place, steps=_MAX_STEPS, persistent=_storage_key)
        parts.append(value)
    magic, protocol, system, storage, keys = parts
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(storage, _StorageKey) or keys != [storage.key]:
        raise ModelError(f"{where} is not stored in torch's layout; the file is damaged, get it again")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelError(f"{where} was written on a machine of another byte order, which is not supported")
    values = data[place + 8 :]
    count = int.from_bytes(data[place : place + 8], "little")
    if count != storage.count or len(values) != count * storage.dtype.itemsize:
        raise ModelError(
            f"{where} has {len(values)} bytes for {storage.count} values; the file is damaged, get it again"
        )
    return Storage(storage.dtype, values)


@dataclass(frozen=True)
class _StorageKey:
    dtype: torch.dtype
    key: str
    count: int


def _storage_key(value: Any) -> _StorageKey | None:
    """Torch's persistent identifier: ('storage', class, key, device, count, None)."""
    if not isinstance(value, tuple) or len(value) not in (5, 6):
        return None
    kind, name, key, _, count = value[:5]
    if kind != "storage" or not isinstance(name, Name) or not isinstance(key, str) or not isinstance(count, int):
        return None
    return _StorageKey(_DTYPES[name.text], key, count)


def _never_called(*_: Any) -> None:
    raise ValueError("a storage class is only referred to")


_STORAGE_NAMES = dict.fromkeys(_DTYPES, _never_called)
