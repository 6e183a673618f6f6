"""A user's folder of cartoon faces, brought into the frame of a generator's own pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e3dge_video.errors import BackendError, ConfigError
from e3dge_video.faces.alignment import eg3d_crop, ffhq_crop, resized, warp_crop
from e3dge_video.faces.landmarks import load_backend
from e3dge_video.faces.landmarks.base import LandmarkBackend
from e3dge_video.io.images import read_image, to_tensor

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
#: Fewer pictures than this are no style but these very pictures.
_FEWEST = 4


@dataclass(frozen=True)
class ToonPictures:
    """Cartoon faces.

    Attributes:
        images: RGB in [-1, 1]; where the generator draws heads alone, on black. [N, 3, S, S]
        aligned: How many were aligned by landmarks; the others are their pictures' middle.
    """

    images: Tensor
    aligned: int


def read_toon_pictures(
    folder: Path, size: int, crop: str, cut_out: Callable[[Tensor], Tensor] | None = None
) -> ToonPictures:
    """Read, align and resize every picture of a folder.

    Args:
        folder: Holds picture files, in any order and of any size.
        size: Side of the generator's pictures.
        crop: The generator's crop convention, "eg3d" or "ffhq".
        cut_out: Foreground of pictures [N, 3, S, S] → [N, 1, S, S], for a generator that draws heads alone.

    Raises:
        ConfigError: No such folder, or too few pictures in it.
        InputError: One of them cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if len(paths) < _FEWEST:
        found = f"{len(paths)} pictures ({', '.join(SUFFIXES)})" if folder.is_dir() else "no folder"
        raise ConfigError(f"{folder}: {found} here; train toon needs a folder of at least {_FEWEST} cartoon faces")
    try:
        backend = load_backend()
    except BackendError as error:
        backend = None
        log.warning("cartoon faces are taken as they are, without alignment: %s", error)
    faces, aligned = [], 0
    for path in paths:
        picture = read_image(path)
        face = None if backend is None else _aligned(picture, size, crop, backend)
        aligned += face is not None
        faces.append(_middle(picture, size) if face is None else face)
    if aligned < len(paths):
        log.warning(
            "%d of %d pictures show no face that is found; their middle is used", len(paths) - aligned, len(paths)
        )
    images = to_tensor(np.stack(faces))
    if cut_out is not None:
        images = torch.cat([cut_out(part) * (part + 1) - 1 for part in images.split(16)])
    return ToonPictures(images, aligned)


def _aligned(picture: NDArray[np.uint8], size: int, crop: str, backend: LandmarkBackend) -> NDArray[np.uint8] | None:
    """The largest face in the generator's crop; None where none is found. [S, S, 3]"""
    found = backend.detect(picture, 0)
    if not found:
        return None
    place = (ffhq_crop if crop == "ffhq" else eg3d_crop)(found[0].points)
    return warp_crop(picture, place, size)


def _middle(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The largest square in the middle. [S, S, 3]"""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resized(picture[top : top + side, left : left + side], size, size)
