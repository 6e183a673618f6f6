"""Faces, points and signatures of every frame: a pure function of the frames and their indices.

A full detection runs at every index divisible by 16, and tracking only within such a block, so the result of a frame
depends on nothing before its block. Spans that begin at multiples of 16 can therefore be scanned in any order, by any
worker, in chunks of any multiple of 16 frames, and give the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.landmarks.base import POINT_COUNT, Face, LandmarkBackend, largest_first
from e3dge_video.faces.signatures import BINS, THUMBNAIL, Signatures, looks_cut

#: Frames between full detections, counted from the start of the video.
BLOCK = 16


@dataclass(frozen=True)
class ScanResult:
    """What was seen in N consecutive frames, at most F faces each, largest first; unused places hold NaN.

    Attributes:
        first_index: Index of the first frame within the video.
        points: iBUG points in pixels. [N, F, 68, 2] float32
        score: Confidence of each face. [N, F] float32
        count: Number of faces. [N] int32
        signatures: Signatures of the frames.
    """

    first_index: int
    points: NDArray[np.float32]
    score: NDArray[np.float32]
    count: NDArray[np.int32]
    signatures: Signatures

    def __len__(self) -> int:
        return len(self.count)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """Rectangles around the points: x0, y0, x1, y1. [N, F, 4]"""
        return np.concatenate([self.points.min(axis=2), self.points.max(axis=2)], axis=-1)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as plain arrays, to send or to save."""
        return {
            "first_index": np.array(self.first_index),
            "points": self.points,
            "score": self.score,
            "count": self.count,
            "thumbnail": self.signatures.thumbnail,
            "histogram": self.signatures.histogram,
        }

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray]) -> ScanResult:
        """Inverse of `arrays`."""
        signatures = Signatures(arrays["thumbnail"], arrays["histogram"])
        return ScanResult(int(arrays["first_index"]), arrays["points"], arrays["score"], arrays["count"], signatures)

    @staticmethod
    def concatenate(parts: Sequence[ScanResult]) -> ScanResult:
        """Scans of spans that follow each other without a gap."""
        for left, right in itertools.pairwise(parts):
            if (expected := left.first_index + len(left)) != right.first_index:
                raise ValueError(f"the next scan should start at frame {expected}, not {right.first_index}")
        places = max(part.points.shape[1] for part in parts)
        return ScanResult(
            parts[0].first_index,
            np.concatenate([_padded(part.points, places) for part in parts]),
            np.concatenate([_padded(part.score, places) for part in parts]),
            np.concatenate([part.count for part in parts]),
            Signatures.concatenate([part.signatures for part in parts]),
        )


def _padded(values: NDArray[np.float32], places: int) -> NDArray[np.float32]:
    missing = [(0, 0), (0, places - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, missing, constant_values=np.nan)


def scan_frames(frames: Iterable[NDArray[np.uint8]], first_index: int, backend: LandmarkBackend) -> ScanResult:
    """Find all faces in consecutive frames.

    Args:
        frames: RGB pictures as displayed, one or many. Each [H, W, 3]
        first_index: Index of the first one within the video. For results that do not depend on how a video is cut into
            spans, spans begin at multiples of 16 (the first span of the video excepted).
        backend: Finds faces and points.
    """
    found: list[list[Face]] = []
    signatures: list[Signatures] = []
    for offset, frame in enumerate(frames):
        index = first_index + offset
        signatures.append(Signatures.of(frame))
        fresh = offset == 0 or index % BLOCK == 0 or looks_cut(signatures[-2], signatures[-1])
        found.append(backend.detect(frame, index) if fresh else _followed(frame, index, found[-1], backend))
    return _packed(found, signatures, first_index)


def _followed(frame: NDArray[np.uint8], index: int, previous: list[Face], backend: LandmarkBackend) -> list[Face]:
    """Faces tracked from the previous frame; when one is lost, or none was there, all are detected anew as well."""
    tracked = [face for old in previous if (face := backend.track(frame, index, old)) is not None]
    if previous and len(tracked) == len(previous):
        return largest_first(tracked, len(previous))
    detected = backend.detect(frame, index)
    return largest_first(tracked + detected, max(len(previous), len(detected)))


def _packed(found: list[list[Face]], signatures: list[Signatures], first_index: int) -> ScanResult:
    places = max([len(faces) for faces in found] + [1])
    points = np.full((len(found), places, POINT_COUNT, 2), np.nan, dtype=np.float32)
    score = np.full((len(found), places), np.nan, dtype=np.float32)
    for i, faces in enumerate(found):
        for j, face in enumerate(faces):
            points[i, j], score[i, j] = face.points, face.score
    empty = Signatures(np.zeros((0, THUMBNAIL, THUMBNAIL), dtype=np.uint8), np.zeros((0, 3 * BINS), dtype=np.uint16))
    return ScanResult(
        first_index,
        points,
        score,
        np.array([len(faces) for faces in found], dtype=np.int32),
        Signatures.concatenate([empty, *signatures]),
    )
