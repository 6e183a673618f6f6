"""Landmarks made elsewhere, read from a file.

`.npz`: `points` [N, 68, 2] or [N, F, 68, 2] in pixels of the displayed frame, NaN where there is no face; optionally
`index` [N] (index of the displayed frame, 0..N-1 when absent) and `score` [N] or [N, F].
`.json`: an object from frame index to 68 pairs or to a list of such faces, or a list with one such entry (or null) per
frame.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.faces.landmarks.base import POINT_COUNT, Face, SearchSquare, largest_first

_FORMAT = "expected 68 (x, y) pairs per face"


class FileBackend:
    """68 points per frame from a file; `track` finds the nearest face of that frame."""

    name = "file"
    silhouette_jaw = True

    def __init__(self, path: Path, *, max_faces: int = 4) -> None:
        self._faces = _read(path)
        self._max_faces = max_faces

    def detect(self, frame: NDArray[np.uint8], index: int) -> list[Face]:
        """All faces that the file gives for this frame, largest first."""
        return largest_first(self._faces.get(index, []), self._max_faces)

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        """The face of this frame nearest to the previous one, if it lies within two face sizes."""
        best = min(self._faces.get(index, []), key=lambda f: _distance(f, previous), default=None)
        return best if best is not None and _distance(best, previous) < 2 * previous.size else None


def _distance(a: Face, b: Face) -> float:
    return float(np.hypot(*(a.points - b.points).mean(axis=0)))


def _read(path: Path) -> dict[int, list[Face]]:
    if not path.is_file():
        raise BackendError(f"{path}: no such landmark file")
    try:
        if path.suffix == ".json":
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        with np.load(path, allow_pickle=False) as data:
            return _from_arrays({name: data[name] for name in data.files})
    except (ValueError, TypeError, KeyError, OSError, EOFError) as error:
        raise BackendError(f"{path}: not a landmark file ({error}); {_FORMAT}, as .npz or .json") from error


def _face(points: NDArray[np.floating], score: float) -> Face:
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = (low + high) / 2
    return Face(points.astype(np.float32), score, SearchSquare(float(x), float(y), float((high - low).max())))


def _from_arrays(data: dict[str, NDArray[Any]]) -> dict[int, list[Face]]:
    points = data["points"]
    if points.shape[-2:] != (POINT_COUNT, 2) or points.ndim not in (3, 4):
        raise ValueError(f"`points` has shape {points.shape}")
    points = points.reshape(len(points), -1, POINT_COUNT, 2)
    score = np.broadcast_to(data.get("score", np.ones(len(points))).reshape(len(points), -1), points.shape[:2])
    index = data.get("index", np.arange(len(points)))
    return {
        int(i): [_face(p, float(s)) for p, s in zip(frame, scores, strict=True) if np.isfinite(p).all()]
        for i, frame, scores in zip(index, points, score, strict=True)
    }


def _from_json(data: Any) -> dict[int, list[Face]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    faces: dict[int, list[Face]] = {}
    for key, value in entries:
        points = np.array(value if value else [], dtype=np.float64)
        if points.size == 0:
            faces[int(key)] = []
            continue
        if points.shape[-2:] != (POINT_COUNT, 2) or points.ndim not in (2, 3):
            raise ValueError(f"frame {key} has shape {points.shape}")
        faces[int(key)] = [_face(p, 1.0) for p in points.reshape(-1, POINT_COUNT, 2) if np.isfinite(p).all()]
    return faces
