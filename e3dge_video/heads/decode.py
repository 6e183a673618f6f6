"""From the latent code to the physical description of a head."""

from __future__ import annotations

import colorsys
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from e3dge_video.heads.assets import SHAPE_TARGETS
from e3dge_video.heads.latent import (
    INDEX,
    LAYOUT,
    MOVEMENTS,
    age_years,
    femininity,
    movement,
    origin_weights,
    ramp,
    to_physical,
)
from e3dge_video.heads.shape import Phenotype
from e3dge_video.heads.spec import (
    BEARD_STYLES,
    CLOTHING_STYLES,
    GLASSES_STYLES,
    HAIR_STYLES,
    Beard,
    Brows,
    Clothing,
    Colour,
    Expression,
    Eyes,
    Glasses,
    Hair,
    HeadSpec,
    Light,
    Makeup,
    Skin,
)

#: Natural hair colours (sRGB 0..255) by lightness, black to light blond, and their red relatives.
_HAIR_TONES = (
    (0.00, (22, 18, 17)), (0.22, (42, 30, 24)), (0.42, (76, 52, 36)), (0.60, (112, 80, 52)), (0.78, (158, 122, 80)),
    (1.00, (206, 176, 128)),
)  # fmt: skip
_RED_TONES = (
    (0.00, (40, 20, 16)), (0.22, (66, 30, 20)), (0.42, (106, 48, 26)), (0.60, (148, 70, 34)), (0.78, (182, 96, 50)),
    (1.00, (206, 132, 78)),
)  # fmt: skip
_LIPSTICKS = (
    (0.0, (178, 96, 92)),
    (0.3, (190, 70, 84)),
    (0.55, (176, 28, 44)),
    (0.8, (126, 24, 52)),
    (1.0, (130, 66, 54)),
)
_SHADOWS = ((0.0, (120, 84, 66)), (0.35, (96, 66, 76)), (0.65, (84, 80, 96)), (1.0, (66, 50, 46)))
_FRAMES = (
    (0.0, (22, 20, 20)),
    (0.45, (40, 30, 26)),
    (0.65, (94, 56, 32)),
    (0.8, (34, 44, 74)),
    (0.92, (120, 28, 34)),
    (1.0, (190, 186, 180)),
)
_METALS = ((0.0, (30, 30, 34)), (0.5, (62, 62, 68)), (0.75, (128, 96, 50)), (1.0, (116, 72, 58)))

#: Length of each hair style, 0 none to 1 over the shoulders: the `hair_long` attribute.
STYLE_LENGTH = {
    "bald": 0.0, "buzz": 0.04, "crop": 0.12, "side_part": 0.16, "swept_back": 0.18, "receding": 0.1,
    "afro": 0.25, "medium": 0.4, "bob": 0.6, "long_straight": 1.0, "long_wavy": 0.95, "long_curly": 0.9,
    "tied_back": 0.7, "bun": 0.6, "fringe": 0.75,
}  # fmt: skip

ATTRIBUTE_NAMES: tuple[str, ...] = (
    "age", "gender", "african", "asian", "caucasian", "weight", "skin_melanin", "wrinkles", "hair_grey", "hair_light",
    "hair_long", "bald", "beard", "moustache", "stubble", "glasses", "sunglasses", "lipstick", "smile", "mouth_open",
    "eyes_closed", "brow_up", "brow_down", "eyes_wide", "pucker", "funnel", "stretch", "gaze_x", "gaze_y",
    "light_azimuth",
)  # fmt: skip


def decode(z: NDArray[np.floating]) -> HeadSpec:
    """The head that a latent code stands for.

    Args:
        z: One latent code. [Z]
    """
    u = to_physical(z)

    def at(name: str) -> float:
        return float(u[INDEX[name]])

    def unit(name: str, spread: float = 1.0, shift: float = 0.0) -> float:
        """0..1, uniform over people for spread 1 and shift 0."""
        return float(ndtr(spread * at(name) + shift))

    def signed(name: str, scale: float = 0.5) -> float:
        """-1..1, mostly within ±`scale`·1.5."""
        return float(np.tanh(scale * at(name)))

    def choose(group: str, names: tuple[str, ...]) -> str:
        return names[int(np.argmax(u[LAYOUT[group]]))]

    years = age_years(at("age"))
    feminine = femininity(at("gender"))
    origin = origin_weights(u[[INDEX["african"], INDEX["asian"], INDEX["caucasian"]]])
    african, asian, caucasian = (float(x) for x in origin)
    targets = np.array(
        [
            0.78 * deviation * 2.2 * np.tanh(at(name) / 2.2) if deviation > 0 else 0.55 * (years - 30.0) / 50.0
            for name, (_, _, deviation) in SHAPE_TARGETS.items()
        ],
        np.float32,
    )
    phenotype = Phenotype(
        age_years=years,
        gender=feminine,
        origin=origin.astype(np.float32),
        weight=float(np.clip(0.5 + 0.16 * at("weight"), 0.05, 0.98)),
        targets=np.clip(targets, -1.0, 1.0),
    )
    melanin = float(np.clip(0.74 * african + 0.34 * asian + 0.19 * caucasian + 0.085 * at("melanin"), 0.04, 0.95))
    wrinkles = float(ramp(0.42 + 0.24 * at("wrinkles")))
    skin = Skin(
        melanin=melanin,
        warmth=float(np.clip(0.15 + 0.8 * signed("warmth"), -1, 1)),
        redness=unit("skin_redness"),
        freckles=float(ramp((at("freckles") - 0.9) / 1.6)) * float(np.clip(1.5 - 2.5 * melanin, 0, 1)),
        mottling=unit("mottling"),
        gloss=unit("gloss"),
        wrinkles=wrinkles,
        age_spots=float(ramp((at("age_spots") - 0.6) / 2.0)),
        dark_circles=float(ramp(0.35 + 0.22 * at("dark_circles"))),
    )

    light_tone = float(np.clip(0.62 * caucasian**1.5 + (0.05 + 0.2 * caucasian) * at("hair_melanin"), 0.0, 1.0))
    red = float(ramp((at("hair_red") - 0.5) / 1.6)) * float(np.clip(2 * caucasian - 0.4, 0, 1))
    natural = _mix(_palette(_HAIR_TONES, light_tone), _palette(_RED_TONES, light_tone), red)
    dye = float(ramp((at("hair_dye") - 1.5) / 0.8))
    dyed = _palette(_HAIR_TONES, unit("hair_dye_hue"))
    grey = float(ramp(0.36 + 0.235 * at("hair_grey") - 0.26))
    white = (0.80, 0.79, 0.78)
    hair_colour = _mix(_mix(natural, dyed, dye), white, grey * (1 - 0.8 * dye))
    brow_colour = _scaled(_mix(natural, (0.58, 0.56, 0.54), 0.75 * grey), 0.62 + 0.2 * light_tone)
    hair = Hair(
        style=choose("hair_style", HAIR_STYLES),  # type: ignore[arg-type]
        colour=hair_colour,
        grey=grey,
        shine=unit("hair_shine"),
        length=signed("hair_length"),
        volume=signed("hair_volume"),
        part=signed("hair_parting", 0.8),
        wave=float(np.clip(0.5 + 0.3 * at("hair_wave") + 0.5 * (african - 1 / 3), 0, 1)),
        fringe=signed("hair_bangs"),
        recession=float(ramp(0.18 + 0.22 * at("hair_recession"))),
        clumps=signed("hair_clumps"),
        sides=signed("hair_sides"),
        contrast=unit("hair_contrast"),
    )
    beard = Beard(
        style=choose("beard_style", BEARD_STYLES),  # type: ignore[arg-type]
        length=unit("beard_length"),
        density=unit("beard_density"),
        colour=_scaled(
            _mix(_mix(natural, _palette(_RED_TONES, light_tone), 0.25 * unit("beard_colour")), white, 0.9 * grey), 0.85
        ),
    )

    amount, hue, darkness = at("lipstick"), unit("lip_hue"), unit("lip_darkness")
    makeup = Makeup(
        lipstick=float(ramp((amount - 0.6) / 1.6)) * 0.85,
        lip_colour=_scaled(_palette(_LIPSTICKS, hue), (1.12 - 0.4 * darkness) * (1 - 0.25 * melanin)),
        eyeshadow=float(ramp((at("eyeshadow") - 0.9) / 1.8)) * 0.7,
        eyeshadow_colour=_palette(_SHADOWS, unit("eyeshadow_hue")),
        eyeliner=float(ramp((at("eyeliner") - 0.5) / 1.8)) * 0.9,
        blush=float(ramp((at("blush") - 0.6) / 2.0)) * 0.6,
    )
    iris_mean = 0.08 + 0.55 * caucasian**1.5
    return HeadSpec(
        phenotype=phenotype,
        skin=skin,
        eyes=Eyes(
            iris=float(np.clip(iris_mean + (0.05 + 0.33 * caucasian) * at("iris"), 0, 1)),
            lightness=unit("iris_lightness"),
            redness=unit("eye_redness"),
            lashes=unit("lashes", 0.8),
        ),
        brows=Brows(
            density=0.55 + 0.45 * unit("brow_density", 0.9),
            thickness=unit("brow_thickness", 0.8, -0.35),
            arch=signed("brow_arch"),
            tilt=signed("brow_tilt"),
            colour=_scaled(brow_colour, 1.1 - 0.45 * unit("brow_darkness")),
        ),
        makeup=makeup,
        hair=hair,
        beard=beard,
        glasses=_decode_glasses(u, choose("glasses_style", GLASSES_STYLES)),
        clothing=_decode_clothing(u, choose("clothing_style", CLOTHING_STYLES)),
        light=_decode_light(u),
        expression=_decode_expression(u),
    )


def attributes(spec: HeadSpec) -> dict[str, float]:
    """The physical attributes of a head, 0..1 (gaze and light direction -1..1), in the order of `ATTRIBUTE_NAMES`."""
    movement_of = asdict(spec.expression)
    african, asian, caucasian = (float(x) for x in spec.phenotype.origin)
    bearded = {"none": 0.0, "stubble": 0.25, "moustache": 0.4, "goatee": 0.6, "full": 1.0}[spec.beard.style]
    values = {
        "age": (spec.phenotype.age_years - 8.0) / 80.0,
        "gender": spec.phenotype.gender,
        "african": african,
        "asian": asian,
        "caucasian": caucasian,
        "weight": spec.phenotype.weight,
        "skin_melanin": spec.skin.melanin,
        "wrinkles": spec.skin.wrinkles,
        "hair_grey": spec.hair.grey,
        "hair_light": float(np.mean(spec.hair.colour)),
        "hair_long": STYLE_LENGTH[spec.hair.style],
        "bald": float(spec.hair.style == "bald"),
        "beard": bearded,
        "moustache": float(spec.beard.style in ("moustache", "goatee", "full")),
        "stubble": float(spec.beard.style == "stubble"),
        "glasses": float(spec.glasses.style != "none"),
        "sunglasses": float(spec.glasses.style == "sunglasses"),
        "lipstick": spec.makeup.lipstick,
        "smile": movement_of["smile"],
        "mouth_open": movement_of["jaw_open"],
        "eyes_closed": 0.5 * (movement_of["blink_left"] + movement_of["blink_right"]),
        "brow_up": movement_of["brow_up"],
        "brow_down": movement_of["brow_down"],
        "eyes_wide": movement_of["wide"],
        "pucker": movement_of["pucker"],
        "funnel": movement_of["funnel"],
        "stretch": movement_of["stretch"],
        "gaze_x": movement_of["gaze_x"],
        "gaze_y": movement_of["gaze_y"],
        "light_azimuth": spec.light.azimuth / (np.pi / 2),
    }
    return {name: float(values[name]) for name in ATTRIBUTE_NAMES}


def _decode_glasses(u: NDArray[np.float64], style: str) -> Glasses:
    at = {name: float(u[INDEX[name]]) for name in ("glasses_size", "glasses_height", "glasses_roundness")}
    hue, lightness = float(ndtr(u[INDEX["glasses_hue"]])), float(ndtr(u[INDEX["glasses_lightness"]]))
    colour = _palette(_METALS if style == "thin" else _FRAMES, hue)
    return Glasses(
        style=style,  # type: ignore[arg-type]
        size=float(np.tanh(0.5 * at["glasses_size"])),
        height=float(np.tanh(0.5 * at["glasses_height"])),
        roundness=float(np.tanh(0.6 * at["glasses_roundness"])),
        thickness=float(ndtr(u[INDEX["glasses_thickness"]])),
        colour=_scaled(colour, 0.8 + 0.4 * lightness),
        tint=float(ndtr(u[INDEX["glasses_tint"]])),
    )


def _decode_clothing(u: NDArray[np.float64], style: str) -> Clothing:
    hue = float(ndtr(u[INDEX["clothing_hue"]]))
    saturation = 0.55 * float(ndtr(u[INDEX["clothing_saturation"]] - 0.45)) ** 1.2
    value = 0.10 + 0.78 * float(ndtr(1.1 * u[INDEX["clothing_lightness"]]))
    second = float(ndtr(1.2 * u[INDEX["clothing_second"]]))
    return Clothing(
        style=style,  # type: ignore[arg-type]
        colour=colorsys.hsv_to_rgb(hue, saturation, value),
        second_colour=colorsys.hsv_to_rgb(hue, 0.5 * saturation, 0.12 + 0.8 * second),
        neckline=float(np.tanh(0.5 * u[INDEX["clothing_neckline"]])),
        pattern=float(ramp((u[INDEX["clothing_pattern"]] - 0.7) / 1.5)),
    )


def _decode_light(u: NDArray[np.float64]) -> Light:
    flat = float(ndtr(1.5 * u[INDEX["light_flatness"]] - 0.9))
    warmth = 0.12 + 0.42 * float(np.tanh(0.6 * u[INDEX["light_warmth"]]))
    tint = 0.3 * float(np.tanh(0.6 * u[INDEX["light_tint"]]))
    key = 0.74 * np.exp(0.16 * u[INDEX["light_key"]]) * (1 - 0.7 * flat)
    fill = 0.20 * np.exp(0.3 * u[INDEX["light_fill"]])
    ambient = 0.36 * np.exp(0.18 * u[INDEX["light_ambient"]]) * (1 + 0.9 * flat)
    azimuth = float(np.clip(0.62 * u[INDEX["light_azimuth"]], -1.25, 1.25))
    elevation = float(np.clip(0.55 + 0.2 * u[INDEX["light_elevation"]], 0.05, 1.0))
    # Auto-exposure: a camera would keep the face about equally bright whatever the light is.
    frontal = key * (0.25 + 0.75 * np.cos(azimuth) * np.cos(elevation - 0.15)) + 0.6 * fill + 0.85 * ambient
    exposure = 0.90 * np.exp(0.09 * u[INDEX["light_exposure"]]) / frontal
    return Light(
        azimuth=azimuth,
        elevation=elevation,
        key=float(key),
        fill=float(fill),
        ambient=float(ambient),
        key_colour=(1.0 + 0.12 * warmth, 1.0, 1.0 - 0.16 * warmth),
        ambient_colour=(1.0 - 0.07 * tint, 1.0, 1.0 + 0.10 * tint),
        ground=0.35 + 0.3 * float(ndtr(u[INDEX["light_ground"]])),
        exposure=float(exposure),
    )


def _decode_expression(u: NDArray[np.float64]) -> Expression:
    amount = {name: movement(name, float(u[INDEX[name]])) for name in MOVEMENTS}
    # A wink closes one eye only; the side is the sign of the gaze's u, both rare enough not to matter elsewhere.
    signed = {name: float(np.tanh(0.55 * u[INDEX[name]])) for name in ("gaze_x", "gaze_y")}
    wink_left = amount["wink"] if u[INDEX["smile_skew"]] < 0 else 0.0
    wink_right = amount["wink"] - wink_left
    return Expression(
        blink_left=max(amount["blink"], wink_left),
        blink_right=max(amount["blink"], wink_right),
        gaze_x=signed["gaze_x"],
        gaze_y=signed["gaze_y"],
        jaw_side=0.6 * _dead_zone(u[INDEX["jaw_side"]], 1.3),
        smile_skew=0.5 * float(np.tanh(0.4 * u[INDEX["smile_skew"]])),
        mouth_side=0.7 * _dead_zone(u[INDEX["mouth_side"]], 1.2),
        **{name: value for name, value in amount.items() if name not in ("blink", "wink")},
    )


def _dead_zone(value: float, width: float) -> float:
    """-1..1, zero within ±width."""
    return float(np.sign(value) * ramp((abs(value) - width) / 1.4))


def _palette(stops: tuple[tuple[float, tuple[int, int, int]], ...], position: float) -> Colour:
    places = [place for place, _ in stops]
    red, green, blue = (float(np.interp(position, places, [c[k] for _, c in stops])) / 255 for k in range(3))
    return red, green, blue


def _mix(first: Colour, second: Colour, amount: float) -> Colour:
    red, green, blue = (float((1 - amount) * a + amount * b) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (float(np.clip(c * factor, 0.0, 1.0)) for c in colour)
    return red, green, blue
