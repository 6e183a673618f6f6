"""Segments join into files with every frame at its time, the sound untouched, and the same bytes every time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e3dge_video.io.indexing import build_index
from e3dge_video.io.mux import mux
from e3dge_video.io.reader import VideoReader
from e3dge_video.io.segments import H264, LosslessGray16, encode_segment, open_segment, read_segment
from tests.support.video_checks import FAST, segments_of, sound_of, times_of
from tests.support.video_corpus import barcode, read_number, tone, write_clip


def numbers_of(path):
    with VideoReader(path) as reader:
        return [read_number(picture) for picture in reader.read(0, len(reader)).rgb]


CASES = [
    "cfr",
    "vfr",
    "edit_list",
    "transport",
    "odd",
    "late_start",
    "no_duration",
    "gif",
    "avi",
    "one_frame",
    "thirteen_frames",
]


@pytest.mark.parametrize("name", CASES)
def test_every_frame_at_its_time_whatever_the_chunks(corpus, tmp_path, name):
    clip = corpus(name)
    out = tmp_path / "out.mp4"
    report = mux(out, segments_of(clip.path, 64))
    assert times_of(out) == times_of(clip.path)
    assert numbers_of(out) == list(range(clip.first_number, clip.first_number + clip.count))
    assert report.exact_times and report.frames == clip.count and not report.warnings
    assert (report.start, report.end) == (times_of(out)[0][0], times_of(out)[1])
    for chunk in (16, 128):
        again = tmp_path / f"chunks_of_{chunk}.mp4"
        mux(again, segments_of(clip.path, chunk))
        assert again.read_bytes() == out.read_bytes()


def test_file_plays_everywhere(corpus, tmp_path):
    out = tmp_path / "out.mp4"
    mux(out, segments_of(corpus("odd").path, 64))
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # the index stands in front
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (52, 48)
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert all(b.dts > a.dts for a, b in itertools.pairwise(packets))
        assert all(packet.dts <= packet.pts for packet in packets)
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 16, 32]


def test_each_group_of_pictures_stands_alone(corpus, tmp_path):
    """Closed GOPs: decoding from any keyframe shows exactly what decoding from the start shows."""
    out = tmp_path / "out.mp4"
    mux(out, segments_of(corpus("cfr").path, 64))
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert [read_number(f.to_ndarray(format="rgb24")) for p in packets[16:32] for f in p.decode()] != []
        context = stream.codec_context
        context.flush_buffers()
        shown = [f for p in [*packets[16:32], None] for f in context.decode(p)]
    assert [read_number(f.to_ndarray(format="rgb24")) for f in shown] == list(range(16, 32))
    assert not any(f.is_corrupt for f in shown)


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 40000), min_size=1, max_size=40),
    first=st.integers(-(10**6), 10**10),
    time_base=st.sampled_from(
        [Fraction(1, d) for d in (25, 1000, 11988, 12800, 90000, 16_000_000)] + [Fraction(1001, 30000)]
    ),
    first_frame=st.integers(0, 100),
)
def test_segments_keep_times(gaps, first, time_base, first_frame):
    pts = first + np.cumsum(gaps)
    durations = np.append(np.diff(pts), 77)
    frames = np.stack([barcode(i, (16, 16)) for i in range(len(pts))])
    frames.flags.writeable = False  # as they come out of Ray's object store
    data = encode_segment(frames, pts, durations, time_base, FAST, first_frame=first_frame)
    segment = read_segment(data)
    shown = sorted(segment.frames, key=lambda frame: frame.pts)
    assert [frame.pts for frame in shown] == pts.tolist()
    assert [frame.duration for frame in shown] == durations.tolist()
    assert (segment.first_pts, segment.end_pts, segment.time_base) == (pts[0], pts[-1] + 77, time_base)
    assert segment.frames[0].keyframe
    # A frame is decoded at most `delay` places before its turn.
    ranks = [pts.tolist().index(frame.pts) for frame in segment.frames]
    assert all(rank >= place - segment.delay for place, rank in enumerate(ranks))


@settings(max_examples=12, deadline=None)
@given(
    first=st.integers(0, 10**7),
    gaps=st.lists(st.integers(1, 4000), min_size=2, max_size=40),
    offset=st.integers(0, 300_000),
    time_base=st.sampled_from([Fraction(1, 12800), Fraction(1, 11988), Fraction(1, 90000), Fraction(1, 24000)]),
)
def test_start_offsets_between_picture_and_sound_survive(tmp_path_factory, first, gaps, offset, time_base):
    folder = tmp_path_factory.mktemp("offsets")
    source, out = folder / "sound.mp4", folder / "out.mp4"
    write_clip(source, [0], audio=[("aac", 48000, Fraction(1))], audio_offset=Fraction(offset, 48000))
    pts = first + np.cumsum(gaps)
    durations = np.append(np.diff(pts), gaps[0])
    frames = np.stack([barcode(i, (16, 16)) for i in range(len(pts))])
    mux(out, [encode_segment(frames, pts, durations, time_base, FAST)], audio=source)
    times, end = times_of(out)
    assert times == [int(p) * time_base for p in pts]
    assert end == int(pts[-1] + durations[-1]) * time_base
    assert sound_of(out) == sound_of(source)


SOUNDS = {
    "longer": [("aac", 48000, Fraction(3))],
    "shorter": [("aac", 44100, Fraction(1, 2))],
    "slow": [("aac", 16000, Fraction(8, 5))],
    "two tracks": [("aac", 48000, Fraction(2)), ("libmp3lame", 44100, Fraction(1))],
    "lossless": [("flac", 44100, Fraction(2)), ("alac", 48000, Fraction(1))],
    "opus": [("libopus", 48000, Fraction(2))],
    "old": [("ac3", 48000, Fraction(2)), ("mp2", 48000, Fraction(1))],
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_is_copied_packet_by_packet(tmp_path, name):
    source, out = tmp_path / "source.mp4", tmp_path / "out.mp4"
    write_clip(source, audio=SOUNDS[name])
    report = mux(out, segments_of(source, 16), audio=source)
    assert sound_of(out) == sound_of(source)
    assert times_of(out) == times_of(source)
    assert not report.warnings
    assert [(track.copied, track.packets, track.dropped) for track in report.audio] == [
        (True, len(packets), 0) for packets in sound_of(source)
    ]
    first = out.read_bytes()
    mux(out, segments_of(source, 64), audio=source)
    assert out.read_bytes() == first


def test_sound_from_matroska_keeps_its_times(tmp_path):
    source, out = tmp_path / "source.mkv", tmp_path / "out.mp4"
    write_clip(source, range(0, 1600, 40), Fraction(1, 1000), audio=[("aac", 48000, Fraction(2))])
    mux(out, segments_of(source, 16), audio=source)
    given, got = sound_of(source)[0], sound_of(out)[0]
    assert [data for *_, data in got] == [data for *_, data in given]
    assert all(a[0] == b[0] for a, b in zip(given, got, strict=True) if a[0] >= 0)


def test_sound_from_a_transport_stream_keeps_its_frames(corpus, tmp_path):
    """mp4 has no use for the seven bytes of ADTS header in front of every AAC frame; the rest is the same."""
    source, out = corpus("transport").path, tmp_path / "out.mp4"
    report = mux(out, segments_of(source, 64), audio=source)
    given, got = sound_of(source)[0], sound_of(out)[0]
    assert [data for *_, data in got] == [data[7:] for *_, data in given]
    assert max(abs(a[0] - b[0]) for a, b in zip(given, got, strict=True)) < Fraction(1, 48000)
    assert report.audio[0].copied


def test_sound_that_mp4_cannot_hold_becomes_aac_and_is_reported(tmp_path):
    source, out = tmp_path / "source.mov", tmp_path / "out.mp4"
    write_clip(
        source,
        range(0, 1600, 40),
        Fraction(1, 1000),
        audio=[("pcm_mulaw", 8000, Fraction(2)), ("aac", 48000, Fraction(2))],
        audio_offset=Fraction(1, 4),
    )
    report = mux(out, segments_of(source, 16), audio=source)
    assert report.warnings == ("sound track 1 (pcm_mulaw) converted to AAC: the output format cannot hold it",)
    assert [(track.codec, track.copied) for track in report.audio] == [("pcm_mulaw", False), ("aac", True)]
    with av.open(str(out)) as container:
        converted = container.streams.audio[0]
        assert converted.codec_context.name == "aac" and converted.rate == 8000
        frames = list(container.decode(converted))
    wave = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    onset = float(frames[0].pts * frames[0].time_base) + np.flatnonzero(np.abs(wave) > 0.1)[0] / 8000
    assert abs(onset - 0.25) < 0.02
    assert abs(len(wave) / 8000 - 2) < 0.3
    middle = wave[4000:8000]
    peak = np.abs(np.fft.rfft(middle)).argmax() * 8000 / len(middle)
    assert abs(peak - 440) < 3
    first = out.read_bytes()
    mux(out, segments_of(source, 16), audio=source)
    assert out.read_bytes() == first


def test_a_part_of_the_video_with_its_part_of_the_sound(tmp_path):
    source, out = tmp_path / "source.mp4", tmp_path / "part.mp4"
    write_clip(source, range(75), audio=[("aac", 48000, Fraction(3))])
    index = build_index(source)
    first, stop = index.span(Fraction(1), Fraction(2))
    assert (first, stop) == (25, 50)
    mux(
        out,
        segments_of(source, 16, start=first, stop=stop),
        audio=source,
        start=Fraction(1),
        end=Fraction(2),
        origin=Fraction(1),
    )
    assert times_of(out) == ([Fraction(i, 25) for i in range(25)], Fraction(1))
    assert numbers_of(out) == list(range(25, 50))
    frame = Fraction(1024, 48000)
    wanted = [(at - 1, data) for at, _, data in sound_of(source)[0] if at + frame > 1 and at < 2]
    assert [(at, data) for at, _, data in sound_of(out)[0]] == wanted
    with av.open(str(out)) as container:
        heard = [f.pts * f.time_base for f in container.decode(audio=0)]
    assert 0 <= heard[0] <= frame


def test_times_before_zero_are_moved_and_reported(tmp_path):
    pts = np.arange(-3, 10)
    frames = np.stack([barcode(i) for i in range(13)])
    out = tmp_path / "out.mp4"
    report = mux(out, [encode_segment(frames, pts, np.ones(13, int), Fraction(1, 25), FAST)])
    assert times_of(out)[0] == [Fraction(i, 25) for i in range(13)]
    assert "moved by 0.120 s" in report.warnings[0]


def test_depth_is_kept_exactly(tmp_path):
    depth = np.random.default_rng(1).integers(0, 65536, (20, 31, 33), dtype=np.uint16)
    pts, durations = np.arange(20) * 40, np.full(20, 40)
    for time_base, exact in ((Fraction(1, 1000), True), (Fraction(1, 12800), False)):
        files = []
        for chunk in (7, 20):
            out = tmp_path / f"depth{chunk}.mkv"
            parts = [
                encode_segment(
                    depth[a : a + chunk], pts[a : a + chunk], durations[a : a + chunk], time_base, LosslessGray16()
                )
                for a in range(0, 20, chunk)
            ]
            report = mux(out, parts)
            assert report.exact_times == exact and bool(report.warnings) != exact
            files.append(out.read_bytes())
            with av.open(str(out)) as container:
                decoded = list(container.decode(video=0))
            assert np.array_equal(np.stack([frame.to_ndarray() for frame in decoded]), depth)
            times = [Fraction(frame.pts) * frame.time_base for frame in decoded]
            assert max(abs(t - int(p) * time_base) for t, p in zip(times, pts, strict=True)) <= Fraction(1, 2000)
        assert files[0] == files[1]


def test_colours_survive_the_round_trip(tmp_path):
    colours = np.random.default_rng(2).integers(30, 220, (12, 3), dtype=np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (12, 32, 32, 3))
    out = tmp_path / "out.mp4"
    mux(out, [encode_segment(frames, np.arange(12), np.ones(12, int), Fraction(1, 25), H264())])
    with VideoReader(out) as reader:
        assert reader.info.colour.matrix == "bt709" and not reader.info.notes
        assert np.abs(reader.read(0, 12).rgb[:, 16, 16].astype(int) - colours).max() <= 3


PROGRAM = """
import hashlib, sys, numpy
from fractions import Fraction
from e3dge_video.io.segments import H264, LosslessGray16, encode_segment
noise = numpy.random.default_rng(0).integers(0, 255, (24, 60, 95, 3), dtype=numpy.uint8)
smooth = numpy.cumsum(noise - 128, axis=1).astype(numpy.uint8)
times, ones = numpy.arange(24), numpy.ones(24, int)
for encoding in (H264(), H264(preset="veryfast"), H264(preset="slow")):
    print(hashlib.sha256(encode_segment(smooth, times, ones, Fraction(1, 25), encoding)).hexdigest())
depth = smooth[..., 0].astype(numpy.uint16) * 257
print(hashlib.sha256(encode_segment(depth, times, ones, Fraction(1, 25), LosslessGray16())).hexdigest())
"""


def test_bytes_do_not_depend_on_what_memory_held_before():
    """x264's macroblock tree reads memory that nobody wrote; glibc can fill fresh memory with a chosen byte."""
    root = str(Path(__file__).parents[2])
    answers = set()
    for fill in ("0", "85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": root}
        answers.add(
            subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout
        )
    assert len(answers) == 1


def test_segments_that_do_not_follow_each_other_are_refused(corpus, tmp_path):
    parts = list(segments_of(corpus("cfr").path, 16))
    out = tmp_path / "out.mp4"
    for wrong in ([parts[0], parts[2]], [parts[1], parts[0]]):
        with pytest.raises(ValueError, match="begins at"):
            mux(out, wrong)
    with pytest.raises(ValueError, match="no segments"):
        mux(out, [])
    with pytest.raises(ValueError, match="must end in"):
        mux(tmp_path / "out.avi", parts)
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays behind


def test_segments_may_be_files_and_open_in_any_player(corpus, tmp_path):
    clip = corpus("vfr")
    paths = []
    for number, data in enumerate(segments_of(clip.path, 16)):
        paths.append(tmp_path / f"{number:06d}.nut")
        paths[-1].write_bytes(data)
    out = tmp_path / "out.mp4"
    mux(out, paths)
    assert times_of(out) == times_of(clip.path)
    with open_segment(paths[1].read_bytes()) as container:
        assert [read_number(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)][:3] == [16, 17, 18]


def test_sound_of_a_damaged_file_stops_where_it_ends(tmp_path):
    source, out = tmp_path / "source.mp4", tmp_path / "out.mp4"
    write_clip(source, range(75), audio=[("aac", 48000, Fraction(3))], container_options={"movflags": "+faststart"})
    source.write_bytes(source.read_bytes()[:-6000])
    whole = sound_of_readable(source)
    report = mux(out, segments_of(source, 16), audio=source)
    got = sound_of(out)[0]
    assert got == whole[: len(got)] and len(whole) - len(got) <= 1
    assert report.audio[0].packets == len(got)
    assert times_of(out)[0] == times_of(source)[0]


def sound_of_readable(path):
    packets = []
    with av.open(str(path)) as container:
        try:
            for packet in container.demux(audio=0):
                if packet.size:
                    packets.append((packet.pts * packet.time_base, packet.dts * packet.time_base, bytes(packet)))
        except av.error.FFmpegError:
            pass
    return packets


def test_tone_is_a_tone():
    """The generator of the test sound makes what the spectrum test above relies on."""
    wave = np.concatenate([frame.to_ndarray()[0] for frame in tone(8000, Fraction(1))])
    assert len(wave) == 8000 and abs(np.abs(np.fft.rfft(wave)).argmax() - 440) <= 1
