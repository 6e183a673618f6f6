"""`e3dge-video models`: bundles found by name or folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from e3dge_video.cli.main import main
from tests.support.portraits import Studio

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))

    def models(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["models", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return models


@pytest.fixture
def installed(studio: Studio, tmp_path: Path, call: Call) -> Path:
    """The tiny model in the user's cache."""
    return Path(shutil.copytree(studio.model, tmp_path / "cache" / "models" / "tiny"))


def test_list(installed: Path, call: Call) -> None:
    code, out, _ = call("list")
    assert code == 0
    [line] = [line for line in out.splitlines() if line.startswith("tiny ")]
    assert "eg3d, 64 px" in line and "licence: Apache-2.0" in line and "edits: age, smile" in line


def test_a_damaged_bundle_does_not_hide_the_others(installed: Path, call: Call) -> None:
    broken = installed.with_name("broken")
    broken.mkdir()
    (broken / "model.json").write_text("{")
    code, out, err = call("list")
    assert code == 0 and any(line.startswith("tiny ") for line in out.splitlines())
    assert "broken" in err and "cannot be read" in err


def test_info(installed: Path, call: Call, studio: Studio) -> None:
    code, out, _ = call("info", "tiny")
    assert code == 0
    for expected in (
        "tiny  (",
        "licence      Apache-2.0",
        "pictures 64 px",
        "age",
        "-2 … 2",
        "sha256",
        "random weights",
    ):
        assert expected in out
    by_folder = call("info", studio.model)
    assert by_folder[0] == 0 and by_folder[1].splitlines()[1:] == out.splitlines()[1:]
    printed = json.loads(call("info", "tiny", "--json")[1])
    assert printed == json.loads((installed / "model.json").read_text())


def test_info_of_what_is_not_there(call: Call, tmp_path: Path) -> None:
    code, out, err = call("info", "nobody")
    assert (code, out) == (1, "") and err.startswith("error: nobody: no such model bundle; installed: ")
    assert len(err.splitlines()) == 1


def test_info_of_an_incomplete_bundle(installed: Path, call: Call) -> None:
    (installed / "encoder.safetensors").unlink()
    code, _, err = call("info", "tiny")
    assert code == 1 and "encoder.safetensors: missing" in err and len(err.splitlines()) == 1
