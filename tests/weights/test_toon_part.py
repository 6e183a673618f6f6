"""The toon part of a bundle: an overlay on G that is read strictly, and what lies between it and G."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import e3dge_video
from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.errors import ModelError
from e3dge_video.inversion.load import generator_of
from e3dge_video.inversion.toon import blended, layer_shares
from e3dge_video.training.toon import add_toon
from e3dge_video.weights.bundle import GENERATOR_FILE, TOON_FILE, ToonSpec, read_bundle, read_spec, write_bundle
from tests.support.tiny_model import GENERATOR, STYLESDF, write_tiny_bundle, write_tiny_toon


@pytest.fixture(scope="module", params=[GENERATOR, STYLESDF], ids=["eg3d", "stylesdf"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config: GeneratorConfig = request.param
    return write_tiny_toon(write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny", config))


def test_only_what_differs_is_stored_and_the_rest_stays(folder: Path, tmp_path: Path) -> None:
    before = read_bundle(folder)
    stored, whole = before.tensors[TOON_FILE], before.tensors[GENERATOR_FILE]
    assert 0 < len(stored) < len(whole) and all((stored[key] != whole[key]).any() for key in stored)
    others = ToonSpec("others", "CC0-1.0", outline=True)
    again = add_toon(folder, tmp_path, whole, whole | stored, others, {"made": "again"})
    assert again.files == before.spec.files and read_spec(tmp_path).toon == others
    drawing = e3dge_video.load_inverter(str(tmp_path), toon=0.5).toon
    assert drawing is not None and drawing.outline
    assert again.provenance["toon"] == {"made": "again"}
    with pytest.raises(ModelError, match="nothing was trained"):
        add_toon(folder, tmp_path, whole, whole, ToonSpec("none", "CC0-1.0"), {})


@torch.no_grad()
def test_degree_zero_is_the_photograph_and_one_the_toon(folder: Path) -> None:
    bundle = read_bundle(folder)
    photo, toon = generator_of(bundle), bundle.tensors[TOON_FILE]
    whole = bundle.tensors[GENERATOR_FILE] | toon
    ends = [blended(photo, toon, degree).state_dict() for degree in (0.0, 1.0)]
    assert all(torch.equal(ends[0][key], value) for key, value in photo.state_dict().items())
    for key, value in ends[1].items():
        torch.testing.assert_close(value, whole[key])
    assert e3dge_video.load_inverter(str(folder)).toon is None


def test_coarse_layers_go_first() -> None:
    keys = ("blocks.3.conv0.weight", "blocks.3.conv1.weight", "blocks.4.conv0.weight", "up.0.w")
    assert list(layer_shares(keys, 0.5).values()) == [1.0, 1.0, 0.5, 0.0]
    assert set(layer_shares(keys, 1.0).values()) == {1.0} and set(layer_shares(keys, 0.0).values()) == {0.0}


def test_what_does_not_fit_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    bundle = read_bundle(folder)
    rest = {name: values for name, values in bundle.tensors.items() if name != TOON_FILE}
    none = write_bundle(tmp_path / "none", replace(bundle.spec, toon=None), rest)
    assert none.toon is None
    with pytest.raises(ModelError, match="has no toon generator, which --toon needs"):
        e3dge_video.load_inverter(str(tmp_path / "none"), toon=1.0)
    foreign = bundle.tensors | {TOON_FILE: {**bundle.tensors[TOON_FILE], "no.such.layer": torch.zeros(2)}}
    write_bundle(tmp_path / "foreign", bundle.spec, foreign)
    with pytest.raises(ModelError, match=r"toon.safetensors: does not fit its model.json \(not known 1, e.g. no.such"):
        e3dge_video.load_inverter(str(tmp_path / "foreign"), toon=1.0)
    with pytest.raises(ModelError, match=r"lists toon.safetensors, but says nothing of it"):
        write_bundle(tmp_path / "silent", replace(bundle.spec, toon=None), bundle.tensors)
    write_bundle(tmp_path / "cut", bundle.spec, bundle.tensors)
    (tmp_path / "cut" / TOON_FILE).write_bytes(b"")
    assert read_spec(tmp_path / "cut").toon is not None
    with pytest.raises(ModelError, match="SHA-256"):
        read_bundle(tmp_path / "cut")
