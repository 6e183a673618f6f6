"""The reader of official network pickles: what it takes from a good file, and what it does with bad ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from e3dge_video.errors import ModelError
from e3dge_video.weights import plain_pickle
from e3dge_video.weights.eg3d_pickle import EG3DPickle
from tests.support.official_pickle import SOURCE, EasyDict, Module, named_module, network, write_pickle

TENSORS = {
    "dataset_label_std": torch.arange(25.0),
    "backbone.mapping.fc0.weight": torch.randn(3, 4),
    "backbone.mapping.fc0.bias": torch.randn(3).half(),
    "backbone.synthesis.b4.conv1.noise_strength": torch.tensor(0.5),
    "decoder.net.0.weight": torch.randn(8, 4)[::2, 1:],
    "decoder.net.0.bias": torch.randn(5).double(),
}
INIT = {
    "z_dim": 8,
    "rendering_kwargs": EasyDict(box_warp=1, pivot=[0, 0, 0.2]),
    "conv_clamp": None,
    "gain": np.float64(2),
}


def checkpoint(legacy: bool = False) -> dict[str, Any]:
    """An official-looking checkpoint of three networks."""
    attributes = {"_init_kwargs": EasyDict(INIT), "rendering_kwargs": EasyDict(box_warp=2)}
    generator = network(TENSORS, legacy=legacy, neural_rendering_resolution=128, **attributes)
    discriminator = network(
        {"b4.fc.weight": torch.ones(2, 2)}, name="DualDiscriminator", legacy=legacy, _init_kwargs={}
    )
    return {
        "training_set_kwargs": {"path": "data.zip", "resolution": 512},
        "G": generator,
        "D": discriminator,
        "G_ema": generator,
        "augment_pipe": None,
    }


@pytest.fixture
def good() -> bytes:
    return write_pickle(checkpoint())


def opened(tmp_path: Path, data: bytes) -> EG3DPickle:
    path = tmp_path / "net.pkl"
    path.write_bytes(data)
    return EG3DPickle(path)


def refusal(tmp_path: Path, data: bytes) -> str:
    """The one line with which a file is refused, without the file's name."""
    with pytest.raises(ModelError) as caught:
        opened(tmp_path, data).network()
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{tmp_path / 'net.pkl'}: ") and len(line) < 500
    return line.removeprefix(f"{tmp_path / 'net.pkl'}: ")


@pytest.mark.parametrize("legacy", [False, True])
def test_everything_of_a_network_is_read(tmp_path: Path, legacy: bool) -> None:
    data = write_pickle(checkpoint(legacy))
    if legacy:
        data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    file = opened(tmp_path, data)
    assert file.networks == ["G_ema", "G", "D"] and file.further == ["training_set_kwargs"]
    assert file.training_set == {"path": "data.zip", "resolution": 512}
    read = file.network()
    assert read.tensors.keys() == TENSORS.keys()
    for key, value in TENSORS.items():
        assert read.tensors[key].dtype == value.dtype and torch.equal(read.tensors[key], value), key
    assert read.init_kwargs == {**INIT, "rendering_kwargs": {"box_warp": 1, "pivot": [0, 0, 0.2]}}
    assert read.attributes == {"rendering_kwargs": {"box_warp": 2}, "neural_rendering_resolution": 128}
    assert read.class_name == "TriPlaneGenerator"
    assert read.source_sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert file.network("D").tensors["b4.fc.weight"].tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ModelError, match=r"augment_pipe is not a network"):
        file.network("augment_pipe")


@pytest.mark.golden
@pytest.mark.parametrize("name", ["official_format_placeholder", "official_format_legacy_placeholder"])
def test_files_in_the_official_layouts(name: str) -> None:
    if not os.environ.get("E3DGE_GOLDEN"):
        pytest.skip("E3DGE_GOLDEN does not name the folder with the full reference data")
    folder = Path(os.environ["E3DGE_GOLDEN"]) / "eg3d"
    tensors = load_file(folder / "official_format_placeholder.expected.safetensors")
    options = json.loads((folder / "official_format_placeholder.expected.json").read_text())
    file = EG3DPickle(folder / f"{name}.pkl")
    read = {f"{entry}.{key}": value for entry in file.networks for key, value in file.network(entry).tensors.items()}
    assert read.keys() == tensors.keys()
    assert all(value.dtype == tensors[key].dtype and torch.equal(value, tensors[key]) for key, value in read.items())
    assert file.training_set == options["training_set_kwargs"]
    generator = file.network("G_ema")
    assert generator.init_kwargs == options["G_ema"]["init_kwargs"]
    assert generator.attributes["rendering_kwargs"] == options["G_ema"]["rendering_kwargs"]
    for entry in ("D", "augment_pipe"):
        assert file.network(entry).init_kwargs == options[entry]["init_kwargs"]


class Evil:
    """Runs a command when Python's own unpickler reads it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, torch.load, pickle.loads])
def test_a_file_that_tries_to_run_code(tmp_path: Path, function: Callable[..., Any], protocol: int) -> None:
    harmed = tmp_path / "harmed"
    evil = Evil(function, f"__import__('pathlib').Path({str(harmed)!r}).touch()")
    line = refusal(tmp_path, pickle.dumps({"G_ema": evil}, protocol=protocol))
    assert "may be an attempt to run code" in line and function.__name__ in line
    assert not harmed.exists()


def test_code_inside_a_tensor(tmp_path: Path) -> None:
    """The bytes of a storage are a pickle of their own, which torch would read without any restriction."""
    line = refusal(tmp_path, stored(pickle.dumps(Evil(os.system, "true"), protocol=2)))
    assert "a tensor in it" in line and "system" in line and "run code" in line


def test_nothing_of_the_file_is_imported(tmp_path: Path, good: bytes) -> None:
    before = set(sys.modules)
    opened(tmp_path, good).network()
    assert not {"training", "training.triplane", "dnnlib", "torch_utils"} & (set(sys.modules) - before)


def test_a_file_that_ends_in_the_middle(tmp_path: Path, good: bytes) -> None:
    for end in (*range(2, len(good), 997), len(good) - 1):
        assert "the download is not complete" in refusal(tmp_path, good[:end])


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, good: bytes) -> None:
    random = np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(good)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(0, 256)
        try:
            opened(tmp_path, bytes(data)).network()
        except ModelError as error:
            assert "\n" not in str(error)


def test_what_comes_after_the_end(tmp_path: Path, good: bytes) -> None:
    assert "goes on after its end" in refusal(tmp_path, good + b"x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([1, 2], 4), "no network G_ema"),
        (pickle.dumps({"G": 1}, 4), "no network G_ema"),
        (pickle.dumps({"G_ema": 1}, 4), "not a network of the official layout"),
        (pickle.dumps({"G_ema": bytearray(3)}, 5), "BYTEARRAY8"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2) + b"\xff.", "no valid pickle"),
        (b"\x80\x04h\x07.", "no valid pickle"),  # a memo entry that does not exist
        (b"\x80\x04R.", "no valid pickle"),  # a call without anything on the stack
        (b"\x80\x04Nb.", "no valid pickle"),
        (b"\x80\x02Q.", "refers to data outside"),
        (b"\x80\x04ccollections\nOrderedDict\nK\x01\x85R.", "arguments that it cannot have"),
        (b"\x80\x04cnumpy.core.multiarray\nscalar\nctraining.triplane\nOSGDecoder\n)\x81C\x00\x86R.", "(no number)"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93.", "no network G_ema"),
    ],
)
def test_other_pickles(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in refusal(tmp_path, data)


DECODER = b"\x80\x04ctraining.triplane\nOSGDecoder\nq\x00)\x81"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04B\xff\xff\xff\x7f", "not complete"),  # 2 GB declared
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", "not complete"),  # 8 EB declared
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f", "characters of text"),
        (b"\x80\x04\x95" + b"\xff" * 8, "not complete"),
        (b"\x80\x04\x8a\xff" + b"\x01" * 255 + b".", "more digits"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "no network G_ema"),  # a memo slot of number 2 147 483 647
        (b"\x80\x04" + b"(" * 300_100, "more than 300000 pickle instructions"),
        (b"\x80\x04" + b"}" * 300_100, "more than 300000 pickle instructions"),
        (b"\x80\x04}" + b")" + b"\x85" * 50_000 + b"Ns.", "neither text nor integers"),  # hashing would crash
        (b"\x80\x04}" + b")" + b"\x85" * 50_000 + b".", "no network G_ema"),
        (DECODER + b"h\x00)\x81" * 50_000 + b"b" * 50_000 + b".", "no network G_ema"),  # objects within objects
    ],
)
def test_bombs(tmp_path: Path, data: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        assert message in refusal(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_text_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bytes) -> None:
    monkeypatch.setattr(plain_pickle, "MAX_TEXT", 500)
    assert "more than 500 characters of text" in refusal(tmp_path, good)


def test_options_without_an_end(tmp_path: Path) -> None:
    laughs: Any = ["ha"]
    for _ in range(30):
        laughs = [laughs, laughs]  # 2^30 words once it is written out
    top = {"G_ema": network(TENSORS, _init_kwargs={"joke": laughs})}
    assert "options without an end" in refusal(tmp_path, write_pickle(top))


def test_modules_without_an_end(tmp_path: Path) -> None:
    wide = Module("Layer", {"_parameters": {}, "_buffers": {}, "_modules": {}})
    for _ in range(30):
        wide = Module("Layer", {"_parameters": {}, "_buffers": {}, "_modules": {"a": wide, "b": wide}})
    wide.state["_init_kwargs"] = {}
    assert "more than 20000 modules and tensors" in refusal(tmp_path, write_pickle({"G_ema": wide}))

    circle = Module("Layer", {"_modules": {}, "_init_kwargs": {}})
    circle.state["_modules"]["again"] = named_module("decoder", {"_modules": circle.state["_modules"]})
    assert "modules within modules without an end" in refusal(tmp_path, write_pickle({"G_ema": circle}))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"_buffers": {"noise": 3}}, "noise is no tensor"),
        ({"_buffers": {"bad\nkey": torch.ones(1)}}, r"'bad\nkey' is no name of a module or tensor"),
        ({"_buffers": {"k" * 129: torch.ones(1)}}, "is no name of a module or tensor"),
        ({"_buffers": {5: torch.ones(1)}}, "5 is no name of a module or tensor"),
        ({"_buffers": [torch.ones(1)]}, "_buffers is no table"),
        ({"_buffers": dict.fromkeys(map("k{}".format, range(1001)), torch.ones(1))}, "_buffers is no table"),
        ({"_modules": {"layer": 3}}, "layer is no module"),
        ({"_init_kwargs": None}, "does not say what it was built with"),
        ({"_init_kwargs": {"f": torch.ones(1)}}, "an option that is no plain value (StoredTensor)"),
        ({"_init_args": (1,)}, "arguments that have no names"),
    ],
)
def test_networks_that_are_none(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_init_kwargs": {}, **attributes}
    assert message in refusal(tmp_path, write_pickle({"G_ema": Module("TriPlaneGenerator", state)}))


def test_stored_numbers_are_not_multiplied(tmp_path: Path) -> None:
    """Many tensors may look at the same stored numbers; made one by one, they would fill the memory."""
    shared = torch.zeros(10_000)
    tensors = dict.fromkeys(map("k{}".format, range(100)), shared)
    state = {"_parameters": {}, "_buffers": tensors, "_modules": {}, "_init_kwargs": {}}
    data = write_pickle({"G_ema": Module("TriPlaneGenerator", state)})
    assert len(data) < 100_000
    assert "more numbers than the file has room for" in refusal(tmp_path, data)


def storage_bytes() -> bytes:
    """Seven stored numbers in torch's layout."""
    stream = io.BytesIO()
    storage = torch.arange(7.0).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    torch.save(typed, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


LOAD_STORAGE = b"\x8c\x0dtorch.storage\x8c\x10_load_from_bytes\x93"


def stored(blob: bytes) -> bytes:
    """A pickle that is nothing but these stored numbers."""
    return b"\x80\x04" + LOAD_STORAGE + b"B" + struct.pack("<I", len(blob)) + blob + b"\x85R."


def test_tensors_are_counted(tmp_path: Path) -> None:
    blob = storage_bytes()
    both = LOAD_STORAGE + b"\x94B" + struct.pack("<I", len(blob)) + blob + b"\x94"
    many = b"\x80\x04" + both + b"h\x00h\x01\x85R" * 10_001 + b"."
    assert "more than 10000 tensors" in refusal(tmp_path, many)


def tensor_bytes(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A checkpoint with a tensor over four stored numbers that claims this size."""

    class Claim:
        def __reduce__(self) -> Any:
            storage = torch.arange(4.0).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, offset, size, stride, False, {})

    tensors = {"decoder.net.0.weight": torch.zeros(1)}
    top = {"G_ema": network(tensors, _init_kwargs={})}
    top["G_ema"].state["_buffers"]["claim"] = Claim()
    return write_pickle(top)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2, 2), (3, 1), 0),
        ((10**12,), (0,), 0),
        ((2**40, 2**40), (0, 0), 0),
        ((2,), (-1,), 1),
        ((2, 2), (1,), 0),
        ((1,) * 9, (1,) * 9, 0),
    ],
)
def test_tensors_that_claim_more_than_is_stored(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    line = refusal(tmp_path, tensor_bytes(size, stride, offset))
    assert "torch._utils._rebuild_tensor_v2 has arguments that it cannot have" in line


def test_a_claim_that_holds(tmp_path: Path) -> None:
    tensors = opened(tmp_path, tensor_bytes((2, 2), (1, 2))).network().tensors
    assert tensors["claim"].tolist() == [[0, 2], [1, 3]]


def test_a_damaged_storage(tmp_path: Path) -> None:
    blob = storage_bytes()
    assert "no network G_ema" in refusal(tmp_path, stored(blob))  # the storage itself is good
    assert "24 bytes for 7 values" in refusal(tmp_path, stored(blob[:-4]))
    assert "32 bytes for 7 values" in refusal(tmp_path, stored(blob + b"1234"))
    other = blob.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    assert "another byte order" in refusal(tmp_path, stored(other))
    assert "not stored in torch's layout" in refusal(tmp_path, stored(blob.replace(b"\x8a\x0al", b"\x8a\x0am", 1)))
    assert "more than 100 pickle instructions" in refusal(tmp_path, stored(b"\x80\x02" + b"N" * 200))


def test_a_network_of_another_layout(tmp_path: Path) -> None:
    top = checkpoint()
    assert "only classes in layout 6" in refusal(
        tmp_path, write_pickle(top).replace(b"versionK\x06", b"versionK\x07").replace(b"\x94K\x06", b"\x94K\x07")
    )
