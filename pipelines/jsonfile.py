"""JSON files of the output folder: whole or not at all, and valid for every reader (no NaN)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e3dge_video.io import atomic


def write_json(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write plain values; numbers that are not finite become null."""
    text = json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)
    atomic.write_bytes(path, (text + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
