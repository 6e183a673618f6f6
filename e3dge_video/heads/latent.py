"""The latent code of a head: named entries of z ~ N(0, I), and how they decide the look.

The look is a deterministic function of z. Two steps keep edits exact:

1. Coupling: u = z + b(upstream), where b depends only on age, gender and origin (their u equals their z). It holds all
   statistical dependence: jaws by gender, greying by age, hair styles by gender, age and origin.
2. Physical values are smooth monotone functions of one or a few u; categories are the argmax of a group of u.

An edit moves some u and, because b is additive, z can compensate it exactly everywhere else (`edits.py`).

Layout (`LAYOUT`, slices of z; the names of the single entries are in `ENTRIES`):

| group      | entries                                                                                       |
|------------|-----------------------------------------------------------------------------------------------|
| phenotype  | age, gender, african, asian, caucasian, weight                                                |
| shape      | signed head targets of `assets.SHAPE_TARGETS`                                                 |
| skin       | melanin, warmth, redness, freckles, mottling, gloss, wrinkles, age spots, dark circles        |
| eyes       | iris hue and lightness, redness, lashes                                                       |
| brows      | density, thickness, arch, tilt, darkness                                                      |
| makeup     | lipstick (amount, hue, darkness), eyeshadow (amount, hue), eyeliner, blush                    |
| hair_style | argmax over `spec.HAIR_STYLES`                                                                |
| hair       | melanin, red, grey, dye (amount, hue), shine, length, volume, part, wave, fringe, recession, …|
| beard_style, beard         | argmax over `spec.BEARD_STYLES`; length, density, colour                      |
| glasses_style, glasses     | argmax over `spec.GLASSES_STYLES`; size, height, roundness, thickness, …      |
| clothing_style, clothing   | argmax over `spec.CLOTHING_STYLES`; colours, neckline, pattern                |
| light      | key direction and strength, fill, ambient, warmth, tint, ground, exposure, flatness           |
| expression | blink … mouth_side, in the order of `spec.Expression`, one movement each                      |
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from e3dge_video.heads.assets import SHAPE_TARGETS
from e3dge_video.heads.spec import BEARD_STYLES, CLOTHING_STYLES, GLASSES_STYLES, HAIR_STYLES

_SHAPE_NAMES = tuple(name for name, (_, _, deviation) in SHAPE_TARGETS.items() if deviation > 0)

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "phenotype": ("age", "gender", "african", "asian", "caucasian", "weight"),
    "shape": _SHAPE_NAMES,
    "skin": (
        "melanin", "warmth", "skin_redness", "freckles", "mottling", "gloss", "wrinkles", "age_spots", "dark_circles",
    ),
    "eyes": ("iris", "iris_lightness", "eye_redness", "lashes"),
    "brows": ("brow_density", "brow_thickness", "brow_arch", "brow_tilt", "brow_darkness"),
    "makeup": ("lipstick", "lip_hue", "lip_darkness", "eyeshadow", "eyeshadow_hue", "eyeliner", "blush"),
    "hair_style": tuple(f"hair_{style}" for style in HAIR_STYLES),
    "hair": (
        "hair_melanin", "hair_red", "hair_grey", "hair_dye", "hair_dye_hue", "hair_shine", "hair_length",
        "hair_volume", "hair_parting", "hair_wave", "hair_bangs", "hair_recession", "hair_clumps", "hair_sides",
        "hair_contrast",
    ),
    "beard_style": tuple(f"beard_{style}" for style in BEARD_STYLES),
    "beard": ("beard_length", "beard_density", "beard_colour"),
    "glasses_style": tuple(f"glasses_{style}" for style in GLASSES_STYLES),
    "glasses": (
        "glasses_size", "glasses_height", "glasses_roundness", "glasses_thickness", "glasses_hue", "glasses_lightness",
        "glasses_tint",
    ),
    "clothing_style": tuple(f"clothing_{style}" for style in CLOTHING_STYLES),
    "clothing": (
        "clothing_hue", "clothing_saturation", "clothing_lightness", "clothing_second", "clothing_neckline",
        "clothing_pattern",
    ),
    "light": (
        "light_azimuth", "light_elevation", "light_key", "light_fill", "light_ambient", "light_warmth", "light_tint",
        "light_ground", "light_exposure", "light_flatness",
    ),
    "expression": (
        "blink", "wink", "squint", "wide", "brow_up", "brow_inner_up", "brow_down", "gaze_x", "gaze_y", "jaw_open",
        "jaw_side", "smile", "smile_skew", "frown", "pucker", "funnel", "stretch", "press", "upper_up", "lower_down",
        "roll", "shrug", "cheek_puff", "sneer", "mouth_side",
    ),
}  # fmt: skip

ENTRIES: Final[tuple[str, ...]] = tuple(name for names in GROUPS.values() for name in names)
INDEX: Final[dict[str, int]] = {name: i for i, name in enumerate(ENTRIES)}
Z_DIM: Final[int] = len(ENTRIES)
LAYOUT: Final[dict[str, slice]] = {
    group: slice(INDEX[names[0]], INDEX[names[-1]] + 1) for group, names in GROUPS.items()
}

#: Movements: entry → (threshold, width, maximum). Amount = maximum * ramp((u - threshold) / width); see `ramp`.
MOVEMENTS: Final[dict[str, tuple[float, float, float]]] = {
    "blink": (0.1, 1.15, 1.0),
    "wink": (1.55, 0.5, 1.0),
    "squint": (0.4, 1.6, 0.9),
    "wide": (0.7, 1.5, 0.9),
    "brow_up": (0.45, 1.5, 1.0),
    "brow_inner_up": (0.8, 1.5, 0.8),
    "brow_down": (0.6, 1.5, 0.9),
    "jaw_open": (-0.35, 2.3, 0.85),
    "smile": (-0.2, 1.7, 0.95),
    "frown": (0.9, 1.5, 0.8),
    "pucker": (0.7, 1.3, 0.9),
    "funnel": (0.7, 1.4, 0.8),
    "stretch": (0.7, 1.4, 0.8),
    "press": (0.7, 1.4, 0.9),
    "upper_up": (0.5, 1.5, 0.65),
    "lower_down": (0.5, 1.5, 0.75),
    "roll": (1.0, 1.4, 0.7),
    "shrug": (1.0, 1.4, 0.7),
    "cheek_puff": (1.4, 1.0, 0.7),
    "sneer": (1.1, 1.4, 0.7),
}

# Offsets of the category groups. They set the frequencies of the argmax (tests/heads/test_latent.py lists them).
_HAIR_MALE = {
    "bald": 0.08, "buzz": 0.13, "crop": 0.20, "side_part": 0.17, "swept_back": 0.11, "receding": 0.08,
    "afro": 0.06, "medium": 0.035, "bob": 0.008, "long_straight": 0.022, "long_wavy": 0.022, "long_curly": 0.015,
    "tied_back": 0.01, "bun": 0.005, "fringe": 0.005,
}  # fmt: skip
_HAIR_FEMALE = {
    "bald": 0.004, "buzz": 0.018, "crop": 0.06, "side_part": 0.06, "swept_back": 0.045, "receding": 0.003,
    "afro": 0.06, "medium": 0.09, "bob": 0.13, "long_straight": 0.14, "long_wavy": 0.13, "long_curly": 0.06,
    "tied_back": 0.08, "bun": 0.06, "fringe": 0.06,
}  # fmt: skip
_BEARD = {"none": 0.42, "stubble": 0.22, "moustache": 0.08, "goatee": 0.11, "full": 0.17}
_GLASSES = {"none": 0.75, "thin": 0.105, "thick": 0.115, "sunglasses": 0.03}
_CLOTHING = {"crew": 0.28, "v_neck": 0.17, "shirt": 0.29, "hoodie": 0.16, "turtleneck": 0.10}

#: Direction from masculine to feminine in the shape's u, beyond what the phenotype moves.
_FEMININE: Final[dict[str, float]] = {
    "jaw_bones": -1.17, "chin_width": -0.91, "chin_height": -0.59, "brow_depth": -1.17, "brow_height": 0.59,
    "eye_size": 0.72, "eye_opening": 0.39, "nose_width": -0.59, "nose_length": -0.45, "nose_depth": -0.52,
    "nose_volume": -0.52, "nose_hump": -0.65, "lip_volume": 0.72, "lip_upper": 0.52, "lip_lower": 0.45,
    "neck_width": -1.3, "forehead_slope": 0.59, "cheek_bones": 0.59, "head_square": -0.78, "jaw_drop": -0.39,
    "head_width": -0.26, "brow_density": -0.55, "brow_thickness": -0.6, "brow_arch": 0.6, "lashes": 0.7,
    "lipstick": 1.5, "eyeshadow": 1.5, "eyeliner": 1.6, "blush": 1.4, "hair_recession": -0.8, "hair_dye": 0.5,
}  # fmt: skip
#: Direction of ageing by twenty years, beyond what the phenotype moves.
_AGEING: Final[dict[str, float]] = {
    "wrinkles": 1.15, "age_spots": 0.7, "dark_circles": 0.35, "hair_grey": 1.35, "eye_bags": 0.5, "neck_double": 0.3,
    "mouth_angles": -0.25, "ear_size": 0.35, "lip_volume": -0.35, "nose_tip": -0.25, "hair_recession": 0.5,
    "freckles": -0.3, "brow_density": -0.2, "hair_volume": -0.15, "gloss": -0.1,
}  # fmt: skip


def ramp(x: NDArray[np.floating] | float) -> NDArray[np.floating] | float:
    """0 below 0, 1 above 1, smooth and monotone between (3x² - 2x³ blended with x to keep the slope alive)."""
    t = np.clip(x, 0.0, 1.0)
    return 0.5 * t + 0.5 * t * t * (3.0 - 2.0 * t)


def inverse_ramp(value: float) -> float:
    """The x in 0..1 with ramp(x) = value, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if ramp(middle) < value else (low, middle)
    return 0.5 * (low + high)


def movement(name: str, u: float) -> float:
    """Amount of a movement for its u."""
    threshold, width, maximum = MOVEMENTS[name]
    return float(maximum * ramp((u - threshold) / width))


def age_years(u: float) -> float:
    """Mostly adults, uniform over 18 to 80 years; the lowest 4 % are children from 9 years on."""
    return float(np.interp(ndtr(u), (0.0, 0.04, 1.0), (9.0, 18.0, 80.0)))


def femininity(u: float) -> float:
    """0 male to 1 female, with few in between."""
    return float(ndtr(1.7 * u))


def origin_weights(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """Weights of african, asian, caucasian; one leads in most people. [3]"""
    powers = np.exp(2.0 * (u - u.max()))
    return powers / powers.sum()


def coupling(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """b(upstream): what age, gender and origin add to the other entries. [Z]"""
    offset = np.zeros(Z_DIM)
    years = age_years(z[INDEX["age"]])
    decades2 = (years - 45.0) / 20.0
    feminine = femininity(z[INDEX["gender"]])
    sign = 2.0 * feminine - 1.0
    african, _asian, _caucasian = origin_weights(z[[INDEX["african"], INDEX["asian"], INDEX["caucasian"]]])
    child = float(np.clip((19.0 - years) / 3.0, 0.0, 1.0))
    for name, amount in _FEMININE.items():
        offset[INDEX[name]] += sign * amount
    for name, amount in _AGEING.items():
        offset[INDEX[name]] += decades2 * amount
    for name in ("lipstick", "eyeshadow", "eyeliner", "blush"):
        offset[INDEX[name]] -= 2.0 * child

    clear = float(np.clip(0.5 + 1.5 * (feminine - 0.5), 0.0, 1.0))
    for style in HAIR_STYLES:
        i = INDEX[f"hair_{style}"]
        offset[i] += (1 - clear) * HAIR_OFFSETS_MALE[style] + clear * HAIR_OFFSETS_FEMALE[style]
    for style in ("bald", "receding"):
        offset[INDEX[f"hair_{style}"]] += 0.6 * decades2 * (1 - clear) - 0.5 * clear - 3.0 * child
    for style in ("long_straight", "long_wavy", "long_curly", "tied_back", "fringe"):
        offset[INDEX[f"hair_{style}"]] -= 0.2 * decades2
    curly = african - 1 / 3
    for style, amount in (("afro", 2.2), ("buzz", 0.8), ("long_curly", 0.9)):
        offset[INDEX[f"hair_{style}"]] += amount * curly - 0.15 * amount
    for style in ("long_straight", "fringe", "bob", "side_part", "crop"):
        offset[INDEX[f"hair_{style}"]] -= 0.7 * curly

    for style in BEARD_STYLES:
        offset[INDEX[f"beard_{style}"]] += BEARD_OFFSETS[style]
    offset[INDEX["beard_none"]] += 12.0 * max(feminine - 0.35, 0.0) + 8.0 * child
    for style in GLASSES_STYLES:
        offset[INDEX[f"glasses_{style}"]] += GLASSES_OFFSETS[style]
    for style in CLOTHING_STYLES:
        offset[INDEX[f"clothing_{style}"]] += CLOTHING_OFFSETS[style]
    return offset


def to_physical(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """u = z + b(upstream). [Z]"""
    return z.astype(np.float64) + coupling(z)


def to_latent(u: NDArray[np.floating]) -> NDArray[np.float32]:
    """The z of a u, exactly (upstream entries are equal in both). [Z]"""
    return (u - coupling(u)).astype(np.float32)


def argmax_offsets(frequencies: dict[str, float]) -> dict[str, float]:
    """Offsets b so that the argmax of b + N(0, I) has the given frequencies (sum to about one).

    P(k wins) is the integral of φ(x - b_k) Π_j Φ(x - b_j); solved by damped fixed-point steps on log P.
    """
    names = list(frequencies)
    wanted = np.array([frequencies[name] for name in names])
    wanted = wanted / wanted.sum()
    x = np.linspace(-9.0, 11.0, 801)
    offsets = np.log(wanted) * 0.6
    for _ in range(400):
        cumulative = np.maximum(ndtr(x[None] - offsets[:, None]), 1e-300)
        density = np.exp(-0.5 * (x[None] - offsets[:, None]) ** 2) / np.sqrt(2 * np.pi)
        others = np.exp(np.log(cumulative).sum(0)[None] - np.log(cumulative))
        got = (density * others).sum(1) * (x[1] - x[0])
        offsets += 0.35 * np.log(wanted / np.maximum(got, 1e-12))
        offsets -= offsets.mean()
    return dict(zip(names, offsets.tolist(), strict=True))


HAIR_OFFSETS_MALE = argmax_offsets(_HAIR_MALE)
HAIR_OFFSETS_FEMALE = argmax_offsets(_HAIR_FEMALE)
BEARD_OFFSETS = argmax_offsets(_BEARD)
GLASSES_OFFSETS = argmax_offsets(_GLASSES)
CLOTHING_OFFSETS = argmax_offsets(_CLOTHING)
