"""Geometry keeps full precision, however the networks around it compute."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a function compute as outside of autocast, on tensors that are made whole if networks gave them in half.

    Matrix products of half precision would move rays by several pixels and points by a hundredth of a world unit.
    """

    @functools.wraps(function)
    def exact(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with contextlib.ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*map(_whole, arguments), **{name: _whole(value) for name, value in options.items()})

    return exact


def _whole(value: Any) -> Any:
    half = isinstance(value, torch.Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value
