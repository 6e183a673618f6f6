"""Every file of the shared test media through the command: the right result, or one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import e3dge_video
from e3dge_video.errors import E3DGEError
from e3dge_video.faces.landmarks import LandmarkOptions, choose_backend
from tests.support.portraits import Studio
from tests.support.video_checks import sound_of, times_of

pytestmark = [pytest.mark.media, pytest.mark.slow]


@dataclass(frozen=True)
class Good:
    """What the result must be.

    Attributes:
        frames: Frames of every output file, each at its time in the source.
        report: Entries of the report's `frames`.
        size: Size of the picture as shown.
        anchors: Identities found.
        note: Part of a line on standard error.
    """

    frames: int
    report: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (256, 256)
    anchors: int = 1
    note: str = ""


EXPECTED: dict[str, Good | str] = {
    "hard/anamorphic_sar.mp4": Good(38),
    "hard/anim.gif": Good(10),
    "hard/audio_only.mp4": "has aac sound but no video; give a file with a picture track",
    "hard/audio_shorter.mp4": Good(63),
    "hard/blank20.mp4": Good(70, {"without_face_spans": [[25, 44]]}, note="20 of 70 frames show no face"),
    "hard/corrupt_bytes.mp4": Good(74, {"lost": 0}, note="damaged or cut off: 74 frames can be read, 1 of 75 are lost"),
    "hard/fps23976.mp4": Good(60),
    "hard/fullrange.mp4": Good(38),
    "hard/hdr10_tagged.mp4": Good(38),
    "hard/no_face.mp4": "no face found in any of its 50 frames; expected a talking head",
    "hard/odd_dims_251x247.mp4": Good(38, size=(251, 247)),
    "hard/one_frame.mp4": Good(1),
    "hard/real_multishot.mp4": Good(275, {"cuts": [20, 82, 211]}, size=(640, 360), anchors=3, note="show no face"),
    "hard/rotated90.mp4": Good(60, {"without_face": 0}, size=(190, 360)),
    "hard/scene_cut.mp4": Good(60, {"cuts": [30]}, anchors=2),
    "hard/short_0p5s.mp4": Good(13),
    "hard/start_offset.mp4": Good(50),
    "hard/text_file.mp4": "is a text file, not a video; give a video file such as mp4",
    "hard/truncated_faststart.mp4": Good(14, note="damaged or cut off: 14 frames can be read, 61 of 75 are lost"),
    "hard/truncated_no_moov.mp4": "the file is cut off: its index (the mp4 'moov' part, written last) is missing",
    "hard/two_faces.mp4": Good(50, {"most_faces_at_once": 2}, size=(512, 256)),
    "hard/vfr.mp4": Good(57),
    "hard/vp9_noduration.webm": Good(38),
    "hard/yuv444.mp4": Good(38),
    "hard/zero_length.mp4": "the file is empty (0 bytes); copy or download it again",
    "clips/portrait_480x908.mp4": Good(297, {"without_face": 0}, size=(480, 908)),
    "clips/strong_motion.mp4": Good(183, {"without_face": 0}, size=(512, 512)),
    "clips/talk_frontal.mp4": Good(125, {"without_face": 0, "cuts": []}, size=(512, 512)),
    "clips/talk_turns_mpeg4.mp4": Good(200, {"without_face": 0, "cuts": []}, size=(512, 512)),
}


@pytest.fixture(scope="module")
def landmarks() -> str:
    """A back end that finds real faces."""
    try:
        return choose_backend(LandmarkOptions())[0]
    except E3DGEError as error:
        pytest.skip(str(error))


def test_every_file_is_looked_at(media: Path) -> None:
    found = {f"{folder}/{path.name}" for folder in ("hard", "clips") for path in (media / folder).iterdir()}
    assert found == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_file(name: str, studio: Studio, media: Path, landmarks: str, tmp_path: Path) -> None:
    video, out, expected = media / name, tmp_path / "out", EXPECTED[name]
    command = [sys.executable, "-m", "e3dge_video.cli.main", "run", str(video), "--model", str(studio.model)]
    command += ["--out", str(out), "--executor", "local", "--threads", "1", "--landmarks", landmarks]
    root = Path(e3dge_video.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert "Traceback" not in done.stderr
    if isinstance(expected, str):
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(f"error: {video}: {expected}") and len(done.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []
        return

    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert expected.note in done.stderr
    # Reading a damaged file for its sound is the mux's business and is tested there.
    source_times, source_end = times_of(video)
    assert len(source_times) == expected.frames
    for file in ("rgb.mp4", "depth.mp4", "compare.mp4"):
        times, end = times_of(out / file)
        assert times == source_times, file
        assert end == source_end, file
        assert sound_of(out / file) == sound_of(video), file
    report = json.loads((out / "report.json").read_text())
    assert report["video"]["frames_used"] == expected.frames
    assert tuple(report["video"]["size"]) == expected.size
    assert {key: report["frames"][key] for key in expected.report} == expected.report
    arrays = load_file(out / "portrait.safetensors")
    assert len(arrays["anchors"]) == expected.anchors
    seen = arrays["run"] >= 0
    # Nobody is changed for somebody else: within a run the crop never leaps by half of its side.
    same = seen[1:] & (arrays["run"][1:] == arrays["run"][:-1])
    steps = np.linalg.norm(np.diff(arrays["crop"][:, :2], axis=0), axis=1) / np.exp(arrays["crop"][1:, 2])
    assert (steps[same] < 0.5).all()
