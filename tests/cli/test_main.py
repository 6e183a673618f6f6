"""The command line as a whole: help without heavy imports, exit codes, warnings beside bars."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from e3dge_video import __version__
from e3dge_video.cli import main as cli
from e3dge_video.errors import InputError
from e3dge_video.pipelines.core.progress import BarProgress
from e3dge_video.pipelines.core.spec import Interrupted
from e3dge_video.pipelines.core.state import StageProgress


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | None]]:
    """A verb `models` that raises what the list holds."""
    happening: list[BaseException | None] = []

    @click.command("models")
    def models() -> None:
        for error in happening:
            if error is not None:
                raise error

    def get(self: click.Group, context: click.Context, name: str) -> click.Command | None:
        return models if name == "models" else None

    monkeypatch.setattr(type(cli._group), "get_command", get)
    yield happening


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0 and all(f"  {verb} " in out for verb in ("run", "models", "train"))
    assert call(capsys, "--version")[1] == f"e3dge-video, version {__version__}\n"
    code, out, _ = call(capsys, "run", "-h")
    assert code == 0 and "e3dge-video run talk.mp4 --edit age" in out


def test_help_is_instant() -> None:
    """Nothing heavy is loaded to show it."""
    code = (
        "import sys\nfrom e3dge_video.cli.main import main\n"
        "try:\n main(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'av', 'ray', 'scipy', 'tqdm', 'numba'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_exit_codes(capsys: pytest.CaptureFixture[str], verb: list[BaseException | None]) -> None:
    assert call(capsys, "models") == (0, "", "")
    verb[:] = [InputError("talk.mp4: no such file")]
    assert call(capsys, "models") == (1, "", "error: talk.mp4: no such file\n")
    verb[:] = [Interrupted([])]
    code, out, err = call(capsys, "models")
    assert (code, out, err.strip()) == (130, "", "stopped; nothing is kept")
    verb[:] = [KeyboardInterrupt()]
    code, _, err = call(capsys, "models")
    assert (code, err.strip()) == (130, "stopped")
    assert call(capsys, "nothing")[0] == 1
    assert call(capsys, "models", "--wrong")[0] == 1


def test_a_bug_is_a_traceback(verb: list[BaseException | None]) -> None:
    verb[:] = [ZeroDivisionError("bug")]
    with pytest.raises(ZeroDivisionError):
        cli.main(["models"])


def test_warnings_stand_above_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = BarProgress(terminal)
    bars.update([StageProgress("scan", 10, 100, 1)], 0, 1)
    handler = cli._AboveBars()
    handler.handle(logging.LogRecord("e3dge_video.x", logging.WARNING, "", 0, "frame %d is damaged", (7,), None))
    bars.close()
    shown = terminal.getvalue()
    before, after = shown.split("frame 7 is damaged\n")
    assert before.endswith("\r"), "the bar was wiped from the line"
    assert "scan" in before and "10/100 frames" in after, "and drawn again below"


def test_warnings_without_bars(capsys: pytest.CaptureFixture[str]) -> None:
    handler = cli._AboveBars()
    handler.handle(logging.LogRecord("e3dge_video.x", logging.WARNING, "", 0, "be careful", (), None))
    assert capsys.readouterr().err == "be careful\n"
