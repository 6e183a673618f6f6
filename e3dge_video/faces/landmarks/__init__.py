"""Landmark back ends behind one interface: 68 iBUG points per face, whichever network finds them."""

from e3dge_video.faces.landmarks.base import Face, LandmarkBackend, LandmarkOptions, SearchSquare
from e3dge_video.faces.landmarks.registry import (
    BackendStatus,
    available_backends,
    choose_backend,
    load_backend,
)

__all__ = [
    "BackendStatus",
    "Face",
    "LandmarkBackend",
    "LandmarkOptions",
    "SearchSquare",
    "available_backends",
    "choose_backend",
    "load_backend",
]
