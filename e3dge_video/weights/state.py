"""Behind every converter: how parameters are renamed, and whether the result is the state of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from e3dge_video.errors import ModelError

#: What to look for in a parameter's name, and what to put there.
Rename = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def renamed(name: str, renames: Sequence[Rename]) -> str:
    """A name after all renames, one after the other."""
    for pattern, replacement in renames:
        name = pattern.sub(replacement, name)
    return name


def ignored_by_reason(foreign: Iterable[str], ignored: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason → the foreign names that are left out for it.

    Args:
        foreign: Names of the foreign parameters.
        ignored: Pattern of whole names → reason.
    """
    found = {reason: [key for key in foreign if re.fullmatch(pattern, key)] for pattern, reason in ignored.items()}
    return {reason: keys for reason, keys in found.items() if keys}


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a network's parameters and buffers by name."""
    return {name: value.shape for name, value in network.state_dict().items()}


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], *, complaint: str, advice: str
) -> None:
    """Fail unless every expected parameter is there with its shape, finite, and nothing else is.

    Args:
        state: Parameters under our names.
        expected: Shapes by name.
        complaint: How the message starts: what does not fit what.
        advice: How it ends: what may be wrong.

    Raises:
        ModelError: One line that counts and names what is missing, unknown, misshapen or not finite.
    """
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "misshapen": [
            f"{name} {tuple(value.shape)} instead of {tuple(expected[name])}"
            for name, value in sorted(state.items())
            if name in expected and value.shape != expected[name]
        ],
        "not finite": [name for name, value in sorted(state.items()) if not bool(torch.isfinite(value).all())],
    }
    found = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in problems.items() if names]
    if found:
        raise ModelError(f"{complaint}: {'; '.join(found)}; {advice}")
