"""BlazeFace detectors run by OpenCV: the near one (128 px) and the far one (192 px) together.

V. Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019. Both networks regress,
for every anchor, a box and six points (two eyes, nose, mouth, two ears) relative to it, in pixels of their input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.alignment import resized
from e3dge_video.faces.landmarks.base import SearchSquare, overlap
from e3dge_video.faces.landmarks.tflite import TFLiteNetwork

#: Side of the square that MediaPipe cuts around a detection, over the side of its box.
_SEARCH_MARGIN = 1.5
_SAME_FACE = 0.3


@dataclass(frozen=True)
class _Detection:
    score: float
    box: NDArray[np.float64]  # x0, y0, x1, y1 in frame pixels
    points: NDArray[np.float64]  # [6, 2] in frame pixels


def _anchors(size: int, strides: tuple[int, ...]) -> NDArray[np.float64]:
    """Centres of the anchors in input pixels: a grid per stride, each cell as often as the stride is named. [A, 2]"""
    grids = []
    for stride in sorted(set(strides)):
        centres = (np.arange(size // stride) + 0.5) * stride
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), strides.count(stride), axis=0))
    return np.concatenate(grids)


class _SingleShot:
    """One BlazeFace network."""

    def __init__(self, path: Path, size: int, strides: tuple[int, ...]) -> None:
        self.size = size
        self.anchors = _anchors(size, strides)
        count = len(self.anchors)
        self.network = TFLiteNetwork(path, {"scores": count, "boxes": 16 * count})

    def __call__(self, frame: NDArray[np.uint8], threshold: float) -> list[_Detection]:
        height, width = frame.shape[:2]
        scale = self.size / max(height, width)
        shape = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (self.size - shape[0]) // 2, (self.size - shape[1]) // 2
        square = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        square[top : top + shape[1], left : left + shape[0]] = resized(frame, *shape)
        out = self.network(square, low=-1.0, high=1.0)
        score = 1 / (1 + np.exp(-np.clip(out["scores"].ravel().astype(np.float64), -80, 80)))
        keep = np.flatnonzero(score > threshold)
        raw = out["boxes"].reshape(-1, 8, 2)[keep].astype(np.float64)
        anchor = self.anchors[keep]
        centre, extent, points = raw[:, 0] + anchor, raw[:, 1], raw[:, 2:] + anchor[:, None]
        to_frame = np.array((width / shape[0], height / shape[1]))
        boxes = np.stack([centre - extent / 2, centre + extent / 2], axis=1)
        boxes = (boxes - (left, top)) * to_frame
        points = (points - (left, top)) * to_frame
        return [
            _Detection(float(s), b.ravel(), p)
            for s, b, p in zip(score[keep], boxes, points, strict=True)
            if (b[1] > b[0]).all()
        ]


def _merge(detections: list[_Detection]) -> list[_Detection]:
    """Weighted non-maximum suppression: overlapping detections become their mean, weighted by score."""
    rest = sorted(detections, key=lambda d: -d.score)
    merged = []
    while rest:
        group = [d for d in rest if d is rest[0] or overlap(rest[0].box, d.box) > _SAME_FACE]
        weight = np.array([d.score for d in group])
        weight /= weight.sum()
        box = sum(w * d.box for w, d in zip(weight, group, strict=True))
        points = sum(w * d.points for w, d in zip(weight, group, strict=True))
        merged.append(_Detection(group[0].score, np.asarray(box), np.asarray(points)))
        rest = [d for d in rest if all(d is not g for g in group)]
    return merged


class BlazeFaceDetector:
    """Finds faces from portrait close-ups down to about a twentieth of the picture's long side."""

    name = "blazeface"

    def __init__(self, near: Path, far: Path, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.near = _SingleShot(near, 128, (8, 16, 16, 16, 8, 16, 16, 16))
        self.far = _SingleShot(far, 192, (4,))

    def __call__(self, frame: NDArray[np.uint8]) -> list[SearchSquare]:
        """Squares to look for a face in, best first. [H, W, 3]"""
        found = _merge(self.near(frame, self.threshold))
        known = [d.box for d in found]
        # The far network sees small faces, but scores close-ups lower: it only adds what the near one missed.
        found += [
            d for d in _merge(self.far(frame, self.threshold)) if all(overlap(d.box, b) <= _SAME_FACE for b in known)
        ]
        return [_search_square(d) for d in sorted(found, key=lambda d: -d.score)]


def _search_square(detection: _Detection) -> SearchSquare:
    x0, y0, x1, y1 = detection.box
    right = detection.points[1] - detection.points[0]
    return SearchSquare(
        float(x0 + x1) / 2,
        float(y0 + y1) / 2,
        _SEARCH_MARGIN * float(max(x1 - x0, y1 - y0)),
        float(np.arctan2(right[1], right[0])),
    )
