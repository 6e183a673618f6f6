"""What a head looks like, as plain numbers: the physical side of the latent code.

Amounts are 0..1 unless a unit is given; colours are sRGB 0..1. `HeadSpec` is everything `HeadSampler.build` needs:
equal specs give equal heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from e3dge_video.heads.shape import Phenotype

Colour = tuple[float, float, float]
#: How a head is drawn: as a photograph would show it, or as a cartoon.
Style = Literal["photo", "toon"]

HAIR_STYLES = (
    "bald",
    "buzz",
    "crop",
    "side_part",
    "swept_back",
    "receding",
    "afro",
    "medium",
    "bob",
    "long_straight",
    "long_wavy",
    "long_curly",
    "tied_back",
    "bun",
    "fringe",
)
HairStyle = Literal[
    "bald", "buzz", "crop", "side_part", "swept_back", "receding", "afro", "medium", "bob", "long_straight",
    "long_wavy", "long_curly", "tied_back", "bun", "fringe"
]  # fmt: skip
BEARD_STYLES = ("none", "stubble", "moustache", "goatee", "full")
BeardStyle = Literal["none", "stubble", "moustache", "goatee", "full"]
GLASSES_STYLES = ("none", "thin", "thick", "sunglasses")
GlassesStyle = Literal["none", "thin", "thick", "sunglasses"]
CLOTHING_STYLES = ("crew", "v_neck", "shirt", "hoodie", "turtleneck")
ClothingStyle = Literal["crew", "v_neck", "shirt", "hoodie", "turtleneck"]


@dataclass(frozen=True)
class Skin:
    """Skin's colour and marks. `melanin` 0 is the palest tone, 1 the darkest; `warmth` -1..1 from rosy to olive."""

    melanin: float
    warmth: float
    redness: float
    freckles: float
    mottling: float
    gloss: float
    wrinkles: float
    age_spots: float
    dark_circles: float


@dataclass(frozen=True)
class Eyes:
    """Iris colour along brown → hazel → green → blue → grey (0..1), its lightness, and redness of the white."""

    iris: float
    lightness: float
    redness: float
    lashes: float


@dataclass(frozen=True)
class Brows:
    """Eyebrows; `arch` and `tilt` are -1..1, `colour` is sRGB."""

    density: float
    thickness: float
    arch: float
    tilt: float
    colour: Colour


@dataclass(frozen=True)
class Makeup:
    """Amounts and colours of make-up."""

    lipstick: float
    lip_colour: Colour
    eyeshadow: float
    eyeshadow_colour: Colour
    eyeliner: float
    blush: float


@dataclass(frozen=True)
class Hair:
    """Head hair; signed entries are -1..1 around the style's own look."""

    style: HairStyle
    colour: Colour
    grey: float
    shine: float
    length: float
    volume: float
    part: float
    wave: float
    fringe: float
    recession: float
    clumps: float
    sides: float
    contrast: float


@dataclass(frozen=True)
class Beard:
    """Facial hair."""

    style: BeardStyle
    length: float
    density: float
    colour: Colour


@dataclass(frozen=True)
class Glasses:
    """Spectacles; `size`, `height` and `roundness` are -1..1 around an ordinary frame."""

    style: GlassesStyle
    size: float
    height: float
    roundness: float
    thickness: float
    colour: Colour
    tint: float


@dataclass(frozen=True)
class Clothing:
    """What shows of the clothes; `neckline` -1..1 from high to low."""

    style: ClothingStyle
    colour: Colour
    second_colour: Colour
    neckline: float
    pattern: float


@dataclass(frozen=True)
class Light:
    """A key light, a fill light from the other side, ambient light from above and below.

    Attributes:
        azimuth, elevation: Direction to the key light, radians; azimuth grows towards +x.
        key, fill, ambient: Irradiances relative to white paper at one.
        key_colour, ambient_colour: Linear RGB factors near one.
        ground: Light from below relative to that from above.
        exposure: Factor on everything.
    """

    azimuth: float
    elevation: float
    key: float
    fill: float
    ambient: float
    key_colour: Colour
    ambient_colour: Colour
    ground: float
    exposure: float


@dataclass(frozen=True)
class Expression:
    """Facial movements, 0..1 unless signed; left is image left of a frontal view."""

    blink_left: float = 0.0
    blink_right: float = 0.0
    squint: float = 0.0
    wide: float = 0.0
    brow_up: float = 0.0
    brow_inner_up: float = 0.0
    brow_down: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    jaw_open: float = 0.0
    jaw_side: float = 0.0
    smile: float = 0.0
    smile_skew: float = 0.0
    frown: float = 0.0
    pucker: float = 0.0
    funnel: float = 0.0
    stretch: float = 0.0
    press: float = 0.0
    upper_up: float = 0.0
    lower_down: float = 0.0
    roll: float = 0.0
    shrug: float = 0.0
    cheek_puff: float = 0.0
    sneer: float = 0.0
    mouth_side: float = 0.0


@dataclass(frozen=True)
class HeadSpec:
    """One person, one moment, one light."""

    phenotype: Phenotype
    skin: Skin
    eyes: Eyes
    brows: Brows
    makeup: Makeup
    hair: Hair
    beard: Beard
    glasses: Glasses
    clothing: Clothing
    light: Light
    expression: Expression
