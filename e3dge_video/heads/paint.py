"""One person's skin: the fixed paint layers combined with the person's numbers into colour, relief and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.clothes import NECK_AXIS_Z, neckline
from e3dge_video.heads.paint_layers import DISTANCE_STEP, LAYER, MM, PaintLayers
from e3dge_video.heads.spec import Clothing, HeadSpec

#: Labels of rendered pixels.
LABELS = (
    "background",
    "skin",
    "eye",
    "mouth",
    "lips",
    "teeth",
    "brow",
    "hair",
    "beard",
    "glasses",
    "clothing",
    "lashes",
)
LABEL = {name: i for i, name in enumerate(LABELS)}

#: Skin albedo (sRGB 0..255) by melanin.
_SKIN_TONES = np.array(
    [
        (0.00, 233, 193, 170), (0.15, 228, 181, 153), (0.30, 215, 163, 132), (0.45, 193, 138, 106),
        (0.60, 160, 107, 78), (0.78, 117, 75, 54), (1.00, 76, 49, 37),
    ]
)  # fmt: skip
#: Natural lip albedo (sRGB 0..255) by melanin.
_LIP_TONES = np.array(
    [(0.00, 205, 135, 128), (0.30, 192, 120, 110), (0.60, 142, 82, 72), (1.00, 88, 50, 46)]
)  # fmt: skip

#: Layers that the inner loop reads, in its order.
_USED = (
    "lips", "lip_lines", "brow_along", "brow_across", "brow_hair", "scalp", "recession", "crown", "sides", "moustache",
    "goatee", "full_beard", "stubble_dots", "streaks", "mottle", "freckles", "spots", "redness", "dark_circle", "lid",
    "liner", "blush", "wrinkle_forehead", "wrinkle_eye", "wrinkle_mouth", "wrinkle_frown", "pores", "cavity", "fuzz",
    "hollow",
)  # fmt: skip
assert tuple(LAYER) == _USED


@dataclass(frozen=True)
class PaintedSkin:
    """The painted atlas.

    Attributes:
        colour: Linear albedo, then gloss 0..1, then height in world units. [H, W, 5]
        label: Index in `LABELS`. [H, W] uint8
    """

    colour: NDArray[np.float32]
    label: NDArray[np.uint8]


def linear(srgb: NDArray[np.floating] | tuple[float, ...]) -> NDArray[np.float32]:
    """sRGB 0..1 to linear light."""
    value = np.asarray(srgb, np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def skin_tone(melanin: float, warmth: float) -> NDArray[np.float32]:
    """Linear albedo of plain skin. [3]"""
    tone = np.array([np.interp(melanin, _SKIN_TONES[:, 0], _SKIN_TONES[:, k]) for k in (1, 2, 3)]) / 255
    tone = tone * np.array([1 - 0.015 * warmth, 1 + 0.012 * warmth, 1 - 0.055 * warmth])
    return linear(np.clip(tone, 0, 1))


def hair_on_skin(spec: HeadSpec) -> dict[str, float]:
    """How the scalp is covered: distances in world units, amounts 0..1; see `_bake`."""
    hair = spec.hair
    receding = {"receding": 0.055, "bald": 0.0}.get(hair.style, 0.0)
    recession = 0.022 * hair.recession + receding
    cover = 0.0 if hair.style == "bald" else 1.0
    # A shaved head still shows where hair would grow.
    shade = {"bald": 0.16, "buzz": 0.86}.get(hair.style, 1.0)
    crown = {"bald": 0.5, "receding": 1.0}.get(hair.style, 0.0)
    sides = {"swept_back": 0.25, "crop": 0.35, "side_part": 0.3}.get(hair.style, 0.0) * max(hair.sides + 0.3, 0.0)
    return {"recession": recession, "cover": cover, "shade": shade, "crown": crown, "fade": min(sides, 0.5)}


def paint_skin(spec: HeadSpec, layers: PaintLayers) -> PaintedSkin:
    """Colour, gloss, relief and labels of a person's skin."""
    skin, brows, makeup, hair, beard = spec.skin, spec.brows, spec.makeup, spec.hair, spec.beard
    expression = spec.expression
    tone = skin_tone(skin.melanin, skin.warmth)
    lip = linear(np.array([np.interp(skin.melanin, _LIP_TONES[:, 0], _LIP_TONES[:, k]) for k in (1, 2, 3)]) / 255)
    scalp = hair_on_skin(spec)
    on_beard = {
        "none": (0.0, 0.0, 0.0),
        "stubble": (0.8, 0.8, 1.0),
        "moustache": (1.0, 0.0, 0.0),
        "goatee": (1.0, 1.0, 0.0),
        "full": (1.0, 1.0, 1.0),
    }[beard.style]
    amount = 0.30 + 0.25 * beard.density if beard.style == "stubble" else 0.90 + 0.10 * beard.density
    # Shaven men keep a shade; more with dark hair.
    shaven = 0.10 * (1 - spec.phenotype.gender) * float(np.clip((spec.phenotype.age_years - 16) / 6, 0, 1))
    old = float(np.clip((spec.phenotype.age_years - 30) / 40, 0, 1))
    numbers = np.array(
        [
            skin.redness, skin.freckles, skin.mottling, skin.age_spots, skin.dark_circles, skin.gloss,
            makeup.lipstick, makeup.eyeshadow, makeup.eyeliner, makeup.blush,
            brows.density, brows.thickness, brows.arch, brows.tilt,
            scalp["recession"], scalp["cover"], scalp["shade"], scalp["crown"], scalp["fade"],
            on_beard[0], on_beard[1], on_beard[2], amount, float(beard.style == "stubble"), shaven,
            skin.wrinkles * (0.6 + 0.25 * old) + 0.40 * expression.brow_up,
            skin.wrinkles + 0.30 * expression.smile + 0.3 * expression.squint,
            0.06 + 0.95 * skin.wrinkles + 0.40 * expression.smile + 0.25 * expression.sneer,
            0.8 * skin.wrinkles + 0.7 * expression.brow_down,
            old * (0.4 + 0.6 * skin.wrinkles),
            skin.melanin,
            float(hair.style in ("buzz", "afro", "bald")),
            float(hair.style == "afro"),
        ],
        np.float32,
    )  # fmt: skip
    colours = np.stack(
        [
            tone,
            lip,
            linear(makeup.lip_colour),
            linear(makeup.eyeshadow_colour),
            linear(brows.colour),
            linear(hair.colour) * np.float32(0.75),
            linear(beard.colour),
        ]
    ).astype(np.float32)
    colour = np.zeros((layers.size[0] * layers.size[1], 5), np.float32)
    label = np.zeros(layers.size[0] * layers.size[1], np.uint8)
    _bake(layers.values, layers.texels, numbers, colours, colour, label)
    _paint_cloth(spec.clothing, layers, colour, label)
    return PaintedSkin(colour.reshape(*layers.size, 5), label.reshape(layers.size))


def _paint_cloth(
    clothing: Clothing, layers: PaintLayers, colour: NDArray[np.float32], label: NDArray[np.uint8]
) -> None:
    """Cover the body below the neckline with cloth, in place."""
    texels, position = layers.texels[layers.is_body], layers.position[layers.is_body]
    azimuth = np.arctan2(position[:, 0], position[:, 2] - NECK_AXIS_Z)
    below = neckline(clothing, azimuth) - position[:, 1]
    cover = np.clip(below / (2.0 * MM) + 0.5, 0, 1)
    chosen = cover > 0
    texels, position, cover, below = texels[chosen], position[chosen], cover[chosen], below[chosen]
    cloth = np.broadcast_to(linear(clothing.colour), (len(texels), 3)).copy()
    stripes = 0.5 + 0.5 * np.sin(position[:, 1] / MM * 0.45)
    cloth += (linear(clothing.second_colour) - cloth) * (np.clip(4 * stripes - 2.2, 0, 1) * clothing.pattern)[:, None]
    weave = 1.0 + 0.05 * np.sin(position[:, 0] / MM * 0.9 + 2 * np.sin(position[:, 1] / MM * 0.13))
    cloth *= weave[:, None]
    # A shirt is buttoned along the middle; folds follow the shoulders.
    if clothing.style == "shirt":
        cloth *= (1.0 - 0.35 * np.exp(-(((np.abs(position[:, 0]) - 9 * MM) / (1.2 * MM)) ** 2)))[:, None]
    folds = np.sin(position[:, 0] / MM * 0.06 + position[:, 2] / MM * 0.05) * np.sin(position[:, 1] / MM * 0.03 + 1.0)
    colour[texels, :3] += (cloth - colour[texels, :3]) * cover[:, None]
    colour[texels, 3] *= 1.0 - 0.8 * cover
    colour[texels, 4] += cover * (2.2 * folds * MM)
    label[texels[cover > 0.5]] = LABEL["clothing"]


@numba.njit(cache=True, fastmath=True)
def _smooth(x: float, low: float, high: float) -> float:
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@numba.njit(cache=True, fastmath=True)
def _bake(
    values: NDArray[np.uint8],
    texels: NDArray[np.int32],
    numbers: NDArray[np.float32],
    colours: NDArray[np.float32],
    out: NDArray[np.float32],
    label: NDArray[np.uint8],
) -> None:
    """The inner loop of `paint_skin`: one texel after the other, from the skin up to what lies on it."""
    (redness, freckles, mottling, spots, circles, gloss) = numbers[0:6]
    (lipstick, shadow, liner, blush) = numbers[6:10]
    (brow_density, brow_thickness, brow_arch, brow_tilt) = numbers[10:14]
    (recession, cover, shade, crown, fade) = numbers[14:19]
    (on_moustache, on_goatee, on_full, beard_amount, is_stubble, shaven) = numbers[19:25]
    (lines_forehead, lines_eye, lines_mouth, lines_frown, hollow, melanin, is_short, is_thick) = numbers[25:33]
    scale = np.float32(1.0 / 255.0)
    light_skin = 1.0 - melanin
    rgb = np.zeros(3, np.float32)
    for i in range(texels.shape[0]):
        v = values[i]
        lips = v[0] * scale
        red = v[17] * scale
        # Blood shows more through light skin; eye sockets are darker and a little purple.
        mottle = (v[14] * scale - 0.5) * (0.06 + 0.10 * mottling)
        blood = red * (0.20 + 0.45 * redness) * (0.45 + 0.55 * light_skin)
        circle = v[18] * scale * circles * 0.55
        pore = (v[26] * scale - 0.5) * 0.05
        shine = 0.35 + 0.35 * gloss
        height = -pore * 0.35
        for k in range(3):
            rgb[k] = colours[0, k] * (1.0 + mottle * (1.0 if k == 0 else 1.3) + pore)
        rgb[0] *= 1.0 - 0.02 * blood - 0.22 * circle
        rgb[1] *= 1.0 - 0.34 * blood - 0.30 * circle
        rgb[2] *= 1.0 - 0.36 * blood - 0.22 * circle
        brown = 0.42 * freckles * v[15] * scale + 0.20 * spots * v[16] * scale
        rgb[0] *= 1.0 - 0.55 * brown
        rgb[1] *= 1.0 - 0.80 * brown
        rgb[2] *= 1.0 - 0.95 * brown
        rosy = blush * v[21] * scale
        rgb[1] *= 1.0 - 0.45 * rosy
        rgb[2] *= 1.0 - 0.40 * rosy

        groove = lines_forehead * v[22] * scale
        groove = max(groove, lines_eye * v[23] * scale)
        groove = max(groove, lines_mouth * v[24] * scale)
        groove = max(groove, lines_frown * v[25] * scale)
        height -= 0.9 * groove
        # Old skin is paler and less red.
        grey = 0.30 * rgb[0] + 0.55 * rgb[1] + 0.15 * rgb[2]
        for k in range(3):
            rgb[k] += (1.12 * grey - rgb[k]) * 0.13 * hollow
        groove = min(groove, 1.1) + 0.7 * hollow * v[29] * scale
        rgb[0] *= 1.0 - 0.36 * groove
        rgb[1] *= 1.0 - 0.46 * groove
        rgb[2] *= 1.0 - 0.48 * groove

        lid = v[19] * scale
        rgb[0] *= 1.0 - 0.05 * lid
        rgb[1] *= 1.0 - 0.12 * lid
        rgb[2] *= 1.0 - 0.10 * lid
        painted = shadow * lid
        for k in range(3):
            rgb[k] += (colours[3, k] - rgb[k]) * 0.75 * painted
        what = 1
        if lips > 0.01:
            line = v[1] * scale - 0.5
            for k in range(3):
                bare = colours[1, k] * (1.0 + 0.10 * line)
                covered = colours[2, k] * (1.0 + 0.05 * line)
                rgb[k] += (bare + (covered - bare) * lipstick - rgb[k]) * lips
            shine += lips * (0.30 + 0.25 * lipstick)
            height += 0.10 * line * lips
            if lips > 0.5:
                what = 4
        edge = v[20] * scale * (0.45 + 0.55 * liner)
        for k in range(3):
            rgb[k] *= 1.0 - 0.75 * edge

        # Eyebrows: an almond along its middle line, filled with strokes that thin out at its rim.
        along = v[2] * scale * 1.5 - 0.25
        across = v[3] * scale * 8.0 - 4.0
        if -0.12 < along < 1.15 and abs(across) < 3.9:
            bow = brow_arch * (0.9 - 5.0 * (along - 0.62) ** 2) * 0.9 + brow_tilt * (along - 0.4) * 1.4
            half = (
                (0.55 + 0.75 * brow_thickness)
                * (0.55 + 0.75 * _smooth(along, -0.05, 0.25))
                * (1.0 - 0.68 * _smooth(along, 0.55, 1.08))
            )
            rim = abs(across - bow) / half
            body = (1.0 - _smooth(rim, 0.45, 1.25)) * _smooth(along, -0.10, 0.10) * (1.0 - _smooth(along, 0.98, 1.12))
            stroke = v[4] * scale
            hairs = _smooth(stroke, 0.72 - 0.80 * body, 1.05 - 0.80 * body) * min(1.0, 2.5 * body)
            amount = min(1.0, brow_density * (0.58 * body + 0.52 * hairs))
            for k in range(3):
                rgb[k] += (colours[4, k] - rgb[k]) * amount
            height += 0.25 * amount * stroke
            shine *= 1.0 - 0.6 * amount
            if amount > 0.45:
                what = 6

        # Beard: stubble is dots in the skin, a beard is streaks that cover it.
        field = max(on_moustache * v[9] * scale, on_goatee * v[10] * scale)
        field = max(field, on_full * v[11] * scale)
        shaven_field = max(v[9], v[11]) * scale * shaven
        if field > 0.01 or shaven_field > 0.01:
            dots = v[12] * scale
            streak = v[13] * scale
            if is_stubble > 0.5:
                amount = field * beard_amount * (0.35 + 0.75 * _smooth(dots, 0.30, 0.70))
            else:
                amount = _smooth(field * 1.25 + 0.5 * (streak - 0.5), 0.25, 0.70) * beard_amount
                height += amount * (streak - 0.5) * 0.8
            tone = 1.0 if is_stubble > 0.5 else 0.62 + 0.76 * streak
            amount = max(amount, shaven_field * (0.6 + 0.8 * dots))
            for k in range(3):
                rgb[k] += (colours[6, k] * tone - rgb[k]) * min(amount, 1.0)
            shine *= 1.0 - 0.55 * min(amount, 1.0)
            if amount > 0.5 and is_stubble < 0.5:
                what = 8

        # Scalp under the hair: covered wherever hair grows, with a soft hairline.
        inside = (v[5] * scale * 255.0 - 128.0) * DISTANCE_STEP - recession * (0.35 + 1.6 * v[6] * scale)
        inside -= crown * v[7] * scale * 0.16
        # A thick layer stretches the texels of its edge, so its hairline is painted narrow.
        grown = _smooth(inside, -2.0 * MM, (7.0 - 7.0 * is_thick) * MM)
        if grown > 0.003:
            fuzz = v[28] * scale
            thin = 1.0 - fade * v[8] * scale * (1.0 - 0.3 * fuzz)
            amount = grown * thin * (shade if cover > 0.5 else shade * (0.5 + fuzz))
            amount *= 1.0 - (0.25 if is_short - is_thick > 0.5 else 0.04) * (1.0 - _smooth(fuzz, 0.2, 0.6))
            tone = 0.75 + 0.5 * fuzz
            for k in range(3):
                rgb[k] += (colours[5, k] * tone - rgb[k]) * amount
            height += is_short * cover * grown * (fuzz - 0.5) * 0.9
            shine *= 1.0 - 0.7 * amount
            if amount > 0.5:
                what = 7
        cavity = v[27] * scale
        t = texels[i]
        for k in range(3):
            out[t, k] = max(rgb[k], 0.0) * (0.25 + 0.75 * cavity)
        out[t, 3] = min(max(shine * cavity, 0.0), 1.0)
        out[t, 4] = height * MM
        label[t] = what
