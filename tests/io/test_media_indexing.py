"""The shared folder of real and hard files: each gives the right frames and times, or one clear line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from e3dge_video.errors import InputError
from e3dge_video.io.images import read_image
from e3dge_video.io.indexing import build_index
from e3dge_video.io.mux import mux
from e3dge_video.io.reader import CORRUPT, LOST, OK, VideoReader
from tests.support.video_checks import segments_of, sound_of, times_of

pytestmark = pytest.mark.media

# frames, (width, height) as shown, start in seconds
USABLE = {
    "hard/anamorphic_sar.mp4": (38, (256, 256), 0),
    "hard/anim.gif": (10, (256, 256), 0),
    "hard/audio_shorter.mp4": (63, (256, 256), 0),
    "hard/blank20.mp4": (70, (256, 256), 0),
    "hard/corrupt_bytes.mp4": (74, (256, 256), 0),
    "hard/fps23976.mp4": (60, (256, 256), 0),
    "hard/fullrange.mp4": (38, (256, 256), 0),
    "hard/hdr10_tagged.mp4": (38, (256, 256), 0),
    "hard/no_face.mp4": (50, (320, 240), 0),
    "hard/odd_dims_251x247.mp4": (38, (251, 247), 0),
    "hard/one_frame.mp4": (1, (256, 256), 0),
    "hard/real_multishot.mp4": (275, (640, 360), Fraction(10214, 11988)),
    "hard/rotated90.mp4": (60, (190, 360), 0),
    "hard/scene_cut.mp4": (60, (256, 256), 0),
    "hard/short_0p5s.mp4": (13, (256, 256), 0),
    "hard/start_offset.mp4": (50, (256, 256), Fraction(67840, 12800)),
    "hard/truncated_faststart.mp4": (14, (256, 256), 0),
    "hard/two_faces.mp4": (50, (512, 256), 0),
    "hard/vfr.mp4": (57, (256, 256), 0),
    "hard/vp9_noduration.webm": (38, (256, 256), 0),
    "hard/yuv444.mp4": (38, (256, 256), 0),
    "clips/portrait_480x908.mp4": (297, (480, 908), 0),
    "clips/strong_motion.mp4": (183, (512, 512), 0),
    "clips/talk_frontal.mp4": (125, (512, 512), 0),
    "clips/talk_turns_mpeg4.mp4": (200, (512, 512), 0),
}
UNUSABLE = {
    "hard/audio_only.mp4": "has aac sound but no video",
    "hard/text_file.mp4": "is a text file",
    "hard/truncated_no_moov.mp4": "is cut off",
    "hard/zero_length.mp4": "is empty",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_files(media, name):
    with pytest.raises(InputError, match=UNUSABLE[name]) as caught:
        build_index(media / name)
    assert str(caught.value).startswith(f"{media / name}: ")


@pytest.mark.parametrize("name", [n for n in USABLE if n.startswith("hard")])
def test_hard_files(media, name, tmp_path):
    path = media / name
    index = build_index(path)
    count, size, start = USABLE[name]
    assert (len(index), index.info.size, index.start) == (count, size, start)
    with VideoReader(path, index) as reader:
        frames = reader.read(0, count)
        middle = reader.read(count // 2, min(count // 2 + 3, count))
    assert np.array_equal(middle.rgb, frames.rgb[count // 2 : count // 2 + 3])
    damaged = "corrupt" in name or "truncated" in name
    assert (index.lost > 0) == damaged
    assert set(frames.status.tolist()) <= ({OK, CORRUPT, LOST} if "corrupt" in name else {OK})
    assert any("lost" in note for note in index.notes) == damaged
    out = tmp_path / "out.mp4"
    report = mux(out, segments_of(path, 64), audio=path)
    assert times_of(out) == times_of(path)
    assert sound_of(out) == sound_of(path) and not report.warnings
    first = out.read_bytes()
    mux(out, segments_of(path, 16), audio=path)
    assert out.read_bytes() == first


@pytest.mark.parametrize("name", [n for n in USABLE if n.startswith("clips")])
def test_clips(media, name, tmp_path):
    path = media / name
    out = tmp_path / "out.mp4"
    index = build_index(path)
    count, size, start = USABLE[name]
    assert (len(index), index.info.size, index.start, index.lost) == (count, size, start, 0)
    mux(out, segments_of(path, 64, stop=96), audio=path, end=index.time(96))
    assert times_of(out)[0] == times_of(path)[0][:96]
    copied = sound_of(out)[0]
    assert copied == sound_of(path)[0][: len(copied)]
    assert abs(copied[-1][0] - index.time(96)) < Fraction(1, 10)


def test_counts_of_lost_frames(media):
    assert build_index(media / "hard/truncated_faststart.mp4").lost == 61
    assert build_index(media / "hard/corrupt_bytes.mp4").lost == 1


def test_same_pictures_whatever_the_format(media):
    """Files made from one clip by pixel format, range, aspect or tags alone look alike."""
    names = ("fullrange.mp4", "yuv444.mp4", "hdr10_tagged.mp4", "anamorphic_sar.mp4", "vp9_noduration.webm")
    with VideoReader(media / "hard/audio_shorter.mp4") as reader:
        reference = reader.read(0, 1).rgb[0].astype(int)
    for name in names:
        with VideoReader(media / "hard" / name) as reader:
            difference = reader.read(0, 1).rgb[0] - reference
        assert np.abs(difference.mean((0, 1))).max() < 0.5, name
        assert np.abs(difference).mean() < 4, name


def test_stills(media):
    for path in sorted(Path(media / "stills").iterdir()):
        picture = read_image(path)
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert read_image(media / "stills/rgba_32bit.png").shape == (1200, 626, 3)
