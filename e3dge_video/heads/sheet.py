"""A picture that shows what the generator makes: identities, a yaw sweep with depth and normals, expressions, edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e3dge_video.heads.edits import edit
from e3dge_video.heads.latent import INDEX, LAYOUT
from e3dge_video.heads.render import RenderedHead, render
from e3dge_video.heads.sampler import HeadSampler
from e3dge_video.heads.spec import Style
from e3dge_video.heads.viewpoints import intrinsics_matrix, look_at

_EXPRESSIONS = ("neutral", "smile", "mouth_open", "eyes_closed", "surprise", "brow", "frown", "pucker")
_EDITS = (
    "",
    "age+1",
    "age-1",
    "gender+1",
    "gender-1",
    "glasses+1",
    "beard+1",
    "grey+1",
    "sunglasses+1",
    "long_hair+1",
    "bald+1",
)
_BACKGROUND = np.array((168, 172, 178), np.float32)


def contact_sheet(
    path: Path | str,
    *,
    identities: int = 36,
    size: int = 160,
    seed: int = 0,
    columns: int = 9,
    sampler: HeadSampler | None = None,
    style: Style = "photo",
) -> Path:
    """Write the sheet as an image file and return its path."""
    import cv2

    sampler = sampler or HeadSampler()
    codes = sampler.sample(max(identities, 12), seed)
    rng = np.random.default_rng(seed)
    sections = [
        _grid(
            [
                _shot(
                    sampler,
                    z,
                    size,
                    style,
                    yaw=float(rng.normal(0, 0.3)) * (i % 3 > 0),
                    pitch=float(rng.normal(0, 0.1)),
                )
                for i, z in enumerate(codes[:identities])
            ],
            columns,
        ),
        _sweep(sampler, codes[1], size, columns, style),
        _grid(
            [_shot(sampler, _expression(z, name), size, style) for z in codes[2:5] for name in _EXPRESSIONS],
            len(_EXPRESSIONS),
        ),
        _grid([_shot(sampler, _edited(z, name), size, style) for z in codes[5:8] for name in _EDITS], len(_EDITS)),
    ]
    width = max(section.shape[1] for section in sections)
    padded = [np.pad(s, ((0, 6), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sections]
    cv2.imwrite(str(path), np.concatenate(padded)[..., ::-1])
    return Path(path)


def composite(shot: RenderedHead, background: NDArray[np.floating] = _BACKGROUND) -> NDArray[np.uint8]:
    """A picture over a plain colour. [S, S, 3]"""
    alpha = shot.alpha[..., None].astype(np.float32) / 255
    return np.round(shot.rgb * alpha + background * (1 - alpha)).astype(np.uint8)


def _shot(
    sampler: HeadSampler, z: NDArray[np.float32], size: int, style: Style, yaw: float = 0.0, pitch: float = 0.0
) -> NDArray[np.uint8]:
    head = sampler.build(sampler.decode(z))
    return composite(render(head, look_at(yaw, pitch), intrinsics_matrix(), size))


def _relaxed(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same head with a resting face, looking ahead."""
    z = z.copy()
    z[LAYOUT["expression"]] = -1.0
    for name in ("gaze_x", "gaze_y", "jaw_side", "smile_skew", "mouth_side"):
        z[INDEX[name]] = 0.0
    return z


def _expression(z: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return _relaxed(z) if name == "neutral" else edit(_relaxed(z), name, 1.0)


def _edited(z: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    relaxed = _relaxed(z)
    return edit(relaxed, name[:-2], float(name[-2:])) if name else relaxed


def _sweep(sampler: HeadSampler, z: NDArray[np.float32], size: int, columns: int, style: Style) -> NDArray[np.uint8]:
    head = sampler.build(sampler.decode(_relaxed(z)), style)
    rows: list[list[NDArray[np.uint8]]] = [[], [], []]
    for yaw in np.radians(np.linspace(-60, 60, columns)):
        shot = render(head, look_at(float(yaw), 0.0), intrinsics_matrix(), size)
        near = np.clip((3.05 - shot.depth) / 0.75, 0, 1) * (shot.depth > 0)
        rows[0].append(composite(shot))
        rows[1].append(np.repeat(np.round(255 * near)[..., None], 3, axis=2).astype(np.uint8))
        rows[2].append(np.round(127.5 * (shot.normal + 1)).astype(np.uint8))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _grid(tiles: list[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles) - columns + 1, columns)]
    return np.concatenate(rows)
