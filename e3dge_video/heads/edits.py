"""Exact paired edits: one attribute moves, nothing else does.

An edit moves entries of u (see `latent.py`); because what age, gender and origin add to the others is additive, the
new z takes it back everywhere except where it belongs to the edit (greying and wrinkles belong to `age`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.latent import INDEX, LAYOUT, MOVEMENTS, coupling, inverse_ramp, movement, to_physical
from e3dge_video.heads.spec import BEARD_STYLES, GLASSES_STYLES, HAIR_STYLES

#: Entries that follow age through the coupling: growing older brings them along.
_AGE_FOLLOWERS = ("wrinkles", "hair_grey", "eye_bags", "neck_double", "age_spots", "dark_circles", "mouth_angles")
#: Entries that follow gender: the face's own shape and its brows, not hair, beard or make-up.
_GENDER_FOLLOWERS = (
    "jaw_bones", "chin_width", "chin_height", "brow_depth", "brow_height", "eye_size", "eye_opening", "nose_width",
    "nose_length", "nose_depth", "nose_volume", "nose_hump", "lip_volume", "lip_upper", "lip_lower", "neck_width",
    "forehead_slope", "cheek_bones", "head_square", "jaw_drop", "head_width", "brow_density", "brow_thickness",
    "brow_arch", "lashes",
)  # fmt: skip
#: How far the winner of a category group is put above the runner-up.
_MARGIN = 0.6

Physical = NDArray[np.float64]


def edit(z: NDArray[np.floating], name: str, strength: float = 1.0) -> NDArray[np.float32]:
    """The latent code of the same head with one attribute changed.

    Args:
        z: One latent code. [Z]
        name: One of `EDIT_NAMES`.
        strength: 1 is a full, clearly visible change; negative goes the other way; 0 changes nothing.

    Returns:
        The edited code. [Z]
    """
    if name not in _EDITS:
        raise ValueError(f"{name!r} is no edit of procedural heads; expected one of {', '.join(EDIT_NAMES)}")
    if strength == 0:
        return np.asarray(z, np.float32).copy()
    before = to_physical(z)
    after = before.copy()
    followers = _EDITS[name](after, float(strength))
    after_z = after - coupling(after)
    if followers:
        # Followers keep their z, so that the coupling moves their u.
        index = [INDEX[follower] for follower in followers]
        kept = np.asarray(z, np.float64)[index] + (after[index] - before[index])
        after_z[index] = kept
    return after_z.astype(np.float32)


def _age(u: Physical, strength: float) -> tuple[str, ...]:
    _slide(u, "age", 1.15 * strength, 2.0)
    u[INDEX["wrinkles"]] += 0.35 * strength
    u[INDEX["hair_grey"]] += 0.35 * strength
    return _AGE_FOLLOWERS


def _slide(u: Physical, name: str, step: float, limit: float) -> None:
    """Add a step that does not carry an ordinary value beyond ±limit."""
    value = u[INDEX[name]]
    u[INDEX[name]] = np.clip(value + step, min(value, -limit), max(value, limit))


def _gender(u: Physical, strength: float) -> tuple[str, ...]:
    _slide(u, "gender", 1.7 * strength, 2.0)
    return _GENDER_FOLLOWERS


def _move(u: Physical, name: str, change: float) -> None:
    """Change a movement's amount by a share of its maximum, staying within 0 and its maximum."""
    threshold, width, maximum = MOVEMENTS[name]
    share = movement(name, float(u[INDEX[name]])) / maximum
    wanted = float(np.clip(share + change, 0.0, 1.0))
    if wanted != share:
        u[INDEX[name]] = threshold + width * inverse_ramp(wanted)


def _movements(**changes: float) -> Callable[[Physical, float], tuple[str, ...]]:
    def apply(u: Physical, strength: float) -> tuple[str, ...]:
        for name, change in changes.items():
            _move(u, name, change * strength)
        return ()

    return apply


def _brow(u: Physical, strength: float) -> tuple[str, ...]:
    """Up for positive strength, down for negative."""
    _move(u, "brow_up", strength)
    _move(u, "brow_down", -strength)
    return ()


def _win(u: Physical, group: str, names: tuple[str, ...], winners: tuple[str, ...]) -> None:
    """Raise the best of `winners` above every other category of the group."""
    values = u[LAYOUT[group]]
    best = max((names.index(winner) for winner in winners), key=lambda i: values[i])
    others = max(value for i, value in enumerate(values) if i != best)
    values[best] = max(values[best], others + _MARGIN)


def _category(
    group: str, names: tuple[str, ...], positive: tuple[str, ...], negative: tuple[str, ...]
) -> Callable[[Physical, float], tuple[str, ...]]:
    def apply(u: Physical, strength: float) -> tuple[str, ...]:
        _win(u, group, names, positive if strength > 0 else negative)
        return ()

    return apply


def _shift(name: str, step: float) -> Callable[[Physical, float], tuple[str, ...]]:
    def apply(u: Physical, strength: float) -> tuple[str, ...]:
        u[INDEX[name]] += step * strength
        return ()

    return apply


_SHORT = ("crop", "side_part", "buzz", "swept_back")
_LONG = ("long_straight", "long_wavy", "long_curly")
_EDITS: dict[str, Callable[[Physical, float], tuple[str, ...]]] = {
    "age": _age,
    "gender": _gender,
    "smile": _movements(smile=0.85),
    "mouth_open": _movements(jaw_open=0.8),
    "eyes_closed": _movements(blink=1.0),
    "glasses": _category("glasses_style", GLASSES_STYLES, ("thin", "thick"), ("none",)),
    "sunglasses": _category("glasses_style", GLASSES_STYLES, ("sunglasses",), ("none",)),
    "beard": _category("beard_style", BEARD_STYLES, ("full",), ("none",)),
    "moustache": _category("beard_style", BEARD_STYLES, ("moustache",), ("none",)),
    "grey": _shift("hair_grey", 2.2),
    "wrinkles": _shift("wrinkles", 2.0),
    "surprise": _movements(brow_up=0.9, wide=0.8, jaw_open=0.45),
    "brow": _brow,
    "frown": _movements(frown=0.9),
    "pucker": _movements(pucker=0.9),
    "long_hair": _category("hair_style", HAIR_STYLES, _LONG, _SHORT),
    "bald": _category("hair_style", HAIR_STYLES, ("bald",), _SHORT),
    "lipstick": _shift("lipstick", 2.4),
    "skin": _shift("melanin", 1.5),
}

EDIT_NAMES: tuple[str, ...] = tuple(_EDITS)
