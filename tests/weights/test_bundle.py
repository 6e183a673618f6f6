import json

import pytest
import torch

from e3dge_video.config.encoders import GlobalEncoderConfig, MatteConfig
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.errors import ModelError
from e3dge_video.weights.bundle import BundleSpec, EditSpec, read_bundle, read_spec, tensor_count, write_bundle
from e3dge_video.weights.catalog import find_bundle, installed_bundles

SPEC = BundleSpec(
    name="tiny",
    backbone="eg3d",
    licence="Apache-2.0",
    resolution=64,
    neural_resolution=32,
    crop="eg3d",
    generator=EG3DConfig(),
    encoder=GlobalEncoderConfig(),
    matte=MatteConfig(),
    edits={"age": EditSpec("twenty years", (-1.0, 2.0))},
    provenance={"seed": 1},
)


@pytest.fixture
def bundle(tmp_path):
    tensors = {"generator.safetensors": {"a": torch.randn(3, 4), "n": torch.arange(3)}}
    write_bundle(tmp_path / "tiny", SPEC, tensors)
    return tmp_path / "tiny"


def test_round_trip(bundle):
    read = read_bundle(bundle)
    assert (
        read.spec.generator == SPEC.generator and read.spec.edits == SPEC.edits and read.spec.provenance == {"seed": 1}
    )
    assert read.tensors["generator.safetensors"]["a"].dtype == torch.float32
    assert read.tensors["generator.safetensors"]["n"].tolist() == [0, 1, 2]
    assert tensor_count(bundle / "generator.safetensors") == (2, 15)


def test_files_are_as_readable_as_the_umask_has_them(bundle):
    modes = {path.stat().st_mode & 0o777 for path in bundle.iterdir()}
    plain = bundle / "other"
    plain.touch()
    assert modes == {plain.stat().st_mode & 0o777}


def _damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda b: _damage(b / "generator.safetensors"), "SHA-256"),
        (lambda b: (b / "generator.safetensors").unlink(), "missing"),
        (lambda b: (b / "model.json").unlink(), "not a model bundle"),
        (lambda b: (b / "model.json").write_text("{"), "cannot be read"),
        (lambda b: (b / "model.json").write_text('{"format": 99}'), "format 99"),
        (
            lambda b: (b / "model.json").write_text(json.dumps(json.loads((b / "model.json").read_text()) | {"x": 1})),
            "x is not an option",
        ),
    ],
)
def test_damage_is_one_clear_line(bundle, harm, message):
    harm(bundle)
    with pytest.raises(ModelError) as caught:
        read_bundle(bundle)
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(bundle) in str(caught.value)


def test_values_beyond_fp16_stay_fp32(tmp_path):
    write_bundle(tmp_path, SPEC, {"generator.safetensors": {"a": torch.tensor([1e6 + 1]), "b": torch.tensor([1e-3])}})
    tensors = read_bundle(tmp_path).tensors["generator.safetensors"]
    assert float(tensors["a"]) == 1e6 + 1
    assert float(tensors["b"]) == float(torch.tensor(1e-3).half())


def test_values_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no finite numbers"):
        write_bundle(tmp_path, SPEC, {"generator.safetensors": {"a": torch.tensor([float("nan")])}})


def test_bundles_are_found_by_name_and_path(bundle, monkeypatch):
    monkeypatch.setenv("E3DGE_CACHE", str(bundle.parent / "cache"))
    assert find_bundle(str(bundle)) == bundle
    (bundle.parent / "cache" / "models").mkdir(parents=True)
    bundle.rename(bundle.parent / "cache" / "models" / "tiny")
    assert find_bundle("tiny").name == "tiny" and "tiny" in [b.name for b in installed_bundles()]
    with pytest.raises(ModelError, match=r"no such model bundle.*tiny"):
        find_bundle("absent")
    assert read_spec(find_bundle("tiny")).name == "tiny"
