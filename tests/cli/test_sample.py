"""The bundled clip: what it is, that the front end can use it, and that the command copies it with care."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from e3dge_video.cli.main import main
from e3dge_video.faces.alignment import eg3d_crop, five_points
from e3dge_video.faces.landmarks import LandmarkOptions, available_backends, load_backend
from e3dge_video.faces.scan import scan_frames
from e3dge_video.faces.tracking import Track, track_person
from e3dge_video.io.indexing import build_index
from e3dge_video.sample import PROBE_CODECS, PROBE_LEVELS, probe_clip, sample_video

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(*arguments: str) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    with av.open(str(sample_video())) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def sound() -> NDArray[np.float32]:
    """The sound track, 48 kHz mono. [n]"""
    with av.open(str(sample_video())) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.fixture(scope="module")
def track(frames: list[NDArray[np.uint8]]) -> Track:
    if not any(status.name == "mesh" and status.ready for status in available_backends()):
        pytest.skip("the mesh landmark back end is not installed")
    scan = scan_frames(frames, 0, load_backend(LandmarkOptions(backend="mesh")))
    assert (scan.count == 1).all()
    return track_person(scan, np.arange(len(frames)) / 25)


def test_clip_is_small_square_and_five_seconds_long(sound: NDArray[np.float32]) -> None:
    assert sample_video().stat().st_size <= 600_000
    with av.open(str(sample_video())) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 512, 512)
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 48_000, "mono")
    index = build_index(sample_video())
    times = [int(pts) * index.time_base for pts in index.pts]
    assert times == [Fraction(n, 25) for n in range(125)]
    assert abs(len(sound) / 48_000 - 5) < 0.05
    assert 0.3 < np.abs(sound).max() < 0.95  # audible, not clipped
    assert np.abs(sound[: 48_000 // 4]).max() < 0.01  # silence before the first word


def test_the_face_is_found_in_every_frame_and_crops_stay_inside_the_picture(track: Track) -> None:
    assert (track.run == 0).all() and np.isfinite(track.points).all()
    crops = [eg3d_crop(points) for points in track.points]
    sides = np.array([crop.side for crop in crops])
    assert (sides > 200).all() and (sides < 300).all()
    centres = np.array([crop.centre for crop in crops])
    corners = np.stack([centres - sides[:, None] / 2, centres + sides[:, None] / 2])
    assert (corners > 0).all() and (corners < 512).all()


def test_the_head_turns_both_ways(track: Track) -> None:
    """The nose moves against the eyes by sin(yaw); 18 degrees each way give about ±0.3 of half the eyes' distance."""
    five = np.stack([five_points(points) for points in track.points])
    middle, half = five[:, :2].mean(1), np.linalg.norm(five[:, 1] - five[:, 0], axis=1) / 2
    offset = (five[:, 2, 0] - middle[:, 0]) / half
    assert offset.min() < -0.2 and offset.max() > 0.2


def test_eyes_blink(track: Track) -> None:
    eye = track.points[:, 36:42]
    openness = (eye[:, [1, 2], 1] - eye[:, [5, 4], 1]).mean(1) / (eye[:, 0, 0] - eye[:, 3, 0])
    closed = openness < 0.45 * np.median(openness)
    assert 3 <= np.count_nonzero(np.diff(closed.astype(int)) == 1) + int(closed[0]) <= 6


def test_lips_move_with_the_voice(track: Track, sound: NDArray[np.float32]) -> None:
    lips = track.points[:, 61:64, 1] - track.points[:, [67, 66, 65], 1]
    gap = np.abs(lips.mean(1)) / np.array([eg3d_crop(points).side for points in track.points])
    loud = np.sqrt((sound[: 125 * 1920].reshape(125, 1920) ** 2).mean(1))
    # Lips may lead a little, as in life, never lag: closed mouths hum and round ones sing, so it is no perfect match.
    match = {lag: np.corrcoef(gap[: 125 - lag], loud[lag:])[0, 1] for lag in range(8)}
    match |= {-lag: np.corrcoef(gap[lag:], loud[: 125 - lag])[0, 1] for lag in range(1, 8)}
    assert max(match, key=lambda lag: match[lag]) in (0, 1)
    assert max(match.values()) > 0.5


@pytest.mark.parametrize("codec", PROBE_CODECS)
def test_probe_clips_are_what_their_names_say(codec: str) -> None:
    assert len(probe_clip(codec)) < 4000
    assert len(PROBE_LEVELS) == 3
    with av.open(io.BytesIO(probe_clip(codec))) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name in (codec, f"lib{codec}", "av1")


def test_sample_copies_the_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my talk.mp4"
    assert run("sample", str(out)) == 0
    assert out.read_bytes() == sample_video().read_bytes()
    said = capsys.readouterr().out
    assert str(out) in said
    assert f"e3dge-video run '{out}' --edit age" in said


def test_sample_replaces_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "talk.mp4"
    out.write_bytes(b"mine")
    assert run("sample", str(out)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "talk.mp4" in error and "--overwrite" in error
    assert out.read_bytes() == b"mine"
    assert run("sample", str(out), "--overwrite") == 0
    assert out.read_bytes() == sample_video().read_bytes()


@pytest.mark.parametrize(
    ("name", "hint"), [("missing/talk.mp4", "no such folder"), ("talk.mov", ".mp4"), (".", "is a folder")]
)
def test_sample_says_why_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    assert run("sample", str(tmp_path / name)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and hint in error
    assert list(tmp_path.iterdir()) == []


def test_sample_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "e3dge_video.cli.main", "sample", "talk.mp4"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    first, second = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True) for _ in range(2)
    )
    assert (first.returncode, second.returncode) == (0, 1)
    assert (tmp_path / "talk.mp4").read_bytes() == sample_video().read_bytes()
    assert second.stderr.startswith("error: talk.mp4") and second.stderr.count("\n") == 1


def test_the_script_makes_the_bundled_sound(monkeypatch: pytest.MonkeyPatch, sound: NDArray[np.float32]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from make_sample import VOICE_SEED
    from sample_clip.voice import speak

    made = speak(5.0, VOICE_SEED)
    assert np.corrcoef(made, sound[: len(made)])[0, 1] > 0.98


def test_the_script_makes_the_bundled_pictures(
    monkeypatch: pytest.MonkeyPatch, frames: list[NDArray[np.uint8]]
) -> None:
    if importlib.util.find_spec("anny") is None:
        pytest.skip("procedural heads need the extra `heads`")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import make_sample

    first = next(make_sample.frames())
    error = first.astype(float) - frames[0]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 34
