"""compare.mp4's pictures: panels side by side, each with its name above it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PAPER, _INK = 24, (225, 225, 225)
#: Size of letters in a panel of 256 pixels, and the smallest that can be read, in OpenCV's units.
_TEXT_SCALE, _SMALLEST_SCALE = 0.45, 0.34


def side_by_side(panels: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Clips of one size in a row under their names. [n, S, S, 3] each → [n, H, len(panels) · S, 3]"""
    count, height, width, _ = panels[0].shape
    line = np.concatenate([caption(text, width) for text in captions], axis=1)
    row = np.empty((count, len(line) + height, width * len(panels), 3), np.uint8)
    row[:, : len(line)] = line
    for number, panel in enumerate(panels):
        row[:, len(line) :, number * width : (number + 1) * width] = panel
    return row


def caption(text: str, width: int) -> NDArray[np.uint8]:
    """A name on dark grey that fits its panel: smaller letters first, then fewer of them. [H, width, 3]"""
    zoom = max(1.0, width / 256)
    margin = max(3, width // 42)
    room = width - 2 * margin
    scale = _TEXT_SCALE * zoom
    # In steps, because letters do not grow in proportion to their scale.
    while scale > _SMALLEST_SCALE * zoom and _text_width(text, scale) > room:
        scale = max(0.95 * scale, _SMALLEST_SCALE * zoom)
    shown = text
    while shown and _text_width(shown, scale) > room:
        shown = shown.removesuffix("..")[:-1].rstrip(" ,:") + ".." if len(shown) > 2 else ""
    height = 2 * round(12 * zoom)
    picture = np.full((height, width, 3), _PAPER, np.uint8)
    place = (margin, round(0.68 * height))
    cv2.putText(picture, shown, place, _FONT, scale, _INK, max(1, width // 384), cv2.LINE_AA)
    return picture


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])
