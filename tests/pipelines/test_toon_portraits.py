"""`run --toon` on the tiny model: what a degree does, that it composes with edits, and that the result is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

import e3dge_video.pipelines.request
from e3dge_video.cli.main import main
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.editing import Edit
from e3dge_video.io.reader import VideoReader
from tests.support.portraits import Studio, differing, result_bytes
from tests.support.talking_clip import write_talk
from tests.support.tiny_model import write_tiny_bundle, write_tiny_toon

if TYPE_CHECKING:
    from e3dge_video.pipelines.core.rayexec import RaySession

VIEWS = (parse_view("input"), parse_view("20,0"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A model with a toon part, and a short clip."""
    folder = tmp_path_factory.mktemp("toon")
    model = write_tiny_toon(write_tiny_bundle(folder / "tiny"))
    return Studio(model, write_talk(folder, frames=20))


@pytest.fixture(scope="module")
def plain(drawn: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.run(tmp_path_factory.mktemp("plain") / "out", views=VIEWS).folder


@pytest.fixture(scope="module")
def toon(drawn: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.run(tmp_path_factory.mktemp("full") / "out", views=VIEWS, toon=1.0).folder


def frames(folder: Path, name: str = "rgb.mp4") -> NDArray[np.float64]:
    with VideoReader(folder / name) as reader:
        return reader.read(0, len(reader)).rgb.astype(float)


def test_picture_novel_view_and_depth_are_the_cartoons(drawn: Studio, plain: Path, toon: Path) -> None:
    for name in ("rgb.mp4", "rgb_yaw+20.mp4", "depth.mp4", "depth_yaw+20.mp4"):
        assert np.abs(frames(toon, name) - frames(plain, name)).mean() > 0.5, name
    assert "portrait.safetensors" not in differing(result_bytes(toon), result_bytes(plain)), "codes stay"
    assert json.loads((toon / "report.json").read_text())["options"]["toon"] == 1.0
    assert "toon 1" in (toon / "report.html").read_text()


def test_a_degree_lies_between_and_zero_is_the_photograph(
    drawn: Studio, plain: Path, toon: Path, tmp_path: Path
) -> None:
    half = frames(drawn.run(tmp_path / "half", views=VIEWS, toon=0.5).folder)
    whole = np.abs(frames(toon) - frames(plain)).mean()
    assert 0.1 * whole < np.abs(half - frames(plain)).mean() < 0.9 * whole
    zero = drawn.run(tmp_path / "zero", views=VIEWS, toon=0.0).folder
    assert differing(result_bytes(zero), result_bytes(plain)) == []


def test_an_edit_goes_into_the_cartoon(drawn: Studio, toon: Path, tmp_path: Path) -> None:
    edited = drawn.run(tmp_path / "out", views=VIEWS, toon=1.0, edits=(Edit("age", ((0.0, 2.0),)),)).folder
    assert np.abs(frames(edited) - frames(toon)).mean() > 0.5


def test_chunks_and_executors_give_the_same_bytes(
    drawn: Studio, toon: Path, tmp_path: Path, ray_session: RaySession
) -> None:
    from e3dge_video.pipelines.core.rayexec import RayExecutor

    chunks = drawn.run(tmp_path / "chunks", views=VIEWS, toon=1.0, chunk_frames=16).folder
    assert differing(result_bytes(chunks), result_bytes(toon)) == []
    with RayExecutor() as executor:
        ray = drawn.run(tmp_path / "ray", executor, views=VIEWS, toon=1.0).folder
    assert differing(result_bytes(ray), result_bytes(toon)) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--toon=1.5", "--toon 1.5: expected a degree from 0 (photograph) to 1 (cartoon)"),
        ("--toon=nan", "--toon nan: expected a degree"),
        ("--toon=much", "--toon much: expected a degree"),
    ],
)
def test_other_degrees_are_refused(
    drawn: Studio, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert message in _refusal(drawn.model, drawn, capsys, option)


def test_a_negative_degree_is_refused(drawn: Studio) -> None:
    with pytest.raises(ConfigError, match=r"--toon -0.1: expected a degree"):
        e3dge_video.pipelines.request.run(drawn.talk.video, model=str(drawn.model), toon=-0.1)


def test_a_model_without_a_toon_part_is_refused(
    drawn: Studio, studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the model tiny has no toon generator" in _refusal(studio.model, drawn, capsys, "--toon")


def _refusal(model: Path, studio: Studio, capsys: pytest.CaptureFixture[str], option: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["run", str(studio.talk.video), "--model", str(model), "--executor", "local", option])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and len(lines) == 1
    return lines[0]
