"""Views that a video can be re-rendered from: where the camera stands at a time, given the camera of the picture."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from e3dge_video.errors import ConfigError, InputError
from e3dge_video.geometry.cameras import EG3D_FOCAL, EG3D_PIVOT, EG3D_RADIUS, Camera

ViewKind = Literal["input", "frontal", "offset", "orbit", "ellipse", "path"]

#: Angles within which a head is worth looking at, degrees.
_MAX_YAW_DEG, _MAX_PITCH_DEG = 60.0, 35.0
_ORBIT_YAW_DEG, _ORBIT_S = 20.0, 4.0
#: The paper's trajectory (§7.2): an ellipse of ±0.45 rad of yaw and ±0.225 rad of pitch in 250 frames.
_ELLIPSE_YAW, _ELLIPSE_PITCH, _ELLIPSE_S = 0.45, 0.225, 10.0


@dataclass(frozen=True)
class Orbit:
    """The sphere that a model's cameras stand on. The defaults are the starter's.

    Attributes:
        radius: Distance from the pivot, world units.
        pivot: Point looked at, world units.
        focal: Focal length divided by the image size.
    """

    radius: float = EG3D_RADIUS
    pivot: tuple[float, float, float] = EG3D_PIVOT
    focal: float = EG3D_FOCAL

    def camera(self, pose: Tensor) -> Camera:
        """Cameras from yaw, pitch, roll and shift, as `Camera.from_pose` means them. [B, 6]"""
        return Camera.from_pose(pose, radius=self.radius, pivot=self.pivot, focal=self.focal)


@dataclass(frozen=True)
class View:
    """One camera path.

    Attributes:
        name: Short name, used in file names.
        kind: "input": the picture's own camera. "offset": beside it, by fixed angles. "orbit": swaying beside it.
            "frontal": fixed before the face, head movement removed. "ellipse": the paper's ellipse around the frontal
            camera. "path": cameras from a file, over the clip's time.
        yaw: For "offset", radians to the face's +x side.
        pitch: For "offset", radians upwards.
        keyframes: For "path": time in seconds and the 16 numbers of cam2world, OpenCV axes, world units.
    """

    name: str
    kind: ViewKind
    yaw: float = 0.0
    pitch: float = 0.0
    keyframes: tuple[tuple[float, tuple[float, ...]], ...] = ()


def parse_view(text: str) -> View:
    """Read `input`, `frontal`, `orbit`, `ellipse`, `YAW,PITCH` in degrees, or the name of a JSON file.

    Raises:
        ConfigError: Not one of these, or angles at which there is no face to see.
        InputError: The file cannot be read.
    """
    if text in ("input", "frontal", "orbit", "ellipse"):
        return View(text, text)  # type: ignore[arg-type]
    if match := re.fullmatch(r"([-+]?\d+(?:\.\d+)?),([-+]?\d+(?:\.\d+)?)", text):
        yaw, pitch = float(match[1]), float(match[2])
        if abs(yaw) > _MAX_YAW_DEG or abs(pitch) > _MAX_PITCH_DEG:
            raise ConfigError(
                f"--view {text}: yaw must be within ±{_MAX_YAW_DEG:g}° and pitch within ±{_MAX_PITCH_DEG:g}°"
            )
        name = f"yaw{yaw:+g}" + (f"_pitch{pitch:+g}" if pitch else "")
        return View(name, "offset", math.radians(yaw), math.radians(pitch))
    if text.endswith(".json"):
        return _read_path(Path(text))
    raise ConfigError(f"--view {text}: expected input, frontal, orbit, ellipse, YAW,PITCH in degrees or a .json file")


def _read_path(path: Path) -> View:
    """A camera path: {"keyframes": [{"time": seconds, "camera_to_world": 16 numbers or 4×4}, …]}."""
    if not path.is_file():
        raise InputError(f"{path}: no such camera path file; check --view")
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["keyframes"]
        keyframes = tuple((float(frame["time"]), _pose(frame["camera_to_world"])) for frame in frames)
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = '{"keyframes": [{"time": seconds, "camera_to_world": [16 numbers]}, …]}'
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a camera path ({what}); expected {wanted}") from error
    times = [time for time, _ in keyframes]
    if not times or not np.isfinite(times).all() or any(b <= a for a, b in itertools.pairwise(times)):
        raise InputError(f"{path}: a camera path needs at least one keyframe, and times that rise")
    return View(path.stem, "path", keyframes=keyframes)


def _pose(value: object) -> tuple[float, ...]:
    """The 16 numbers of a camera-to-world matrix, if they are one."""
    numbers = np.array(value, dtype=np.float64).reshape(-1)
    if len(numbers) != 16:
        raise ValueError(f"camera_to_world has {len(numbers)} numbers, not 16")
    matrix = numbers.reshape(4, 4)
    rotation = matrix[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    if not (np.isfinite(matrix).all() and rigid and np.allclose(matrix[3], (0, 0, 0, 1))):
        raise ValueError("camera_to_world is not a rotation and a place, by rows, with 0 0 0 1 below")
    return tuple(numbers.tolist())


def view_cameras(view: View, source: Camera, times_s: Tensor, orbit: Orbit | None = None) -> Camera:
    """Cameras of a view.

    Args:
        view: Which one.
        source: Cameras of the pictures. B of them
        times_s: Time of each picture from the clip's start, seconds. [B]
        orbit: The sphere that the model's cameras stand on; None: the starter's.
    """
    orbit = orbit or Orbit()
    if view.kind == "input":
        return source
    if view.kind == "path":
        return _along(view, source, times_s)
    pose = source.pose(radius=orbit.radius, pivot=orbit.pivot)
    zero = torch.zeros_like(times_s)
    if view.kind in ("frontal", "ellipse"):
        phase = 2 * math.pi * times_s / _ELLIPSE_S
        swing = 0.0 if view.kind == "frontal" else 1.0
        yaw, pitch = swing * _ELLIPSE_YAW * phase.cos(), swing * _ELLIPSE_PITCH * phase.sin()
        return orbit.camera(torch.stack([yaw, pitch, zero, zero, zero, zero], dim=1))
    if view.kind == "orbit":
        yaw = math.radians(_ORBIT_YAW_DEG) * (2 * math.pi * times_s / _ORBIT_S).sin()
        pitch = zero
    else:
        yaw, pitch = zero + view.yaw, zero + view.pitch
    limit = torch.tensor([math.radians(_MAX_YAW_DEG), math.radians(_MAX_PITCH_DEG)])
    # A source beyond the limits may stay where it is, but not be turned further.
    lowest, highest = torch.minimum(pose[:, :2], -limit), torch.maximum(pose[:, :2], limit)
    angles = (pose[:, :2] + torch.stack([yaw, pitch], dim=1)).clamp(lowest, highest)
    return orbit.camera(torch.cat([angles, pose[:, 2:]], dim=1))


def _along(view: View, source: Camera, times_s: Tensor) -> Camera:
    """Between keyframes positions run straight and rotations along the shortest arc; outside they hold."""
    times = [t for t, _ in view.keyframes]
    matrices = torch.tensor([m for _, m in view.keyframes], dtype=torch.float64).view(-1, 4, 4).numpy()
    at = times_s.double().clamp(times[0], times[-1]).numpy()
    cam2world = torch.eye(4).repeat(len(at), 1, 1)
    rotations = Rotation.from_matrix(matrices[:, :3, :3])
    turned = Slerp(times, rotations)(at) if len(times) > 1 else Rotation.concatenate([rotations] * len(at))
    cam2world[:, :3, :3] = torch.from_numpy(turned.as_matrix()).float()
    place = np.stack([np.interp(at, times, matrices[:, k, 3]) for k in range(3)], axis=1)
    cam2world[:, :3, 3] = torch.from_numpy(place).float()
    return Camera(cam2world, source.intrinsics)
