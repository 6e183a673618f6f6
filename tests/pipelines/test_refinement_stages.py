"""`--refine` in the pipeline: same bytes however it is run, resumed within its rounds, told in the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from e3dge_video.errors import ConfigError
from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.refinement.frames import FrameRefinementConfig
from e3dge_video.inversion.refinement.load import MetricFiles
from e3dge_video.inversion.refinement.personalization import PersonalizationConfig
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.plan import plan_job
from e3dge_video.pipelines.core.spec import Interrupted
from e3dge_video.pipelines.graph import build_job
from e3dge_video.pipelines.options import RefineOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.request import run
from e3dge_video.weights.bundle import read_spec
from tests.support.portraits import Stopping, Studio, differing, result_bytes

VIEWS = (parse_view("15,0"),)
FRAMES = FrameRefinementConfig(steps=3, pose_lr=5e-3, code_lr=1e-2)
CLIP = PersonalizationConfig(key_frames=6, rounds=3, steps=2, batch=2, anchor_points=32, own_code_lr=0.0)
POSE_AND_CODE = {"refine": RefineOptions("pose+code", frames=FRAMES), "views": VIEWS}
PERSON = {"refine": RefineOptions("clip", clip=CLIP), "views": VIEWS}
OWN = replace(CLIP, own_code_lr=5e-3, own_pose_lr=2e-3)
PERSON_OWN = {"refine": RefineOptions("clip", clip=OWN), "views": VIEWS}


@pytest.fixture(scope="module")
def plain(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    studio.run(out, views=VIEWS)
    return out


@pytest.fixture(scope="module")
def tuned(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "out"
    studio.run(out, **PERSON)
    return out


@pytest.fixture(scope="module")
def tuned_own(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned_own") / "out"
    studio.run(out, **PERSON_OWN)
    return out


@pytest.fixture(scope="module")
def adjusted(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adjusted") / "out"
    studio.run(out, **POSE_AND_CODE)
    return out


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "portrait.safetensors")


def test_frames_are_adjusted(plain: Path, adjusted: Path) -> None:
    before, after = arrays(plain), arrays(adjusted)
    seen = before["run"] >= 0
    assert np.abs(after["cam2world"] - before["cam2world"])[seen].max() > 1e-4
    assert after["offset"].shape[1:] == before["anchors"].shape[1:] and np.abs(after["offset"][seen]).max() > 1e-3
    np.testing.assert_array_equal(after["offset"][~seen], after["offset"][after["source"][~seen]])
    report = json.loads((adjusted / "report.json").read_text())["refinement"]
    assert report["mode"] == "pose+code" and report["loss_after"] < report["loss_before"] and report["steps"] == 3
    assert any("stands in for LPIPS" in term for term in report["objective"]) or "LPIPS" in report["objective"]
    described = json.loads((adjusted / "portrait.json").read_text())["arrays"]
    assert described.keys() == after.keys()
    assert "pose+code" in (adjusted / "report.html").read_text()


def test_the_generator_becomes_the_persons(plain: Path, tuned: Path) -> None:
    before, after = arrays(plain), arrays(tuned)
    np.testing.assert_array_equal(before["cam2world"], after["cam2world"])
    assert after["anchors"].shape == before["anchors"].shape
    assert (np.abs(after["anchors"] - before["anchors"]).max(axis=(1, 2)) > 1e-4).all(), "every scene has its own code"
    weights = safetensors.numpy.load_file(tuned / "generator.safetensors")
    assert "decoder.output.weight" in weights and not any(name.startswith("mapping") for name in weights)
    report = json.loads((tuned / "report.json").read_text())["refinement"]
    assert report["mode"] == "clip" and report["steps"] == 6 and report["loss_after"] < report["loss_before"]
    assert len(report["key_frames"]) == 6 and (before["run"][report["key_frames"]] >= 0).all()
    assert {"rgb.mp4", "depth.mkv"} <= set(differing(result_bytes(plain), result_bytes(tuned)))
    assert json.loads((plain / "report.json").read_text())["refinement"] == {"mode": "none"}


def test_own_offsets_of_key_frames_reach_the_frames_between(plain: Path, tuned_own: Path) -> None:
    before, after = arrays(plain), arrays(tuned_own)
    report = json.loads((tuned_own / "report.json").read_text())["refinement"]
    keys = np.array(report["key_frames"])
    offset, scene = after["offset"], after["anchor"]
    assert offset.shape == (len(after["run"]), *after["anchors"].shape[1:])
    assert np.abs(offset[keys]).max(axis=(1, 2)).min() > 1e-4
    turn = np.abs(after["cam2world"] - before["cam2world"]).max(axis=(1, 2))
    assert turn[keys].min() > 1e-5 and turn.max() < 0.1
    for left, right in pairwise(keys):
        if scene[left] == scene[right]:
            inside = offset[left : right + 1][after["run"][left : right + 1] >= 0]
            low, high = np.minimum(offset[left], offset[right]), np.maximum(offset[left], offset[right])
            assert (inside >= low - 1e-6).all() and (inside <= high + 1e-6).all()
    described = json.loads((tuned_own / "portrait.json").read_text())["arrays"]
    assert described.keys() == after.keys()


@pytest.mark.parametrize(
    ("name", "options"), [("adjusted", POSE_AND_CODE), ("tuned", PERSON), ("tuned_own", PERSON_OWN)]
)
def test_chunk_size(
    studio: Studio, request: pytest.FixtureRequest, tmp_path: Path, name: str, options: dict[str, object]
) -> None:
    studio.run(tmp_path / "out", chunk_frames=16, **options)
    assert differing(result_bytes(tmp_path / "out"), result_bytes(request.getfixturevalue(name))) == []


def test_ray(studio: Studio, tuned: Path, tuned_own: Path, adjusted: Path, tmp_path: Path, ray_session: object) -> None:
    from e3dge_video.pipelines.core.rayexec import RayExecutor

    with RayExecutor() as executor:
        studio.run(tmp_path / "tuned", executor, chunk_frames=32, **PERSON)
        studio.run(tmp_path / "own", executor, chunk_frames=32, **PERSON_OWN)
        studio.run(tmp_path / "adjusted", executor, chunk_frames=32, **POSE_AND_CODE)
    assert differing(result_bytes(tmp_path / "tuned"), result_bytes(tuned)) == []
    assert differing(result_bytes(tmp_path / "own"), result_bytes(tuned_own)) == []
    assert differing(result_bytes(tmp_path / "adjusted"), result_bytes(adjusted)) == []


def test_a_stopped_tuning_goes_on_from_its_last_round(studio: Studio, tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    polls = 0
    while not list((tmp_path / "out.partial").glob("work/chunks/tune2-*/000000.safetensors")):
        polls += 1
        assert polls < 60
        with pytest.raises(Interrupted):
            studio.run(out, Stopping(4), **PERSON)
    tasks = studio.run(out, **PERSON).report["time"]["tasks"]
    assert not {"scan", "observe", "collect", "tune1"} & tasks.keys()
    assert tasks.get("tune2", 0) < 2, "what chunk 0 had done was kept"
    assert differing(result_bytes(out), result_bytes(tuned)) == []


def test_schedule_and_networks_are_part_of_the_keys(studio: Studio, tmp_path: Path) -> None:
    index, spec = build_index(studio.talk.video), read_spec(studio.model)

    def keys(refine: RefineOptions) -> Mapping[str, str]:
        options = studio.options(refine=refine)
        return plan_job(build_job(studio.talk.video, index, OutputFolder(tmp_path / "out"), options, spec)).keys

    first = keys(RefineOptions("clip", clip=CLIP))
    for other in (replace(CLIP, weight_lr=1e-3), replace(CLIP, seed=1), OWN):
        changed = keys(RefineOptions("clip", clip=other))
        assert changed["collect"] == first["collect"], "the same key frames"
        assert all(changed[stage] != first[stage] for stage in ("tune1", "tune2", "portrait", "encode"))
    measured = keys(RefineOptions("clip", clip=CLIP, metrics=MetricFiles(perceptual="0" * 64)))
    assert measured["tune1"] != first["tune1"]
    dropped, between = keys(RefineOptions("clip", clip=OWN, own_offsets="drop")), keys(PERSON_OWN["refine"])  # type: ignore[arg-type]
    assert dropped["tune2"] == between["tune2"] and dropped["refined"] != between["refined"], "the tuning serves both"
    frames = keys(RefineOptions("pose", frames=FRAMES)), keys(RefineOptions("pose", frames=replace(FRAMES, steps=4)))
    assert frames[0]["refine"] != frames[1]["refine"] and frames[0]["settle"] == frames[1]["settle"] == first["settle"]


def test_a_state_of_another_format_is_not_read(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, spec = build_index(studio.talk.video), read_spec(studio.model)

    def keys() -> Mapping[str, str]:
        options = studio.options(refine=RefineOptions("clip", clip=CLIP))
        return plan_job(build_job(studio.talk.video, index, OutputFolder(tmp_path / "out"), options, spec)).keys

    now = keys()
    monkeypatch.setattr("e3dge_video.pipelines.refinement._STATE_FORMAT", 1)
    before = keys()
    assert before["collect"] == now["collect"] and all(before[name] != now[name] for name in ("tune1", "tune2"))


def test_an_unknown_mode_is_refused(studio: Studio) -> None:
    with pytest.raises(ConfigError, match="--refine more: expected none, pose, pose\\+code, clip"):
        run(studio.talk.video, model=str(studio.model), refine="more")  # type: ignore[arg-type]
