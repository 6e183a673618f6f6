"""What each option does to the result."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from e3dge_video.errors import ConfigError, InputError
from e3dge_video.faces.alignment import eg3d_crop
from e3dge_video.geometry.views import parse_view
from e3dge_video.inversion.editing import Edit
from e3dge_video.io.reader import VideoReader
from tests.support.portraits import Studio
from tests.support.talking_clip import write_talk
from tests.support.video_checks import sound_of, times_of

FRAMES = 40


@pytest.fixture(scope="module")
def clip(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Two people, a gap without faces, times that begin late."""
    folder = tmp_path_factory.mktemp("clip")
    pts = (300 + np.cumsum(np.resize([24, 24, 30, 18], FRAMES))).tolist()
    return Studio(studio.model, write_talk(folder, frames=FRAMES, pts=pts, people=2, missing=range(14, 24)))


@pytest.fixture(scope="module")
def plain(clip: Studio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip.run(tmp_path_factory.mktemp("plain") / "out").folder


@pytest.fixture(scope="module")
def stages(clip: Studio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return clip.stages(tmp_path_factory.mktemp("stages"))


def frames(folder: Path, name: str = "rgb.mp4") -> NDArray[np.float64]:
    with VideoReader(folder / name) as reader:
        return reader.read(0, len(reader)).rgb.astype(float)


def panel(folder: Path, number: int) -> NDArray[np.float64]:
    return frames(folder, "compare.mp4")[:, 24:, 64 * number : 64 * (number + 1)]


def arrays(folder: Path) -> dict[str, Any]:
    return load_file(folder / "portrait.safetensors")


def change(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Mean change of each frame. [N]"""
    return np.abs(a.astype(float) - b.astype(float)).mean(axis=(1, 2, 3))


def sources_time(clip: Studio, number: int) -> Fraction:
    times, end = times_of(clip.talk.video)
    return [*times, end][number]


def test_start_and_end_cut_picture_and_sound_at_one_place(clip: Studio, plain: Path, tmp_path: Path) -> None:
    first, stop = 5, 30
    since, until = (sources_time(clip, k) - sources_time(clip, 0) for k in (first, stop))
    result = clip.run(tmp_path / "out", start_s=since, end_s=until)
    assert result.frames == stop - first
    times, end = times_of(result.folder / "rgb.mp4")
    moved = [sources_time(clip, k) - sources_time(clip, first) for k in range(first, stop + 1)]
    assert [*times, end] == moved
    [sound], [whole] = sound_of(result.folder / "rgb.mp4"), sound_of(clip.talk.video)
    origin = sources_time(clip, first)
    length = whole[1][0] - whole[0][0]
    heard = [p for p in whole if p[0] + length > origin and p[0] < sources_time(clip, stop)]
    assert [data for *_, data in sound] == [data for *_, data in heard]
    # Sound and picture keep their distance to the tick of the sound's own clock.
    assert all(abs(p[0] - (q[0] - origin)) <= Fraction(1, 16000) for p, q in zip(sound, heard, strict=True))
    # The pictures are those of the whole clip, but for the scene's shared identity and smoothing at the ends.
    assert result.report["video"]["first_frame"] == first
    assert arrays(result.folder)["times_s"].tolist() == [float(time) for time in moved[:-1]]
    assert change(panel(result.folder, 0), panel(plain, 0)[first:stop]).mean() < 3.0


def test_end_alone_keeps_the_beginning_as_it_is(clip: Studio, tmp_path: Path) -> None:
    """A video that starts late still does."""
    result = clip.run(tmp_path / "out", end_s=Fraction(1, 2))
    times, _ = times_of(result.folder / "rgb.mp4")
    source, _ = times_of(clip.talk.video)
    assert times == source[: len(times)] and result.frames == len(times) == 13
    [sound], [whole] = sound_of(result.folder / "rgb.mp4"), sound_of(clip.talk.video)
    assert sound == whole[: len(sound)] and 0 < len(sound) < len(whole)


def test_an_end_beyond_the_clip_changes_nothing(clip: Studio, plain: Path, tmp_path: Path) -> None:
    result = clip.run(tmp_path / "out", end_s=Fraction(60))
    assert (result.folder / "rgb.mp4").read_bytes() == (plain / "rgb.mp4").read_bytes()


def test_a_part_without_frames_is_an_error_and_leaves_nothing(clip: Studio, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"talk.mp4: has no frames from 9 s to its end; it is 1.6\d* s long"):
        clip.run(tmp_path / "deep" / "out", start_s=Fraction(9))
    assert list(tmp_path.iterdir()) == []


def test_chunks_off_the_grid_are_refused(clip: Studio, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 16 frames, got 40"):
        clip.run(tmp_path / "out", chunk_frames=40)
    assert list(tmp_path.iterdir()) == []


def test_frames_without_a_face(clip: Studio, stages: dict[str, Any], tmp_path: Path) -> None:
    gone = np.arange(14, 24)
    there = np.setdiff1d(np.arange(FRAMES), gone)
    hold = stages["portrait"]
    rendered = {mode: clip.stages(tmp_path / mode, no_face=mode) for mode in ("pass", "blank")}
    for results in rendered.values():
        for name in ("rgb_0", "rgb_1", "depth_0"):
            np.testing.assert_array_equal(results["portrait"][name][there], hold[name][there])
            assert name[:3] == "rgb" or not results["portrait"][name][gone].any(), "no head, no depth"
    np.testing.assert_allclose(hold["rgb_0"][gone].astype(int), hold["rgb_0"][[13] * 10].astype(int), atol=1)
    np.testing.assert_array_equal(rendered["pass"]["portrait"]["rgb_0"][gone], stages["prep"]["crops"][gone])
    assert not rendered["blank"]["portrait"]["rgb_0"][gone].any()


def test_edits_on_some_layers_add_up_to_one_on_all(clip: Studio, tmp_path: Path) -> None:
    always = ((0.0, 1.0),)
    whole = clip.stages(tmp_path / "whole", edits=(Edit("age", always),))["portrait"]
    halves = (Edit("age", always, (0, 3)), Edit("age", always, (3, 6)))
    parts = clip.stages(tmp_path / "parts", edits=halves)["portrait"]
    half = clip.stages(tmp_path / "half", edits=halves[:1])["portrait"]
    np.testing.assert_allclose(parts["rgb_0"].astype(int), whole["rgb_0"].astype(int), atol=1)
    assert change(half["rgb_0"], whole["rgb_0"]).mean() > 0.1


def test_orthogonal_edits(clip: Studio, tmp_path: Path) -> None:
    """The order counts, and a result made without is not taken for one made with."""
    always = ((0.0, 1.0),)
    edits = (Edit("age", always), Edit("smile", always))
    plain = clip.stages(tmp_path / "plain", edits=edits)["portrait"]
    made = clip.stages(tmp_path / "plain", edits=edits, orthogonal=True)["portrait"]
    turned = clip.stages(tmp_path / "turned", edits=edits[::-1], orthogonal=True)["portrait"]
    assert change(made["rgb_0"], plain["rgb_0"]).mean() > 0.01
    assert change(made["rgb_0"], turned["rgb_0"]).mean() > 0.01


def test_frames_without_a_face_are_counted(clip: Studio, plain: Path) -> None:
    assert json.loads((plain / "report.json").read_text())["frames"]["without_face_spans"] == [[14, 23]]


def test_the_other_person(clip: Studio, plain: Path, tmp_path: Path) -> None:
    result = clip.run(tmp_path / "out", person=1)
    first, second = arrays(plain), arrays(result.folder)
    seen = first["run"] >= 0
    assert result.report["frames"]["most_faces_at_once"] == 2
    assert (second["crop"][seen, 0] - first["crop"][seen, 0] > 50).all(), "the one on the right"
    inside = clip.talk.points[seen, 1].mean(axis=1)
    assert np.abs(second["crop"][seen, :2] - inside).max() < 20
    with pytest.raises(InputError, match=r"person 2 \(counted from 0\) was asked for, but at most 2 faces are seen"):
        clip.run(tmp_path / "third", person=2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_edit_follows_its_keyframes(clip: Studio, stages: dict[str, Any], tmp_path: Path) -> None:
    edit = Edit("age", ((0.25, 0.0), (0.5, 1.5), (0.9, 1.5), (1.2, 0.0)))
    edited = clip.stages(tmp_path, edits=(edit,))
    strength = np.interp(stages["track"]["time_s"], [0.25, 0.5, 0.9, 1.2], [0, 1.5, 1.5, 0])
    difference = change(edited["portrait"]["rgb_0"], stages["portrait"]["rgb_0"])
    assert difference[strength == 0].max() < 0.01 < 2 < difference[strength > 1].min()
    assert np.corrcoef(difference, strength)[0, 1] > 0.8
    np.testing.assert_array_equal(edited["portrait"]["coarse"], stages["portrait"]["coarse"])
    for name in ("expression", "anchors", "cam2world"):
        np.testing.assert_array_equal(edited["settle"][name], stages["settle"][name])


def test_edits_add_up(clip: Studio, tmp_path: Path) -> None:
    """All of them are seen; that codes add up is checked in tests/inversion."""
    age, smile = Edit("age", ((0.0, 1.0),)), Edit("smile", ((0.0, 1.0),))
    one, other, both = (
        clip.stages(tmp_path / str(len(edits)) / edits[0].name, edits=edits)["portrait"]["rgb_0"]
        for edits in ((age,), (smile,), (age, smile))
    )
    for a, b in itertools.combinations((one, other, both), 2):
        assert change(a, b).mean() > 1.0


def test_views_become_files(clip: Studio, tmp_path: Path) -> None:
    views = tuple(parse_view(text) for text in ("frontal", "input", "-30,5"))
    folder = clip.run(tmp_path / "out", views=views).folder
    assert sorted(path.name for path in folder.glob("rgb*")) == ["rgb.mp4", "rgb_input.mp4", "rgb_yaw-30_pitch+5.mp4"]
    assert len(list(folder.glob("depth*"))) == 6
    assert change(panel(folder, 2), frames(folder)).max() < 6.0, "the first view is the result"
    assert change(panel(folder, 3), frames(folder, "rgb_input.mp4")).max() < 6.0, "the second is shown beside it"
    assert change(frames(folder), frames(folder, "rgb_input.mp4")).mean() > 1.0
    yaw = np.arctan2(-arrays(folder)["view_cameras"][:, 2], -arrays(folder)["view_cameras"][:, 10])
    assert np.abs(yaw).max() < 1e-5, "cameras are those of the first view"


def test_a_single_view_is_compared_with_another_one(
    clip: Studio, stages: dict[str, Any], plain: Path, tmp_path: Path
) -> None:
    """With the orbit for the input view, with the input view for all others."""
    orbit = clip.stages(tmp_path, views=(parse_view("orbit"),))
    for mine, other in ((0, 1), (1, 0)):
        np.testing.assert_array_equal(orbit["portrait"][f"rgb_{mine}"], stages["portrait"][f"rgb_{other}"])
    assert [path.name for path in plain.glob("rgb*")] == ["rgb.mp4"], "a view for comparison only is no file"


def test_smoothing_can_be_turned_off(clip: Studio, plain: Path, tmp_path: Path) -> None:
    result = clip.run(tmp_path / "out", smooth_s=0.0)
    quality = result.report["quality"]
    assert quality["crop_jitter_px_512_before"] == quality["crop_jitter_px_512_after"]
    raw, smooth = arrays(result.folder), arrays(plain)
    seen = raw["run"] >= 0
    np.testing.assert_allclose(raw["crop"][seen], eg3d_crop(clip.talk.points[seen, 0]).parameters, atol=1e-4)
    assert np.abs(smooth["crop"][seen] - raw["crop"][seen]).max() > 0.01
    assert np.abs(smooth["expression"] - raw["expression"]).max() > 0


@pytest.mark.parametrize("count", [1, 2, 16, 17])
def test_short_clips(studio: Studio, tmp_path: Path, count: int) -> None:
    talk = write_talk(tmp_path, frames=count, sound=count != 2)
    result = Studio(studio.model, talk).run(tmp_path / "out", chunk_frames=16)
    assert result.frames == count
    assert times_of(result.folder / "rgb.mp4") == times_of(talk.video)
    assert sound_of(result.folder / "compare.mp4") == sound_of(talk.video)
