"""What is in the output folder: every frame at its time, sound untouched, exact depth, files that agree."""

from __future__ import annotations

import html.parser
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from e3dge_video.geometry.cameras import EG3D_FOCAL, Camera
from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.editing import Edit
from e3dge_video.inversion.load import load_inverter
from e3dge_video.inversion.settling import compose
from e3dge_video.io.images import to_tensor
from e3dge_video.io.reader import VideoReader
from e3dge_video.pipelines.core.spec import Payload
from e3dge_video.pipelines.portrait import RunResult
from tests.support.portraits import Studio
from tests.support.talking_clip import write_talk
from tests.support.video_checks import sound_of, times_of

FILES = {
    "rgb.mp4", "rgb_yaw+20.mp4", "depth.mp4", "depth_yaw+20.mp4", "depth.mkv", "depth_yaw+20.mkv", "compare.mp4",
    "portrait.safetensors", "portrait.json", "cameras.json", "transforms.json", "report.json", "report.html",
}  # fmt: skip
FRAMES = 44


class Made:
    """A run with two views and an edit, and the same stages run by hand."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        options = {"views": (parse_view("input"), parse_view("20,0")), "edits": (Edit("age", ((0.0, 1.0),)),)}
        self.studio = studio
        self.result: RunResult = studio.run(folder / "out", chunk_frames=32, **options)
        self.folder = self.result.folder
        self.by_hand: dict[str, Payload] = studio.stages(folder, **options)
        self.arrays = load_file(self.folder / "portrait.safetensors")

    def frames(self, name: str) -> NDArray[np.uint8]:
        with VideoReader(self.folder / name) as reader:
            return reader.read(0, len(reader)).rgb


@pytest.fixture(scope="module")
def made(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("files")
    # Irregular times that begin late, and a stretch without a face.
    pts = (600 + np.cumsum(np.resize([25, 25, 30, 7], FRAMES))).tolist()
    talk = write_talk(folder, frames=FRAMES, pts=pts, missing=range(20, 34))
    return Made(Studio(studio.model, talk), folder)


def test_the_folder_has_these_files(made: Made) -> None:
    assert {path.name for path in made.folder.iterdir()} == FILES
    assert made.result.frames == FRAMES


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".mp4")))
def test_times_and_sound_are_the_sources(made: Made, name: str) -> None:
    video = made.studio.talk.video
    assert times_of(made.folder / name) == times_of(video)
    assert sound_of(video) != []
    assert sound_of(made.folder / name) == sound_of(video)


@pytest.mark.parametrize(("name", "stage_array"), [("depth.mkv", "depth_0"), ("depth_yaw+20.mkv", "depth_1")])
def test_depth_is_kept_exactly(made: Made, name: str, stage_array: str) -> None:
    expected = np.asarray(made.by_hand["portrait"][stage_array])
    decoded, times = [], []
    with av.open(str(made.folder / name)) as container:
        for frame in container.decode(video=0):
            decoded.append(frame.to_ndarray(format="gray16le"))
            times.append(Fraction(frame.pts) * frame.time_base)
    np.testing.assert_array_equal(np.stack(decoded), expected)
    assert (expected > 0).mean() > 0.1, "there is a head"
    source, _ = times_of(made.studio.talk.video)
    assert max(abs(a - b) for a, b in zip(times, source, strict=True)) <= Fraction(1, 1000)


def test_depth_codes_mean_what_portrait_json_says(made: Made) -> None:
    told = json.loads((made.folder / "portrait.json").read_text())["depth"]
    codes = np.asarray(made.by_hand["portrait"]["depth_0"]).astype(float)
    distance = np.where(codes > 0, codes * told["scale"] + told["offset"], np.nan)
    assert 2.0 < np.nanmin(distance) < np.nanmax(distance) < 3.3


@pytest.mark.parametrize(("name", "array"), [("rgb.mp4", "rgb_0"), ("rgb_yaw+20.mp4", "rgb_1")])
def test_pictures_are_the_models(made: Made, name: str, array: str) -> None:
    expected = np.asarray(made.by_hand["portrait"][array]).astype(float)
    error = made.frames(name).astype(float) - expected
    # Colour at half resolution costs most of it.
    assert 10 * np.log10(255**2 / (error**2).mean()) > 25
    assert abs(error.mean()) < 1.0


def test_compare_shows_input_and_result_under_their_names(made: Made) -> None:
    frames = made.frames("compare.mp4")
    assert frames.shape == (FRAMES, 24 + 64, 5 * 64, 3)
    crops = np.asarray(made.by_hand["prep"]["crops"]).astype(float)
    for panel, expected in enumerate((crops, np.asarray(made.by_hand["portrait"]["coarse"]))):
        shown = frames[:, 24:, 64 * panel : 64 * (panel + 1)].astype(float)
        assert np.abs(shown - expected).mean() < 8
    for panel in range(5):
        assert (frames[0, :24, 64 * panel : 64 * (panel + 1)] > 120).sum() > 30, "a name in every panel"


def test_portrait_arrays_are_described_and_agree(made: Made) -> None:
    described = json.loads((made.folder / "portrait.json").read_text())["arrays"]
    arrays = made.arrays
    assert described.keys() == arrays.keys()
    counts = {name: len(value) for name, value in arrays.items() if name != "anchors"}
    assert set(counts.values()) == {FRAMES}
    source, _ = times_of(made.studio.talk.video)
    assert arrays["times_s"].tolist() == [float(time - source[0]) for time in source]
    missing = arrays["run"] < 0
    assert np.flatnonzero(missing).tolist() == list(range(20, 34))
    assert arrays["source"].tolist() == [19 if gone else k for k, gone in enumerate(missing)]
    assert len(arrays["anchors"]) == 1, "one shot, one identity, however many chunks"
    assert arrays["anchor"].tolist() == [0] * FRAMES
    track = made.by_hand["track"]
    for name in ("crop", "landmarks"):
        np.testing.assert_array_equal(arrays[name], np.asarray(track[name]))


def test_portrait_arrays_are_enough_to_render_again(made: Made) -> None:
    """Codes and cameras from the file, the crop from the source: the picture of the run."""
    inverter, arrays = load_inverter(str(made.studio.model)), made.arrays
    part = np.arange(8, 16)
    with torch.inference_mode():
        anchors = torch.tensor(arrays["anchors"])[torch.tensor(arrays["anchor"][part]).long()]
        latents = compose(anchors, torch.tensor(arrays["expression"][part]), inverter.expression)
        label = torch.tensor(arrays["view_cameras"][part])
        camera = Camera.from_eg3d(label)
        torch.testing.assert_close(camera.cam2world, torch.tensor(arrays["cam2world"][part]), atol=0, rtol=0)
        image = to_tensor(np.asarray(made.by_hand["prep"]["crops"])[part])
        inversion = inverter.invert(image, camera, landmarks=torch.tensor(arrays["landmarks"][part]), latents=latents)
        edited = inverter.edit(inversion, latents + inverter.directions["age"])
        picture = inverter.synthesize(inversion, camera, edited).image
    expected = np.asarray(made.by_hand["portrait"]["rgb_0"])[part].astype(float)
    again = ((picture + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(again - expected).max() <= 1.0


def test_cameras_agree_in_all_files(made: Made) -> None:
    cameras = json.loads((made.folder / "cameras.json").read_text())
    labels = np.array([label for _, label in cameras["labels"]])
    np.testing.assert_allclose(labels, made.arrays["view_cameras"], atol=1e-6)
    assert cameras["times_s"] == made.arrays["times_s"].tolist()
    nerf = json.loads((made.folder / "transforms.json").read_text())
    assert [nerf[key] for key in ("w", "h", "cx", "cy")] == [64, 64, 32, 32]
    assert nerf["fl_x"] == nerf["fl_y"] == pytest.approx(EG3D_FOCAL * 64, rel=1e-6)
    poses = np.array([frame["transform_matrix"] for frame in nerf["frames"]])
    own = labels[:, :16].reshape(-1, 4, 4)
    np.testing.assert_allclose(poses[:, :3, 3], own[:, :3, 3], atol=1e-6)
    np.testing.assert_allclose(poses[:, :3, 1], -own[:, :3, 1], atol=1e-6, err_msg="y up")
    np.testing.assert_allclose(poses[:, :3, 2], -own[:, :3, 2], atol=1e-6, err_msg="looking along -z")
    assert [frame["time"] for frame in nerf["frames"]] == cameras["times_s"]


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path.name} contains {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_report_counts_what_happened(made: Made) -> None:
    report = strict_json(made.folder / "report.json")
    assert report == json.loads(json.dumps(dict(made.result.report)))
    assert report["frames"] == {
        "with_face": 30, "bridged": 0, "without_face": 14, "without_face_spans": [[20, 33]], "most_faces_at_once": 1,
        "cuts": [20, 34], "repeated": report["frames"]["repeated"], "corrupt": 0, "lost": 0,
    }  # fmt: skip
    assert report["options"]["edits"] == {"age": [[0.0, 1.0]]}
    assert report["options"]["views"] == ["input", "yaw+20"]
    assert report["model"]["name"] == "tiny" and report["model"]["licence"] == "Apache-2.0"
    assert report["video"]["frames_used"] == report["video"]["frames_in_file"] == FRAMES
    assert report["video"]["audio"] == ["aac"]
    quality = report["quality"]
    assert 0 < quality["pose_jitter_deg_after"] < quality["pose_jitter_deg_before"]
    assert 0 < quality["crop_jitter_px_512_after"] < quality["crop_jitter_px_512_before"]
    assert quality["landmark_residual_share_of_eye_distance"] < 0.15, "the drawn face is the mean face"
    assert report["time"]["tasks"] == {"scan": 2, "prep": 4, "observe": 2, "portrait": 2, "encode": 2}
    assert not report["time"]["resumed"]


def test_report_page_is_whole_and_needs_nothing_from_elsewhere(made: Made) -> None:
    page = (made.folder / "report.html").read_text()

    class Page(html.parser.HTMLParser):
        VOID = ("meta", "img")

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.links: list[str] = []
            self.images = 0
            self.plots = 0

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe", "object")
            self.plots += tag == "svg"
            if tag not in self.VOID:
                self.open.append(tag)
            for name, value in attributes:
                assert not name.startswith("on")
                if name in ("src", "href") and value:
                    self.images += value.startswith("data:image/")
                    self.links += [] if value.startswith("data:image/") else [value]

        def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.handle_starttag(tag, attributes)
            self.handle_endtag(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Page()
    parser.feed(page)
    assert parser.open == [], "every element is closed"
    assert parser.images == 6 and parser.plots == 5
    assert "http" not in page and "url(" not in page
    from urllib.parse import unquote

    assert {unquote(link) for link in parser.links} == FILES - {"report.html"}, "links to the files beside it"


def test_names_in_the_report_are_escaped(studio: Studio, tmp_path: Path) -> None:
    talk = write_talk(tmp_path, name="a <b> & 'c'.mp4", frames=3, sound=False)
    result = Studio(studio.model, talk).run(tmp_path / "out")
    page = (result.folder / "report.html").read_text()
    assert "<b>" not in page and "a &lt;b&gt; &amp; &#x27;c&#x27;.mp4" in page
