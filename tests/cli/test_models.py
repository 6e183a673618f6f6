"""`e3dge-video models`: bundles found by name or folder, verified, imported, and files for them fetched."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from e3dge_video.cli.main import main
from e3dge_video.io.images import read_image
from e3dge_video.weights.public_files import PublicFile, public_file
from tests.support.checkpoint_server import Offer, serving
from tests.support.official_models import OFFICIAL_MODELS, OfficialModel
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


@pytest.fixture(params=OFFICIAL_MODELS)
def official(request: pytest.FixtureRequest) -> OfficialModel:
    """A tiny official model of each generator."""
    return OFFICIAL_MODELS[request.param]


@pytest.fixture
def imported(official: OfficialModel, tmp_path: Path, call: Call) -> Path:
    """The official model, imported as `heads` with one edit."""
    torch.manual_seed(0)
    file, edits = official.write(tmp_path), official.write_boundaries(tmp_path / "edits")
    code, out, err = call("import", file, edits, "--as", "heads")
    assert (code, err) == (0, ""), err
    assert f"imported heads: {official.project}, pictures " in out and "px, edits: smiling" in out
    assert "tensors taken over" in out and f"wrote {tmp_path / 'cache' / 'models' / 'heads'}" in out
    assert "licence: as its publisher says; the official" in out
    return tmp_path / "cache" / "models" / "heads"


def only_error(result: tuple[int, str, str]) -> str:
    """The one line that a user's mistake is answered with."""
    code, out, err = result
    assert (code, out) == (1, "") and len(err.splitlines()) == 1, err
    return err.strip()


def test_import_and_info(imported: Path, official: OfficialModel, call: Call) -> None:
    code, out, _ = call("info", "heads")
    assert code == 0
    for expected in (*official.info, "encoders     none", f'"name": "{official.file}"', "more"):
        assert expected in out, expected
    [line] = [line for line in call("list")[1].splitlines() if line.startswith("heads ")]
    assert f"{official.backbone}, " in line and line.endswith("edits: smiling")


def test_import_refuses_in_one_line(imported: Path, official: OfficialModel, call: Call, tmp_path: Path) -> None:
    (tmp_path / "page.pkl").write_text("<html>")
    assert "page.pkl: is a web page" in only_error(call("import", tmp_path / "page.pkl", "--as", "page"))
    assert "heads: is there already" in only_error(call("import", tmp_path / official.file, "--as", "heads"))
    assert "--as" in only_error(call("import", tmp_path / official.file))


def test_a_generator_alone_cannot_run(
    imported: Path, call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", str(tmp_path / "talk.mp4"), "--model", "heads"])
    out, err = capsys.readouterr()
    assert end.value.code == 1 and out == "" and len(err.splitlines()) == 1
    assert "the model heads is a generator alone, without the encoders (E0" in err and "such as starter" in err


def test_verify(imported: Path, call: Call, tmp_path: Path) -> None:
    side = json.loads((imported / "model.json").read_text())["resolution"]
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call("verify", "heads")
    assert (code, err) == (0, "")
    assert (
        "heads: every file is as it was when the bundle was made (generator.safetensors, edits" in out
        and "check image is the recorded one" in out
    )
    assert sorted(tmp_path.rglob("*")) == before
    code, out, _ = call("verify", imported, "--out", tmp_path / "check.png")
    assert code == 0 and read_image(tmp_path / "check.png").shape == (side, side, 3)
    assert "written as .png" in only_error(call("verify", "heads", "--out", tmp_path / "check.jpg"))


def test_verify_of_a_bundle_without_figures(installed: Path, call: Call) -> None:
    code, out, _ = call("verify", "tiny")
    assert code == 0 and "tiny: every file is as it was" in out and "no recorded figures" in out


@pytest.mark.parametrize("file", ["generator.safetensors", "edits.safetensors"])
def test_verify_of_a_changed_file(imported: Path, call: Call, file: str) -> None:
    data = bytearray((imported / file).read_bytes())
    data[-1] ^= 1
    (imported / file).write_bytes(bytes(data))
    assert f"{file}: differs from the SHA-256" in only_error(call("verify", "heads"))


def test_verify_of_another_picture(imported: Path, call: Call) -> None:
    """As when a machine computes something else from the same bytes."""
    values = json.loads((imported / "model.json").read_text())
    values["check"]["fields"][7] += 0.1
    (imported / "model.json").write_text(json.dumps(values))
    assert "its check image differs by 0.1 from what it was" in only_error(call("verify", "heads"))
    values["check"]["fields"] = values["check"]["fields"][:3]
    (imported / "model.json").write_text(json.dumps(values))
    assert "its check image differs by inf" in only_error(call("verify", "heads"))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """One published checkpoint, `net`, on a server of this machine."""
    data = b"weights" * 1000
    with serving(Offer(data)) as offer:
        md5 = hashlib.md5(data).hexdigest()
        entry = PublicFile("net", "net.pt", "a network", "CC BY", "here", offer.url, bytes=len(data), md5=md5)
        monkeypatch.setattr("e3dge_video.weights.public_files.public_files", lambda: {"net": entry})
        yield offer


def test_fetch(published: Offer, call: Call, tmp_path: Path) -> None:
    code, out, _ = call("fetch", "net", "--accept-licence")
    assert code == 0 and out.index("licence: CC BY; read it: here") < out.index("wrote ")
    assert (tmp_path / "cache" / "downloads" / "net.pt").read_bytes() == published.data
    assert "compared: size and MD5 as published" in out and "next: e3dge-video models import" in out


def test_fetch_says_what_an_import_needs_beside_it(
    published: Offer, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = public_file("net")
    both = {"net": replace(entry, beside=("other",)), "other": replace(entry, name="other", file="other one.pt")}
    monkeypatch.setattr("e3dge_video.weights.public_files.public_files", lambda: both)
    downloads = tmp_path / "cache" / "downloads"
    command = f"next: e3dge-video models import {downloads / 'net.pt'} '{downloads / 'other one.pt'}' --as net"
    *_, needed, last = call("fetch", "net", "--accept-licence")[1].splitlines()
    assert (needed, last) == ("needed beside it: e3dge-video models fetch other", command)
    call("fetch", "other", "--accept-licence")
    *_, before, last = call("fetch", "net", "--accept-licence")[1].splitlines()
    assert before.startswith("compared: ") and last == command


@pytest.mark.parametrize(("answer", "code", "fetched"), [("y\n", 0, True), ("n\n", 130, False)])
def test_fetch_asks(
    published: Offer, call: Call, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, fetched: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert call("fetch", "net")[0] == code and bool(published.asked) == fetched


def test_fetch_refuses_in_one_line(published: Offer, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*arguments: str) -> str:
        code, _, err = call("fetch", *arguments)
        assert code == 1 and len(err.splitlines()) == 1
        return err

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "accept it with --accept-licence" in error("net") and published.asked == []
    assert "other: no published checkpoint is known by this name" in error("other")
    published.data = published.data[:-1] + b"?"
    assert "is not the published file" in error("net", "--accept-licence")


def test_fetch_lists_what_is_published(call: Call) -> None:
    code, out, _ = call("fetch")
    assert code == 0 and len(out.splitlines()) == 20
    assert "203 MB; CC BY-NC-SA 4.0" in out and "size not known; NVIDIA" in out
