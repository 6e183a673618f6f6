"""Nothing stands under the final name until it is whole, and what cannot be continued leaves no trace."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from e3dge_video.errors import InputError, ModelError
from e3dge_video.io import atomic
from e3dge_video.pipelines import portrait
from e3dge_video.pipelines.core.local import LocalExecutor
from e3dge_video.pipelines.core.plan import plan_job
from e3dge_video.pipelines.core.spec import Interrupted, Job, Outcome, PipelineError
from e3dge_video.pipelines.core.store import WorkDir
from e3dge_video.pipelines.output import OutputFolder
from tests.support.portraits import Altered, Failing, Stopping, Studio, with_body

CHUNK = 32


def failing(stage: str, chunk: int, error: Exception) -> Altered:
    return Altered(LocalExecutor(), lambda job: with_body(job, stage, lambda body: Failing(body, chunk, error)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An older result in the way."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "portrait.json").write_text("{}")
    (out / "rgb.mp4").write_text("older")
    return out


def test_an_older_result_is_refused_and_with_overwrite_replaced_at_the_very_end(studio: Studio, older: Path) -> None:
    with pytest.raises(InputError, match=f"{older}: is already there; choose another --out, or give --overwrite"):
        studio.run(older)
    with pytest.raises(InputError, match="damaged"):
        studio.run(older, failing("encode", 1, InputError("clip: damaged")), chunk_frames=CHUNK, overwrite=True)
    assert names(older.parent) == ["out"] and names(older) == ["portrait.json", "rgb.mp4"]
    assert (older / "rgb.mp4").read_text() == "older"
    seen = []

    class Watching:
        def run(self, jobs: list[Job]) -> list[Outcome]:
            outcomes = LocalExecutor().run(jobs)
            seen.append((older / "rgb.mp4").read_text())
            return outcomes

    studio.run(older, Watching(), overwrite=True)
    assert seen == ["older"] and names(older.parent) == ["out"]
    assert (older / "rgb.mp4").stat().st_size > 1000


def test_only_results_of_this_program_are_replaced(studio: Studio, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").touch()
    with pytest.raises(InputError, match="holds other things than a result of this program"):
        studio.run(out, overwrite=True)
    (out / "holiday.jpg").rename(tmp_path / "file")
    with pytest.raises(InputError, match="is a file, but a folder is to be written"):
        studio.run(tmp_path / "file", overwrite=True)
    assert names(tmp_path) == ["file", "photos"]
    studio.run(out, overwrite=True)  # empty: nothing is lost
    assert "rgb.mp4" in names(out)


def test_the_source_is_not_replaced_by_its_result(studio: Studio, older: Path) -> None:
    folder = OutputFolder(older)
    with pytest.raises(InputError, match="lies in the folder that --overwrite would replace"):
        folder.check(older / "rgb.mp4", overwrite=True)
    with pytest.raises(InputError):
        OutputFolder(Path("/")).check(older / "rgb.mp4", overwrite=True)


def test_a_link_to_a_folder_stays_a_link(studio: Studio, older: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(older, target_is_directory=True)
    studio.run(link, overwrite=True)
    assert link.is_symlink() and "compare.mp4" in names(older)
    assert names(tmp_path) == ["link", "out"]


@pytest.mark.parametrize(
    ("stage", "chunk", "error"),
    [
        ("scan", 0, ModelError("bundle: damaged")),  # before the first chunk is finished
        ("encode", 2, InputError("clip: damaged")),  # the same command would end alike
    ],
)
def test_a_run_that_cannot_go_on_leaves_nothing(
    studio: Studio, tmp_path: Path, stage: str, chunk: int, error: Exception
) -> None:
    with pytest.raises(type(error), match=r"damaged$"):
        studio.run(tmp_path / "a" / "b" / "out", failing(stage, chunk, error), chunk_frames=CHUNK)
    assert names(tmp_path) == []


def test_a_run_that_can_go_on_says_so_and_does(studio: Studio, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with pytest.raises(ModelError) as error:
        studio.run(out, failing("portrait", 1, ModelError("bundle: damaged")), chunk_frames=CHUNK)
    assert str(error.value) == ("bundle: damaged; 7 finished chunks are kept, the same command continues from there")
    assert names(tmp_path / "a") == ["out.partial"] and not (tmp_path / "a" / "out.partial" / "result").exists()
    assert "scan" not in studio.run(out, chunk_frames=CHUNK).report["time"]["tasks"]
    assert names(tmp_path / "a") == ["out"]


def test_a_bug_keeps_what_was_done_and_stays_a_bug(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        studio.run(tmp_path / "out", failing("encode", 1, ZeroDivisionError("oh")), chunk_frames=CHUNK)
    assert names(tmp_path) == ["out.partial"]


def test_ctrl_c_before_the_first_chunk_leaves_nothing(studio: Studio, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"^stopped; nothing is kept$"):
        studio.run(tmp_path / "out", Stopping(0))
    assert names(tmp_path) == []


def test_ctrl_c_while_the_files_are_written(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(portrait, "write_report", press)
        with pytest.raises(Interrupted, match="9 finished chunks are kept") as stopped:
            studio.run(tmp_path / "out", chunk_frames=CHUNK)
    assert (stopped.value.jobs[0].chunks_kept, stopped.value.jobs[0].chunks_total) == (9, 9)
    assert names(tmp_path) == ["out.partial"]
    assert studio.run(tmp_path / "out", chunk_frames=CHUNK).report["time"]["tasks"] == {}


def test_where_nothing_can_be_written(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"out.partial: cannot be written \(Not a directory\); choose another --out"):
        studio.run(tmp_path / "file" / "out")
    if os.name == "posix" and os.geteuid() != 0:  # the superuser may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
            studio.run(tmp_path / "locked" / "new" / "out")
        assert names(tmp_path / "locked") == []


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a chunk, a file of the result or the report is written."""
    with monkeypatch.context() as patch:
        patch.setattr(WorkDir, "write", full_disk)
        with pytest.raises(PipelineError, match="No space left on device"):
            studio.run(tmp_path / "out", chunk_frames=CHUNK)
    assert names(tmp_path) == []
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_sync_folder", full_disk)  # from the first file of the result on
        with pytest.raises(PipelineError, match="No space left on device"):
            studio.run(tmp_path / "out", chunk_frames=CHUNK)
    with monkeypatch.context() as patch:
        patch.setattr(portrait, "write_report", full_disk)
        with pytest.raises(PipelineError) as error:
            studio.run(tmp_path / "out", chunk_frames=CHUNK)
    assert str(error.value) == (
        f"{tmp_path / 'out.partial'}: No space left on device; make room there, or choose another --out; "
        "9 finished chunks are kept, the same command continues from there"
    )
    studio.run(tmp_path / "out", chunk_frames=CHUNK)
    assert names(tmp_path) == ["out"]


def test_two_runs_with_one_output_folder(studio: Studio, tmp_path: Path) -> None:
    """The second one ends with one line and leaves the first alone, whatever it was told to throw away."""

    class Meanwhile:
        def run(self, jobs: list[Job]) -> list[Outcome]:
            with WorkDir(plan_job(jobs[0])):
                for again in ({}, {"resume": False}, {"start_s": 1}):
                    with pytest.raises(PipelineError, match="in use by process"):
                        studio.run(tmp_path / "out", **again)
            return LocalExecutor().run(jobs)

    studio.run(tmp_path / "out", Meanwhile())
    assert names(tmp_path) == ["out"] and "rgb.mp4" in names(tmp_path / "out")
