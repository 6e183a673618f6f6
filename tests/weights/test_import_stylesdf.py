"""StyleSDF checkpoints of every kind, and E3DGE's boundaries for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import e3dge_video
from e3dge_video.config.stylesdf import AFHQ_512, FFHQ_1024
from e3dge_video.inversion.verify import verify_bundle
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights import public_files
from e3dge_video.weights.bundle import read_bundle
from e3dge_video.weights.convert_stylesdf import stylesdf_config, stylesdf_to_native
from e3dge_video.weights.importing import import_model
from e3dge_video.weights.public_files import PublicFile
from tests.support.refusals import refusal
from tests.support.stylesdf_checkpoint import foreign_renderer, foreign_state, official_file

GOLDEN = Path(__file__).parents[1] / "golden" / "stylesdf" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return tmp_path / "cache" / "models"


def boundaries(folder: Path, **widths: int) -> Path:
    """A folder with a boundary of ones for each name."""
    for name, width in widths.items():
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "boundary.npy", np.ones((1, width), np.float32))
    return folder


def test_the_reference_network(tmp_path: Path) -> None:
    """Whoever has the official tensors gets the very generator that reproduces the reference images."""
    values = load_file(GOLDEN / "full_small.safetensors")
    state = {key.removeprefix("state."): value for key, value in values.items() if key.startswith("state.")}
    import_model([official_file(tmp_path / "full.pt", state)], "full")
    generator = e3dge_video.load_generator("full")
    expected = StyleSDF(stylesdf_config(state))
    expected.load_state_dict(stylesdf_to_native(state, expected.config))
    assert isinstance(generator, StyleSDF) and generator.config == expected.config
    ours, theirs = generator.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def _full(path: Path) -> None:
    official_file(path)


def _renderer(path: Path) -> None:
    official_file(path, foreign_renderer())


def _toon(path: Path) -> None:
    torch.save({"g_ema": dict(foreign_state())}, path)


def _old(path: Path) -> None:
    torch.save({"g_ema": dict(foreign_state()), "iter": 400}, path, _use_new_zipfile_serialization=False)


def _flat(path: Path) -> None:
    torch.save(dict(foreign_state()), path)


def _safetensors(path: Path) -> None:
    save_file(foreign_state(), path)


BEFORE = ("the generator before averaging", ["g"])


@pytest.mark.parametrize(
    ("write", "side", "rest"),
    [
        (_full, 32, [BEFORE, ("the image discriminator, which only training needs; --discriminator keeps it", ["d"])]),
        (_renderer, 64, [BEFORE, ("the volume discriminator with its view head, which nothing here uses", ["d"])]),
        (_toon, 32, []),
        (_old, 32, [("no part of the averaged generator", ["iter"])]),
        (_flat, 32, []),
        (_safetensors, 32, []),
    ],
)
def test_checkpoints_of_every_kind(
    tmp_path: Path, write: Callable[[Path], None], side: int, rest: list[tuple[str, list[str]]]
) -> None:
    write(tmp_path / "net.pt")
    spec = import_model([tmp_path / "net.pt"], "net").spec
    assert (spec.backbone, spec.crop, spec.resolution) == ("stylesdf", "ffhq", side)
    ignored = spec.provenance["ignored"]
    names = {"no forward pass reads them: the layer's bias is `activate.bias`", "every layer holds the same low-pass"}
    others = [(reason, keys) for reason, keys in ignored.items() if not reason.startswith(tuple(names))]
    assert others == rest
    assert e3dge_video.load_generator("net").z_dim == 6


def test_edits_move_the_renderer_and_the_decoder(tmp_path: Path) -> None:
    file = official_file(tmp_path / "net.pt")
    parts = {
        f"{part}_{name}": width
        for part, width in (("renderer", 6), ("decoder", 7))
        for name in ("Bangs", "No_Beard", "Young", "Hat", "Eyeglasses")
    }
    done = import_model([file, boundaries(tmp_path / "edits", **parts)], "net")
    limits = {name: use.limits for name, use in done.spec.edits.items()}
    assert limits == {"bangs": (-1.5, 2.0), "no_beard": (-1.5, 1.5), "young": (-2.0, 2.0), "hat": (-3.0, 3.0)}
    assert done.spec.edits["young"].unit.startswith("younger")
    unstable = "an edit that E3DGE's authors found unstable and do not load"
    assert done.spec.provenance["ignored"][unstable] == ["renderer_eyeglasses", "decoder_eyeglasses"]
    directions = read_bundle(done.folder).tensors["edits.safetensors"]
    assert directions.keys() == limits.keys()
    generator = e3dge_video.load_generator("net")
    assert isinstance(generator, StyleSDF)
    field_codes, decoder_codes = generator.unpack(directions["no_beard"][None])
    assert torch.equal(field_codes, torch.ones(1, 3, 6)) and torch.equal(decoder_codes, torch.ones(1, 6, 7))
    assert float(directions["no_beard"].sum()) == 3 * 6 + 6 * 7  # nothing where no code is


def test_one_attribute_from_two_folders(tmp_path: Path) -> None:
    file = official_file(tmp_path / "net.pt")
    edits = boundaries(tmp_path / "edits", renderer_Bangs=6, decoder_Bangs=7)
    done = import_model([file, edits / "renderer_Bangs", edits / "decoder_Bangs"], "net")
    assert done.spec.edits.keys() == {"bangs"}


def test_edits_of_a_renderer_alone(tmp_path: Path) -> None:
    file = official_file(tmp_path / "net.pt", foreign_renderer())
    edits = boundaries(tmp_path / "edits", renderer_Bangs=6, decoder_Bangs=7, renderer_Young=6)
    done = import_model([file, edits], "net")
    assert done.spec.edits.keys() == {"bangs", "young"}
    reason = "boundaries of the decoder's codes, which this model does not have"
    assert done.spec.provenance["ignored"][reason] == ["decoder_bangs"]
    assert read_bundle(done.folder).tensors["edits.safetensors"]["bangs"].shape == (3, 6)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"renderer_Bangs": 6}, "boundary renderer_bangs has no decoder_bangs beside it"),
        ({"decoder_Bangs": 7}, "boundary decoder_bangs has no renderer_bangs beside it"),
        ({"renderer_Bangs": 6, "decoder_Bangs": 6}, "boundary decoder_bangs is 6 wide, but this generator's codes are"),
        ({"renderer_Bangs": 7, "decoder_Bangs": 7}, "boundary renderer_bangs is 7 wide, but this generator's codes"),
        ({"Bangs": 6}, "boundary bangs is for other codes than StyleSDF's"),
        ({"renderer_": 6}, "boundary renderer_ is for other codes than StyleSDF's"),
    ],
)
def test_boundaries_that_cannot_be_used(tmp_path: Path, cache: Path, widths: dict[str, int], message: str) -> None:
    edits = boundaries(tmp_path / "edits", **widths)
    line = refusal(cache, official_file(tmp_path / "net.pt"), edits)
    assert line.startswith(f"{edits}: ") and message in line


def test_a_published_file_is_known_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor tells cats from people."""
    file = official_file(tmp_path / "net.pt")
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    size = file.stat().st_size

    def published(**facts: Any) -> None:
        entry = PublicFile("stylesdf-afhq512", "afhq.pt", "animals", "CC X", "there", **facts)
        monkeypatch.setattr(public_files, "public_files", lambda: {"stylesdf-afhq512": entry})

    published(bytes=size, md5=md5)
    spec = import_model([file], "known").spec
    assert (spec.crop, spec.licence) == ("afhq", "CC X; read it: there")
    assert spec.generator.viewpoint == AFHQ_512.viewpoint
    assert spec.provenance["published_as"] == "stylesdf-afhq512"
    for facts in ({"bytes": size, "md5": "0" * 32}, {"bytes": size + 1, "md5": md5}, {"bytes": size}):
        published(**facts)
        spec = import_model([file], "other", overwrite=True).spec
        assert spec.crop == "ffhq" and spec.provenance["published_as"] is None and "official StyleSDF" in spec.licence
        assert spec.generator.viewpoint == FFHQ_1024.viewpoint


def test_a_toon_generator_has_mean_codes_of_its_own(tmp_path: Path) -> None:
    """Fine-tuned from another generator, with the same layout; the check image is drawn, and drawn again."""
    faces, toons = official_file(tmp_path / "faces.pt"), tmp_path / "toons.pt"
    state = {key: value * 1.1 if "style" in key else value for key, value in foreign_state().items()}
    torch.save({"g_ema": state}, toons)
    import_model([faces], "faces"), import_model([toons], "toons")
    assert (verify_bundle("toons").difference or 0) < 1e-3
    generator, other = e3dge_video.load_generator("toons"), e3dge_video.load_generator("faces")
    assert isinstance(generator, StyleSDF) and isinstance(other, StyleSDF)
    expected = generator.mean_latents.clone()
    generator.measure_mean(torch.randn(10_000, 6, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(generator.mean_latents, expected)
    assert not torch.allclose(expected, other.mean_latents, atol=0.01)


def _spoiled(key: str, value: Tensor) -> dict[str, Tensor]:
    return {**foreign_state(), key: value}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (_spoiled("style.0.bias", torch.zeros([]).expand(10**13)), "describes more values than are stored"),
        (_spoiled("style.0.bias", torch.zeros(6).to_sparse()), "instead of floats"),
        (_spoiled("style.0.bias", torch.zeros(6, dtype=torch.complex64)), "instead of floats"),
        (_spoiled("style.0.bias", torch.zeros(6, device="meta")), "describes more values than are stored"),
        (_spoiled("style.0.weight", torch.zeros(0, 6)), "siren.width must be positive, got 0"),
        (_spoiled("decoder.conv1.activate.bias", torch.zeros(0)), "decoder.channels must be positive widths"),
        (_spoiled("decoder.noises.noise_0", torch.zeros([])), "decoder.noises.noise_0 is missing"),
        (_spoiled("decoder.noises.noise_0", torch.zeros(0)), "resolution must be positive, got 0"),
        (_spoiled("decoder.noises.noise_0", torch.zeros(1, 1, 9, 9)), "misshapen"),
        (_spoiled("decoder.to_rgbs.7.bias", torch.zeros(3)), "layers decoder.to_rgbs.* are missing"),
        (_spoiled("renderer.sigmoid_beta", torch.zeros(1)), "draws pictures that are no finite numbers"),
        (_spoiled("renderer.network.netGlobal.rgb_linear.bias", torch.zeros(3)), "1 unknown"),
    ],
)
def test_tensors_that_cannot_be(tmp_path: Path, cache: Path, state: dict[str, Tensor], message: str) -> None:
    torch.save({"g_ema": state}, tmp_path / "net.pt")
    line = refusal(cache, tmp_path / "net.pt")
    assert line.startswith(f"{tmp_path / 'net.pt'}: ") and message in line


def test_files_that_are_not_used(tmp_path: Path, cache: Path) -> None:
    file = official_file(tmp_path / "net.pt")
    (tmp_path / "options.json").write_text("{}")
    torch.save({"iter": 3}, tmp_path / "more.pt")
    for other in (tmp_path / "options.json", tmp_path / "more.pt"):
        assert f"{other}: is not used; a StyleSDF model is one checkpoint file" in refusal(cache, file, other)
    torch.save({"g": dict(foreign_state())}, tmp_path / "before.pt")
    assert "its tensors are called g.style.0.weight" in refusal(cache, tmp_path / "before.pt")
