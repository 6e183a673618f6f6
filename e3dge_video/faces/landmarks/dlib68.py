"""dlib's 68-point regression trees: needs no neural network, but jitters two to six times more than the mesh.

V. Kazemi, J. Sullivan, "One Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR 2014. The usual
model file was trained on iBUG 300-W, whose licence excludes commercial use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.faces.landmarks.base import Face, SearchSquare, largest_first, overlap
from e3dge_video.faces.landmarks.hog import HogDetector, grey_reduced

#: HOG box from landmarks: centre = mean + s · offset, width = factor · s, with s the rms distance from the mean.
_BOX_OFFSET = np.array((-0.005, -0.104))
_BOX_FACTOR = 2.759


class DlibBackend:
    """68 points from dlib, inside a box of its HOG detector.

    The points give no sign when a face is lost and depend on the box, so tracking looks for a fresh HOG box in every
    frame, and falls back to the box of the last points for a face that HOG misses for a moment.
    """

    name = "dlib"
    silhouette_jaw = True

    def __init__(self, model: Path, *, max_faces: int = 4) -> None:
        try:
            import dlib
        except ImportError as error:
            raise BackendError("dlib is not installed: pip install dlib-bin") from error
        self._detector = HogDetector()
        self._rectangle = dlib.rectangle
        try:
            self._predictor = dlib.shape_predictor(str(model))
        except RuntimeError as error:
            raise BackendError(f"{model}: dlib cannot read this landmark model ({error})") from error
        self._max_faces = max_faces

    def detect(self, frame: NDArray[np.uint8], index: int = 0) -> list[Face]:
        """All faces of a frame, largest first. [H, W, 3]"""
        faces = [self._points(frame, box, score) for score, box in self._detector.boxes(frame)]
        return largest_first(faces, self._max_faces)

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        """The same face one frame later: the detection that overlaps it most."""
        expected = _box(previous.search)
        found = [(overlap(expected, box), score, box) for score, box in self._detector.boxes(frame)]
        best = max(found, key=lambda item: item[0], default=None)
        return self._points(frame, best[2], best[1]) if best is not None and best[0] > 0.2 else None

    def _points(self, frame: NDArray[np.uint8], box: NDArray[np.float64], score: float) -> Face:
        grey, step = grey_reduced(frame)
        x0, y0, x1, y1 = (round(float(v)) for v in box / step)
        shape = self._predictor(grey, self._rectangle(x0, y0, x1 - 1, y1 - 1))
        points = step * (np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float64) + 0.5)
        spread = float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
        x, y = points.mean(axis=0) + spread * _BOX_OFFSET
        # HOG scores start at 0 and are rarely above 3.
        confidence = float(1 - np.exp(-max(score, 0.0) - 0.7))
        return Face(points.astype(np.float32), confidence, SearchSquare(float(x), float(y), _BOX_FACTOR * spread))


def _box(square: SearchSquare) -> NDArray[np.float64]:
    half = square.side / 2
    return np.array((square.x - half, square.y - half, square.x + half, square.y + half))
