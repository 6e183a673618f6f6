"""Tiny signatures of frames: enough to find scene cuts and repeated frames without keeping the pictures.

A signature is a grey thumbnail (what is where) and a colour histogram (what is there at all). Fast motion changes the
thumbnail and leaves the histogram; a cut changes both. On real clips the histogram moved by at most 0.06 within a shot
(violent head shakes included) and by 0.19 or more at cuts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.alignment import resized

#: Side of the thumbnail.
THUMBNAIL = 32
#: Bins per colour channel.
BINS = 16
_SAMPLED = 64

#: A cut moves the histogram by at least this (share of the pixels that change their bin, mean of the channels) …
_CUT_HISTOGRAM = 0.12
#: … the thumbnail by at least this many grey levels …
_CUT_THUMBNAIL = 8.0
#: … and one of them by this many times more than between the neighbouring frames.
_CUT_RATIO = 2.5
#: A shot shorter than this between two similar frames is a flash, not a shot.
_FLASH_FRAMES = 3
#: A frame that changes less than this share of the median change repeats the frame before it.
_REPEATED = 0.15


@dataclass(frozen=True)
class Signatures:
    """Signatures of consecutive frames.

    Attributes:
        thumbnail: Grey pictures. [N, 32, 32] uint8
        histogram: Counts per colour channel and bin, of 4096 pixels. [N, 48] uint16
    """

    thumbnail: NDArray[np.uint8]
    histogram: NDArray[np.uint16]

    @staticmethod
    def of(frame: NDArray[np.uint8]) -> Signatures:
        """Signature of one frame, as a batch of one. [H, W, 3]"""
        # Every k-th pixel of a large picture says as much, at a fraction of the cost.
        step = max(min(frame.shape[:2]) // (4 * _SAMPLED), 1)
        small = resized(np.ascontiguousarray(frame[::step, ::step]), _SAMPLED, _SAMPLED)
        grey = resized(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8), THUMBNAIL, THUMBNAIL)
        bins = (small.reshape(-1, 3) // (256 // BINS)).astype(np.int64) + BINS * np.arange(3)
        histogram = np.bincount(bins.ravel(), minlength=3 * BINS)
        return Signatures(grey[None], histogram.astype(np.uint16)[None])

    @staticmethod
    def concatenate(parts: list[Signatures]) -> Signatures:
        """Signatures of frames in a row."""
        return Signatures(np.concatenate([p.thumbnail for p in parts]), np.concatenate([p.histogram for p in parts]))

    def __len__(self) -> int:
        return len(self.thumbnail)

    def __getitem__(self, index: slice) -> Signatures:
        return Signatures(self.thumbnail[index], self.histogram[index])


def picture_change(a: Signatures, b: Signatures) -> NDArray[np.float64]:
    """Mean change of the thumbnails in grey levels. [N]"""
    return np.abs(a.thumbnail.astype(np.float64) - b.thumbnail).mean(axis=(1, 2))


def colour_change(a: Signatures, b: Signatures) -> NDArray[np.float64]:
    """Share of pixels that changed their histogram bin, mean of the channels. [N]"""
    moved = np.abs(a.histogram.astype(np.float64) - b.histogram).sum(axis=1)
    return moved / (2 * 3 * _SAMPLED**2)


def looks_cut(before: Signatures, after: Signatures) -> bool:
    """Whether two neighbouring frames may lie on two sides of a cut, judged by these two alone (one frame each)."""
    return bool(
        colour_change(before, after)[0] > 0.5 * _CUT_HISTOGRAM and picture_change(before, after)[0] > _CUT_THUMBNAIL
    )


def scene_cuts(signatures: Signatures) -> NDArray[np.bool_]:
    """Frames that open a new shot; the first frame is not one. [N]"""
    count = len(signatures)
    cuts = np.zeros(count, dtype=bool)
    if count < 2:
        return cuts
    before, after = signatures[:-1], signatures[1:]
    picture, colour = picture_change(before, after), colour_change(before, after)
    for i in range(count - 1):
        if colour[i] <= _CUT_HISTOGRAM or picture[i] <= _CUT_THUMBNAIL:
            continue
        # A change that goes on in the neighbouring frames is a pan or a fade, not a cut. Motion on both sides of a cut
        # hides it in the pictures, but not in the colours.
        around = [j for j in range(max(i - 2, 0), min(i + 3, count - 1)) if j != i]
        usual = [float(np.median(change[around])) if around else 0.0 for change in (picture, colour)]
        cuts[i + 1] = picture[i] > _CUT_RATIO * usual[0] or colour[i] > _CUT_RATIO * usual[1]
    return _without_flashes(cuts, signatures)


def _without_flashes(cuts: NDArray[np.bool_], signatures: Signatures) -> NDArray[np.bool_]:
    """Undo pairs of cuts around a few odd frames when the picture before and after them is the same."""
    kept = cuts.copy()
    places = np.flatnonzero(cuts)
    for first, second in itertools.pairwise(places.tolist()):
        if not kept[first] or second - first > _FLASH_FRAMES:
            continue
        before, after = signatures[first - 1 : first], signatures[second : second + 1]
        if colour_change(before, after)[0] < 0.5 * _CUT_HISTOGRAM:
            kept[first] = kept[second] = False
    return kept


def repeated_frames(signatures: Signatures) -> NDArray[np.bool_]:
    """Frames that repeat the one before them, as frame-rate conversions leave them; their results can be reused. [N]"""
    repeated = np.zeros(len(signatures), dtype=bool)
    if len(signatures) < 3:
        return repeated
    change = picture_change(signatures[:-1], signatures[1:])
    repeated[1:] = change < _REPEATED * np.median(change)
    return repeated
