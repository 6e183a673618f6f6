"""How a stored picture is meant to be seen: square pixels, upright, not mirrored.

Rule for the size: the pixel aspect ratio scales the width (rounded half up, at least one pixel) and leaves the height
alone, as players do; then the display matrix turns the result. A missing or absurd pixel aspect ratio counts as 1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

_MOST_ASPECT = 8  # pixel aspect ratios beyond 8:1 or 1:8 come from broken headers, not from cameras


@dataclass(frozen=True)
class Display:
    """From stored to shown pixels: scale to `square_size`, then transpose, then flip."""

    coded_size: tuple[int, int]  # (width, height) as stored
    square_size: tuple[int, int]  # (width, height) with square pixels, not yet turned
    sample_aspect_ratio: Fraction
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as shown."""
        width, height = self.square_size
        return (height, width) if self.transpose else (width, height)

    @property
    def rotation_deg(self) -> int:
        """Counter-clockwise turn that shows the picture upright (before mirroring, where there is any)."""
        return {
            (False, False): 0,
            (True, True): 90,
            (False, True): 180,
            (True, False): 270,
        }[self.transpose, self.flip_rows]

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged as well."""
        return self.transpose ^ self.flip_rows ^ self.flip_columns

    def orient(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture with square pixels the way it is shown. [H, W, 3] → [H', W', 3]"""
        if self.transpose:
            picture = picture.transpose(1, 0, 2)
        if self.flip_rows:
            picture = picture[::-1]
        if self.flip_columns:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(picture)


def display_of(stream: VideoStream, frame: av.VideoFrame) -> Display:
    """Read the geometry of a stream from its header and first decoded frame."""
    width, height = frame.width, frame.height
    aspect = stream.sample_aspect_ratio or Fraction(1)  # PyAV ≥ 19 gives a falsy 0 where older ones give None
    aspect = Fraction(aspect)
    if not Fraction(1, _MOST_ASPECT) <= aspect <= _MOST_ASPECT:
        aspect = Fraction(1)
    square = max(1, int(width * aspect + Fraction(1, 2)))
    return Display((width, height), (square, height), aspect, *_turns(frame))


def _turns(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, flip rows, flip columns) from the display matrix.

    The matrix maps stored (x, y) to shown (a x + c y, b x + d y), up to translation, in 16.16 fixed point. Angles that
    are no multiple of 90° are rounded to the nearest that is.
    """
    matrix = side_data(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", matrix[:36])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def side_data(frame: av.VideoFrame) -> dict[str, bytes]:
    """What travels beside the pixels of a frame, by FFmpeg's names."""
    parts: Any = frame.side_data  # iterating it gives items in some PyAV versions and keys in others
    return {parts[i].type.name: bytes(parts[i]) for i in range(len(parts))}
