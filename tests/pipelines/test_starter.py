"""The model that ships on the clip that ships: what the first command gives, in small."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import e3dge_video
from e3dge_video.errors import E3DGEError
from e3dge_video.faces.landmarks import LandmarkOptions, choose_backend
from e3dge_video.pipelines.portrait import RunResult
from e3dge_video.pipelines.stages.depth import DEPTH_OFFSET, DEPTH_SCALE
from e3dge_video.sample import sample_video
from e3dge_video.weights.bundle import read_bundle
from e3dge_video.weights.catalog import find_bundle

FRAMES = 16


def pictures(path: Path, pixel_format: str = "rgb24") -> NDArray[np.generic]:
    """All frames. [T, H, W, ...]"""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=pixel_format) for frame in container.decode(video=0)])


def portrait(folder: Path, *edits: str) -> RunResult:
    """The clip's first frames, in this process."""
    return e3dge_video.run(
        sample_video(), edits=edits, views=["input", "20,0"], end=FRAMES / 25, out=folder / "_".join(("p", *edits)),
        executor="local", threads=1, progress="none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    try:
        choose_backend(LandmarkOptions())
    except E3DGEError as error:
        pytest.skip(f"no landmark back end works here: {error}")
    return portrait(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def older(plain: RunResult, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return portrait(tmp_path_factory.mktemp("older"), "age")


def face(video: NDArray[np.generic]) -> NDArray[np.float64]:
    """The middle of each picture, where the face is, in 0..1."""
    size = video.shape[1]
    part = slice(size // 4, 3 * size // 4)
    return video[:, part, part].astype(np.float64) / 255


def test_the_bundle_is_whole_and_free() -> None:
    bundle = read_bundle(find_bundle("starter"))
    spec = bundle.spec
    assert spec.name == "starter" and spec.licence == "CC0-1.0" and spec.resolution >= 128
    assert {"age", "smile", "mouth_open", "eyes_closed", "gender", "glasses", "beard"} <= set(spec.edits)
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) <= 40e6
    for name, run in spec.provenance["runs"].items():
        assert "seed" in run["options"]["loop"] and run["figures"], name


def test_the_person_stays_at_the_input_view(plain: RunResult) -> None:
    assert plain.frames == FRAMES
    shown = pictures(plain.folder / "compare.mp4")
    size = shown.shape[2] // 5
    crop, coarse, result = (shown[:, -size:, k * size : (k + 1) * size] for k in range(3))
    own = np.abs(face(result) - face(crop)).mean()
    assert own < 0.03, "the lifted residual brings the person back"
    assert own < 0.5 * np.abs(face(coarse) - face(crop)).mean()


def test_the_head_is_found_and_followed(plain: RunResult) -> None:
    quality = plain.report["quality"]
    assert plain.report["frames"]["with_face"] == FRAMES
    assert quality["landmark_residual_share_of_eye_distance"] < 0.1
    assert quality["share_of_head_with_own_detail"] > 0.5
    # A mid-grey head would be about 0.4 away (range 2).
    assert quality["global_reconstruction_mae"] < 0.3


def test_depth_is_that_of_a_head(plain: RunResult) -> None:
    codes = pictures(plain.folder / "depth.mkv", "gray16le")
    size = codes.shape[1]
    depth = np.where(codes > 0, codes * DEPTH_SCALE + DEPTH_OFFSET, np.nan)
    middle = depth[:, size // 2 - 8 : size // 2 + 8, size // 2 - 8 : size // 2 + 8]
    assert np.isfinite(middle).all(), "the face is solid"
    assert np.nanmean(middle) < np.nanmean(depth) - 0.02, "the nose is nearer than the rest"
    assert (codes[:, :4, :4] == 0).all(), "nothing stands in the corner"


def test_another_view_shows_another_side(plain: RunResult) -> None:
    front, side = (pictures(plain.folder / name) for name in ("rgb.mp4", "rgb_yaw+20.mp4"))
    assert 0.02 < np.abs(face(front) - face(side)).mean() < 0.3


def test_age_shows_and_stays_a_face(plain: RunResult, older: RunResult) -> None:
    before, after = (face(pictures(result.folder / "rgb.mp4")) for result in (plain, older))
    assert 0.005 < np.abs(after - before).mean() < 0.2
