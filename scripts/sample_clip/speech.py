"""What is said and when: sounds with their times, and the shapes that lips and jaw take for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.float64]

#: Resolution of all curves, per second.
RATE = 1000
#: Lips move a little before they are heard.
_LEAD_S = 0.012
_SPREAD_S = 0.034
_CLOSING_SPREAD_S = 0.022

#: "Hello! Nice to meet you. I am made of numbers." Sounds in ARPAbet, lengths in milliseconds; `_` is a pause.
SENTENCE: tuple[tuple[str, int], ...] = (
    ("_", 520),
    ("HH", 75), ("EH", 90), ("L", 85), ("OW", 290), ("_", 190),
    ("N", 80), ("AY", 215), ("S", 120), ("T", 70), ("AX", 60), ("M", 95), ("IY", 140), ("T", 65), ("Y", 65),
    ("UW", 270), ("_", 330),
    ("AY", 185), ("AE", 125), ("M", 150), ("EY", 175), ("D", 60), ("AX", 65), ("V", 70), ("N", 80), ("AH", 135),
    ("M", 90), ("B", 65), ("ER", 165), ("Z", 190), ("_", 700),
)  # fmt: skip
#: Which sounds of the sentence carry an accent, by place.
ACCENTS = (4, 7, 12, 20, 25)

#: Shapes of mouth: amounts of `Expression`'s movements. Two entries for gliding sounds.
_MOUTHS: dict[str, tuple[dict[str, float], ...]] = {
    "_": ({},),
    "HH": ({"jaw_open": 0.20, "lower_down": 0.15},),
    "EH": ({"jaw_open": 0.28, "stretch": 0.25, "lower_down": 0.25, "upper_up": 0.10},),
    "L": ({"jaw_open": 0.17, "lower_down": 0.28, "upper_up": 0.10},),
    "OW": ({"jaw_open": 0.30, "funnel": 0.50}, {"jaw_open": 0.15, "pucker": 0.75, "funnel": 0.30}),
    "N": ({"jaw_open": 0.09, "lower_down": 0.25, "upper_up": 0.08},),
    "AY": (
        {"jaw_open": 0.44, "lower_down": 0.25, "upper_up": 0.12},
        {"jaw_open": 0.18, "stretch": 0.35, "lower_down": 0.3},
    ),
    "S": ({"jaw_open": 0.04, "stretch": 0.30, "lower_down": 0.42, "upper_up": 0.18},),
    "Z": ({"jaw_open": 0.04, "stretch": 0.28, "lower_down": 0.40, "upper_up": 0.16},),
    "T": ({"jaw_open": 0.08, "lower_down": 0.30, "upper_up": 0.10},),
    "D": ({"jaw_open": 0.09, "lower_down": 0.28, "upper_up": 0.08},),
    "AX": ({"jaw_open": 0.20, "lower_down": 0.18},),
    "M": ({"press": 0.60, "roll": 0.35},),
    "B": ({"press": 0.65, "roll": 0.30},),
    "IY": ({"jaw_open": 0.12, "stretch": 0.50, "smile": 0.18, "lower_down": 0.32, "upper_up": 0.14},),
    "Y": ({"jaw_open": 0.10, "stretch": 0.25, "pucker": 0.20, "lower_down": 0.20},),
    "UW": ({"jaw_open": 0.10, "pucker": 0.95, "funnel": 0.35},),
    "AE": ({"jaw_open": 0.40, "stretch": 0.35, "lower_down": 0.28, "upper_up": 0.14},),
    "EY": (
        {"jaw_open": 0.28, "stretch": 0.35, "lower_down": 0.28},
        {"jaw_open": 0.14, "stretch": 0.45, "lower_down": 0.3},
    ),
    "V": ({"jaw_open": 0.05, "roll": 0.55, "upper_up": 0.30},),
    "AH": ({"jaw_open": 0.38, "lower_down": 0.22, "upper_up": 0.08},),
    "ER": ({"jaw_open": 0.16, "funnel": 0.50, "lower_down": 0.22},),
}  # fmt: skip
MOVEMENTS = (
    "jaw_open", "funnel", "pucker", "stretch", "press", "smile", "upper_up", "lower_down", "roll",
)  # fmt: skip


@dataclass(frozen=True)
class Sound:
    """One speech sound, in seconds."""

    name: str
    start: float
    end: float
    accent: bool


def sounds() -> list[Sound]:
    """The sentence with its times."""
    result, now = [], 0.0
    for place, (name, milliseconds) in enumerate(SENTENCE):
        result.append(Sound(name, now, now + milliseconds / 1000, place in ACCENTS))
        now += milliseconds / 1000
    return result


def mouth_curves(seconds: float) -> dict[str, Array]:
    """Each movement's amount over time, `RATE` values per second. [n]"""
    count = round(seconds * RATE)
    curves = {name: np.zeros(count) for name in MOVEMENTS}
    closed = np.zeros(count)
    for sound in sounds():
        first, last = (round((t - _LEAD_S) * RATE) for t in (sound.start, sound.end))
        shapes = _MOUTHS[sound.name]
        for part, shape in enumerate(shapes):
            low = first + (last - first) * part // len(shapes)
            high = first + (last - first) * (part + 1) // len(shapes)
            for name, amount in shape.items():
                curves[name][max(low, 0) : max(high, 0)] = amount
        if sound.name in ("M", "B"):
            closed[max(first, 0) : max(last, 0)] = 1.0
    curves = {name: gaussian_filter1d(curve, _SPREAD_S * RATE) for name, curve in curves.items()}
    # Lips that must meet do meet, however short the sound is.
    closed = np.clip(1.25 * gaussian_filter1d(closed, _CLOSING_SPREAD_S * RATE), 0, 1)
    for name in ("jaw_open", "lower_down", "upper_up", "funnel"):
        curves[name] *= 1 - closed
    for name, amount in (("press", 0.6), ("roll", 0.35)):
        curves[name] = np.maximum(curves[name], amount * closed)
    return curves
