"""How each hair style is combed: a recipe of numbers, moved a little by the person's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from e3dge_video.heads.spec import HeadSpec


@dataclass(frozen=True)
class Recipe:
    """How a style is combed. Lengths in millimetres of the mean head, weights about 0..1.

    Attributes:
        top, side, back: Lengths by where the root is.
        part: Pull to both sides of the parting. part_x: place of the parting, mm from the middle.
        backward, forward: Pull to the back and to the front on top of the head.
        lift: How far strands leave the scalp at the root.
        depth: Thickness of the hair from the inner to the outer layer, mm.
        cling: How closely strands follow the head's rounding: 1 combed, 0 standing off.
        fall: Weight of gravity.
        tuck: Pull backwards at the sides.
        hang: Pull of loose hair towards cheeks and neck.
        fringe: How much of the front falls onto the forehead; sweep: to which side it falls.
        swoop: How much of the fuller side of a parting is laid over the forehead.
        curl, turns: Radius of curls in mm and their number along the strand.
        width: Width of ribbons, mm. taper: 0 blunt to 1 pointed.
        cut: Height below which hair is cut, world units.
        cap: Thickness of the painted layer on the scalp, mm.
        points, every: Points along each strand; one of how many roots grows one.
        tie: Where hair is tied (y, z in world units), or None; tail: length of the ponytail, mm, 0 for a bun.
    """

    top: float = 60.0
    side: float = 30.0
    back: float = 40.0
    part: float = 0.0
    part_x: float = 0.0
    backward: float = 0.0
    forward: float = 0.0
    lift: float = 0.25
    depth: float = 10.0
    cling: float = 0.8
    fall: float = 0.3
    tuck: float = 0.3
    hang: float = 0.0
    fringe: float = 0.0
    sweep: float = 0.0
    swoop: float = 0.0
    curl: float = 0.0
    turns: float = 2.0
    width: float = 13.0
    taper: float = 0.7
    cut: float = -1.0
    cap: float = 2.0
    points: int = 13
    every: int = 2
    tie: tuple[float, float] | None = None
    tail: float = 0.0

    @property
    def covers_ears(self) -> bool:
        """Whether long hair hangs over the ears, which then lie flat."""
        return self.side > 60 and self.tie is None


RECIPES: dict[str, Recipe] = {
    "crop": Recipe(
        top=30, side=13, back=15, forward=0.8, lift=0.45, depth=8, cling=0.35, fall=0.15, width=7.5, cap=3.5,
        taper=0.9, points=6, every=1,
    ),
    "side_part": Recipe(
        top=72, side=20, back=22, part=1.0, part_x=34, backward=0.35, lift=0.4, depth=12, cling=0.85, fall=0.12,
        width=9, cap=4, points=9, every=1,
    ),
    "swept_back": Recipe(
        top=80, side=20, back=26, backward=1.0, part=0.12, lift=0.5, depth=12, cling=0.85, fall=0.05, tuck=0.9, width=9,
        cap=4, points=9, every=1,
    ),
    "receding": Recipe(
        top=20, side=15, back=17, backward=0.3, lift=0.25, depth=4, fall=0.25, width=7, cap=2.5, points=6, every=1,
    ),
    "afro": Recipe(
        top=15, side=15, back=15, lift=1.3, depth=4, cling=0.0, fall=0.0, tuck=0.0, curl=3.0, turns=1.2, width=9,
        taper=0.3, cap=26, points=7, every=1,
    ),
    "medium": Recipe(
        top=105, side=78, back=85, part=0.8, part_x=20, backward=0.1, lift=0.35, depth=18, cling=0.6, fall=0.35,
        hang=0.3, curl=2.5, turns=1.3, width=11, points=11, every=1,
    ),
    "bob": Recipe(
        top=215, side=175, back=175, part=1.0, part_x=22, lift=0.3, depth=20, cling=0.8, fall=0.5, tuck=0.05, hang=0.5,
        cut=-0.16, taper=0.25, width=14,
    ),
    "long_straight": Recipe(
        top=360, side=330, back=330, part=1.0, part_x=4, lift=0.2, depth=14, cling=0.85, fall=0.55, tuck=0.05, hang=0.5,
        cut=-0.6, width=14, points=15,
    ),
    "long_wavy": Recipe(
        top=350, side=315, back=315, part=0.95, part_x=26, lift=0.35, depth=20, cling=0.75, fall=0.5, tuck=0.05,
        hang=0.45, curl=7, turns=2.4, cut=-0.56, width=15, points=19,
    ),
    "long_curly": Recipe(
        top=250, side=220, back=220, part=0.8, part_x=12, lift=0.5, depth=24, cling=0.55, fall=0.42, tuck=0.0,
        hang=0.25, curl=7, turns=4.0, cut=-0.5, width=12, cap=6, points=23,
    ),
    "tied_back": Recipe(
        top=300, side=250, back=250, backward=0.9, part=0.1, lift=0.08, depth=5, cling=1.0, fall=0.0, tuck=1.0,
        tie=(0.20, -0.32), tail=220, width=13, cap=3.5,
    ),
    "bun": Recipe(
        top=300, side=250, back=250, backward=0.8, part=0.35, part_x=10, lift=0.08, depth=5, cling=1.0, fall=0.0,
        tuck=1.0, tie=(0.29, -0.27), tail=0, width=13, cap=3.5,
    ),
    "fringe": Recipe(
        top=300, side=260, back=260, part=0.8, part_x=0, lift=0.25, depth=13, cling=0.8, fall=0.55, tuck=0.05,
        hang=0.45, fringe=1.0, cut=-0.42, taper=0.35, width=11, every=1,
    ),
}  # fmt: skip


def recipe(spec: HeadSpec) -> Recipe | None:
    """The style's recipe with the person's own length, volume, parting and waves; None where no strands grow."""
    hair = spec.hair
    base = RECIPES.get(hair.style)
    if base is None:
        return None
    long = base.top > 150
    length = 1.0 + (0.22 if long else 0.38) * hair.length
    volume = 1.0 + 0.55 * hair.volume
    side_length = length * (1.0 if long else 1.0 - 0.35 * max(hair.sides, 0.0) + 0.3 * max(-hair.sides, 0.0))
    side = float(np.tanh(2.5 * hair.part))
    wave = hair.wave
    loose = base.top > 60 and base.tie is None and base.backward < 0.8
    fringe = 0.45 * hair.fringe if base.fringe > 0 else 1.2 * max(hair.fringe - 0.35, 0.0) * loose
    return replace(
        base,
        top=base.top * length,
        side=base.side * side_length,
        back=base.back * side_length,
        part_x=side * max(base.part_x, 4.0) * (0.75 + 0.5 * abs(hair.part)),
        lift=base.lift * (1.0 + 0.35 * hair.volume),
        depth=base.depth * volume,
        fringe=float(np.clip(base.fringe + fringe, 0, 1)),
        swoop=float(np.clip(0.45 + 1.1 * hair.fringe, 0, 1)) if base.part >= 0.8 and base.tie is None else 0.0,
        sweep=-side * (0.35 + 0.4 * abs(hair.part)),
        curl=base.curl * (0.5 + wave) + 8.0 * max(wave - 0.5, 0.0) * loose,
        width=base.width * (1.0 + 0.25 * hair.clumps),
        cut=base.cut if base.cut <= -0.9 else base.cut - 0.07 * hair.length,
        cap=base.cap * (volume if hair.style == "afro" else 1.0) * (1.0 + 0.5 * hair.length * (hair.style == "afro")),
        tail=base.tail * length,
    )
