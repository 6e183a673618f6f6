"""Arrays of a whole clip from those of its chunks, for the stages that see all of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from e3dge_video.pipelines.core.spec import Payload

Arrays = dict[str, NDArray]


def joined(parts: Sequence[Payload], *names: str) -> Arrays:
    """Arrays of all chunks, end to end; each chunk is read once."""
    rows = [[np.asarray(part[name]) for name in names] for part in parts]
    return {name: np.concatenate(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
