"""Stage `scan`: decode, find faces and landmarks; tiny results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e3dge_video.faces.landmarks import LandmarkBackend, LandmarkOptions, load_backend
from e3dge_video.faces.landmarks.base import Face
from e3dge_video.faces.scan import scan_frames
from e3dge_video.pipelines.core.spec import Chunk, Payload
from e3dge_video.pipelines.stages.clip import Readers


@dataclass
class ScanTools:
    """What a scanning worker loads once."""

    readers: Readers
    backend: LandmarkBackend

    def close(self) -> None:
        """Close the open videos."""
        self.readers.close()


@dataclass(frozen=True)
class SetupScan:
    """Load a landmark back end; `options.backend` is resolved, so that all workers use the same."""

    options: LandmarkOptions

    def __call__(self) -> ScanTools:
        return ScanTools(Readers(), load_backend(self.options))


@dataclass(frozen=True)
class Scan:
    """Faces of every frame of a chunk.

    Attributes:
        options: How faces are found; for the key, the worker's back end has them.
        points_sha256: Of the landmark file, if one is used: changed landmarks are another result.
    """

    options: LandmarkOptions
    points_sha256: str

    def __call__(self, chunk: Chunk, tools: ScanTools) -> Payload:
        clip = chunk.params
        reader = tools.readers.of(clip)
        statuses: list[int] = []

        def pictures() -> Iterator[NDArray[np.uint8]]:
            for frame in reader.iterate(clip.first + chunk.start, clip.first + chunk.stop):
                statuses.append(frame.status)
                yield frame.rgb

        found = scan_frames(pictures(), chunk.start, _Shifted(tools.backend, clip.first))
        return {
            **found.arrays(),
            "status": np.array(statuses, np.uint8),
            "silhouette_jaw": np.array(tools.backend.silhouette_jaw),
        }


class _Shifted:
    """A back end whose frame numbers count from the clip's first frame instead of the video's."""

    def __init__(self, backend: LandmarkBackend, first: int) -> None:
        self.backend, self.first = backend, first
        self.name, self.silhouette_jaw = backend.name, backend.silhouette_jaw

    def detect(self, frame: NDArray[np.uint8], index: int) -> list[Face]:
        return self.backend.detect(frame, index + self.first)

    def track(self, frame: NDArray[np.uint8], index: int, previous: Face) -> Face | None:
        return self.backend.track(frame, index + self.first, previous)
