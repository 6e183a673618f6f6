"""Every frame is the right one, at its time, whatever was read before."""

from __future__ import annotations

import random
import tracemalloc
from fractions import Fraction
from itertools import chain

import av
import numpy as np
import pytest
from video_cases import MAKERS

from e3dge_video.errors import InputError
from e3dge_video.io.colour import PictureConverter
from e3dge_video.io.index import FrameIndex
from e3dge_video.io.indexing import build_index
from e3dge_video.io.packets import PacketCursor
from e3dge_video.io.reader import CORRUPT, LOST, OK, VideoReader
from tests.support.video_corpus import packet_places, read_number, write_clip


def numbers_in(rgb):
    return [read_number(picture) for picture in rgb]


@pytest.mark.parametrize("name", MAKERS)
def test_frames_and_times(corpus, name):
    clip = corpus(name)
    with VideoReader(clip.path) as reader:
        frames = reader.read(0, len(reader))
        turned = np.rot90(frames.rgb, -1, (1, 2)) if name == "rotated" else frames.rgb
    assert numbers_in(turned) == list(range(clip.first_number, clip.first_number + clip.count))
    assert (frames.status == OK).all()
    assert reader.index.lost == 0
    if clip.times is not None:
        assert tuple(frames.times) == clip.times
    assert (np.diff(frames.pts) > 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_any_span_in_any_order_equals_one_plain_pass(corpus, name):
    clip = corpus(name)
    index = build_index(clip.path)
    convert = PictureConverter(index.info.colour, index.info.display)
    with av.open(str(clip.path)) as container:
        container.streams.video[0].thread_count = 1
        truth = np.stack([convert(frame) for frame in container.decode(video=0)])
    chance = random.Random(name)
    with VideoReader(clip.path, index) as reader:
        for _ in range(12):
            start = chance.randrange(len(index))
            stop = min(start + chance.choice([1, 2, 5, 30]), len(index))
            assert np.array_equal(reader.read(start, stop).rgb, truth[start:stop])


@pytest.mark.parametrize("name", ["cfr", "transport", "open_gop_h264", "every_frame_a_key"])
def test_reading_on_needs_no_seek(corpus, name, monkeypatch):
    def no_jump(self, number):
        raise AssertionError(f"jumped to packet {number}")

    clip = corpus(name)
    with VideoReader(clip.path) as reader:
        monkeypatch.setattr(PacketCursor, "_jump", no_jump)
        seen = [numbers_in(reader.read(a, min(a + 7, len(reader))).rgb) for a in range(0, len(reader), 7)]
    assert list(chain(*seen)) == list(range(clip.count))


def test_far_jumps_in_a_transport_stream_are_seeks_not_scans(corpus, monkeypatch):
    clip = corpus("transport")
    opened = []
    original = PacketCursor._open
    monkeypatch.setattr(PacketCursor, "_open", lambda self: opened.append(1) or original(self))
    with VideoReader(clip.path) as reader:
        opened.clear()
        for number in (290, 3, 150, 299, 0, 77):
            assert numbers_in(reader.read(number, number + 1).rgb) == [number]
    assert not opened


def test_seeks_that_land_anywhere_are_noticed(corpus, monkeypatch):
    """A demuxer that takes every seek to the end of the file still yields the right frames."""
    monkeypatch.setattr(PacketCursor, "_seek", lambda self, target: setattr(self, "_next", 10**6) or True)
    with VideoReader(corpus("cfr").path) as reader:
        for number in (30, 2, 39, 14):
            assert numbers_in(reader.read(number, number + 1).rgb) == [number]


def test_threads_change_nothing(corpus):
    for name in ("open_gop_h264", "open_gop_hevc"):
        path = corpus(name).path
        with VideoReader(path) as one, VideoReader(path, one.index, threads=3) as three:
            assert np.array_equal(one.read(5, 30).rgb, three.read(5, 30).rgb)


def test_reader_keeps_few_frames(tmp_path):
    """Peak Python memory while iterating does not grow with the length of the clip."""
    path = write_clip(tmp_path / "long.mp4", range(400), size=(320, 240), gop=250, options={"preset": "ultrafast"})
    index = build_index(path)
    peaks = []
    for length in (40, 400):
        with VideoReader(path, index) as reader:
            tracemalloc.start()
            for frame in reader.iterate(0, length):
                assert frame.rgb.shape == (240, 320, 3)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 320 * 240 * 3


def test_decoding_everything_first_gives_the_same_index(corpus):
    for name in ("cfr", "open_gop_h264", "transport_open_gop", "edit_list"):
        path = corpus(name).path
        listed, decoded = build_index(path), build_index(path, decode_all=True)
        assert np.array_equal(listed.pts, decoded.pts)
        with VideoReader(path, listed) as one, VideoReader(path, decoded) as other:
            assert np.array_equal(one.read(3, 21).rgb, other.read(3, 21).rgb)


def test_cut_file_gives_what_is_left(corpus, tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", range(40), container_options={"movflags": "+faststart"})
    places = sorted(packet_places(whole))
    cut = tmp_path / "cut.mp4"
    at = places[25][0] + places[25][1] // 2
    cut.write_bytes(whole.read_bytes()[:at])
    index = build_index(cut)
    assert 20 <= len(index) < 40
    assert index.lost == 40 - len(index)
    assert any(f"{len(index)} frames can be read, {index.lost} of 40 are lost" in note for note in index.notes)
    with VideoReader(cut, index) as reader:
        frames = reader.read(0, len(reader))
    good = frames.status == OK
    assert np.array_equal(np.array(numbers_in(frames.rgb))[good], np.flatnonzero(good))


def damaged_clip(path, victims, **options):
    """A clip of 120 frames in which the packets `victims` (in file order) are overwritten."""
    write_clip(path, range(120), gop=20, options={"bf": "0", "x264-params": "scenecut=0"}, **options)
    places = sorted(packet_places(path))
    data = bytearray(path.read_bytes())
    for victim in victims:
        position, size = places[victim]
        data[position : position + size] = bytes(size)  # no picture at all
    path.write_bytes(data)
    return path


def test_frames_that_do_not_decode_repeat_the_last_one_and_are_reported(tmp_path):
    path = damaged_clip(tmp_path / "damaged.mp4", [70, 71, 90])
    with VideoReader(path) as reader:
        frames = reader.read(0, len(reader))
        assert len(reader) == 120
        lost = np.flatnonzero(frames.status == LOST).tolist()
        assert lost == [70, 71, 90]
        assert np.array_equal(frames.rgb[70], frames.rgb[69]) and np.array_equal(frames.rgb[71], frames.rgb[69])
        assert np.array_equal(frames.pts, np.arange(120) * frames.pts[1])
        # …and the same whatever is read first, also when a chunk begins in the hole
        for start, stop in ((71, 73), (70, 71), (90, 95), (64, 128 - 8), (0, 64), (71, 72)):
            part = reader.read(start, stop)
            assert np.array_equal(part.rgb, frames.rgb[start:stop])
            assert np.array_equal(part.status, frames.status[start:stop])


def test_a_lost_keyframe_does_not_depend_on_the_chunks(tmp_path):
    path = damaged_clip(tmp_path / "damaged.mp4", [80])
    with VideoReader(path) as reader:
        frames = reader.read(0, len(reader))
        assert frames.status[80] == LOST
        assert (frames.status[:80] == OK).all() and (frames.status[100:] == OK).all()
        for size in (16, 64):
            for start in reversed(range(0, 120, size)):
                part = reader.read(start, min(start + size, 120))
                assert np.array_equal(part.rgb, frames.rgb[start : start + size])
                assert np.array_equal(part.status, frames.status[start : start + size])


def test_a_lost_beginning_is_left_out(tmp_path):
    path = damaged_clip(tmp_path / "damaged.mp4", [0])
    with VideoReader(path) as reader:
        frames = reader.read(0, len(reader))
        assert frames.status[-1] == OK and numbers_in(frames.rgb[-20:]) == list(range(100, 120))
        assert reader.index.lost > 0 and "lost" in reader.index.notes[-1]
        again = reader.read(3, 30)
        assert np.array_equal(again.rgb, frames.rgb[3:30])


def test_scribbles_are_reported_as_corrupt_or_lost(tmp_path):
    path = damaged_clip(tmp_path / "clean.mp4", [], size=(160, 120))
    with VideoReader(path) as reader:
        clean = reader.read(0, 120).rgb
    position, size = sorted(packet_places(path))[60]
    data = bytearray(path.read_bytes())
    data[position + size // 3 : position + size] = bytes(i * 37 % 256 for i in range(size - size // 3))
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frames = reader.read(0, 120)
        different = (frames.rgb != clean).any((1, 2, 3))
        assert different.any() and not different[:60].any() and not different[80:].any()
        assert frames.status[60] in (CORRUPT, LOST)
        assert (frames.status[~different] == OK).all()


def test_index_travels_as_bytes(corpus):
    for name in ("vfr", "rotated", "avi_without_times", "transport"):
        index = build_index(corpus(name).path)
        data = index.to_bytes()
        copy = FrameIndex.from_bytes(data)
        assert copy.to_bytes() == data
        assert copy.info == index.info and copy.notes == index.notes
        with VideoReader(corpus(name).path, copy) as reader, VideoReader(corpus(name).path) as other:
            assert np.array_equal(reader.read(2, 9).rgb, other.read(2, 9).rgb)


def test_an_index_of_another_file_is_refused(corpus):
    with pytest.raises(InputError, match="has changed"):
        VideoReader(corpus("cfr").path, build_index(corpus("vfr").path))


def test_spans_in_time(corpus):
    index = build_index(corpus("vfr").path)
    times = [index.time(i) for i in range(len(index))]
    for start, end in ((Fraction(0), Fraction(1, 10)), (times[3], times[9]), (Fraction(1, 3), None), (None, times[4])):
        first, stop = index.span(start, end)
        inside = [i for i, t in enumerate(times) if (start is None or t >= start) and (end is None or t < end)]
        assert list(range(first, stop)) == inside
    assert index.span(Fraction(100), Fraction(200)) == (len(index), len(index))


def test_numbers_outside_are_refused(corpus):
    with VideoReader(corpus("one_frame").path) as reader, pytest.raises(IndexError, match="which has 1"):
        reader.read(0, 2)


def test_broadcast_clocks_have_a_start(corpus):
    assert build_index(corpus("transport").path).info.clock_start > 0
    assert build_index(corpus("late_start").path).info.clock_start == 0
