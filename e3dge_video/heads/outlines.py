"""Outlines of a cartoon: where one thing ends before another, drawn on the nearer side of the border.

The line lies within the thing that it belongs to, so coverage, depth and labels stay those of the mesh.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.paint import LABEL, LABELS

#: Things that a line sets apart; eyes, mouth and brows are drawn by their paint.
_THING = {"background": 0, "hair": 2, "glasses": 3, "clothing": 4}
THINGS = np.array([_THING.get(name, 1) for name in LABELS], np.int8)
#: Jump of depth within one thing that counts as a border, world units: skin behind skin, hair behind hair.
_JUMP = np.array([1.0, 0.045, 0.14, 1.0, 0.06], np.float32)
#: Lips that touch are told apart by their fold: cosine between the normals on its sides.
_LIPS, _FOLD = LABEL["lips"], 0.55
#: What remains of the colour in a line.
_INK = 0.20


@numba.njit(cache=True, fastmath=True)
def draw_outlines(
    inverse_depth: NDArray[np.float32],
    normal: NDArray[np.float32],
    label: NDArray[np.uint8],
    reach: float,
    colour: NDArray[np.float32],
) -> None:
    """Darken the borders of things, in place.

    Args:
        inverse_depth: 1/z of the visible surface, 0 where nothing is. [G, G]
        normal: Unit normals. [G, G, 3]
        label: Index in `paint.LABELS`. [G, G]
        reach: Width of a line, samples.
        colour: Linear colour, updated. [G, G, 3]
    """
    size = label.shape[0]
    span = int(np.ceil(reach))
    for row in range(size):
        for column in range(size):
            here = inverse_depth[row, column]
            if here <= 0.0:
                continue
            thing = THINGS[label[row, column]]
            nearest = 1e9
            for dy in range(-span, span + 1):
                for dx in range(-span, span + 1):
                    y, x = row + dy, column + dx
                    if y < 0 or x < 0 or y >= size or x >= size:
                        continue
                    square = dy * dy + dx * dx
                    if square >= nearest or square > reach * reach:
                        continue
                    there = inverse_depth[y, x]
                    if label[row, column] == _LIPS and label[y, x] == _LIPS:
                        cosine = 0.0
                        for k in range(3):
                            cosine += normal[row, column, k] * normal[y, x, k]
                        # Both sides of the fold draw, so each only half of the line.
                        if cosine < _FOLD and normal[row, column, 1] * normal[y, x, 1] < 0.0:
                            nearest = min(nearest, 4.0 * square)
                            continue
                    if there >= here:
                        continue
                    other = THINGS[label[y, x]]
                    jump = 9.0 if there <= 0.0 else 1.0 / there - 1.0 / here
                    if other != thing or jump > _JUMP[thing]:
                        nearest = square
            if nearest < 1e8:
                ink = min(1.0, max(0.0, reach - np.sqrt(nearest) + 0.5))
                for k in range(3):
                    colour[row, column, k] *= 1.0 - (1.0 - _INK) * ink
