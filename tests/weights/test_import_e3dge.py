"""E3DGE's runner checkpoints become models, through the command; what comes out is the network itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import e3dge_video
from e3dge_video.cli.main import main
from e3dge_video.errors import ModelError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.branch_views import released_view
from e3dge_video.inversion.load import load_paper_inverter
from e3dge_video.inversion.paper import PaperInverter, ReleasedObserver
from e3dge_video.inversion.verify import verify_bundle
from e3dge_video.models.build import orbit_of
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.hybrid import HybridEncoders
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.weights import importing, public_files
from e3dge_video.weights.bundle import read_bundle, read_spec, write_bundle
from e3dge_video.weights.convert_e3dge import e3dge_config, e3dge_parameters, e3dge_to_native
from e3dge_video.weights.convert_stylesdf import (
    stylesdf_config,
    stylesdf_to_native,
    volume_discriminator_channels,
    volume_discriminator_to_native,
)
from e3dge_video.weights.importing import import_model
from e3dge_video.weights.public_files import PublicFile
from tests.support import stylesdf_checkpoint
from tests.support.e3dge_checkpoint import runner, write_generator, write_renderer
from tests.support.refusals import refusal

Checkpoint = dict[str, Any]
Command = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Variant:
    """A published kind of checkpoint: its networks beside E0, and what `models info` says of it."""

    networks: tuple[str, ...]
    batch_norm: bool
    info: str

    @property
    def toon(self) -> bool:
        return not self.networks


FULL = Variant(("netLocal", "grid_align", "Fuse_sft_block"), False, "E0, E1, E_ADA, fusion: local detail aligned in 3D")
ALIGNED = Variant(("netLocal", "grid_align"), True, "E0, E1, E_ADA: local detail from the realigned residual")
TOON = Variant((), False, "E0 alone, no local detail")


@cache
def checkpoint(variant: Variant) -> Checkpoint:
    torch.manual_seed(0)
    return runner(*variant.networks, batch_norm=variant.batch_norm)


def write(folder: Path, variant: Variant = TOON, **changes: Any) -> list[Path]:
    """The three files of a model, the runner's first, with some of its entries changed."""
    torch.manual_seed(1)
    torch.save(checkpoint(variant) | changes, folder / "runner.pt")
    generator = write_generator(folder / "generator.pt", toon=variant.toon)
    return [folder / "runner.pt", generator, write_renderer(folder / "renderer.pt")]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def converted(files: list[Path]) -> PaperInverter:
    """The network of these files without a bundle in between."""
    runner_file, generator_file, renderer_file = (torch.load(file, weights_only=True) for file in files)
    state = generator_file["g_ema"]
    generator = StyleSDF(stylesdf_config(state))
    generator.load_state_dict(stylesdf_to_native(state, generator.config))
    native = volume_discriminator_to_native(renderer_file["d"])
    viewpoints = ViewpointDiscriminator(volume_discriminator_channels(native))
    viewpoints.load_state_dict(native)
    foreign = e3dge_parameters(runner_file)
    encoders = HybridEncoders(e3dge_config(foreign))
    encoders.load_state_dict(e3dge_to_native(foreign, encoders.config))
    observer = ReleasedObserver(encoders.global_encoder, viewpoints)
    inverter = PaperInverter(generator, observer, released_view, orbit_of(generator.config), encoders.local)
    return inverter.eval().requires_grad_(False)


@torch.no_grad()
def both_views(inverter: PaperInverter) -> Tensor:
    """A picture inverted, from its own camera, and with edited codes from another one: every network takes part."""
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
    inversion = inverter.invert(picture)
    edited = inverter.edit(inversion, inversion.latents + 0.1)
    aside = inverter.render(edited, Camera.from_stylesdf(torch.tensor([[0.2, -0.1]])))
    return torch.cat([inversion.coarse.features, aside.features])


@pytest.mark.parametrize("variant", [FULL, ALIGNED, TOON])
def test_a_runner_becomes_the_network_itself(
    tmp_path: Path, cache_folder: Path, command: Command, variant: Variant
) -> None:
    files = write(tmp_path, variant)
    code, out, err = command("models", "import", *files, "--as", "heads")
    assert (code, err) == (0, "") and "imported heads: E3DGE, pictures 16 px, edits: none" in out
    assert "licence: encoders: as their publisher says; the official E3DGE weights: S-Lab License 1.0" in out

    features = both_views(load_paper_inverter("heads"))
    assert torch.equal(features, both_views(converted(files)))
    assert features.isfinite().all() and float(features.std()) > 1e-3

    code, out, _ = command("models", "info", "heads")
    assert (
        code == 0
        and variant.info in out
        and "volume discriminator (8 px)" in out
        and "generator: as its" in out.lower()
    )
    code, out, _ = command("models", "verify", "heads")
    assert code == 0 and "encoder.safetensors" in out and "check image is the recorded one" in out
    with pytest.raises(ModelError, match="has the paper's encoders, without 3D landmarks and matte"):
        e3dge_video.load_inverter("heads")


@pytest.mark.parametrize("variant", [FULL, TOON])
def test_every_key_is_used_or_listed(tmp_path: Path, variant: Variant) -> None:
    files = write(tmp_path, variant)
    done = import_model(files[::-1], "heads")  # in any order
    facts = done.spec.provenance
    assert [entry["name"] for entry in facts["imported"]] == ["renderer.pt", "generator.pt", "runner.pt"]
    assert facts["project"] == "E3DGE" and set(facts["published_as"]) == {"runner", "generator", "viewpoints"}
    runner_file, generator_file, renderer_file = (torch.load(file, weights_only=True) for file in files)
    networks = [f"{entry}.{key}" for entry in ("encoder", *variant.networks) for key in runner_file[entry]]
    keys = [*networks, *generator_file["g_ema"], *renderer_file["d"]]
    others = {"iter", "discriminator", "optimizer_g_optimizer", "renderer.pt: g", "renderer.pt: g_ema"}
    others |= set() if variant.toon else {"g", "d"}
    listed = [name for names in facts["ignored"].values() for name in names]
    assert len(listed) == len(set(listed)) == done.ignored and set(listed) - set(keys) == others
    assert done.used == facts["used"] == len(keys) - len(set(listed) & set(keys))


def test_published_files_are_known_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, known = write(tmp_path), {}
    for name, file in zip(("toon-encoder", "toon-generator", "renderer"), files, strict=True):
        data = file.read_bytes()
        facts = {"bytes": len(data), "md5": hashlib.md5(data).hexdigest()}
        known[name] = PublicFile(name, file.name, "toons", f"licence of {name}", "there", **facts)
    monkeypatch.setattr(public_files, "public_files", lambda: known)
    spec = import_model(files, "toons").spec
    assert spec.provenance["published_as"] == dict(zip(("runner", "generator", "viewpoints"), known, strict=True))
    assert spec.licence == (
        "encoders: licence of toon-encoder; read it: there. Generator: licence of toon-generator; read it: there. "
        "Camera: licence of renderer; read it: there"
    )


def test_edits_beside_the_encoders(tmp_path: Path) -> None:
    for name, width in (("renderer_Smiling", 12), ("decoder_Smiling", 20)):
        (tmp_path / "edits" / name).mkdir(parents=True)
        np.save(tmp_path / "edits" / name / "boundary.npy", np.ones((1, width), np.float32))
    done = import_model([*write(tmp_path), tmp_path / "edits"], "toons")
    assert done.spec.edits["smiling"].limits == (-1.4, 1.5)
    assert read_bundle(done.folder).tensors["edits.safetensors"]["smiling"].shape == (8, 20)


def test_a_changed_encoder_is_found(tmp_path: Path) -> None:
    folder = import_model(write(tmp_path), "toons").folder
    tensors = read_bundle(folder).tensors
    del tensors["encoder.safetensors"]["viewpoints.output.bias"]
    write_bundle(folder, read_spec(folder), tensors, exact=True)
    with pytest.raises(ModelError, match=r"does not fit its model.json \(missing 1, e.g. output.bias\)"):
        verify_bundle("toons")
    (folder / "encoder.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="differs from the SHA-256"):
        verify_bundle("toons")


def test_other_bundles_have_no_such_encoders() -> None:
    with pytest.raises(ModelError, match="the model starter has none of the paper's encoders"):
        load_paper_inverter("starter")


def test_files_that_are_missing_or_too_many(tmp_path: Path, cache_folder: Path) -> None:
    runner_file, generator, renderer = files = write(tmp_path)
    line = refusal(cache_folder, runner_file)
    assert line.startswith(f"{runner_file}: holds E3DGE's encoders alone; give its generator (ffhq1024x1024.pt")
    assert "Toonify400_1024x1024.pt" in line and "ffhq_vol_renderer.pt" in line
    assert "its generator" not in refusal(cache_folder, runner_file, generator)
    assert "ffhq_vol_renderer.pt" not in refusal(cache_folder, runner_file, renderer)
    torch.save({"iter": 3}, tmp_path / "more.pt")
    for surplus in (*files, tmp_path / "more.pt"):
        assert f"{surplus}: is not used; an E3DGE model is one" in refusal(cache_folder, *files, surplus)


def test_a_generator_of_other_codes(tmp_path: Path, cache_folder: Path) -> None:
    runner_file, _, renderer = write(tmp_path)
    other = stylesdf_checkpoint.official_file(tmp_path / "other.pt")
    line = refusal(cache_folder, runner_file, other, renderer)
    assert line.startswith(f"{runner_file}: gives codes of 4 × 12 (field) and 4 × 20 (decoder), but the generator")
    assert f"{other} takes 3 × 6 (field) and 6 × 7 (decoder)" in line


def with_encoder(**changes: Tensor) -> dict[str, Any]:
    return {"encoder": {**checkpoint(TOON)["encoder"], **changes}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": {}}, "unknown entry `generator`"),
        ({"netLocal": torch.zeros(3)}, "entry `netLocal` is not a network's parameters"),
        ({"netLocal": {}, "grid_align": {"conv_layer1.0.weight": torch.zeros(16, 6, 3, 3)}}, "missing (local."),
        (with_encoder(**{"latlayer64.bias": torch.zeros([]).expand(10**13)}), "describes more values than are stored"),
        (with_encoder(**{"latlayer64.bias": torch.zeros(512, dtype=torch.complex64)}), "instead of floats"),
        (with_encoder(**{"styles_pigan.9999.linear.bias": torch.zeros(12)}), "gives codes of 5 × 12"),
        ({"encoder": {**checkpoint(TOON)["encoder"], 3: torch.zeros(1)}}, "1 unknown (global_encoder.3"),
    ],
)
def test_checkpoints_that_cannot_be(
    tmp_path: Path, cache_folder: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "check_image", lambda generator: pytest.fail("was drawn"))
    files = write(tmp_path, **changes)
    line = refusal(cache_folder, *files)
    assert line.startswith(f"{files[0]}: ") and message in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("final_conv.conv.bias", None, "not a whole volume discriminator: 1 missing (output.bias)"),
        ("final_conv.conv.bias", torch.zeros(4), "1 misshapen (output.bias (4,) instead of (3,))"),
        ("final_conv.conv.bias", torch.full([3], torch.nan), "final_conv.conv.bias has values that are NaN"),
        ("final_conv.more.bias", torch.zeros(3), "1 unknown (final_conv.more.bias)"),
    ],
)
def test_volume_discriminators_that_cannot_be(
    tmp_path: Path, cache_folder: Path, key: str, value: Tensor | None, message: str
) -> None:
    files = write(tmp_path)
    values = torch.load(files[2], weights_only=True)
    values["d"] = {name: tensor for name, tensor in values["d"].items() if name != key}
    values["d"] |= {} if value is None else {key: value}
    torch.save(values, files[2])
    line = refusal(cache_folder, *files)
    assert line.startswith(f"{files[2]}: ") and message in line
