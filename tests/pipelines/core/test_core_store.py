"""Chunk files and the work folder's lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fake_portrait as fake
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from e3dge_video.pipelines.core import store
from e3dge_video.pipelines.core.plan import plan_job
from e3dge_video.pipelines.core.spec import PipelineError
from e3dge_video.pipelines.core.store import DamagedChunkError, WorkDir

ARRAYS = npst.arrays(
    st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.float64, np.bool_, np.dtype(">f4")]),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
PAYLOADS = st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS | st.binary(max_size=20), max_size=4)


@given(PAYLOADS)
def test_a_result_comes_back_from_its_file_as_it_was(payload: dict) -> None:
    data = store.encode(payload, "key")
    assert data == store.encode(dict(reversed(payload.items())), "key")
    back = store.decode(data, "key")
    assert back.keys() == payload.keys()
    for name, value in payload.items():
        if isinstance(value, bytes):
            assert back[name] == value and isinstance(back[name], bytes)
        else:
            assert back[name].shape == value.shape and back[name].dtype == value.dtype.newbyteorder("=")
            np.testing.assert_array_equal(back[name], value)


@given(PAYLOADS, st.data())
def test_any_damage_is_seen(payload: dict, data: st.DataObject) -> None:
    whole = bytearray(store.encode(payload, "key"))
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
        damaged = whole
    try:
        back = store.decode(bytes(damaged), "key")
    except ValueError:
        return
    assert store.payload_digest(back) == store.payload_digest(payload)  # the padding was hit


def test_transposed_and_sliced_arrays_are_stored_by_value() -> None:
    array = np.arange(24.0).reshape(4, 6)
    back = store.decode(store.encode({"t": array.T, "s": array[::2, 1:]}, "k"), "k")
    np.testing.assert_array_equal(back["t"], array.T)
    np.testing.assert_array_equal(back["s"], array[::2, 1:])


def test_only_whole_chunks_of_the_same_settings_count_as_done(tmp_path: Path) -> None:
    plan = plan_job(fake.portrait_job(tmp_path))
    with WorkDir(plan) as work:
        for chunk in range(4):
            work.write("scan", chunk, {"points": np.full(3, chunk)})
        folder = next((work.path / "chunks").iterdir())
        (folder / "000001.safetensors").write_bytes(b"")
        short = (folder / "000002.safetensors").read_bytes()[:-1]
        (folder / "000002.safetensors").write_bytes(short)
        (folder / "000004.tmp").write_bytes(b"half written")
        assert work.stored()["scan"] == {0, 3}
        # Same length, other content: seen on reading, and removed so that it is computed again.
        last = folder / "000003.safetensors"
        last.write_bytes(last.read_bytes()[:-1] + b"x")
        assert work.stored()["scan"] == {0, 3}
        with pytest.raises(DamagedChunkError, match="checksum"):
            work.read("scan", 3)
        assert work.stored()["scan"] == {0}
        with pytest.raises(DamagedChunkError, match="gone"):
            work.read("scan", 3)
    with WorkDir(plan):
        assert not list(folder.glob("*.tmp"))
    for other in (
        fake.portrait_job(tmp_path, chunk=32),
        fake.portrait_job(tmp_path, seed=2),
        fake.portrait_job(tmp_path, frames=301),
    ):
        with WorkDir(plan_job(other)) as work:
            assert work.stored()["scan"] == set()


def test_a_chunk_file_under_a_wrong_name_is_not_taken(tmp_path: Path) -> None:
    one, two = (plan_job(fake.portrait_job(tmp_path, seed=seed)) for seed in (1, 2))
    with WorkDir(one) as work:
        work.write("scan", 0, {"points": np.zeros(3)})
        source = work._path("scan", 0)
    with WorkDir(two) as work:
        target = work._path("scan", 0)
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
        assert work.stored()["scan"] == set()
        with pytest.raises(DamagedChunkError, match="other settings"):
            work.read("scan", 0)


def test_a_file_gets_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise OSError("the process dies here")

    with WorkDir(plan_job(fake.portrait_job(tmp_path))) as work:
        monkeypatch.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="dies here"):
            work.write("scan", 0, {"points": np.zeros(3)})
        assert not list(work.path.glob("chunks/*/*.safetensors"))


def test_two_runs_cannot_share_a_work_folder(tmp_path: Path) -> None:
    plan = plan_job(fake.portrait_job(tmp_path))
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.flock(f, fcntl.LOCK_EX);"
        "f.truncate(0); f.write(b' process 77 on box'); f.flush(); print('locked', flush=True); sys.stdin.read()"
    )
    with WorkDir(plan), pytest.raises(PipelineError, match=r"in use by process \d+"), WorkDir(plan):
        pass
    command = [sys.executable, "-c", script, str(plan.job.work_dir / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(PipelineError, match="in use by process 77 on box"), WorkDir(plan):
            pass
        other.kill()
    with WorkDir(plan):  # a killed process leaves no lock behind
        pass


def test_unusable_work_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    with (
        pytest.raises(PipelineError, match="cannot be used as a work folder"),
        WorkDir(plan_job(fake.portrait_job(tmp_path))),
    ):
        pass


@pytest.mark.parametrize("bad", [None, [1], {"a": [1]}, {"a": np.array(["x"])}, {"a": np.array([{}])}, {1: b""}])
def test_results_that_cannot_be_kept_are_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="stage x returned"):
        store.check_payload(bad, "stage x")
