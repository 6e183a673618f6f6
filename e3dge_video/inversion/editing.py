"""Edits as directions in W+, with strengths that may change over time."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from e3dge_video.errors import ConfigError


@dataclass(frozen=True)
class Edit:
    """One attribute and its strength over time.

    Attributes:
        name: The attribute.
        keyframes: Times in seconds from the clip's start, rising, and strengths; between them the strength runs
            straight, outside it holds.
    """

    name: str
    keyframes: tuple[tuple[float, float], ...]

    def strength(self, time_s: float) -> float:
        """Strength at a time."""
        times = [t for t, _ in self.keyframes]
        k = bisect.bisect_right(times, time_s)
        if k == 0:
            return self.keyframes[0][1]
        if k == len(times):
            return self.keyframes[-1][1]
        (t0, s0), (t1, s1) = self.keyframes[k - 1], self.keyframes[k]
        return s0 + (s1 - s0) * (time_s - t0) / (t1 - t0)


_NUMBER = r"[-+]?\d+(?:\.\d*)?|[-+]?\.\d+"
_KEYFRAME = re.compile(rf"^({_NUMBER})@({_NUMBER})s?$")


def parse_edit(text: str, known: Mapping[str, tuple[float, float]]) -> Edit:
    """Read `age`, `smile=1.5` or `age=0@0s,2@4s`.

    Args:
        text: What the user wrote.
        known: Attributes of the model and the strengths that are sensible for each.

    Raises:
        ConfigError: Unknown attribute, unreadable strength, times that do not rise, strength out of range.
    """
    name, sign, value = text.partition("=")
    if name not in known:
        raise ConfigError(
            f"--edit {text}: this model cannot edit {name!r}; it knows {', '.join(sorted(known)) or 'no edits'}"
        )
    if not sign:
        keyframes = [(0.0, 1.0)]
    elif re.fullmatch(_NUMBER, value):
        keyframes = [(0.0, float(value))]
    else:
        matches = [_KEYFRAME.match(part.strip()) for part in value.split(",")]
        if not all(matches):
            raise ConfigError(f"--edit {text}: write a strength ({name}=1.5) or keyframes ({name}=0@0s,2@4s)")
        keyframes = [(float(m[2]), float(m[1])) for m in matches if m]
        if any(b[0] <= a[0] for a, b in itertools.pairwise(keyframes)):
            raise ConfigError(f"--edit {text}: the keyframes' times must rise")
    low, high = known[name]
    for _, strength in keyframes:
        if not low <= strength <= high:
            raise ConfigError(f"--edit {text}: strength {strength:g} is outside {low:g}…{high:g}, where {name} works")
    return Edit(name, tuple(keyframes))


def apply_edits(latents: Tensor, directions: Mapping[str, Tensor], strengths: Sequence[Mapping[str, float]]) -> Tensor:
    """Move codes along directions.

    Args:
        latents: W+ codes. [B, L, W]
        directions: One direction per attribute, a step of strength 1. [L, W] each
        strengths: For each code of the batch, strength by attribute.
    """
    offsets = torch.zeros_like(latents)
    for b, wanted in enumerate(strengths):
        for name, strength in wanted.items():
            offsets[b] += strength * directions[name]
    return latents + offsets
