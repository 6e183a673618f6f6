"""`run` with the paper's models: EG3D with encoders that it taught, and E3DGE as released on StyleSDF."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy

from e3dge_video.cli.main import main
from e3dge_video.faces.alignment import eg3d_crop, ffhq_crop
from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.editing import Edit
from e3dge_video.io.reader import VideoReader
from e3dge_video.pipelines.report import second_difference
from e3dge_video.weights.bundle import read_bundle, write_bundle
from tests.support.portraits import Studio, differing, result_bytes
from tests.support.talking_clip import Talk, write_talk
from tests.support.tiny_model import write_tiny_bundle, write_tiny_hybrid, write_tiny_paper, write_tiny_toon

if TYPE_CHECKING:
    from e3dge_video.pipelines.core.rayexec import RaySession

OPTIONS = {"views": (parse_view("input"), parse_view("20,0")), "edits": (Edit("age", ((0.0, 0.0), (0.5, 1.5))),)}


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return write_talk(tmp_path_factory.mktemp("talk"), frames=20)


@pytest.fixture(scope="module", params=["eg3d", "stylesdf"])
def studio(request: pytest.FixtureRequest, talk: Talk, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    write = write_tiny_paper if request.param == "eg3d" else write_tiny_hybrid
    return Studio(write(tmp_path_factory.mktemp("models") / "tiny"), talk)


@pytest.fixture(scope="module")
def made(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return studio.run(tmp_path_factory.mktemp("made") / "out", **OPTIONS).folder


def frames(folder: Path, name: str) -> np.ndarray:
    with VideoReader(folder / name) as reader:
        return reader.read(0, len(reader)).rgb.astype(float)


def test_pictures_depth_codes_and_cameras(studio: Studio, made: Path, talk: Talk) -> None:
    spec, report = read_bundle(studio.model).spec, json.loads((made / "report.json").read_text())
    assert frames(made, "rgb.mp4").shape == (20, spec.resolution, spec.resolution, 3)
    assert np.abs(frames(made, "rgb.mp4") - frames(made, "rgb_yaw+20.mp4")).mean() > 0.5
    arrays = safetensors.numpy.load_file(made / "portrait.safetensors")
    assert arrays["latents"].shape == (20, *spec.generator.latent_shape) and "anchors" not in arrays
    distance = np.linalg.norm(arrays["cam2world"][:, :3, 3], axis=1)
    np.testing.assert_allclose(distance, 2.7 if spec.backbone == "eg3d" else 1.0, atol=1e-3)
    crop = (eg3d_crop if spec.crop == "eg3d" else ffhq_crop)(talk.points[:, 0])
    assert np.abs(arrays["crop"][:, 2] - crop.log_side).max() < 0.05, "the model's own crop"
    described = json.loads((made / "portrait.json").read_text())
    assert described["codes"] == "W+ code of frame t = latents[t]" and described["crop"] == spec.crop
    quality = report["quality"]
    assert quality["global_reconstruction_mae"] > 0 and "share_of_head_with_own_detail" not in quality
    assert "fitted to landmarks" not in (made / "report.html").read_text()


def test_depth_is_in_the_range_of_its_code(studio: Studio, tmp_path: Path) -> None:
    stages = studio.stages(tmp_path, **OPTIONS)
    codes = np.asarray(stages["portrait"]["depth_0"])
    described = {"eg3d": (1.5, 2.7), "stylesdf": (0.85, 1.15)}[read_bundle(studio.model).spec.backbone]
    from e3dge_video.pipelines.stages.depth import depth_code_of

    code = depth_code_of(read_bundle(studio.model).spec.backbone)
    depth = codes[codes > 0] * code.scale + code.offset
    assert len(depth) and described[0] < depth.min() <= depth.max() < described[1] + 0.8 * (code.offset > 1)


def test_codes_and_cameras_are_smooth(studio: Studio, tmp_path: Path) -> None:
    stages = studio.stages(tmp_path, smooth_s=0.3)
    run = np.asarray(stages["track"]["run"])
    for name in ("latents", "cam2world"):
        before, after = (np.asarray(stages[stage][name]) for stage in ("observe", "settle"))
        assert second_difference(after, run) < 0.95 * second_difference(before, run), name
        np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=0.05)
    plain = studio.stages(tmp_path / "plain", smooth_s=0.0)
    assert np.array_equal(plain["settle"]["latents"], plain["observe"]["latents"])


def test_an_edit_is_seen_from_everywhere(studio: Studio, made: Path, tmp_path: Path) -> None:
    plain = studio.run(tmp_path / "out", views=OPTIONS["views"]).folder
    for name in ("rgb.mp4", "rgb_yaw+20.mp4"):
        change = np.abs(frames(made, name) - frames(plain, name)).mean(axis=(1, 2, 3))
        assert change[0] < 0.5 * change[-1], "it begins with nothing; compression spreads a little of it"
        assert change[-1] > 1


def test_chunks_and_executors_give_the_same_bytes(
    studio: Studio, made: Path, tmp_path: Path, ray_session: RaySession
) -> None:
    from e3dge_video.pipelines.core.rayexec import RayExecutor

    chunks = studio.run(tmp_path / "chunks", chunk_frames=16, **OPTIONS).folder
    assert differing(result_bytes(chunks), result_bytes(made)) == []
    with RayExecutor() as executor:
        ray = studio.run(tmp_path / "ray", executor, **OPTIONS).folder
    assert differing(result_bytes(ray), result_bytes(made)) == []


def test_a_toon_part_draws_the_same_codes(talk: Talk, tmp_path: Path) -> None:
    model = write_tiny_toon(write_tiny_paper(tmp_path / "tiny"))
    photo, toon = (Studio(model, talk).run(tmp_path / f"{degree}", toon=degree).folder for degree in (0.0, 1.0))
    assert np.abs(frames(photo, "rgb.mp4") - frames(toon, "rgb.mp4")).mean() > 0.5
    assert "portrait.safetensors" not in differing(result_bytes(photo), result_bytes(toon))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--toon", "the model tiny has no toon generator, which --toon needs"),
        ("--edit=hat", "this model cannot edit 'hat'; it knows age, smile"),
    ],
)
def test_what_a_model_cannot_do_is_one_line(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert message in refusal(write_tiny_paper(tmp_path / "tiny"), talk, capsys, option)


def test_models_without_encoders_and_of_animals_are_refused(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = read_bundle(write_tiny_paper(tmp_path / "cats"))
    write_bundle(bundle.folder, replace(bundle.spec, crop="afhq"), bundle.tensors)
    assert "cropped as afhq; videos need one of human faces" in refusal(bundle.folder, talk, capsys)
    alone = read_bundle(write_tiny_bundle(tmp_path / "alone"))
    write_bundle(alone.folder, replace(alone.spec, encoder=None, matte=None), alone.tensors)
    assert "is a generator alone, without the encoders (E0, E_ξ)" in refusal(alone.folder, talk, capsys)


def refusal(model: Path, talk: Talk, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    own = ["--landmarks", "file", "--landmark-file", str(talk.landmarks), "--out", str(model.parent / "refused")]
    with pytest.raises(SystemExit) as end:
        main(["run", str(talk.video), "--model", str(model), "--executor", "local", *own, *options])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and len(lines) == 1
    return lines[0]
