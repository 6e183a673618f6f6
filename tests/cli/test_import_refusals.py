"""Whatever is wrong with a file of any kind, `models import` says so in one line and leaves nothing behind."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from e3dge_video.cli.main import main
from tests.support import eg3d_checkpoint, stylesdf_checkpoint
from tests.support.e3dge_checkpoint import filled, foreign_encoder, write_generator, write_renderer
from tests.support.official_models import EG3D_MODEL, STYLESDF_MODEL

State = dict[str, Tensor]
Refuse = Callable[..., str]
_PICTURE = b"\x89PNG\r\n\x1a\n" + b"\x00" * 64


class Evil:
    """Makes a file when Python's own unpickler reads it."""

    harmed = Path("harmed")

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.harmed}",)


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refuse]:
    """Files → the one line with which the command refuses them."""
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Evil, "harmed", tmp_path / "harmed")

    def run(*files: Path, options: tuple[str, ...] = ()) -> str:
        with pytest.raises(SystemExit) as end:
            main(["models", "import", *map(str, files), "--as", "new", *options])
        out, err = capsys.readouterr()
        assert (end.value.code, out) == (1, "") and len(err.splitlines()) == 1 and len(err) < 700, err
        return err.removeprefix("error: ").strip()

    yield run
    assert not (tmp_path / "harmed").exists() and not (tmp_path / "cache").exists()


@dataclass(frozen=True)
class Target:
    """A kind of checkpoint.

    Attributes:
        state: Tensors of the network that is spoiled, under the official names.
        write: Folder and these tensors → the files to import, the spoiled one first.
        key: One of them that tells no size.
        evil: A file of this kind that would run code.
        bomb: A file of this kind that would fill the memory.
        options: Of the command.
    """

    state: Callable[[], State]
    write: Callable[[Path, State], list[Path]]
    key: str
    evil: Callable[[], bytes]
    bomb: bytes
    options: tuple[str, ...] = ()


def _torch_file(values: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(values, stream)
    return stream.getvalue()


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\x00" * 10_000_000)
    return stream.getvalue()


@cache
def _encoder() -> State:
    return filled(foreign_encoder())


def _write_runner(folder: Path, state: State) -> list[Path]:
    torch.save({"iter": 1, "encoder": state}, folder / "runner.pt")
    return [folder / "runner.pt", write_generator(folder / "g.pt", toon=True), write_renderer(folder / "v.pt")]


def _write_pickle(folder: Path, discriminator: State) -> list[Path]:
    (folder / "heads.pkl").write_bytes(eg3d_checkpoint.official_file(discriminator=discriminator))
    return [folder / "heads.pkl"]


def _write_judged_runner(folder: Path, discriminator: State) -> list[Path]:
    runner = {"encoder": _encoder(), "discriminator": {f"module.{key}": value for key, value in discriminator.items()}}
    torch.save(runner, folder / "runner.pt")
    return [folder / "runner.pt", write_generator(folder / "g.pt", toon=True), write_renderer(folder / "v.pt")]


TARGETS = {
    "EG3D": Target(
        EG3D_MODEL.state,
        lambda folder, state: [EG3D_MODEL.write(folder, state)],
        EG3D_MODEL.lost[0],
        lambda: pickle.dumps({"G_ema": Evil()}, protocol=4),
        b"\x80\x04" + b"(" * 300_100,
    ),
    "StyleSDF": Target(
        STYLESDF_MODEL.state,
        lambda folder, state: [STYLESDF_MODEL.write(folder, state)],
        STYLESDF_MODEL.lost[0],
        lambda: _torch_file({"g_ema": Evil()}),
        _zip_bomb(),
    ),
    "E3DGE": Target(
        lambda: dict(_encoder()),
        _write_runner,
        "latlayer64.bias",
        lambda: _torch_file({"encoder": Evil()}),
        _zip_bomb(),
    ),
    "EG3D's discriminator": Target(
        eg3d_checkpoint.foreign_discriminator,
        _write_pickle,
        "b4.fc.bias",
        lambda: pickle.dumps({"G_ema": {}, "D": Evil()}, protocol=4),
        b"\x80\x04" + b"(" * 300_100,
        ("--discriminator",),
    ),
    "StyleSDF's discriminator": Target(
        lambda: dict(stylesdf_checkpoint.foreign_image_discriminator((3, 4, 5, 5))),
        lambda folder, state: [stylesdf_checkpoint.official_file(folder / "heads.pt", discriminator=state)],
        "final_linear.0.bias",
        lambda: _torch_file({"d": Evil()}),
        _zip_bomb(),
        ("--discriminator",),
    ),
    "E3DGE's discriminator": Target(
        lambda: dict(stylesdf_checkpoint.foreign_image_discriminator()),
        _write_judged_runner,
        "final_linear.0.bias",
        lambda: _torch_file({"discriminator": Evil()}),
        _zip_bomb(),
        ("--discriminator",),
    ),
}
_SPOILED: dict[str, tuple[Callable[[State, str], object], str]] = {
    "missing": (lambda state, key: state.pop(key), "1 missing ("),
    "extra": (lambda state, key: state.update({"more.weight": torch.zeros(1)}), "1 unknown ("),
    "misshapen": (lambda state, key: state.update({key: torch.zeros(7)}), "1 misshapen ("),
    "NaN": (lambda state, key: state.update({key: torch.full_like(state[key], torch.nan)}), "that are NaN or infinite"),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("spoil", "message"), _SPOILED.values(), ids=_SPOILED)
def test_tensors(
    target: Target, spoil: Callable[[State, str], object], message: str, tmp_path: Path, refuse: Refuse
) -> None:
    state = target.state()
    spoil(state, target.key)
    files = target.write(tmp_path, state)
    line = refuse(*files, options=target.options)
    assert line.startswith(f"{files[0]}: ") and message in line


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_files(target: Target, tmp_path: Path, refuse: Refuse) -> None:
    files = target.write(tmp_path, target.state())
    whole = files[0].read_bytes()
    for data, message in (
        (target.evil(), "run code|nothing in it is executed"),
        (target.bomb, "more than 300000 pickle instructions|unpacks to more than its own size"),
        (whole[: len(whole) // 2], "complete"),
        (_PICTURE, "none of the files that can be imported"),
        (b"<html>quota exceeded</html>", "is a web page saved under this name"),
    ):
        files[0].write_bytes(data)
        line = refuse(*files, options=target.options)
        assert line.startswith(f"{files[0]}: ") and any(part in line for part in message.split("|")), line


def _array(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def _endless_array() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**10,)})
    return stream.getvalue()


@pytest.mark.parametrize("model", [EG3D_MODEL, STYLESDF_MODEL], ids=["EG3D", "StyleSDF"])
def test_boundaries(model: Any, tmp_path: Path, refuse: Refuse) -> None:
    file, edits = model.write(tmp_path), model.write_boundaries(tmp_path / "edits")
    path = next(edits.glob("*/boundary.npy"))
    good = np.load(path)
    for data, message in (
        (_array(np.array([Evil()], dtype=object), allow_pickle=True), "not a readable .npy file"),
        (_endless_array(), "not a readable .npy file"),
        (_array(np.concatenate([good, good])), "a boundary is one row of floats"),
        (_array(np.ones((1, 5), np.float32)), "is 5 wide, but this generator's codes are"),
        (_array(np.full_like(good, np.nan)), "NaN or infinite"),
        (_PICTURE, "not a readable .npy file"),
        (_array(good)[:-3], "not a readable .npy file"),
    ):
        path.write_bytes(data)
        line = refuse(file, edits)
        assert line.startswith(str(edits)) and message in line, line
    path.unlink()
    assert refuse(file, edits).startswith(f"{edits}: ")
