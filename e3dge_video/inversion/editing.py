"""Edits as directions in W+, on all layers or some, with strengths that may change over time."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from e3dge_video.errors import ConfigError
from e3dge_video.weights.bundle import EditSpec


@dataclass(frozen=True)
class Edit:
    """One attribute and its strength over time.

    Attributes:
        name: The attribute.
        keyframes: Times in seconds from the clip's start, rising, and strengths; between them the strength runs
            straight, outside it holds.
        layers: Rows [first, stop) of W+ that move; None: all that the direction moves.
    """

    name: str
    keyframes: tuple[tuple[float, float], ...]
    layers: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """The attribute with its layers, as one writes it: `age`, `age:0-7`."""
        return self.name if self.layers is None else f"{self.name}:{_shown(self.layers)}"

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
_LAYERS = re.compile(r"^(\d{1,4})(?:-(\d{1,4}))?$")


def parse_edits(texts: Sequence[str], known: Mapping[str, EditSpec], rows: int) -> tuple[Edit, ...]:
    """Read the edits of a run. An attribute may come several times if its layers differ: `age:0-3=1 age:4-11=0.5`.

    Args:
        texts: What the user wrote, each as in `parse_edit`.
        known: Attributes of the model.
        rows: Rows L of its codes.

    Raises:
        ConfigError: One that cannot be read, or two for the same layer of an attribute.
    """
    edits: list[Edit] = []
    for text in texts:
        edit = parse_edit(text, known, rows)
        for former in edits:
            if edit.name == former.name and _overlap(edit.layers, former.layers):
                raise ConfigError(
                    f"--edit {text}: {former.label} is given, too, for the same layers; give one strength, keyframes "
                    f"over time, or layers that do not overlap ({edit.name}:0-3=1 {edit.name}:4-7=0.5)"
                )
        edits.append(edit)
    return tuple(edits)


def parse_edit(text: str, known: Mapping[str, EditSpec], rows: int) -> Edit:
    """Read `age`, `smile=1.5`, `age=0@0s,1.2@4s`; with layers `age:0-7`, `age:5=1.2`, `smile:0-3=0@0s,1@2s`.

    The limits of an attribute hold for some of its layers as for all: no row of a code ever goes farther than was
    looked at.

    Args:
        text: What the user wrote.
        known: Attributes of the model.
        rows: Rows L of its codes.

    Raises:
        ConfigError: Unknown attribute, layers that it does not move, unreadable strength, times that do not rise,
            strength out of range.
    """
    target, sign, value = text.partition("=")
    name, colon, numbers = target.partition(":")
    if name not in known:
        raise ConfigError(
            f"--edit {text}: this model cannot edit {name!r}; it knows {', '.join(sorted(known)) or 'no edits'}"
        )
    layers = _parse_layers(text, name, numbers, known[name].layers or (0, rows)) if colon else None
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
    low, high = known[name].limits
    for _, strength in keyframes:
        if not low <= strength <= high:
            raise ConfigError(
                f"--edit {text}: strength {strength:g} is outside {low:g}…{high:g}, where {name} works"
                + (" (on some layers no more than on all)" if layers else "")
            )
    return Edit(name, tuple(keyframes), layers)


def edit_steps(edits: Sequence[Edit], directions: Mapping[str, Tensor], *, orthogonal: bool = False) -> Tensor:
    """What strength 1 of each edit adds to a code.

    Args:
        edits: The edits, in order.
        directions: One direction per attribute. [L, W] each
        orthogonal: In every row an edit gives up what it shares with the edits before it that move the same row. What
            remains keeps its length: the shared part is left out, not made up for.

    Returns:
        Zero in rows that an edit does not move. [E, L, W]
    """
    steps: list[Tensor] = []
    axes: list[Tensor] = []  # what each edit moves along, of unit length in every row that it moves
    for edit in edits:
        direction = directions[edit.name]
        first, stop = edit.layers or (0, len(direction))
        step = torch.zeros_like(direction)
        step[first:stop] = direction[first:stop]
        if orthogonal:
            length = step.norm(dim=-1, keepdim=True)
            for axis in axes:
                step = step - (step * axis).sum(dim=-1, keepdim=True) * axis
            # Of two edits that are the same one, nothing but rounding is left.
            step = torch.where(step.norm(dim=-1, keepdim=True) > 1e-4 * length, step, 0)
            axes.append(torch.nn.functional.normalize(step, dim=-1))
        steps.append(step)
    return torch.stack(steps)


def apply_edits(latents: Tensor, steps: Tensor, strengths: Tensor) -> Tensor:
    """Move codes.

    Args:
        latents: W+ codes. [B, L, W]
        steps: What strength 1 of each edit adds. [E, L, W]
        strengths: Of each edit for each code. [B, E]
    """
    return latents + torch.tensordot(strengths, steps, dims=1)


def _parse_layers(text: str, name: str, numbers: str, moved: tuple[int, int]) -> tuple[int, int]:
    match = _LAYERS.match(numbers)
    if not match:
        raise ConfigError(f"--edit {text}: write layers as {name}:5 or {name}:0-7, from the first to the last")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ConfigError(f"--edit {text}: layers run from the lower to the higher; write {name}:{last}-{first}")
    if first < moved[0] or last >= moved[1]:
        raise ConfigError(f"--edit {text}: in this model {name} moves layers {_shown(moved)}, which are counted from 0")
    return first, last + 1


def _overlap(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool:
    return a is None or b is None or (a[0] < b[1] and b[0] < a[1])


def _shown(layers: tuple[int, int]) -> str:
    """As people write them: both ends belong to it."""
    first, last = layers[0], layers[1] - 1
    return str(first) if first == last else f"{first}-{last}"
