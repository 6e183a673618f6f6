"""Unusable files give one line that names the file, what is wrong and what to do."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from e3dge_video.errors import InputError
from e3dge_video.io.indexing import build_index
from e3dge_video.io.info import check_video
from tests.support.video_corpus import barcode, packet_places, tone, write_clip


def sound_only(path):
    with av.open(str(path), "w") as out:
        track = out.add_stream("aac", rate=48000)
        track.codec_context.layout = "mono"
        for frame in tone(48000, Fraction(1)):
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    return path


def without_index(path):
    whole = write_clip(path)
    data = whole.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    return path


def without_pictures(path):
    write_clip(path, range(20), options={"bf": "0"})
    data = bytearray(path.read_bytes())
    for position, size in packet_places(path):
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    return path


def still(path):
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(barcode(1), format="rgb24")))
        out.mux(stream.encode(None))
    return path


def written(path, data):
    path.write_bytes(data)
    return path


MISTAKES = {
    "missing": (lambda f: f / "nowhere.mp4", "no such file"),
    "folder": (lambda f: f, "is a folder"),
    "empty": (lambda f: written(f / "empty.mp4", b""), "is empty"),
    "text": (lambda f: written(f / "text.mp4", "kein Film, nur Text mit Umläuten: äöü\n".encode()), "is a text file"),
    "text by name": (lambda f: written(f / "notes.txt", b"frame one\nframe two\n" * 20), "is a text file"),
    "noise": (lambda f: written(f / "noise.mp4", np.random.default_rng(0).bytes(5000)), "is not a video"),
    "no index": (lambda f: without_index(f / "cut.mp4"), "cut off"),
    "sound only": (lambda f: sound_only(f / "sound.m4a"), "has aac sound but no video"),
    "no pictures": (lambda f: without_pictures(f / "hollow.mp4"), "not one of its frames can be decoded"),
    "still": (lambda f: still(f / "still.png"), "still picture"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("check", [check_video, build_index])
def test_mistakes(tmp_path, mistake, check):
    make, what = MISTAKES[mistake]
    path = make(tmp_path)
    with pytest.raises(InputError) as caught:
        check(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and what in message
    assert ";" in message and "\n" not in message  # says what to do, in one line


def test_names_that_look_like_protocols(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", range(3)).rename(tmp_path / "concat:clip.mp4")
    assert check_video(path).codec == "h264"


def test_facts(corpus):
    info = check_video(corpus("anamorphic").path)
    assert info.codec == "h264" and info.pixel_format == "yuv420p" and "mp4" in info.container
    assert info.display.coded_size == (64, 48) and info.size == (51, 48)
    assert info.frame_count == 40 and info.duration == Fraction(8, 5) and info.average_rate == 25
    assert info.audio == ()
    with_sound = check_video(corpus("transport").path)
    (track,) = with_sound.audio
    assert (track.codec, track.sample_rate, track.channels) == ("aac", 48000, 1)
    assert with_sound.frame_count is None


def test_cover_art_is_no_video(tmp_path):
    """An audio file with a cover picture: the picture is marked as attached in the file."""
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w", format="mp4") as out:
        track = out.add_stream("aac", rate=48000)
        track.codec_context.layout = "mono"
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        frame = av.VideoFrame.from_ndarray(barcode(3), format="rgb24").reformat(format="yuvj420p")
        out.mux(cover.encode(frame))
        out.mux(cover.encode(None))
        for sound in tone(48000, Fraction(1)):
            out.mux(track.encode(sound))
        out.mux(track.encode(None))
    with pytest.raises(InputError, match="sound and a cover picture but no video"):
        check_video(path)
