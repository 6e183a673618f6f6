"""From files of other projects to bundles: what is recognised, what is refused, what is written."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import e3dge_video
from e3dge_video.errors import ModelError
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.weights import importing
from e3dge_video.weights.bundle import read_bundle, read_spec, sha256
from e3dge_video.weights.convert_eg3d import eg3d_config, eg3d_to_native
from e3dge_video.weights.foreign import read_foreign, tensor_groups
from e3dge_video.weights.importing import IMPORTERS, Imported, import_model
from tests.support.eg3d_checkpoint import INIT, RENDERING, foreign_state, official_file

GOLDEN = Path(__file__).parents[1] / "golden" / "eg3d" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal must come before anything is drawn; where it matters, the test asks for the real check image."""
    monkeypatch.setattr(importing, "check_image", lambda generator: torch.zeros(3, 8, 8))


def save(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refusal(cache: Path, *files: Path, name: str = "new") -> str:
    """The one line with which an import is refused; it leaves nothing behind."""
    with pytest.raises(ModelError) as caught:
        import_model(files, name)
    assert not cache.exists() or list(cache.iterdir()) == []
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    return line


def boundary(folder: Path, values: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "boundary.npy", np.asarray(values, np.float32))
    return folder.parent


def test_an_official_pickle(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("E3DGE_CACHE", str(cache.parent))
    torch.manual_seed(0)
    tensors = foreign_state()
    file = save(tmp_path / "heads.pkl", official_file(tensors))
    done = import_model([file], "heads")
    assert done.folder == cache / "heads" and done.project == "EG3D"
    assert sorted(path.name for path in cache.iterdir()) == ["heads"]
    config = eg3d_config(INIT, resolution=16)
    spec = read_spec(done.folder)
    assert spec == done.spec and spec.generator == config and (spec.resolution, spec.neural_resolution) == (128, 16)
    assert spec.encoder is None and spec.edits == {} and "NVIDIA" in spec.licence
    stored = read_bundle(done.folder).tensors["generator.safetensors"]
    native = eg3d_to_native(tensors, config)
    assert stored.keys() == native.keys() and all(torch.equal(stored[key], native[key]) for key in native)

    generator = e3dge_video.load_generator("heads")
    reference = EG3D(config)
    reference.load_state_dict(native)
    z = torch.randn(1, 8)
    assert torch.equal(generator.map(z), reference.eval().map(z))

    assert spec.check is not None and len(spec.check.fields) == 48
    facts = spec.provenance
    assert facts["imported"] == [
        {"name": "heads.pkl", "bytes": file.stat().st_size, "sha256": sha256(file), "kind": "EG3D pickle"}
    ]
    assert facts["training_set"]["path"] == "heads.zip" and facts["class"] == "TriPlaneGenerator"
    listed = [name for names in facts["ignored"].values() for name in names]
    assert facts["used"] == done.used == len(native) and len(listed) == done.ignored
    assert sorted(listed) == sorted({*tensors} - {key for key in tensors if key in _used(tensors, native)} | {"G", "D"})
    with pytest.raises(ModelError, match="a generator alone, without the encoders"):
        e3dge_video.load_inverter("heads")


def _used(foreign: dict[str, Tensor], native: dict[str, Tensor]) -> set[str]:
    return {key for key, value in foreign.items() if any(value is taken for taken in native.values())}


def test_the_reference_networks(cache: Path) -> None:
    """Whoever has the tensors and the options gets the very generator that reproduces the reference images."""
    done = import_model([GOLDEN / "ffhq512.state_fp16.safetensors", GOLDEN / "ffhq512.config.json"], "ffhq")
    options = json.loads((GOLDEN / "ffhq512.config.json").read_text())["init_kwargs"]
    config = eg3d_config(options)
    assert done.spec.generator == config
    expected = eg3d_to_native(load_file(GOLDEN / "ffhq512.state_fp16.safetensors"), config)
    stored = e3dge_video.load_generator("ffhq").state_dict()
    assert all(torch.equal(stored[key], expected[key].float()) for key in stored)


@pytest.mark.parametrize("form", ["g_ema", "flat", "legacy"])
def test_torch_files(tmp_path: Path, form: str) -> None:
    tensors = foreign_state()
    values: dict[str, Any] = tensors
    if form == "g_ema":
        values = {"g_ema": tensors, "d": {"b4.fc.weight": torch.ones(1)}, "init_kwargs": INIT, "step": 3}
    torch.save(values, tmp_path / "net.pt", _use_new_zipfile_serialization=form != "legacy")
    (tmp_path / "options.json").write_text(json.dumps({"init_kwargs": INIT}))
    done = import_model([tmp_path / "net.pt"] + ([tmp_path / "options.json"] if form != "g_ema" else []), "net")
    assert done.spec.generator == eg3d_config(INIT)
    rest = done.spec.provenance["ignored"].get("no part of the averaged generator")
    assert rest == (["d", "step"] if form == "g_ema" else None)


def test_edits_of_a_boundary_folder(tmp_path: Path) -> None:
    file = save(tmp_path / "net.pkl", official_file())
    edits = boundary(tmp_path / "edits" / "Smiling", [[1, 0, 0, 0, 0, 0]])
    boundary(tmp_path / "edits" / "Young", [0, 0, 0, 0, 0, -1])
    done = import_model([file, edits], "net")
    assert sorted(done.spec.edits) == ["smiling", "young"]
    stored = read_bundle(done.folder).tensors["edits.safetensors"]
    assert torch.equal(stored["smiling"], torch.eye(6)[0].expand(14, 6)) and stored["young"][3, 5] == -1
    assert {"name": "Young/boundary.npy", "kind": "boundaries"}.items() <= done.spec.provenance["imported"][2].items()


def test_boundaries_that_cannot_be_used(tmp_path: Path, cache: Path) -> None:
    file = save(tmp_path / "net.pkl", official_file())
    wide = boundary(tmp_path / "wide" / "Bangs", np.ones((1, 256)))
    line = refusal(cache, file, wide)
    assert f"{wide}: boundary bangs is 256 wide, but this generator's codes are 6 wide" in line
    assert "boundaries belong to a generator" in refusal(cache, wide)
    assert "ATTRIBUTE/boundary.npy" in refusal(cache, file, cache.parent.parent)
    good = boundary(tmp_path / "good" / "Bangs", np.ones(6))
    again = boundary(tmp_path / "again" / "bangs", np.ones(6))
    assert "boundary bangs is in another folder, too" in refusal(cache, file, good, again)
    for values, message in [
        (np.ones((2, 6)), "one row of floats"),
        (np.float32(1), "one row of floats"),
        (np.full(6, np.nan), "gives no direction"),
        (np.zeros(6), "gives no direction"),
    ]:
        assert message in refusal(cache, file, boundary(tmp_path / "bad" / "Bangs", values))
    path = tmp_path / "bad" / "Bangs" / "boundary.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert f"{path}: not a readable .npy file" in refusal(cache, file, tmp_path / "bad")
    with path.open("wb") as stream:  # declares 40 GB
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**10,)})
        stream.write(b"\x00" * 24)
    assert f"{path}: not a readable .npy file" in refusal(cache, file, tmp_path / "bad")
    path.write_bytes(path.read_bytes()[:30])
    assert f"{path}: not a readable .npy file" in refusal(cache, file, tmp_path / "bad")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.pkl", b"", "is empty; the download failed"),
        ("page.pkl", b"\n <!DOCTYPE html><html>Virus scan warning</html>", "is a web page saved under this name"),
        ("page.pt", b"<html>quota</html>", "is a web page saved under this name"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 64, "none of the files that can be imported"),
        ("old.pkl", b"cos\nsystem\n(S'true'\ntR.", "none of the files that can be imported"),
        ("half.pt", b"PK\x03\x04" + b"\x00" * 100, "cannot be read as a torch checkpoint"),
        ("half.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{", "not a readable safetensors file"),
        ("bomb.safetensors", b"\xff\xff\xff\xff\xff\xff\x00\x00{", "not a readable safetensors file"),
        ("broken.json", b'{"init_kwargs": ', "cannot be read as JSON options"),
        ("deep.json", b'{"a":' * 100_000, "cannot be read as JSON options"),
        ("legacy.pt", bytes.fromhex("80028a0a6cfc9c46f9206aa85019") + b".junk", "the download is not complete"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, cache: Path, name: str, data: bytes, message: str) -> None:
    file = save(tmp_path / name, data)
    line = refusal(cache, file)
    assert line.startswith(f"{file}: ") and message in line


def test_a_file_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    assert "no such file; check the path" in refusal(cache, tmp_path / "absent.pkl")


class Evil:
    """Runs a command when Python's own unpickler reads it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_that_try_to_run_code(tmp_path: Path, cache: Path, zipped: bool) -> None:
    harmed = tmp_path / "harmed"
    values = {"g_ema": Evil(f"touch {harmed}")}
    torch.save(values, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    line = refusal(cache, tmp_path / "evil.pt")
    assert "refers to more than tensors and plain values, and nothing in it is executed" in line
    assert not harmed.exists()


def test_a_zip_bomb(tmp_path: Path, cache: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\x00" * 10_000_000)
    assert "unpacks to more than its own size" in refusal(cache, tmp_path / "bomb.pt")


def _with_description(path: Path, description: bytes) -> Path:
    """A zipped torch file whose pickle is this one."""
    torch.save({"a": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, description if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize(
    ("description", "message"),
    [
        # Torch's own reader would hash this key and crash.
        (b"\x80\x02})" + b"\x85" * 10_000 + b"Ns.", "keys that are neither text nor integers"),
        (b"\x80\x02ccollections\nOrderedDict\n]])" + b"\x85" * 10_000 + b"aNaa\x85R.", "a key is no text"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "a table is made of pairs"),
        (b"\x80\x02" + b"(" * 20_100, "more than 20000 pickle instructions"),
        (b"\x80\x02X\xff\xff\x00\x00", "not complete"),
        (b"\x80\x02}X\x03\x00\x00\x00a\nbNs.", r"'a\nb' is no name of a tensor"),
    ],
)
def test_torch_files_that_are_bombs(
    tmp_path: Path, cache: Path, description: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e3dge_video.weights.torch_files._MAX_STEPS", 20_000)
    line = refusal(cache, _with_description(tmp_path / "bomb.pt", description))
    assert line.startswith(f"{tmp_path / 'bomb.pt'}: ") and message in line
    legacy = save(tmp_path / "old.pt", torch_legacy({"a": torch.ones(1)}, description))
    assert refusal(cache, legacy).startswith(f"{legacy}: ")


def torch_legacy(values: Any, description: bytes) -> bytes:
    """A torch file of the older format whose fourth pickle, the checkpoint itself, is this one."""
    stream = io.BytesIO()
    torch.save(values, stream, _use_new_zipfile_serialization=False)
    begin = stream.getvalue().index(b".\x80\x02}q\x00X\x01\x00\x00\x00a") + 1
    return stream.getvalue()[:begin] + description


def test_a_state_dictionary_with_versions(tmp_path: Path) -> None:
    """Torch's state dictionaries carry an attribute, and optimisers have tables by number."""
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2)).sum().backward()
    optimizer.step()
    state = module.state_dict()
    assert state._metadata
    for zipped in (True, False):
        values = {"g_ema": state, "optimizer": optimizer.state_dict()}
        torch.save(values, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
        read = read_foreign(tmp_path / "net.pt")
        assert torch.equal(tensor_groups(read.values)["g_ema"]["weight"], state["weight"])


def _runner(path: Path) -> None:
    torch.save({"iter": 3, "encoder": {"body.0.weight": torch.ones(2)}, "netLocal": {"stem": torch.ones(1)}}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            _runner,
            r"called encoder\.body\.0\.weight, netLocal\.stem, …\); it can import: EG3D, E3DGE, StyleSDF",
        ),
        (lambda path: torch.save({"iter": 3}, path), r"it holds no tensors"),
        (lambda path: torch.save([torch.ones(1)], path), r"holds list, no table of tensors"),
        (lambda path: torch.save(foreign_state(), path), r"has no init_kwargs"),
        (lambda path: torch.save({"a\nb": torch.ones(1)}, path), r"'a\\nb' is no name of a tensor"),
        (lambda path: save_file({"other": torch.ones(1)}, path), r"its tensors are called other, …"),
    ],
)
def test_checkpoints_of_other_models(tmp_path: Path, cache: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "net.pt")
    line = refusal(cache, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=message):
        raise ModelError(line)


def test_a_project_that_is_added_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """All that a further project needs is an entry in `IMPORTERS`."""
    eg3d = IMPORTERS[0]
    file = save(tmp_path / "net.pkl", official_file())
    _runner(tmp_path / "runner.pt")

    class Other:
        name = "Other"

        @staticmethod
        def recognises(foreign: Any) -> bool:
            return "netLocal" in foreign.values

        @staticmethod
        def convert(files: Any, boundaries: Any, discriminator: bool) -> Any:
            assert [f.path for f in files] == [tmp_path / "runner.pt"]
            return eg3d.convert([read_foreign(file)], boundaries, discriminator)

    monkeypatch.setattr(importing, "IMPORTERS", (eg3d, Other))
    done = import_model([tmp_path / "runner.pt"], "other")
    assert isinstance(done, Imported) and done.project == "Other"


def _bad(key: str, value: float) -> dict[str, Tensor]:
    state = foreign_state()
    state[key].view(-1)[0] = value
    return state


def _without(key: str) -> dict[str, Tensor]:
    return {name: value for name, value in foreign_state().items() if name != key}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (_without("decoder.net.0.bias"), "1 missing (decoder.hidden.bias)"),
        ({**foreign_state(), "decoder.net.4.bias": torch.zeros(1)}, "1 unknown (decoder.net.4.bias)"),
        ({**foreign_state(), "decoder.net.0.bias": torch.zeros(7)}, "1 misshapen (decoder.hidden.bias (7,)"),
        ({**foreign_state(), "decoder.net.0.bias": torch.zeros(64).long()}, "holds torch.int64 instead of floats"),
        (_bad("decoder.net.0.bias", float("nan")), "decoder.net.0.bias has values that are NaN or infinite"),
        (_bad("backbone.mapping.w_avg", float("inf")), "backbone.mapping.w_avg has values that are NaN or infinite"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, cache: Path, tensors: dict[str, Tensor], message: str) -> None:
    file = save(tmp_path / "net.pkl", official_file(tensors))
    line = refusal(cache, file)
    assert line.startswith(f"{file}: ") and message in line


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"wings": 2}, "unknown option wings"),
        ({"z_dim": "many"}, "an option has a value that cannot be used"),
        ({"rendering_kwargs": {**RENDERING, "depth_resolution": 10**9}}, "depth_resolution = 1000000000"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "1000000000 mapping layers"),
        ({"rendering_kwargs": {**RENDERING, "ray_start": 5}}, "near_far must satisfy 0 < near < far"),
        ({"rendering_kwargs": {**RENDERING, "depth_resolution": 6.5}}, "rays.coarse = 6.5: expected int"),
        ({"rendering_kwargs": {**RENDERING, "box_warp": [1]}}, "an option has a value that cannot be used"),
        ({"channel_base": 1024.5}, "backbone.channel_base = 1024.5: expected int"),
        ({"z_dim": 10**30}, "an option has a value that cannot be used"),
        ({"rendering_kwargs": None}, "an option has a value that cannot be used"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, cache: Path, init: dict[str, Any], message: str) -> None:
    save_file(foreign_state(), tmp_path / "net.safetensors")
    (tmp_path / "options.json").write_text(json.dumps({"init_kwargs": {**INIT, **init}}))
    line = refusal(cache, tmp_path / "net.safetensors", tmp_path / "options.json")
    assert line.startswith(f"{tmp_path / 'net.safetensors'}: ") and message in line


def test_more_files_than_are_used(tmp_path: Path, cache: Path) -> None:
    file = save(tmp_path / "net.pkl", official_file())
    other = save(tmp_path / "two.pkl", official_file())
    assert f"{other}: is not used" in refusal(cache, file, other)
    assert f"{file}: is not used" in refusal(cache, file, file)


def test_names(tmp_path: Path, cache: Path) -> None:
    file = save(tmp_path / "net.pkl", official_file())
    for name in ("", "../up", "a/b", ".hidden", "a b", "x" * 65):
        assert "a model's name has only letters" in refusal(cache, file, name=name)
    assert "comes with e3dge-video" in refusal(cache, file, name="starter")
    first = import_model([file], "net")
    (first.folder / "kept").touch()
    with pytest.raises(ModelError, match="is there already"):
        import_model([file], "net")
    assert (first.folder / "kept").exists()
    import_model([file], "net", overwrite=True)
    assert not (first.folder / "kept").exists() and [path.name for path in cache.iterdir()] == ["net"]


def test_a_failed_import_keeps_the_former_model(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / "net.pkl", official_file())
    folder = import_model([file], "net").folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("e3dge_video.weights.bundle.save", full)
    with pytest.raises(ModelError, match=r"No space left on device.*is the disk full"):
        import_model([file], "net", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in cache.iterdir()] == ["net"]


def test_pictures_that_are_no_numbers(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "check_image", lambda generator: torch.full((3, 8, 8), torch.nan))
    file = save(tmp_path / "net.pkl", official_file())
    assert "draws pictures that are no finite numbers" in refusal(cache, file)
