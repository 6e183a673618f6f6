"""Pictures come out upright, with square pixels and the right colours."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from e3dge_video.io import hdr
from e3dge_video.io.colour import Colour, PictureConverter
from e3dge_video.io.display import Display
from e3dge_video.io.info import check_video
from e3dge_video.io.reader import VideoReader
from tests.support.video_corpus import rotate_by_metadata, write_clip

CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32], CORNERS[24:, 32:] = (
    (200, 40, 40),
    (40, 200, 40),
    (40, 40, 200),
    (220, 220, 220),
)


def first_picture(path):
    with VideoReader(path) as reader:
        assert reader.read(0, 1).rgb.shape[1:3] == reader.info.size[::-1]
        return reader.read(0, 1).rgb[0]


# (a, b, c, d) of the display matrix, and what it does to a picture stored as CORNERS
TURNS = {
    "upright": ((1, 0, 0, 1), lambda p: p),
    "left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "half": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "mirror": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "flip": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transpose": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transverse": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
def test_display_matrix(tmp_path, name):
    matrix, turn = TURNS[name]
    path = write_clip(tmp_path / "turned.mp4", range(2), picture=lambda n, size: CORNERS)
    rotate_by_metadata(path, matrix)
    difference = first_picture(path).astype(int) - turn(CORNERS)
    assert np.abs(difference).mean() < 4


def test_rotation_is_told_counter_clockwise():
    size = (64, 48)
    for quarter in range(4):
        flags = [(False, False, False), (True, True, False), (False, True, True), (True, False, True)][quarter]
        display = Display(size, size, Fraction(1), *flags)
        assert display.rotation_deg == 90 * quarter and not display.mirrored
        assert np.array_equal(display.orient(CORNERS), np.rot90(CORNERS, quarter))
        assert display.size == np.rot90(CORNERS, quarter).shape[1::-1]


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(4, 5), (51, 48)),
        (Fraction(4, 3), (85, 48)),
        (Fraction(1), (64, 48)),
        (Fraction(16, 11), (93, 48)),
    ],
)
def test_pixel_aspect_scales_the_width(tmp_path, aspect, size):
    path = write_clip(tmp_path / "aspect.mp4", range(2), picture=lambda n, s: CORNERS, sample_aspect_ratio=aspect)
    picture = first_picture(path)
    assert picture.shape == (size[1], size[0], 3)
    assert np.abs(picture[10, size[0] // 4].astype(int) - CORNERS[0, 0]).max() < 8
    assert np.abs(picture[40, size[0] * 3 // 4].astype(int) - CORNERS[-1, -1]).max() < 8


def yuv_frame(y, u, v, pix_fmt="yuv420p", size=(64, 48)):
    """A frame of one colour, given as code values."""
    frame = av.VideoFrame(*size, pix_fmt)
    for plane, value in zip(frame.planes, (y, u, v), strict=True):
        kind = np.uint16 if "10" in pix_fmt else np.uint8
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, value, kind))
    return frame


def convert(frame, colour):
    size = (frame.width, frame.height)
    return PictureConverter(colour, Display(size, size, Fraction(1)))(frame)[8, 8]


# Luminance weights of red and blue, ITU-R BT.601, BT.709, BT.2020
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_matrix_and_range_against_the_formulas(matrix, full_range, bits):
    red_weight, blue_weight = WEIGHTS[matrix]
    scale = 2 ** (bits - 8)
    for y, u, v in ((126, 128, 128), (90, 110, 150), (180, 140, 120), (60, 131, 129), (200, 120, 135)):
        luma = y / 255 if full_range else (y - 16) / 219
        blue, red = ((c - 128) / (255 if full_range else 224) * 2 for c in (u, v))
        r = luma + red * (1 - red_weight)
        b = luma + blue * (1 - blue_weight)
        g = (luma - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight)
        pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
        frame = yuv_frame(y * scale, u * scale, v * scale, pix_fmt)
        rgb = convert(frame, Colour(matrix, full_range, "sdr", "bt709"))
        assert np.abs(rgb - 255 * np.array([r, g, b])).max() < 1.01


def tagged(path, size=(64, 48), **tags):
    def setup(stream):
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)

    return write_clip(path, range(2), size=size, setup=setup)


@pytest.mark.parametrize(
    ("size", "tags", "matrix", "full_range"),
    [
        ((64, 48), {}, "bt601", False),
        ((1280, 16), {}, "bt709", False),
        ((16, 1280), {}, "bt709", False),
        ((480, 908), {}, "bt601", False),
        ((578, 578), {}, "bt709", False),
        ((64, 48), {"colorspace": 1}, "bt709", False),
        ((1280, 16), {"colorspace": 6}, "bt601", False),
        ((64, 48), {"colorspace": 9, "color_primaries": 9}, "bt2020", False),
        ((64, 48), {"color_range": 2}, "bt601", True),
    ],
)
def test_rule_for_tags_and_for_none(tmp_path, size, tags, matrix, full_range):
    info = check_video(tagged(tmp_path / "tags.mp4", size, **tags))
    assert (info.colour.matrix, info.colour.full_range) == (matrix, full_range)
    assert any("matrix not tagged" in note for note in info.notes) == ("colorspace" not in tags)


def test_limited_and_full_range_files_show_the_same(tmp_path):
    limited = write_clip(tmp_path / "l.mp4", range(2), picture=lambda n, s: CORNERS)
    full = write_clip(tmp_path / "f.mp4", range(2), picture=lambda n, s: CORNERS, pix_fmt="yuvj420p")
    assert np.abs(first_picture(limited).astype(int) - first_picture(full)).mean() < 2


def test_pq_and_hlg_curves_at_their_reference_points():
    assert np.isclose(hdr.pq_to_nits(np.array(0.58068888)), 203.0, rtol=1e-4)  # BT.2408: white is 58 % PQ
    assert np.isclose(hdr.pq_to_nits(np.array(1.0)), 10000.0)
    nits = np.geomspace(0.01, 10000, 50)
    assert np.allclose(hdr.pq_to_nits(hdr.nits_to_pq(nits)), nits)
    assert np.allclose(hdr.hlg_to_nits(np.full(3, 0.75)), 203.0, rtol=2e-3)  # BT.2408: white is 75 % HLG
    assert np.allclose(hdr.hlg_to_nits(np.ones(3)), 1000.0, rtol=1e-3)


def test_roll_off_keeps_mid_tones_and_order():
    nits = np.linspace(0, 2000, 400)
    rolled = hdr.roll_off(nits)
    assert np.allclose(rolled[nits < 80], nits[nits < 80], atol=0.1)
    assert (np.diff(rolled) > -1e-6).all() and np.isclose(rolled[-1], hdr.WHITE_NITS, rtol=1e-3)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_grey_becomes_the_grey_of_an_sdr_screen(transfer):
    """A grey card at 60 nits: (60 / 203) ** (1 / 2.4) of full scale, through the whole filter graph."""
    if transfer == "pq":
        coded = float(hdr.nits_to_pq(np.array(60.0)))
    else:
        levels = np.linspace(0, 1, 20001)
        coded = float(np.interp(60.0, hdr.hlg_to_nits(np.repeat(levels[:, None], 3, 1))[:, 0], levels))
    frame = yuv_frame(round(64 + 876 * coded), 512, 512, "yuv420p10le")
    rgb = convert(frame, Colour("bt2020", False, transfer, "bt2020"))
    assert np.abs(rgb - 255 * (60 / 203) ** (1 / 2.4)).max() < 2.5
    white = convert(yuv_frame(940, 512, 512, "yuv420p10le"), Colour("bt2020", False, transfer, "bt2020"))
    assert (white >= 253).all()


def test_wide_gamut_red_stays_red():
    table = hdr.to_sdr(np.array([[0.6, 0.2, 0.2], [0.5, 0.5, 0.5]]), "sdr", "bt2020")
    assert table[0, 0] > 0.6 and table[0, 1] < 0.2  # BT.709 needs a purer red for the same colour
    assert np.allclose(table[1], 0.5, atol=1e-3)


HDR_TAGS = {"colorspace": 9, "color_primaries": 9, "color_trc": 16}


def test_a_dark_pq_video_is_believed_and_a_bright_one_is_not(tmp_path):
    dark = np.full((48, 64, 3), 70, np.uint8)
    bright = np.full((48, 64, 3), 190, np.uint8)  # 1000 cd/m² all over, if it were PQ

    def video(name, picture):
        def setup(stream):
            for key, value in HDR_TAGS.items():
                setattr(stream.codec_context, key, value)

        return check_video(write_clip(tmp_path / name, range(2), picture=lambda n, s: picture, setup=setup))

    believed, doubted = video("dark.mp4", dark), video("bright.mp4", bright)
    assert believed.colour.transfer == "pq" and believed.colour.needs_mapping
    assert doubted.colour.transfer == "sdr" and doubted.colour.matrix == "bt601"
    assert "is not HDR video" in doubted.notes[0]


def test_transparency_is_shown_on_white(tmp_path):
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 4), (200, 0, 0, 51), np.uint8), format="rgba")
    rgb = convert(frame, Colour("bt601", True, "sdr", "bt709"))
    assert np.abs(rgb.astype(int) - [244, 204, 204]).max() <= 1


def test_size_changes_midway_give_pictures_of_one_size():
    converter = PictureConverter(Colour("bt601", False, "sdr", "bt709"), Display((64, 48), (64, 48), Fraction(1)))
    for size in ((64, 48), (32, 24), (64, 48)):
        assert converter(yuv_frame(126, 128, 128, size=size)).shape == (48, 64, 3)
