"""Views: what a user may write, and where the cameras stand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from e3dge_video.errors import ConfigError, InputError
from e3dge_video.geometry.cameras import EG3D_PIVOT, Camera
from e3dge_video.geometry.views import View, parse_view, view_cameras

TIMES = torch.tensor([0.0, 0.5, 1.0, 2.5])


@pytest.fixture
def source() -> Camera:
    """Four pictures of a head that turns, leans and moves."""
    pose = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.3, -0.1, 0.05, 0.02, -0.01, 0.1],
            [-0.9, 0.2, -0.1, 0.0, 0.03, -0.2],
            [1.2, -0.7, 0.0, 0.0, 0.0, 0.0],  # beyond what a view may add
        ]
    )
    return Camera.from_pose(pose)


def keyframe(time: float, camera: Camera) -> dict[str, Any]:
    return {"time": time, "camera_to_world": camera.cam2world[0].flatten().tolist()}


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_names_and_angles() -> None:
    assert parse_view("input") == View("input", "input")
    assert parse_view("orbit").kind == "orbit"
    view = parse_view("-20,7.5")
    assert view.name == "yaw-20_pitch+7.5" and view.kind == "offset"
    assert (view.yaw, view.pitch) == pytest.approx((math.radians(-20), math.radians(7.5)))
    assert parse_view("15,0").name == "yaw+15"


@pytest.mark.parametrize("text", ["left", "20", "20,0,0", "90,0", "0,-36", "20,nan", "", "cameras.yaml"])
def test_what_is_no_view_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--view {text}"):
        parse_view(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keyframes": []}, "at least one keyframe"),
        ({"frames": []}, "no 'keyframes'"),
        ([], "not a camera path"),
        ({"keyframes": [{"time": 0, "camera_to_world": [1, 2, 3]}]}, "3 numbers, not 16"),
        ({"keyframes": [{"time": 0, "camera_to_world": [None] * 16}]}, "not a camera path"),
        ({"keyframes": [{"time": 0, "camera_to_world": [0] * 16}]}, "not a rotation and a place"),
        (
            {"keyframes": [{"time": 0, "camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]}]},
            "rotation",
        ),
        ({"keyframes": [{"time": float("nan"), "camera_to_world": torch.eye(4).tolist()}]}, "times that rise"),
        ({"keyframes": [{"time": t, "camera_to_world": torch.eye(4).tolist()} for t in (1, 1)]}, "times that rise"),
    ],
)
def test_bad_camera_path_is_one_clear_line(tmp_path: Path, content: object, message: str) -> None:
    path = write(tmp_path / "path.json", content)
    with pytest.raises(InputError, match=message) as error:
        parse_view(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_missing_camera_path() -> None:
    with pytest.raises(InputError, match="no such camera path"):
        parse_view("nowhere.json")


def test_input_view_is_the_pictures_own_camera(source: Camera) -> None:
    assert view_cameras(parse_view("input"), source, TIMES) is source


def test_offset_turns_around_the_head_and_keeps_its_place_in_the_picture(source: Camera) -> None:
    turned = view_cameras(parse_view("20,-10"), source, TIMES)
    before, after = source.pose(), turned.pose()
    assert after[:2, 0].tolist() == pytest.approx((before[:2, 0] + math.radians(20)).tolist(), abs=1e-5)
    assert after[:2, 1].tolist() == pytest.approx((before[:2, 1] - math.radians(10)).tolist(), abs=1e-5)
    torch.testing.assert_close(after[:, 2:], before[:, 2:], atol=1e-5, rtol=0)
    pivot = torch.tensor([*EG3D_PIVOT, 1.0])
    seen = [(camera.world2cam @ pivot)[:, :3] for camera in (source, turned)]
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)


def test_angles_end_at_the_limits_but_a_source_beyond_them_stays(source: Camera) -> None:
    right = view_cameras(parse_view("30,20"), source, TIMES).pose()[:, :2]
    left = view_cameras(parse_view("-30,-20"), source, TIMES).pose()[:, :2]
    own = source.pose()[:, :2]
    assert left[2, 0].item() == pytest.approx(-math.radians(60), abs=1e-5), "-0.9 - 30 degrees would be beyond"
    assert right[3, 0].item() == pytest.approx(own[3, 0].item(), abs=1e-5), "68 degrees are not turned further"
    assert left[3, 0].item() == pytest.approx(own[3, 0].item() - math.radians(30), abs=1e-5), "but they are turned back"
    assert left[3, 1].item() == pytest.approx(own[3, 1].item(), abs=1e-5)


def test_orbit_sways_around_the_input_camera(source: Camera) -> None:
    still = Camera.from_pose(torch.zeros(4, 6))
    yaw = view_cameras(parse_view("orbit"), still, torch.tensor([0.0, 1.0, 2.0, 3.0])).pose()[:, 0]
    assert yaw.tolist() == pytest.approx([0, math.radians(20), 0, -math.radians(20)], abs=1e-5)


def test_frontal_and_ellipse_do_not_follow_the_head(source: Camera) -> None:
    frontal = view_cameras(parse_view("frontal"), source, TIMES)
    torch.testing.assert_close(frontal.pose(), torch.zeros(4, 6), atol=1e-5, rtol=0)
    quarter = torch.tensor([0.0, 2.5, 5.0, 7.5])
    angles = view_cameras(parse_view("ellipse"), source, quarter).pose()[:, :2]
    expected = torch.tensor([[0.45, 0.0], [0.0, 0.225], [-0.45, 0.0], [0.0, -0.225]])
    torch.testing.assert_close(angles, expected, atol=1e-5, rtol=0)


def test_path_runs_straight_between_keyframes_and_holds_outside(tmp_path: Path, source: Camera) -> None:
    ends = [Camera.orbit(yaw, 0.0) for yaw in (-0.4, 0.4)]
    path = {"keyframes": [keyframe(0.5, ends[0]), keyframe(1.5, ends[1])]}
    view = parse_view(write(tmp_path / "swing.json", path))
    assert view.name == "swing"
    cameras = view_cameras(view, source, TIMES)
    torch.testing.assert_close(cameras.intrinsics, source.intrinsics)
    yaw = cameras.pose()[:, 0]
    assert yaw.tolist() == pytest.approx([-0.4, -0.4, 0.0, 0.4], abs=1e-5)
    middle = (ends[0].position + ends[1].position)[0] / 2
    torch.testing.assert_close(cameras.position[2], middle, atol=1e-5, rtol=0)


def test_path_of_one_keyframe_is_a_fixed_camera(tmp_path: Path, source: Camera) -> None:
    fixed = Camera.orbit(0.2, 0.1)
    nested = {"time": 3, "camera_to_world": fixed.cam2world[0].tolist()}
    cameras = view_cameras(parse_view(write(tmp_path / "one.json", {"keyframes": [nested]})), source, TIMES)
    torch.testing.assert_close(cameras.cam2world, fixed.cam2world.repeat(4, 1, 1), atol=1e-6, rtol=0)
