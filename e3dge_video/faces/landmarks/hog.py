"""dlib's HOG face detector: Boost licence, no model file, misses tilted and strongly turned faces."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.faces.alignment import resized
from e3dge_video.faces.landmarks.base import SearchSquare

#: The detector finds faces from 80 px; pictures are reduced to this long side first.
_LONG_SIDE = 720
#: Side of the square a landmark network wants around a HOG box.
_SEARCH_MARGIN = 1.4


def grey_reduced(frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Grey picture with a long side of at most 720 px, and how many frame pixels one of its pixels is."""
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    step = max(max(grey.shape) / _LONG_SIDE, 1.0)
    return resized(grey, round(grey.shape[1] / step), round(grey.shape[0] / step)), step


class HogDetector:
    """Frontal faces at least a ninth of the picture's long side wide."""

    name = "hog"

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise BackendError("dlib is not installed: pip install dlib-bin") from error
        self._detector = dlib.get_frontal_face_detector()

    def boxes(self, frame: NDArray[np.uint8]) -> list[tuple[float, NDArray[np.float64]]]:
        """Score (above 0, about 1–3 for clear faces) and rectangle x0, y0, x1, y1 in frame pixels, best first."""
        grey, step = grey_reduced(frame)
        rectangles, scores, _ = self._detector.run(grey, 0, 0.0)
        found = [
            (float(s), step * np.array((r.left(), r.top(), r.right() + 1, r.bottom() + 1), dtype=np.float64))
            for r, s in zip(rectangles, scores, strict=True)
        ]
        return sorted(found, key=lambda item: -item[0])

    def __call__(self, frame: NDArray[np.uint8]) -> list[SearchSquare]:
        """Squares to look for a face in, best first. [H, W, 3]"""
        return [
            SearchSquare((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, _SEARCH_MARGIN * float(b[2] - b[0]))
            for _, b in self.boxes(frame)
        ]
