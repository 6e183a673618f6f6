"""The face-alignment package (FAN): the field's standard points, for users who have its weights and a GPU.

A. Bulat, G. Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV 2017. The package
fetches two weight files (about 180 MB) the first time, without a socket timeout; here nothing is fetched unless asked
for, it is said when it is, and it cannot hang. On a CPU a face takes seconds.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.faces.alignment import resized
from e3dge_video.faces.landmarks.base import Face, SearchSquare, largest_first
from e3dge_video.faces.landmarks.model_files import installed, sha256_prefix, torch_hub_checkpoints

log = logging.getLogger(__name__)

#: Names carry the first ten digits of the SHA-256.
DETECTOR_FILE = "s3fd-619a316812.pth"
POINTS_FILE = "2DFAN4-11f355bf06.pth.tar"
WAY_OUT = (
    f"put {DETECTOR_FILE} and {POINTS_FILE} into the torch hub cache, name their folder as the weights of the back "
    "end, allow the download, or use the mesh back end"
)
#: The detector works on pictures reduced to this long side.
_DETECTION_SIDE = 640
_SOCKET_TIMEOUT_S = 30.0


def weights_folder(given: Path | None = None) -> Path | None:
    """Folder that holds both weight files, or None."""
    folder = given or torch_hub_checkpoints()
    return folder if all((folder / name).is_file() for name in (DETECTOR_FILE, POINTS_FILE)) else None


class FanBackend:
    """68 points from face-alignment's 2D FAN-4, started by its S3FD detector.

    Args:
        weights: Folder with the two weight files; the torch hub cache when None.
        device: "cpu", "cuda", "cuda:0" …
        allow_download: Fetch missing weights from the internet.
        verify: Compare the files' SHA-256 with the digits in their names.
    """

    name = "face-alignment"
    silhouette_jaw = True

    def __init__(
        self,
        weights: Path | None = None,
        *,
        device: str = "cpu",
        allow_download: bool = False,
        verify: bool = True,
        min_score: float = 0.5,
        max_faces: int = 4,
    ) -> None:
        if installed("face_alignment") is None:
            raise BackendError("the face-alignment package is not installed: pip install face-alignment")
        folder = weights_folder(weights)
        if folder is None and not allow_download:
            raise BackendError(f"face-alignment's weights are not in {weights or torch_hub_checkpoints()}: {WAY_OUT}")
        if folder is not None and verify:
            _verify(folder)
        if folder is None:
            log.warning("face-alignment: downloading about 180 MB of weights to %s", torch_hub_checkpoints())
        elif not device.startswith("cuda"):
            log.warning("face-alignment on %s takes seconds per frame; the mesh back end takes milliseconds", device)
        self._network = _construct(folder, device)
        self._min_score, self._max_faces = min_score, max_faces

    def detect(self, frame: NDArray[np.uint8], index: int = 0) -> list[Face]:
        """All faces of a frame, largest first. [H, W, 3]"""
        step = max(max(frame.shape[:2]) / _DETECTION_SIDE, 1.0)
        picture = resized(frame, round(frame.shape[1] / step), round(frame.shape[0] / step))
        found = self._network.face_detector.detect_from_image(picture)
        boxes = [np.asarray(box[:4], dtype=np.float64) * step for box in found]
        return largest_first(self._faces(frame, boxes), self._max_faces)

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        """The same face one frame later, read in the box of its last points."""
        s = previous.search
        faces = self._faces(frame, [np.array((s.x - s.side / 2, s.y - s.side / 2, s.x + s.side / 2, s.y + s.side / 2))])
        return faces[0] if faces else None

    def _faces(self, frame: NDArray[np.uint8], boxes: list[NDArray[np.float64]]) -> list[Face]:
        if not boxes:
            return []
        points, scores, _ = self._network.get_landmarks_from_image(
            frame, detected_faces=[np.append(box, 1.0) for box in boxes], return_landmark_score=True
        )
        faces = [
            Face(np.asarray(p, dtype=np.float32), float(np.mean(s)), _search_square(np.asarray(p, dtype=np.float64)))
            for p, s in zip(points, scores, strict=True)
        ]
        return [face for face in faces if face.score >= self._min_score]


def _search_square(points: NDArray[np.float64]) -> SearchSquare:
    """A box like S3FD's from 68 points: chin to forehead, as wide as the jaw."""
    low, high = points.min(axis=0), points.max(axis=0)
    top = low[1] - 0.25 * (high[1] - low[1])
    side = ((high[0] - low[0]) + (high[1] - top)) / 2
    return SearchSquare(float(low[0] + high[0]) / 2, float(top + high[1]) / 2, float(side))


def _verify(folder: Path) -> None:
    for name in (DETECTOR_FILE, POINTS_FILE):
        expected = name.split(".")[0].rsplit("-", 1)[1]
        if sha256_prefix(folder / name) != expected:
            raise BackendError(f"{folder / name}: damaged, its SHA-256 does not start with {expected}; fetch it again")


def _construct(folder: Path | None, device: str) -> Any:
    """Build the package's object; a failed download becomes a `BackendError`."""
    with _hub_folder(folder), _socket_timeout(_SOCKET_TIMEOUT_S):
        try:
            import face_alignment

            return face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D, device=device, compile=False, flip_input=device.startswith("cuda")
            )
        except OSError as error:  # URLError, timeouts and refused connections are all OSErrors
            raise BackendError(f"face-alignment's weights cannot be fetched ({error}): {WAY_OUT}") from error
        except RuntimeError as error:
            raise BackendError(f"face-alignment does not start ({str(error).splitlines()[0]})") from error


@contextmanager
def _hub_folder(folder: Path | None) -> Iterator[None]:
    """Let torch.hub read its files from `folder` (…/hub/checkpoints, or any folder through a link)."""
    if folder is None or folder == torch_hub_checkpoints():
        yield
        return
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        checkpoints = Path(home) / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for name in (DETECTOR_FILE, POINTS_FILE):
            (checkpoints / name).symlink_to((folder / name).resolve())
        before = os.environ.get("TORCH_HOME")
        os.environ["TORCH_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["TORCH_HOME"]
            else:
                os.environ["TORCH_HOME"] = before


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
