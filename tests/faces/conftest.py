"""Pictures of real people for the face tests; they lie outside the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Frames = list[NDArray[np.uint8]]


@pytest.fixture(scope="session")
def read_clip(media: Path) -> Callable[..., tuple[Frames, NDArray[np.float64]]]:
    """Frames and times of a clip of the media folder, decoded plainly (none of those used here is rotated)."""

    def read(name: str, limit: int = 10**9) -> tuple[Frames, NDArray[np.float64]]:
        frames, times = [], []
        with av.open(str(media / name)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if len(frames) == limit:
                    break
                frames.append(frame.to_ndarray(format="rgb24"))
                times.append(float(frame.pts * frame.time_base))
        return frames, np.array(times)

    return read


@pytest.fixture(scope="session")
def read_still(media: Path) -> Callable[[str], NDArray[np.uint8]]:
    def read(name: str) -> NDArray[np.uint8]:
        return cv2.cvtColor(cv2.imread(str(media / "stills" / name)), cv2.COLOR_BGR2RGB)

    return read
