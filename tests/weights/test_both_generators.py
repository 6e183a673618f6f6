"""Bundles, import and verification, gone through with each generator: nothing here asks which one it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import e3dge_video
from e3dge_video.errors import ConfigError, ModelError
from e3dge_video.inversion.load import directions_of
from e3dge_video.inversion.verify import verify_bundle
from e3dge_video.models.build import build_generator
from e3dge_video.models.generators.base import Generator
from e3dge_video.training.runs import averaged, load_generator_run
from e3dge_video.weights import importing
from e3dge_video.weights.boundaries import write_boundaries
from e3dge_video.weights.bundle import (
    EDITS_FILE,
    GENERATOR_FILE,
    BundleSpec,
    EditSpec,
    read_bundle,
    read_spec,
    write_bundle,
)
from e3dge_video.weights.importing import import_model
from tests.support.official_models import OFFICIAL_MODELS, STYLESDF_MODEL, OfficialModel
from tests.support.refusals import refusal

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(params=OFFICIAL_MODELS)
def official(request: pytest.FixtureRequest) -> OfficialModel:
    torch.manual_seed(0)
    return OFFICIAL_MODELS[request.param]


def picture(generator: Generator) -> Tensor:
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return generator.synthesize(generator.map(z, truncation=0.7), generator.frontal_camera())


def bundle(official: OfficialModel, folder: Path) -> tuple[Path, Generator]:
    """A bundle written by hand, and its generator."""
    config, native = official.native(official.state())
    generator = build_generator(config)
    generator.load_state_dict(native)
    spec = BundleSpec("heads", official.backbone, "CC0-1.0", config.image_resolution, config.resolution, "eg3d", config)
    write_bundle(folder, spec, {GENERATOR_FILE: native}, exact=True)
    return folder, generator.eval()


def test_a_bundle_gives_back_the_generator(official: OfficialModel, tmp_path: Path) -> None:
    folder, generator = bundle(official, tmp_path / "bundle")
    loaded = e3dge_video.load_generator(str(folder))
    assert type(loaded) is type(generator) and loaded.config == generator.config
    assert torch.equal(picture(loaded), picture(generator))
    assert json.loads((folder / "model.json").read_text())["backbone"] == official.backbone
    assert read_spec(folder).generator == generator.config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("backbone", "planes", "backbone 'planes'); this version knows eg3d, stylesdf"),
        ("backbone", None, "backbone None); this version knows"),
        ("backbone", ["eg3d"], "this version knows"),
        ("generator", 3, "has no options of a known generator"),
        ("generator", {"wings": 2}, "generator.wings is not an option"),
        ("generator", {"resolution": "large"}, "generator.resolution = 'large': expected int"),
        ("generator", {"resolution": 0}, "resolution must be positive"),
    ],
)
def test_options_that_cannot_be_read(
    official: OfficialModel, tmp_path: Path, key: str, value: object, message: str
) -> None:
    folder, _ = bundle(official, tmp_path / "bundle")
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, key: value}))
    with pytest.raises(ModelError) as caught:
        e3dge_video.load_generator(str(folder))
    line = str(caught.value)
    assert line.startswith(str(folder)) and message in line and "\n" not in line


def test_tensors_that_do_not_fit_the_options(official: OfficialModel, tmp_path: Path) -> None:
    folder, _ = bundle(official, tmp_path / "bundle")
    native = read_bundle(folder).tensors[GENERATOR_FILE]
    native.pop(official.lost[1])
    write_bundle(folder, read_spec(folder), {GENERATOR_FILE: native})
    with pytest.raises(ModelError, match=rf"does not fit its model.json \(missing 1, e.g. {official.lost[1]}\)"):
        e3dge_video.load_generator(str(folder))


def test_options_of_the_other_generator(official: OfficialModel, tmp_path: Path) -> None:
    folder, generator = bundle(official, tmp_path / "bundle")
    [other] = OFFICIAL_MODELS.keys() - {official.backbone}
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, "backbone": other}))
    with pytest.raises(ModelError, match=r"generator\.\w+ is not an option"):
        read_spec(folder)
    with pytest.raises(ConfigError, match=f"backbone {other} does not go with"):
        BundleSpec("heads", other, "CC0-1.0", 8, 8, "eg3d", generator.config)


def test_an_import_takes_or_lists_everything(official: OfficialModel, tmp_path: Path) -> None:
    state = official.state()
    file, edits = official.write(tmp_path, state), official.write_boundaries(tmp_path / "edits")
    done = import_model([file, edits], "heads")
    config, native = official.native(state)
    assert done.project == official.project and done.spec == read_spec(done.folder)
    assert (done.spec.backbone, done.spec.generator) == (official.backbone, config)
    assert (done.spec.resolution, done.spec.neural_resolution) == (config.image_resolution, config.resolution)
    stored = read_bundle(done.folder).tensors
    assert stored[GENERATOR_FILE].keys() == native.keys()
    assert all(torch.equal(stored[GENERATOR_FILE][key], native[key]) for key in native)

    ignored = done.spec.provenance["ignored"]
    listed = [key for keys in ignored.values() for key in keys if key in state]
    assert len(listed) == len(set(listed)) and done.used + len(listed) == len(state)
    assert all(reason and keys for reason, keys in ignored.items())
    assert done.spec.provenance["used"] == done.used
    assert done.spec.provenance["imported"][0]["name"] == official.file

    first, last = official.rows
    assert done.spec.edits["smiling"].limits == official.limits
    direction = stored["edits.safetensors"]["smiling"]
    assert direction.shape == config.latent_shape
    assert direction[0].tolist() == first and direction[-1].tolist() == last
    generator = e3dge_video.load_generator("heads")
    moved = generator.map(torch.zeros(1, generator.z_dim)) + direction
    assert not torch.equal(generator.planes(moved).values, generator.planes(moved - direction).values)


def found_here(official: OfficialModel, folder: Path) -> tuple[Tensor, EditSpec]:
    """Write the boundaries of an edit; returns what was written."""
    config, _ = official.native(official.state())
    generator = torch.Generator().manual_seed(3)
    direction = torch.zeros(config.latent_shape)
    for part in config.code_parts:
        direction[part.first : part.stop, : part.width] = torch.randn(part.width, generator=generator)
    edit = EditSpec("a little wiser", (-1.5, 2.5), layers=(1, 3))
    write_boundaries(folder, {"wise": direction}, {"wise": edit}, config, {"wise": {"seed": 3}})
    return direction, edit


def test_boundaries_found_here_are_imported_as_they_are(official: OfficialModel, tmp_path: Path) -> None:
    direction, edit = found_here(official, tmp_path / "edits")
    done = import_model([official.write(tmp_path), tmp_path / "edits"], "heads")
    assert done.spec.edits == {"wise": edit}
    made = directions_of(read_bundle(done.folder))["wise"]
    torch.testing.assert_close(made[1:3], direction[1:3])
    assert not made[0].any() and not made[3:].any()


def test_uses_of_boundaries_that_cannot_be(official: OfficialModel, cache: Path, tmp_path: Path) -> None:
    found_here(official, tmp_path / "edits")
    # Of an edit with two boundaries the last one's use counts.
    path = tmp_path / "edits" / f"{official.native(official.state())[0].code_parts[-1].prefix}wise" / "edit.json"
    good = json.loads(path.read_text())
    for change, message in [
        ({"step": -1.0}, "the step above 0"),
        ({"step": "far"}, "step = 'far': expected float"),
        ({"steps": 1.0}, "steps is not an option"),
        ({"edit": {**good["edit"], "limits": [2, 1]}}, "the limits rising"),
        ({"edit": {**good["edit"], "layers": [2, 999]}}, "is for layers 2-998, this generator has 0-"),
    ]:
        path.write_text(json.dumps(good | change))
        assert message in refusal(cache, official.write(tmp_path), tmp_path / "edits")


def test_a_direction_keeps_to_its_layers(official: OfficialModel, tmp_path: Path) -> None:
    folder, generator = bundle(official, tmp_path / "bundle")
    native, rows = read_bundle(folder).tensors[GENERATOR_FILE], generator.latent_shape[0]
    spec = replace(read_spec(folder), edits={"wise": EditSpec("wiser", (-1.0, 1.0), layers=(0, 2))})
    write_bundle(folder, spec, {GENERATOR_FILE: native, EDITS_FILE: {"wise": torch.ones(generator.latent_shape)}})
    with pytest.raises(ModelError, match="wise moves other layers than the 0-1 that its"):
        directions_of(read_bundle(folder))
    values = json.loads((folder / "model.json").read_text())
    values["edits"]["wise"]["layers"] = [3, rows + 1]
    (folder / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=rf"edits.wise.layers = \[3, {rows + 1}\]: expected \[first, stop\] within"):
        read_spec(folder)


def test_an_import_verifies(official: OfficialModel, tmp_path: Path) -> None:
    folder = import_model([official.write(tmp_path)], "heads").folder
    done = verify_bundle("heads")
    side = done.spec.resolution
    assert done.difference is not None and done.difference < 1e-4
    assert done.image.shape == (3, side, side) and float(done.image.std()) > 1e-3
    with pytest.raises(ModelError, match="a generator alone, without the encoders"):
        e3dge_video.load_inverter("heads")
    tensors = read_bundle(folder).tensors
    first = next(iter(tensors[GENERATOR_FILE].values()))
    first.mul_(2)
    write_bundle(folder, done.spec, tensors, exact=True)
    with pytest.raises(ModelError, match="its check image differs by"):
        verify_bundle("heads")


def changed(change: Callable[[State, str], object]) -> Callable[[State, str], State]:
    def apply(state: State, key: str) -> State:
        change(state, key)
        return state

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(lambda state, key: state.pop(key)), "1 missing ({ours})"),
        (changed(lambda state, key: state.update({key + ".more": torch.zeros(1)})), "1 unknown ("),
        (changed(lambda state, key: state.update({key: torch.zeros(7)})), "1 misshapen ({ours} (7,) instead of"),
        (changed(lambda state, key: state.update({key: torch.zeros([])})), "1 misshapen ({ours} () instead of"),
        (changed(lambda state, key: state[key].fill_(torch.nan)), "{theirs} has values that are NaN or infinite"),
        (changed(lambda state, key: state[key].view(-1)[0].fill_(torch.inf)), "{theirs} has values that are NaN"),
        (changed(lambda state, key: state.update({key: state[key].long()})), "{theirs} holds torch.int64"),
        (lambda state, key: {key: state[key]}, " missing"),
    ],
)
def test_tensors_that_do_not_fit(
    official: OfficialModel,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[State, str], State],
    message: str,
) -> None:
    monkeypatch.setattr(importing, "check_image", lambda generator: pytest.fail("was drawn"))
    theirs, ours = official.lost
    file = official.write(tmp_path, change(official.state(), theirs))
    with pytest.raises(ModelError) as caught:
        import_model([file], "heads")
    line = str(caught.value)
    assert line.startswith(f"{file}: ") and message.format(ours=ours, theirs=theirs) in line
    assert "\n" not in line and len(line) < 600 and not cache.exists()


def test_a_truncated_checkpoint(official: OfficialModel, tmp_path: Path, cache: Path) -> None:
    file = official.write(tmp_path)
    whole = file.read_bytes()
    for share in (0.1, 0.5, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelError) as caught:
            import_model([file], "heads")
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    assert not cache.exists()


def test_two_checkpoints(tmp_path: Path, cache: Path) -> None:
    first, second = (official.write(tmp_path) for official in OFFICIAL_MODELS.values())
    for files in ([first, second], [second, first], [second, second]):
        with pytest.raises(ModelError, match=r"\.(pkl|pt): is not used; an? (EG3D|StyleSDF) model is one"):
            import_model(files, "heads")
    assert not cache.exists()


def test_training_says_what_it_cannot_start_from(tmp_path: Path) -> None:
    folder, _ = bundle(STYLESDF_MODEL, tmp_path / "bundle")
    assert averaged(folder).keys() == {"generator"}
    with pytest.raises(ConfigError, match="its generator is a stylesdf one; what is trained here is eg3d"):
        load_generator_run(folder)
