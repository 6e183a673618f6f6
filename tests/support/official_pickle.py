"""Network pickles in EG3D's official layout, written by Python's own pickler; no official code or file is needed."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

SOURCE = "raise SystemExit('this text must never be run')\n"


def _stand_in(full: str, base: type = object) -> type:
    """A class that the pickler takes for the official one of this name."""
    owner, _, name = full.rpartition(".")
    return type(name, (base,), {"__module__": owner})


EasyDict = _stand_in("dnnlib.util.EasyDict", dict)
#: Modules that official pickles refer to by name; all others come with their source text.
_NAMED: dict[str, type] = {
    "decoder": _stand_in("training.triplane.OSGDecoder"),
    "decoder.net": nn.Sequential,
    "decoder.net.1": nn.Softplus,
    "renderer": _stand_in("training.volumetric_rendering.renderer.ImportanceRenderer"),
}


class Module:
    """A torch module in the file that comes with its source text."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.name, self.state = name, state


def named_module(place: str, state: dict[str, Any]) -> Any:
    """A torch module in the file that is referred to by name: the one that official networks have at this place."""
    kind = _NAMED[place]
    instance = kind.__new__(kind)
    instance.__dict__.update(state)
    return instance


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("the reader must not call anything")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


def network(
    tensors: Mapping[str, Tensor],
    *,
    name: str = "TriPlaneGenerator",
    legacy: bool = False,
    **attributes: Any,
) -> Module:
    """A network with this state dictionary.

    Args:
        tensors: Its state dictionary; what is no weight or bias becomes a buffer.
        name: Class of the network.
        legacy: Ordered tables, as older torch versions wrote them.
        attributes: Further attributes, e.g. `_init_kwargs`.
    """
    table: type = OrderedDict if legacy else dict

    def module(prefix: str, name: str) -> Any:
        inside = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
        children = dict.fromkeys(key.split(".")[0] for key in inside if "." in key)
        state: dict[str, Any] = {"training": False, "_parameters": table(), "_buffers": table(), "_modules": table()}
        state |= {"_non_persistent_buffers_set": set(), "_forward_hooks": OrderedDict()}
        state["weight_gain"] = np.float64(0.25)
        for key in inside:
            if key in children or "." in key:
                continue
            value = tensors[prefix + key]
            if key in ("weight", "bias"):
                state["_parameters"][key] = nn.Parameter(value, requires_grad=False)
            else:
                state["_buffers"][key] = value
        for child in children:
            state["_modules"][child] = module(f"{prefix}{child}.", "Layer")
        place = prefix.rstrip(".")
        return named_module(place, state) if place in _NAMED else Module(name, state)

    whole = module("", name)
    whole.state["_parameters"]["absent"] = None
    whole.state["_modules"]["renderer"] = named_module("renderer", {"plane_axes": next(iter(tensors.values()))})
    whole.state |= {"_init_args": (), "_last_planes": None, **attributes}
    return whole


def write_pickle(top: Any) -> bytes:
    """The bytes of a file; every `Module` in it becomes what official writers made of one."""
    stream = io.BytesIO()
    with _stand_ins():
        _Writer(stream, protocol=4).dump(top)
    return stream.getvalue()


class _Writer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Module):
            return NotImplemented
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": value.name, "state": value.state}
        return _reconstruct_persistent_obj, (meta,)


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules of the official code, as far as the pickler looks them up."""
    added: dict[str, types.ModuleType] = {}
    for value in (_reconstruct_persistent_obj, EasyDict, _NAMED["decoder"], _NAMED["renderer"]):
        parts = value.__module__.split(".")
        for k in range(len(parts)):
            name = ".".join(parts[: k + 1])
            added.setdefault(name, types.ModuleType(name))
        setattr(added[value.__module__], value.__name__, value)
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
