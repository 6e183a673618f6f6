"""What of a head can be seen, as one vector: the target that teaches a mapping network what a latent code means."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.spec import BEARD_STYLES, CLOTHING_STYLES, GLASSES_STYLES, HAIR_STYLES, HeadSpec

_STYLES = {"hair": HAIR_STYLES, "beard": BEARD_STYLES, "glasses": GLASSES_STYLES, "clothing": CLOTHING_STYLES}


def appearance(spec: HeadSpec) -> NDArray[np.float32]:
    """Every number of a head; categories as one-hot, and zero for what cannot show (a bald head's parting). [P]"""
    parts: list[NDArray[np.floating]] = []
    for field in fields(spec):
        part = getattr(spec, field.name)
        values = _numbers(part)
        if field.name in _STYLES:
            styles = _STYLES[field.name]
            values = values * (part.style not in ("bald", "none"))
            parts.append(np.array([part.style == style for style in styles], np.float32))
        parts.append(values)
    makeup = spec.makeup
    worn = np.r_[np.full(3, makeup.lipstick), np.full(3, makeup.eyeshadow)]
    parts.append(worn * np.r_[makeup.lip_colour, makeup.eyeshadow_colour])
    return np.concatenate(parts).astype(np.float32)


def _numbers(part: Any) -> NDArray[np.float64]:
    """The numbers of a part in the order of its fields, text left out."""
    values = [getattr(part, field.name) for field in fields(part)] if is_dataclass(part) else [part]
    return np.concatenate([np.ravel(value).astype(np.float64) for value in values if not isinstance(value, str)])
