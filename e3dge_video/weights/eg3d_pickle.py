"""Reader of the official EG3D network pickles, which carry programs: their values are taken, nothing of them is run.

Such a file is a table of networks (`G`, `D`, `G_ema`, `augment_pipe`) and the data set's options. A network is the
source text of its module, its class name and its instance's attributes; torch modules hold their tensors in
`_parameters`, `_buffers` and `_modules`. Both layouts in use are read: older writers had ordered tables and numpy's
former module names.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from e3dge_video.errors import ModelError
from e3dge_video.weights.plain_pickle import Builder, Name, Record, read_pickle
from e3dge_video.weights.stored_tensors import Storage, StoredTensor, read_storage, stored_parameter, stored_tensor

#: Version of the persistence layout that all releases were written with.
_PERSISTENCE = 6
_MAX_DEPTH = 32
_MAX_PARTS = 20_000  # modules and tensors of a network; released ones have less than 1000
_MAX_ENTRIES = 1000  # tensors or modules in one module
_MAX_STORAGES = 10_000
_MAX_VALUES = 10_000  # of a network's options
_MAX_NAME = 128  # characters of a module's or tensor's name
_NETWORKS = ("G_ema", "G", "D", "augment_pipe")

_NUMPY_FORMS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}

#: Modules that are stored by name, without source text.
_NAMED_MODULES = (
    "training.triplane.OSGDecoder",
    "training.volumetric_rendering.renderer.ImportanceRenderer",
    "training.volumetric_rendering.ray_marcher.MipRayMarcher2",
    "training.volumetric_rendering.ray_sampler.RaySampler",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.activation.Softplus",
)


@dataclass(frozen=True)
class StoredNetwork:
    """One network of a pickle.

    Attributes:
        class_name: Its official class, e.g. `TriPlaneGenerator`.
        source_sha256: SHA-256 of the source text that came with it, which was not run.
        init_kwargs: Arguments it was built with.
        attributes: Its further attributes that are plain values, such as `rendering_kwargs`.
        tensors: Its state dictionary.
    """

    class_name: str
    source_sha256: str
    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]
    tensors: dict[str, Tensor]


class EG3DPickle:
    """An official network pickle, opened.

    Raises:
        ModelError: Not such a file, damaged, or it tries to do more than hold networks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read ({error})") from error
        top, end = read_pickle(data, str(path), _builders(str(path)))
        if end != len(data):
            raise ModelError(f"{path}: goes on after its end; the file is damaged or something else, get it again")
        if not isinstance(top, dict) or "G_ema" not in top:
            raise ModelError(f"{path}: holds no network G_ema; it is no EG3D network pickle")
        self._top, self._size = top, len(data)

    @property
    def networks(self) -> list[str]:
        """Names of the networks in it."""
        return [name for name in _NETWORKS if self._top.get(name) is not None]

    @property
    def further(self) -> list[str]:
        """Names of everything else in it."""
        return sorted(map(str, self._top.keys() - {*_NETWORKS}))

    @property
    def training_set(self) -> dict[str, Any]:
        """Options of the data set it was trained on."""
        found = _plain(self._top.get("training_set_kwargs"), str(self.path))
        return found if isinstance(found, dict) else {}

    def network(self, name: str = "G_ema") -> StoredNetwork:
        """Take one network's values out of the file.

        Raises:
            ModelError: Not there, or not as such networks are.
        """
        record, where = self._top.get(name), f"{self.path}: {name}"
        if not isinstance(record, _Persistent) or not isinstance(record.state, dict):
            raise ModelError(f"{where} is not a network of the official layout; is this an EG3D network pickle?")
        state = record.state
        if state.get("_init_args"):
            raise ModelError(f"{where} was built with arguments that have no names, which is not supported")
        init = _plain(state.get("_init_kwargs", {}), where)
        if not isinstance(init, dict):
            raise ModelError(f"{where} does not say what it was built with; is this an EG3D network pickle?")
        stored = _state_dict(record, where)
        # Tensors may share what is stored; made one by one, they could need many times the size of the file.
        if sum(value.count * value.storage.dtype.itemsize for value in stored.values()) > self._size:
            raise ModelError(f"{where} has more numbers than the file has room for; it is not genuine")
        return StoredNetwork(
            class_name=record.type,
            source_sha256=hashlib.sha256(record.source.encode()).hexdigest(),
            init_kwargs=init,
            attributes={
                key: _plain(state[key], where)
                for key in ("rendering_kwargs", "neural_rendering_resolution")
                if state.get(key) is not None
            },
            tensors={key: value.load() for key, value in stored.items()},
        )


@dataclass(eq=False)
class _Persistent(Record):
    """An object that came with the source text of its class."""

    source: str = ""


def _builders(source: str) -> dict[str, Builder]:
    """All names that such a file may refer to, and what each stands for here."""
    left = iter(range(_MAX_STORAGES))

    def storage(data: Any) -> Storage:
        if next(left, None) is None:
            raise ValueError(f"more than {_MAX_STORAGES} tensors, as no network has")
        return read_storage(data, source)

    return {
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
        "torch.storage._load_from_bytes": storage,
        "torch._utils._rebuild_tensor": stored_tensor,
        "torch._utils._rebuild_tensor_v2": stored_tensor,
        "torch._utils._rebuild_parameter": stored_parameter,
        "collections.OrderedDict": _empty_table,
        "dnnlib.util.EasyDict": _empty_table,
        "numpy.dtype": _numpy_dtype,
        "numpy.core.multiarray.scalar": _numpy_scalar,
        "numpy._core.multiarray.scalar": _numpy_scalar,
        **{name: partial(_instance, name) for name in _NAMED_MODULES},
    }


def _persistent(meta: Any) -> _Persistent:
    if not isinstance(meta, dict) or meta.get("type") != "class" or meta.get("version") != _PERSISTENCE:
        raise ValueError(f"only classes in layout {_PERSISTENCE} are known")
    name, text = meta.get("class_name"), meta.get("module_src")
    if not isinstance(name, str) or not name.isidentifier() or len(name) > _MAX_NAME or not isinstance(text, str):
        raise ValueError("class name or source text is missing")
    return _Persistent(name, meta.get("state"), text)


def _instance(name: str) -> Record:
    return Record(name)


def _empty_table() -> dict[str, Any]:
    return {}


def _numpy_dtype(code: Any, *_: Any) -> Record:
    if code not in tuple(_NUMPY_FORMS):
        raise ValueError(f"the number type {str(code)[:20]!r} is not known")
    return Record(code)


def _numpy_scalar(dtype: Any, data: Any) -> float | int:
    form = _NUMPY_FORMS.get(dtype.type) if type(dtype) is Record else None
    if form is None or not isinstance(data, memoryview) or len(data) != struct.calcsize(form):
        raise ValueError("no number")
    value: float | int = struct.unpack(form, data)[0]
    return value


def _state_dict(network: Record, where: str) -> dict[str, StoredTensor]:
    """Parameters and buffers of a module and of those in it, under their official names."""
    found: dict[str, StoredTensor] = {}
    for count, (prefix, module) in enumerate(_modules(network, where)):
        if count + len(found) > _MAX_PARTS:
            raise ModelError(f"{where} has more than {_MAX_PARTS} modules and tensors; the file is not genuine")
        passing = module.get("_non_persistent_buffers_set", set())
        for table in ("_parameters", "_buffers"):
            for key, value in _table(module, table, where).items():
                if value is None or (table == "_buffers" and isinstance(passing, set) and key in passing):
                    continue
                if not isinstance(value, StoredTensor):
                    raise ModelError(f"{where}: {prefix}{key} is no tensor; the file is damaged, get it again")
                found[f"{prefix}{key}"] = value
    return found


def _modules(module: Any, where: str, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A module and all those in it: prefix of the names of their tensors, attributes."""
    if prefix.count(".") > _MAX_DEPTH:
        raise ModelError(f"{where} has modules within modules without an end; the file is not genuine")
    if not isinstance(module, Record) or not isinstance(module.state, dict):
        raise ModelError(f"{where}: {prefix.rstrip('.')} is no module; the file is damaged, get it again")
    yield prefix, module.state
    for key, child in _table(module.state, "_modules", where).items():
        if child is not None:
            yield from _modules(child, where, f"{prefix}{key}.")


def _table(state: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Attribute of a module that holds tensors or modules by name."""
    table = state.get(name, {})
    if not isinstance(table, dict) or len(table) > _MAX_ENTRIES:
        raise ModelError(f"{where}: {name} is no table of tensors or modules; the file is damaged, get it again")
    for key in table:
        if not isinstance(key, str) or len(key) > _MAX_NAME or not (key.isidentifier() or key.isdigit()):
            raise ModelError(f"{where}: {repr(key)[:_MAX_NAME]} is no name of a module or tensor; the file is damaged")
    return table


def _plain(value: Any, where: str) -> Any:
    """A copy of options made of plain values only; what they share is copied, within a limit."""
    budget = iter(range(_MAX_VALUES))

    def copy(value: Any, depth: int) -> Any:
        if next(budget, None) is None or depth > _MAX_DEPTH:
            raise ModelError(f"{where} has options without an end; the file is not genuine")
        if isinstance(value, dict):
            return {str(key): copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, depth + 1) for item in value]
        if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        kind = value.text if isinstance(value, Name) else type(value).__name__
        raise ModelError(f"{where} has an option that is no plain value ({kind}); is this an EG3D network pickle?")

    return copy(value, 0)
