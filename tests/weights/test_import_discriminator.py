"""The discriminator that an official generator was trained against: kept on request, read by training alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import e3dge_video
from e3dge_video.cli.main import main
from e3dge_video.errors import ModelError
from e3dge_video.inversion.load import discriminator_of
from e3dge_video.inversion.verify import verify_bundle
from e3dge_video.models.discriminators import DualDiscriminator
from e3dge_video.weights.bundle import DISCRIMINATOR_FILE, GENERATOR_FILE, Bundle, read_bundle, read_spec, write_bundle
from e3dge_video.weights.foreign import read_foreign
from e3dge_video.weights.import_e3dge import _Files, _judge
from e3dge_video.weights.importing import import_model
from e3dge_video.weights.install import install_with_edits
from tests.support import eg3d_checkpoint, stylesdf_checkpoint
from tests.support.official_models import EG3D_MODEL, OFFICIAL_MODELS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("E3DGE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return tmp_path / "cache" / "models"


def command(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        main(["models", *map(str, arguments)])
    assert not end.value.code


def score(bundle: Bundle) -> torch.Tensor:
    judge, side = discriminator_of(bundle), bundle.spec.resolution
    assert judge is not None and judge.resolution == side
    random = torch.Generator().manual_seed(1)
    shapes = ((2, 3, side, side), (2, 3, 8, 8), (2, 25))
    image, rendered, label = (torch.randn(shape, generator=random) for shape in shapes)
    with torch.no_grad():
        return judge(image, rendered, label)


@pytest.mark.parametrize("name", OFFICIAL_MODELS)
def test_kept_on_request(name: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official = OFFICIAL_MODELS[name]
    file = official.write(tmp_path)
    command("import", file, "--as", "plain")
    assert read_spec(cache / "plain").discriminator is None and "discriminator:" not in capsys.readouterr().out
    command("import", file, "--as", "judged", "--discriminator")
    out = capsys.readouterr().out
    assert "discriminator: judges " in out and "only adversarial training uses it (0." in out
    spec = read_spec(cache / "judged")
    assert spec.discriminator is not None and spec.discriminator.resolution == spec.resolution
    entry = "D" if name == "eg3d" else "d"
    assert spec.provenance["discriminator"] == f"{official.file}: {entry}"
    listed = [key for keys in spec.provenance["ignored"].values() for key in keys]
    assert entry not in listed and any(key.startswith(f"{entry}.") for key in listed), "its filters alone"
    command("info", "judged")
    assert f"training     discriminator: {spec.discriminator.describe()}" in capsys.readouterr().out
    command("info", "plain")
    assert "training     no discriminator" in capsys.readouterr().out
    if name == "eg3d":
        assert (spec.discriminator.kind, spec.discriminator.channels) == ("dual", (4,) * 6)
        assert (spec.discriminator.camera_dim, spec.discriminator.mapping_layers) == (25, 3)
        assert (spec.discriminator.clamp, spec.discriminator.group) == (256.0, 2)
    else:
        assert (spec.discriminator.kind, spec.discriminator.channels) == ("image", (5, 5, 4, 3))


def test_it_is_read_by_those_who_ask_alone(cache: Path, tmp_path: Path) -> None:
    import_model([EG3D_MODEL.write(tmp_path)], "judged", discriminator=True)
    folder = cache / "judged"
    bundle = read_bundle(folder, discriminator=True)
    judge = discriminator_of(bundle)
    assert isinstance(judge, DualDiscriminator) and score(bundle).shape == (2, 1)
    # A copy with edits keeps it.
    copy, _ = install_with_edits(bundle, "copy", {}, {}, origin={})
    assert torch.equal(score(read_bundle(copy, discriminator=True)), score(bundle))
    with pytest.raises(ModelError, match=r"does not list discriminator\.safetensors, but describes it"):
        write_bundle(tmp_path / "half", bundle.spec, {GENERATOR_FILE: bundle.tensors[GENERATOR_FILE]})
    assert verify_bundle("judged").difference is not None
    (folder / DISCRIMINATOR_FILE).write_bytes(b"damaged")
    assert DISCRIMINATOR_FILE not in read_bundle(folder).tensors
    assert e3dge_video.load_generator("judged").z_dim == 8
    with pytest.raises(ModelError, match=r"discriminator\.safetensors: differs from the SHA-256"):
        verify_bundle("judged")


def test_tensors_beside_their_options(cache: Path, tmp_path: Path) -> None:
    """Tensor files name no options of the discriminator: it is then as the official class has it."""
    stored = {"G_ema": eg3d_checkpoint.foreign_state(), "D": eg3d_checkpoint.foreign_discriminator()}
    options = {"init_kwargs": eg3d_checkpoint.INIT, "neural_rendering_resolution": 16}
    torch.save(stored | options, tmp_path / "net.pt")
    spec = import_model([tmp_path / "net.pt"], "net", discriminator=True).spec
    assert spec.discriminator is not None and (spec.discriminator.group, spec.discriminator.clamp) == (4, 256.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_class": "SingleDiscriminator"}, "its discriminator is a SingleDiscriminator, only Dual"),
        ({"discriminator_init": {"architecture": "skip"}}, "architecture = 'skip' is not supported"),
        ({"discriminator_init": {"wings": 2}}, "unknown discriminator option wings"),
        (
            {"discriminator_init": {"epilogue_kwargs": {"mbstd_group_size": "x"}}},
            "a value that cannot be used",
        ),
        ({"discriminator": eg3d_checkpoint.foreign_discriminator(64)}, "D judges pictures of 64 px, but the generator"),
        ({"discriminator": {"b4.fc.weight": torch.ones(2, 2)}}, "blocks b4, b8, … are missing"),
    ],
)
def test_eg3ds_that_do_not_fit(options: dict[str, object], message: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(eg3d_checkpoint.official_file(**options))  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        import_model([tmp_path / "net.pkl"], "net", discriminator=True)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "net.pkl")) and message in line and "\n" not in line and not cache.exists()
    import_model([tmp_path / "net.pkl"], "net")


@pytest.mark.parametrize("state", [None, stylesdf_checkpoint.foreign_renderer()], ids=["toon", "renderer"])
def test_stylesdf_without_one(state: dict[str, torch.Tensor] | None, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    if state is None:
        torch.save({"g_ema": dict(stylesdf_checkpoint.foreign_state())}, path)
    else:
        stylesdf_checkpoint.official_file(path, state)
    with pytest.raises(ModelError, match=r"holds no image discriminator \(d\), which only full models have"):
        import_model([path], "net", discriminator=True)


@pytest.mark.parametrize(("channels", "where"), [((3, 4, 5), "runner.pt"), ((4, 5), "full.pt")])
def test_e3dges_own_comes_first_if_it_judges_whole_pictures(
    channels: tuple[int, ...], where: str, tmp_path: Path
) -> None:
    own = stylesdf_checkpoint.foreign_image_discriminator(channels)
    torch.save({"discriminator": {f"module.{key}": value for key, value in own.items()}}, tmp_path / "runner.pt")
    full = stylesdf_checkpoint.official_file(tmp_path / "full.pt", stylesdf_checkpoint.foreign_state(channels=(5, 4)))
    runner, generator = read_foreign(tmp_path / "runner.pt"), read_foreign(full)
    file, entry = _judge(_Files(runner, generator, generator), 16)
    assert (file.path.name, entry) == (where, "discriminator" if where == "runner.pt" else "d")
