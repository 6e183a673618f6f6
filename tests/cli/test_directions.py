"""`e3dge-video train directions` as a user meets it: samples, scores, boundaries, a model with new edits."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from e3dge_video.cli.main import main
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.inversion.load import load_inverter
from e3dge_video.weights.bundle import read_bundle, read_spec
from tests.support.tiny_model import GENERATOR, STYLESDF, write_tiny_bundle

COUNT = 80
Call = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Sampled:
    """A tiny model and samples of it, with scores of two attributes that are linear in its codes."""

    model: Path
    folder: Path
    scores: Path
    axes: np.ndarray  # [2, W]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))

    def directions(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["train", "directions", *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return directions


@pytest.fixture
def refuse(call: Call) -> Callable[..., str]:
    """The one line that a mistake is answered with."""

    def refused(*arguments: object) -> str:
        code, _, err = call(*arguments)
        lines = [line for line in err.splitlines() if "picture/s" not in line and "%|" not in line]
        assert code == 1 and len(lines) == 1 and lines[0].startswith("error: "), err
        return lines[0].removeprefix("error: ")

    return refused


@pytest.fixture(scope="module", params=[GENERATOR, STYLESDF], ids=["eg3d", "stylesdf"])
def sampled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    root = tmp_path_factory.mktemp("directions")
    model = write_tiny_bundle(root / "tiny", request.param)
    with pytest.raises(SystemExit) as end:
        main(["train", "directions", "sample", str(model), "--out", str(root / "samples"), "--count", str(COUNT)])
    assert not end.value.code
    with np.load(root / "samples" / "codes.npz") as stored:
        codes = stored[stored.files[0]]
        assert set(stored.files) == ({"w"} if isinstance(request.param, EG3DConfig) else {"renderer", "decoder"})
    centred = codes - codes.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]  # where codes differ most: a boundary can be seen there
    values = centred @ axes.T
    values /= values.std(axis=0)
    table(root / "scores.csv", ["image", "smile", "mood"], [
        [f"{number:05d}.png", *row] for number, row in enumerate(values @ np.array([[1, 0.6], [0, 0.8]]))
    ])  # fmt: skip
    return Sampled(model, root / "samples", root / "scores.csv", axes)


def table(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_from_samples_to_a_model(sampled: Sampled, call: Call, tmp_path: Path) -> None:
    """The boundary's folder, the new model, and an import's reading of it all say the same."""
    options = ["--extremes", "0.3", "--out", tmp_path / "edits", "--model", sampled.model]
    code, out, err = call("fit", sampled.folder, "--scores", sampled.scores, *options, "--as", "moody")
    assert code == 0, err
    assert "held-out accuracy" in out and "smile" in out and "mood" in out
    spec, former = read_spec(tmp_path / "cache" / "models" / "moody"), read_bundle(sampled.model)
    assert set(spec.edits) == {"age", "smile", "mood"} and spec.name == "moody"
    assert spec.edits["age"] == former.spec.edits["age"] and "standard deviation" in spec.edits["smile"].unit
    assert spec.provenance["added_edits"]["smile"]["scored"] == COUNT
    made = read_bundle(tmp_path / "cache" / "models" / "moody").tensors["edits.safetensors"]
    assert torch.equal(made["age"], former.tensors["edits.safetensors"]["age"])
    first = spec.generator.code_parts[0]
    direction = made["smile"][first.first, : first.width].numpy()
    assert direction @ sampled.axes[0] > 0.7 * np.linalg.norm(direction)
    for part in spec.generator.code_parts:
        rows = made["smile"][part.first : part.stop]
        assert torch.equal(rows, rows[:1].expand_as(rows)) and not rows[:, part.width :].any()
        folder = tmp_path / "edits" / f"{part.prefix}smile"
        normal, use = np.load(folder / "boundary.npy"), json.loads((folder / "edit.json").read_text())
        assert normal.shape == (1, part.width) and np.isclose(np.linalg.norm(normal), 1)
        np.testing.assert_allclose(use["step"] * normal[0], rows[0, : part.width], rtol=1e-5, atol=1e-7)
        assert use["edit"]["limits"] == list(spec.edits["smile"].limits)
    low, high = spec.edits["smile"].limits
    assert low < -1 and high > 1
    assert torch.equal(load_inverter("moody").directions["smile"], made["smile"])


def test_one_attribute_leaves_another_alone(sampled: Sampled, call: Call, tmp_path: Path) -> None:
    rest = ["--scores", sampled.scores, "--extremes", "0.3", "--model", sampled.model]
    normals = {}
    for kind, options in (("free", []), ("bound", ["--against", "mood=smile", "--layers", "0-1"])):
        code, _, err = call("fit", sampled.folder, *rest, *options, "--out", tmp_path / kind, "--as", kind)
        assert code == 0, err
        edits = read_bundle(tmp_path / "cache" / "models" / kind).tensors["edits.safetensors"]
        normals[kind] = torch.cosine_similarity(edits["mood"][0], edits["smile"][0], dim=0).item()
    assert normals["free"] > 0.2 and abs(normals["bound"]) < 1e-4


def test_edits_on_some_layers(sampled: Sampled, call: Call, tmp_path: Path) -> None:
    options = ["--scores", sampled.scores, "--extremes", "0.3", "--model", sampled.model, "--attributes", "smile"]
    rows = read_spec(sampled.model).generator.latent_shape[0]
    code, _, err = call(
        "fit", sampled.folder, *options, "--layers", f"1-{rows - 1}", "--out", tmp_path / "edits", "--as", "late"
    )
    assert code == 0, err
    made = read_bundle(tmp_path / "cache" / "models" / "late")
    assert made.spec.edits["smile"].layers == (1, rows)
    moved = made.tensors["edits.safetensors"]["smile"].any(dim=1)
    assert not moved[0] and moved[1:].all()


def test_samples_go_on_and_grow(sampled: Sampled, call: Call, refuse: Callable[..., str]) -> None:
    pictures = {path: path.stat().st_mtime_ns for path in sorted(sampled.folder.glob("*.png"))}
    assert len(pictures) == COUNT
    first, second, *_ = pictures
    content = first.read_bytes()
    first.unlink()
    code, out, _ = call("sample", sampled.model, "--out", sampled.folder, "--count", 8)
    assert code == 0 and f"{COUNT} pictures" in out
    assert first.read_bytes() == content and second.stat().st_mtime_ns == pictures[second]
    assert "holds samples of tiny, seed 0" in refuse("sample", sampled.model, "--out", sampled.folder, "--seed", 1)


def test_a_classifier_scores(sampled: Sampled, call: Call, refuse: Callable[..., str], tmp_path: Path) -> None:
    class Colours(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean(dim=[2, 3])[:, :2]

    torch.jit.script(Colours()).save(str(tmp_path / "net.pt"))
    options = ["--classifier", tmp_path / "net.pt", "--out", tmp_path / "scores.csv"]
    code, _, err = call("score", sampled.folder, *options, "--attributes", "red,green")
    assert code == 0, err
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT and rows[0].keys() == {"image", "red", "green"}
    assert -1 <= float(rows[3]["red"]) <= 1 and len({row["red"] for row in rows}) > 1
    assert "expected [8, 3]" in refuse("score", sampled.folder, *options, "--attributes", "red,green,blue")
    assert "cannot be an edit's name" in refuse("score", sampled.folder, *options, "--attributes", "red,Green!")
    (tmp_path / "net.pt").write_bytes(b"no network")
    assert "is no TorchScript network" in refuse("score", sampled.folder, *options, "--attributes", "red")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,smile\nnobody.png,1\n", "line 2: 'nobody.png' is no picture of"),
        ("image,smile\n00000.png,1\n00000.png,2\n", "line 3: 00000.png comes twice"),
        ("image,smile\n00000.png,much\n", "line 2, column smile: 'much' is no number"),
        ("image,smile\n00000.png,nan\n", "is no number"),
        ("image,smile\n00000.png\n", "line 2: has 1 cells"),
        ("picture,smile\n00000.png,1\n", "first line must name the columns"),
        ("image\n00000.png\n", "has no scores"),
        ("", "first line must name the columns"),
        ("image,Smile!\n00000.png,1\n", "'Smile!' cannot be an edit's name"),
        ("image,expression\n00000.png,1\n", "'expression' cannot be an edit's name"),
        ("image,smile\n" + "".join(f"{n:05d}.png,1\n" for n in range(COUNT)), f"all {COUNT} scores are 1; a boundary"),
        ("image,smile\n" + "".join(f"{n:05d}.png,{n}\n" for n in range(12)), "needs 10 of each"),
        ("image,smile\n" + "".join(f"{n:05d}.png,\n" for n in range(COUNT)), "0 low and 0 high scores"),
    ],
)
def test_tables_that_cannot_be_used(
    sampled: Sampled, refuse: Callable[..., str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "scores.csv").write_text(text)
    line = refuse(
        "fit", sampled.folder, "--scores", tmp_path / "scores.csv", "--model", sampled.model, "--out", tmp_path / "b"
    )
    assert message in line and not (tmp_path / "b").exists()


def test_options_that_cannot_be_used(sampled: Sampled, refuse: Callable[..., str], tmp_path: Path) -> None:
    fit = ["fit", sampled.folder, "--scores", sampled.scores, "--out", tmp_path / "edits", "--extremes", "0.3"]
    own = [*fit, "--model", sampled.model]
    assert "no scores of wit; there are smile, mood" in refuse(*own, "--against", "smile=wit")
    assert "write an attribute and others" in refuse(*own, "--against", "smile")
    assert "write an attribute and others" in refuse(*own, "--against", "smile=smile")
    assert "has no column wit" in refuse(*own, "--attributes", "wit")
    assert "--layers 3-99: write the first and the last" in refuse(*own, "--layers", "3-99")
    assert "--extremes 0.7" in refuse(*fit[:-1], "0.7", "--model", sampled.model)
    assert "comes with e3dge-video" in refuse(*own, "--as", "starter")
    assert "samples are of tiny's generator, not of starter's" in refuse(*fit, "--model", "starter")
    assert "holds no samples" in refuse("fit", tmp_path, "--scores", sampled.scores, "--out", tmp_path / "edits")
    assert "no such file" in refuse(*own[:3], tmp_path / "none.csv", *own[4:])
    assert not (tmp_path / "edits").exists()


def test_exact_pairs(call: Call, refuse: Callable[..., str], tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "tiny")
    code, out, err = call(
        "pairs", model, "--edits", "smile,glasses", "--pairs", 4, "--out", tmp_path / "edits", "--as", "exact"
    )
    assert code == 0 and "2 edits" in out, err
    made = read_bundle(tmp_path / "cache" / "models" / "exact")
    assert made.spec.edits["glasses"].unit == "glasses put on" and made.spec.edits["age"].unit == "a test"
    assert "have no such edit" in refuse("pairs", model, "--edits", "wings", "--out", tmp_path / "none")
    other = write_tiny_bundle(tmp_path / "other", STYLESDF)
    assert "its generator is a stylesdf one" in refuse("pairs", other, "--out", tmp_path / "none")
