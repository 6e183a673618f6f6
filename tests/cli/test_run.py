"""`e3dge-video run` as a user meets it: exit codes, what is printed where, and what is left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import e3dge_video
from e3dge_video.cli.main import main
from tests.support.portraits import Studio, differing, result_bytes
from tests.support.talking_clip import write_talk
from tests.support.video_checks import times_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(studio: Studio, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process: exit code, standard output, standard error."""

    def call(video: Path | str, *options: object, landmarks: bool = True) -> tuple[int, str, str]:
        arguments = ["run", str(video), "--model", str(studio.model), "--executor", "local", "--threads", "1"]
        if landmarks:
            arguments += ["--landmark-file", str(studio.talk.landmarks)]
        with pytest.raises(SystemExit) as end:
            main([*arguments, *map(str, options)])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return call


def only_error(result: tuple[int, str, str]) -> str:
    """The one line that a user's mistake is answered with."""
    code, out, err = result
    assert code == 1 and out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run(studio: Studio, run: Run, tmp_path: Path) -> None:
    """Also with edits, views and odd names, and without an extension."""
    video = tmp_path / "zwei Köpfe, né 😀"
    shutil.copy(studio.talk.video, video)
    code, out, err = run(
        video, "--edit", "age=0@0s,1@1s", "--edit", "smile=0.5", "--view", "frontal", "--view", "-15,0"
    )
    assert code == 0
    folder = tmp_path / "zwei Köpfe, né 😀_e3dge"
    assert "rgb_yaw-15.mp4" in names(folder)
    first, second = out.splitlines()
    assert re.fullmatch(rf"68 frames in \d+\.\d s \(\d+(\.\d+)? frames per second\) → {re.escape(str(folder))}", first)
    assert second == f"look at {folder}/report.html or play {folder}/compare.mp4"
    *earlier, progress, note = err.splitlines()
    assert all(line.startswith("scan ") for line in earlier), "a slow machine reports on the way"
    assert re.match(
        r"scan 68/68 .*\| prep 68/68 .*\| observe 68/68 .*\| prep again 68/68 .*\| portrait 68/68", progress
    )
    assert note == "note: 12 of 68 frames show no face"
    report = json.loads((folder / "report.json").read_text())
    assert report["options"]["edits"] == {"age": [[0.0, 0.0], [1.0, 1.0]], "smile": [[0.0, 0.5]]}
    assert names(tmp_path) == [video.name, folder.name]
    message = only_error(run(video))
    assert message == f"{folder}: is already there; choose another --out, or give --overwrite to replace it"


def test_start_end_preview(studio: Studio, run: Run, tmp_path: Path) -> None:
    times, _ = times_of(studio.talk.video)
    out = tmp_path / "out"
    assert run(studio.talk.video, "--out", out, "--start", "0:00.5", "--end", "1.25s")[0] == 0
    inside = [t - times[0] for t in times if 0.5 <= t - times[0] < 1.25]
    assert json.loads((out / "report.json").read_text())["video"]["frames_used"] == len(inside)
    assert run(studio.talk.video, "--out", out, "--overwrite", "--preview", "--progress", "none")[1:] != ("", "")
    assert json.loads((out / "report.json").read_text())["video"]["frames_used"] == 68, "shorter than a preview"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edit", "beard"], "--edit beard: this model cannot edit 'beard'; it knows age, smile"),
        (["--edit", "age=9"], "--edit age=9: strength 9 is outside -2…2, where age works"),
        (["--edit", "age=x"], "--edit age=x: write a strength (age=1.5) or keyframes (age=0@0s,2@4s)"),
        (["--edit", "age", "--edit", "age=1"], "--edit age=1: age is given, too, for the same layers; give one"),
        (["--edit", "age:0-40"], "--edit age:0-40: in this model age moves layers 0-5, which are counted from 0"),
        (["--view", "above"], "--view above: expected input, frontal, orbit, ellipse, YAW,PITCH in degrees or a"),
        (["--view", "20,0", "--view", "20,0"], "--view: 2 views are called yaw+20; each needs a name of its own"),
        (["--view", "cam.json"], "cam.json: no such camera path file; check --view"),
        (["--model", "nobody"], "nobody: no such model bundle; installed: "),
        (["--chunk", "40"], "--chunk 40: must be a multiple of 16"),
        (["--start", "abc"], "--start abc: expected seconds (12.5) or minutes and seconds (1:05.5)"),
        (["--start", "2", "--end", "1"], "--end 1: must come after --start 2"),
        (["--preview", "--end", "1"], "--preview and --end: give one of them"),
        (
            ["--start", "90"],
            "talk.mp4: has no frames from 90 s to its end; it is 2.720 s long, change --start or --end",
        ),
        (["--person", "1"], "talk.mp4: person 1 (counted from 0) was asked for, but at most 1 face is seen at a time"),
        (["--device", "toaster"], "--device toaster: expected auto, cpu, cuda, cuda:1, … or mps"),
        (["--address", "auto"], "--address auto: is for --executor ray"),
        (["--landmarks", "mesh"], "contradicts --landmarks mesh; leave one of them out"),
        (["--landmark-file", "none.npz"], "none.npz: no such landmark file; check --landmark-file"),
        (["--smooth", "-1"], "Invalid value for '--smooth': -1.0 is not in the range 0<=x<=5."),
        (["--no-such-option"], "No such option"),
    ],
)
def test_mistakes_are_one_line(studio: Studio, run: Run, tmp_path: Path, options: list[str], message: str) -> None:
    assert message in only_error(run(studio.talk.video, "--out", tmp_path / "out", *options))
    assert names(tmp_path) == []


def test_landmark_files(studio: Studio, run: Run, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "out", "--landmarks", "file")
    message = only_error(run(studio.talk.video, *options, landmarks=False))
    assert message == "--landmarks file: needs --landmark-file with the landmarks (.npz or .json)"
    bad = tmp_path / "points.npz"
    bad.write_text("no points")
    assert "not a landmark file" in only_error(run(studio.talk.video, *options, "--landmark-file", bad))
    assert names(tmp_path) == ["points.npz"]


def test_files_that_are_no_video(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 99)
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 99)
    before = names(tmp_path)
    for name, what in [
        ("folder", "is a folder, a video file was expected"),
        ("empty.mp4", "the file is empty (0 bytes)"),
        ("text.mp4", "is a text file, not a video"),
        ("noise.mp4", "is not a video that can be opened"),
        ("missing.mp4", "no such file; check the path"),
    ]:
        message = only_error(run(tmp_path / name))
        assert message.startswith(f"{tmp_path / name}: {what}")
    assert names(tmp_path) == before


def test_unreadable_and_unwritable(studio: Studio, run: Run, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may read and write everything")
    video = tmp_path / "talk.mp4"
    shutil.copy(studio.talk.video, video)
    video.chmod(0)
    assert "cannot be read (Permission denied)" in only_error(run(video))
    video.chmod(0o600)
    tmp_path.chmod(0o500)
    assert "cannot be written (Permission denied)" in only_error(run(video))
    tmp_path.chmod(0o700)
    assert names(tmp_path) == ["talk.mp4"]


def test_output_in_odd_places(studio: Studio, run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to(studio.talk.video)
    assert run(link, "--out", tmp_path / "new" / "deep" / "out")[0] == 0
    assert "rgb.mp4" in names(tmp_path / "new" / "deep" / "out")
    (tmp_path / "file").touch()
    assert "is a file, but a folder" in only_error(run(link, "--out", tmp_path / "file", "--overwrite"))
    assert "Not a directory" in only_error(run(link, "--out", tmp_path / "file" / "out"))


def test_nobody_in_the_picture(run: Run, tmp_path: Path) -> None:
    talk = write_talk(tmp_path, frames=20, missing=range(20))
    message = only_error(run(talk.video, "--landmark-file", talk.landmarks))
    assert message.startswith(f"{talk.video}: no face found in any of its 20 frames; expected a talking head")
    assert names(tmp_path) == ["talk.mp4", "talk_landmarks.npz"]


def command(studio: Studio, *options: object) -> list[str]:
    own = ["--model", studio.model, "--landmark-file", studio.talk.landmarks, "--executor", "local", "--threads", 1]
    return [sys.executable, "-m", "e3dge_video.cli.main", "run", *map(str, (studio.talk.video, *own, *options))]


def environment() -> dict[str, str]:
    root = str(Path(e3dge_video.__file__).parent.parent)
    return os.environ | {"PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}


def wait_for_chunks(folder: Path, pattern: str) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob(f"work/chunks/{pattern}/*.safetensors")):
        assert time.monotonic() < until, "no chunk was finished"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def long(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Long enough to be stopped in time, and with more frames than the stopped runs ever see."""
    return Studio(studio.model, write_talk(tmp_path_factory.mktemp("long"), frames=240, sound=False))


def test_ctrl_c_and_sigkill(long: Studio, tmp_path: Path) -> None:
    """The one says how to go on, the other cannot; both can be gone on from, to the same bytes."""
    out = tmp_path / "out"
    arguments: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": environment(),
        "text": True,
    }
    run = command(long, "--out", out, "--chunk", 16, "--end", 4, "--progress", "none")
    with subprocess.Popen(run, **arguments) as process:
        wait_for_chunks(tmp_path / "out.partial", "scan-*")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stdout == ""
    assert re.fullmatch(r"\n?stopped; \d+ finished chunks are kept, the same command continues from there\n", stderr)
    assert names(tmp_path) == ["out.partial"]

    with subprocess.Popen(run, **arguments) as process:
        wait_for_chunks(tmp_path / "out.partial", "observe-*")
        process.kill()
        process.communicate(timeout=60)
    assert names(tmp_path) == ["out.partial"]

    done = subprocess.run(run, timeout=120, check=True, **arguments)
    assert "(going on from a stopped run)" in done.stdout and done.stderr == ""
    long.run(tmp_path / "expected", end_s=4)
    assert differing(result_bytes(out), result_bytes(tmp_path / "expected")) == []


def test_bars_on_a_terminal(studio: Studio, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    arguments = command(studio, "--out", tmp_path / "out", "--end", "0.5")
    process = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment())
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=60) == 0
    os.close(master)
    text = shown.decode()
    for stage in ("scan", "prep", "observe", "prep again", "portrait", "encode"):
        assert re.search(rf"{stage}\s+100%\|█+\| 13/13 frames", text), stage
    assert "13 frames in" in text and "look at" in text


def test_json_progress_is_for_programs(studio: Studio, run: Run, tmp_path: Path) -> None:
    code, _, err = run(studio.talk.video, "--out", tmp_path / "out", "--end", "0.5", "--progress", "json")
    events = [json.loads(line) for line in err.splitlines()]
    assert code == 0 and events
    assert [(s["stage"], s["frames_done"], s["frames"]) for s in events[-1]["stages"]] == [
        (stage, 13, 13) for stage in ("scan", "prep", "observe", "prep again", "portrait", "encode")
    ]


def test_a_closed_pipe_is_no_traceback(studio: Studio, tmp_path: Path) -> None:
    """`e3dge-video … | head`: whoever reads has gone."""
    process = subprocess.Popen(
        command(studio, "--out", tmp_path / "out", "--end", "0.2", "--progress", "none"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1
    assert "Traceback" not in err
    assert names(tmp_path) == ["out"], "the work itself was done"
