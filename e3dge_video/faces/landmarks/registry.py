"""Which landmark back ends work on this machine, and the choice among them."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError, ConfigError
from e3dge_video.faces.landmarks import fan, model_files
from e3dge_video.faces.landmarks.base import BackendName, LandmarkBackend, LandmarkOptions, SearchSquare
from e3dge_video.faces.landmarks.blazeface import BlazeFaceDetector
from e3dge_video.faces.landmarks.dlib68 import DlibBackend
from e3dge_video.faces.landmarks.eyes import EyeRefiner
from e3dge_video.faces.landmarks.fan import FanBackend
from e3dge_video.faces.landmarks.hog import HogDetector
from e3dge_video.faces.landmarks.mesh import MeshBackend
from e3dge_video.faces.landmarks.points_file import FileBackend

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendStatus:
    """Whether a back end can be used here.

    Attributes:
        name: Name of the back end.
        ready: Whether its parts are in place.
        detail: Which files it uses, or what is missing and how to get it.
        licence: Licence of code and weights, with a warning where it restricts the use.
    """

    name: BackendName
    ready: bool
    detail: str
    licence: str

    def __str__(self) -> str:
        return f"{self.name}: {'ready' if self.ready else 'not usable'} — {self.detail} [{self.licence}]"


def available_backends(options: LandmarkOptions | None = None) -> list[BackendStatus]:
    """State of every back end, best first; imports and loads nothing heavy."""
    options = options or LandmarkOptions()
    return [_fan_status(options), _mesh_status(options), _dlib_status(options), _file_status(options)]


def choose_backend(options: LandmarkOptions) -> tuple[BackendName, str]:
    """Resolve `auto` to the best back end that is ready here, and say why.

    Whoever runs several workers resolves once and hands each worker the name, so that all use the same.
    """
    if options.backend != "auto":
        return options.backend, "asked for"
    status = _auto_candidates(options)[0]
    return status.name, status.detail


def load_backend(options: LandmarkOptions | None = None) -> LandmarkBackend:
    """Build the back end that the options ask for; with `auto`, the first that really starts."""
    options = options or LandmarkOptions()
    if options.backend != "auto":
        return _build(options)
    failures = []
    for status in _auto_candidates(options):
        try:
            backend = _build(replace(options, backend=status.name))
        except BackendError as error:
            log.warning("landmarks: %s does not start: %s", status.name, error)
            failures.append(f"{status.name}: {error}")
            continue
        log.info("landmarks: %s (%s) [%s]", status.name, status.detail, status.licence)
        return backend
    raise BackendError("no landmark back end starts; " + "; ".join(failures))


def _auto_candidates(options: LandmarkOptions) -> list[BackendStatus]:
    """Back ends that are ready, best first; none is an error that says what each one lacks.

    face-alignment comes first only where it may use a GPU: on a CPU it needs seconds per frame.
    """
    if options.weights is not None:
        raise ConfigError("faces.landmarks.weights needs faces.landmarks.backend to say which back end it is for")
    order: list[BackendName] = ["mesh", "dlib", "face-alignment"]
    if options.device.startswith("cuda"):
        order = ["face-alignment", "mesh", "dlib"]
    if options.points_file is not None:
        order.insert(0, "file")
    states = {status.name: status for status in available_backends(options)}
    ready = [states[name] for name in order if states[name].ready]
    if not ready:
        raise BackendError("no landmark back end is ready; " + "; ".join(str(states[name]) for name in order))
    return ready


def _build(options: LandmarkOptions) -> LandmarkBackend:
    name, limit = options.backend, options.max_faces
    if name == "file":
        if options.points_file is None:
            raise ConfigError("the file landmark back end needs faces.landmarks.points_file (.npz or .json)")
        return FileBackend(options.points_file, max_faces=limit)
    if name == "face-alignment":
        return FanBackend(
            options.weights,
            device=options.device,
            allow_download=options.allow_download,
            min_score=options.min_score,
            max_faces=limit,
        )
    if name == "dlib":
        path = model_files.dlib_model(options.weights)
        if path is None:
            raise BackendError(f"dlib's 68-point model is not here: {model_files.DLIB_ADVICE}")
        return DlibBackend(path, max_faces=limit)
    if name == "mesh":
        path = model_files.mesh_model(options.weights)
        if path is None:
            raise BackendError(f"the face mesh model is not here: {model_files.MESH_ADVICE}")
        iris = model_files.iris_model() if options.refine_eyes else None
        return MeshBackend(
            path,
            _detector(options),
            eyes=EyeRefiner(iris) if iris else None,
            views=options.views,
            min_score=options.min_score,
            max_faces=limit,
        )
    raise ConfigError(f"unknown landmark back end {name!r}; known: auto, face-alignment, mesh, dlib, file")


def _weights(options: LandmarkOptions, name: BackendName) -> Path | None:
    """The user's weights belong to the back end the user named."""
    return options.weights if options.backend == name else None


def _detector(options: LandmarkOptions) -> Callable[[NDArray[np.uint8]], list[SearchSquare]]:
    models = model_files.blazeface_models() if options.detector != "hog" else None
    if models is not None:
        return BlazeFaceDetector(*models)
    if options.detector == "blazeface":
        raise BackendError(f"BlazeFace's models are not here: {model_files.MESH_ADVICE}")
    return HogDetector()


def _mesh_status(options: LandmarkOptions) -> BackendStatus:
    licence = "code MIT, model Apache-2.0"
    try:
        model = model_files.mesh_model(_weights(options, "mesh"))
        blazeface, iris = model_files.blazeface_models(), model_files.iris_model()
    except BackendError as error:
        return BackendStatus("mesh", False, str(error), licence)
    if model is None:
        return BackendStatus("mesh", False, f"model missing: {model_files.MESH_ADVICE}", licence)
    if blazeface is None and not _importable("dlib"):
        advice = f"no face detector: {model_files.MESH_ADVICE}, or pip install dlib-bin"
        return BackendStatus("mesh", False, advice, licence)
    detector = "BlazeFace" if blazeface and options.detector != "hog" else "dlib HOG"
    lids = "" if iris else ", without the iris model: blinks will be missed"
    return BackendStatus("mesh", True, f"{model}, started by {detector}{lids}", licence)


def _dlib_status(options: LandmarkOptions) -> BackendStatus:
    licence = "code Boost; the 68-point model was trained on iBUG 300-W: NON-COMMERCIAL USE ONLY"
    if not _importable("dlib"):
        return BackendStatus("dlib", False, "pip install dlib-bin", licence)
    try:
        model = model_files.dlib_model(_weights(options, "dlib"))
    except BackendError as error:
        return BackendStatus("dlib", False, str(error), licence)
    if model is None:
        return BackendStatus("dlib", False, f"model missing: {model_files.DLIB_ADVICE}", licence)
    return BackendStatus("dlib", True, str(model), licence)


def _fan_status(options: LandmarkOptions) -> BackendStatus:
    licence = "code BSD-3; weights were trained on 300-W-LP, check their terms"
    if model_files.installed("face_alignment") is None:
        return BackendStatus("face-alignment", False, "pip install face-alignment", licence)
    given = _weights(options, "face-alignment")
    folder = fan.weights_folder(given)
    if folder is not None:
        slow = "" if options.device.startswith("cuda") else "; seconds per frame without a GPU"
        return BackendStatus("face-alignment", True, f"weights in {folder}{slow}", licence)
    if options.allow_download:
        return BackendStatus("face-alignment", True, "weights will be downloaded (about 180 MB)", licence)
    place = given or model_files.torch_hub_checkpoints()
    return BackendStatus("face-alignment", False, f"weights are not in {place}: {fan.WAY_OUT}", licence)


def _file_status(options: LandmarkOptions) -> BackendStatus:
    if options.points_file is None:
        return BackendStatus("file", False, "needs a landmark file (.npz or .json) from you", "yours")
    ready = options.points_file.is_file()
    return BackendStatus("file", ready, f"{options.points_file}{'' if ready else ' does not exist'}", "yours")


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
