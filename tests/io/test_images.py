"""Picture files are read as they are meant to be seen."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import torch

from e3dge_video.errors import InputError
from e3dge_video.io.images import read_image, to_array, to_tensor, write_png

PICTURE = np.zeros((40, 60, 3), np.uint8)
PICTURE[:20, :30], PICTURE[:20, 30:], PICTURE[20:, :30] = (230, 30, 30), (30, 230, 30), (30, 30, 230)


def save(path, array, *options):
    """Write RGB(A) or grey pixels with OpenCV, which wants BGR(A)."""
    if array.ndim == 3:
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(array), list(options))
    return path


def with_exif_orientation(path, orientation):
    """Insert an EXIF segment with one tag, Orientation, after the JPEG's start marker."""
    tiff = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    return path


def test_png_is_exact(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "p.png", PICTURE)), PICTURE)


ORIENTATIONS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: np.rot90(p, 2),
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path, orientation):
    path = save(tmp_path / "p.jpg", PICTURE, cv2.IMWRITE_JPEG_QUALITY, 98)
    seen = read_image(with_exif_orientation(path, orientation)).astype(int)
    expected = ORIENTATIONS[orientation](PICTURE)
    assert seen.shape == expected.shape and np.abs(seen - expected).mean() < 3


def test_transparency_is_shown_on_white(tmp_path):
    alpha = np.linspace(0, 255, 60).round().astype(np.uint8)
    rgba = np.concatenate([PICTURE, np.broadcast_to(alpha[None, :, None], (40, 60, 1))], -1)
    seen = read_image(save(tmp_path / "p.png", rgba))
    exact = (PICTURE * (alpha[:, None] / 255) + 255 * (1 - alpha[:, None] / 255)).round()
    assert np.abs(seen - exact).max() <= 1
    assert (seen[:, 0] == 255).all() and np.array_equal(seen[:, -1], PICTURE[:, -1])


def test_grey_and_sixteen_bits(tmp_path):
    ramp = np.arange(0, 65536, 273, dtype=np.uint16)[:240].reshape(12, 20)
    expected = np.round(ramp / 257).astype(np.uint8)
    grey = read_image(save(tmp_path / "grey16.png", ramp))
    assert np.array_equal(grey, np.repeat(expected[..., None], 3, -1))
    colour = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    wanted = np.stack([expected, expected[::-1], expected[:, ::-1]], -1)
    assert np.array_equal(read_image(save(tmp_path / "rgb16.png", colour)), wanted)
    grey8 = read_image(save(tmp_path / "grey8.png", expected))
    assert np.array_equal(grey8, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda f: f / "none.png", "no such file"),
        (lambda f: f, "is a folder"),
        (lambda f: (f / "empty.png", (f / "empty.png").write_bytes(b""))[0], "not a picture"),
        (lambda f: (f / "text.jpg", (f / "text.jpg").write_text("hello"))[0], "not a picture"),
        (lambda f: save(f / "float.tiff", np.ones((4, 4, 3), np.float32)), "8 or 16 bits"),
    ],
)
def test_mistakes(tmp_path, make, what):
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ") and what in str(caught.value)


def test_tensors_and_arrays_are_inverse():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 5, 7) and tensor.min() >= -1 and tensor.max() <= 1
    assert np.array_equal(to_array(tensor), pixels)
    assert to_array(torch.full((3, 1, 1), 7.0)).max() == 255


def test_a_written_png_reads_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", picture)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    with pytest.raises(InputError, match=r"b\.png: cannot be written .*check the folder"):
        write_png(tmp_path / "absent" / "b.png", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
