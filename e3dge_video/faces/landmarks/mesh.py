"""MediaPipe's face mesh (468 points) run by OpenCV, read out at the 68 iBUG places: the default back end.

Y. Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The network reads a
192 px square around the face and gives 468 points in pixels of that square, and a logit for the presence of a face.

Two things make its points quieter than MediaPipe's own loop:
* the square is placed by eyes and mouth corners, not by the bounding box of all points, so speech does not move it;
* the network sees the square and its mirror image (`views` 2), or both in two zooms (`views` 4), and the mean counts.
On pictures under known motion and noise the spread fell from 0.96 to 0.62 (2 views) and 0.45 (4 views) percent of the
eye distance.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.alignment import Similarity, warp_crop
from e3dge_video.faces.landmarks.base import Face, SearchSquare, largest_first
from e3dge_video.faces.landmarks.eyes import EyeRefiner
from e3dge_video.faces.landmarks.tflite import TFLiteNetwork

_SIZE = 192

# fmt: off
#: Mesh vertices at the 68 iBUG places: jaw, brows, nose, eyes, outer lips, inner lips. iBUG spaces its points evenly,
#: so some lie between two vertices; chosen as the nearest to iBUG-trained points on average over real faces.
_SINGLE = [
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    7, 160, 158, 133, 153, 144, 362, 385, 387, 249, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
]
_SECOND = {
    2: 132, 3: 132, 7: 176, 9: 400, 13: 361, 14: 361,
    19: 66, 20: 107, 21: 55, 22: 285, 23: 336, 24: 296,
    29: 195, 36: 246, 37: 159, 44: 386, 45: 466,
}
#: The two vertices whose middle is each iBUG point. [68, 2]
MESH_TO_IBUG = np.array([(vertex, _SECOND.get(point, vertex)) for point, vertex in enumerate(_SINGLE)])
#: Where each iBUG point lands when the picture is mirrored.
IBUG_MIRROR = np.array([
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
])
# fmt: on

#: (zoom of the square, mirrored?) of each evaluation.
_VIEWS: dict[int, tuple[tuple[float, bool], ...]] = {
    1: ((1.0, False),),
    2: ((1.0, False), (1.0, True)),
    4: ((0.95, False), (0.95, True), (1.05, False), (1.05, True)),
}
#: The square is moved onto the points found in it, and read again, until it moves by less than this …
_SETTLED = 0.02
#: … but no more often than this. From a detection the remaining error falls by about half with every pass.
_MAX_PASSES = 6


class MeshBackend:
    """68 points from the face mesh.

    Args:
        model: `face_landmark.tflite`.
        detector: Gives squares in which a face may be.
        eyes: Reads the eyelids; None leaves them as the mesh has them.
        views: 1, 2 or 4 evaluations per pass, see the module's text.
        min_score: Smallest presence that counts as a face.
        max_faces: Largest number of faces per frame.
    """

    name = "mesh"
    #: Mesh vertices are places of the skin, whatever the view.
    silhouette_jaw = False

    def __init__(
        self,
        model: Path,
        detector: Callable[[NDArray[np.uint8]], list[SearchSquare]],
        *,
        eyes: EyeRefiner | None = None,
        views: int = 2,
        min_score: float = 0.5,
        max_faces: int = 4,
    ) -> None:
        self._network = TFLiteNetwork(model, {"points": 3 * 468, "presence": 1})
        self._detector = detector
        self._eyes = eyes
        self._views = _VIEWS[views]
        self._min_score = min_score
        self._max_faces = max_faces

    def detect(self, frame: NDArray[np.uint8], index: int = 0) -> list[Face]:
        """All faces of a frame, largest first. [H, W, 3]"""
        squares = self._detector(frame)[: 2 * self._max_faces]
        faces = [face for square in squares if (face := self._settle(frame, square)) is not None]
        return largest_first(faces, self._max_faces)

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        """The same face one frame later, or None."""
        return self._settle(frame, previous.search)

    def _settle(self, frame: NDArray[np.uint8], square: SearchSquare) -> Face | None:
        """Read the square, move it onto what was found, and so on until it rests."""
        for _ in range(_MAX_PASSES):
            points, presence = self._read(frame, square)
            if presence < self._min_score:
                return None
            moved = _search_square(points)
            settled = moved.moved_from(square) < _SETTLED
            square = moved
            if settled:
                break
        if self._eyes is not None:
            points = self._eyes(frame, points)
        return Face(points.astype(np.float32), presence, square)

    def _read(self, frame: NDArray[np.uint8], square: SearchSquare) -> tuple[NDArray[np.float64], float]:
        """Mean points in frame pixels [68, 2] and mean presence of all views of one square."""
        total, presence = np.zeros((68, 2)), 0.0
        pixels: dict[float, NDArray[np.uint8]] = {}
        for zoom, mirrored in self._views:
            crop = Similarity.from_parameters((square.x, square.y, np.log(zoom * square.side), square.angle))
            if zoom not in pixels:
                # A mirrored border would show half faces twice.
                pixels[zoom] = warp_crop(frame, crop, _SIZE, border=cv2.BORDER_REPLICATE)
            view = pixels[zoom][:, ::-1] if mirrored else pixels[zoom]
            out = self._network(view)
            points = out["points"].reshape(468, 3)[MESH_TO_IBUG, :2].astype(np.float64).mean(axis=1)
            if mirrored:
                points = points[IBUG_MIRROR]
                points[:, 0] = _SIZE - points[:, 0]
            total += crop.into_frame(points, _SIZE)
            presence += 1 / (1 + np.exp(-float(out["presence"].item())))
        return total / len(self._views), presence / len(self._views)


def _search_square(points: NDArray[np.float64]) -> SearchSquare:
    """The square around a face, from eye corners and mouth corners. [68, 2]"""
    left, right = (points[36] + points[39]) / 2, (points[42] + points[45]) / 2
    middle, across = (left + right) / 2, right - left
    down = (points[48] + points[54]) / 2 - middle
    along = across + np.array((down[1], -down[0]))
    # The square MediaPipe cuts (1.5 times the bounding box of all points) is this one on average over real faces.
    side = 2.7 * float(np.hypot(np.hypot(*across), np.hypot(*down)))
    x, y = middle + 0.43 * down
    return SearchSquare(float(x), float(y), max(side, 1.0), float(np.arctan2(along[1], along[0])))
