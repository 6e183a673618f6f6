"""Made-up talking heads: a video of drawn faces, and the landmark file that says where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.face_template import MEAN_68
from e3dge_video.geometry.projection import project
from tests.support.video_corpus import write_clip

SIZE = (192, 144)
#: Where each person's crop stands: centre and side as shares of the picture's height, and the colour of the skin.
_PEOPLE = (((0.5, 0.5), 0.9, (214, 170, 140)), ((1.05, 0.48), 0.55, (120, 84, 60)))


@dataclass(frozen=True)
class Talk:
    """A clip and its landmarks, pixels. [N, people, 68, 2]"""

    video: Path
    landmarks: Path
    points: NDArray[np.float64]


def write_talk(
    folder: Path,
    *,
    name: str = "talk.mp4",
    frames: int = 40,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 600),
    people: int = 1,
    missing: Sequence[int] = (),
    cut: int | None = None,
    sound: bool = True,
    size: tuple[int, int] = SIZE,
) -> Talk:
    """Write a clip with irregular frame times (unless `pts` says otherwise) and one AAC track.

    Args:
        missing: Frames in which nobody is seen.
        cut: First frame of a second shot, in another room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if pts is None:
        pts = np.cumsum(np.resize([24, 24, 30, 18], frames)).tolist()  # 25 frames per second on average
    seconds = np.array([float(p * time_base) for p in pts])
    points = np.stack([_points(seconds, person, size) for person in range(people)], axis=1)
    points[list(missing)] = np.nan

    def picture(number: int, _: tuple[int, int]) -> NDArray[np.uint8]:
        room = _room(size, 0 if cut is None or number < cut else 1)
        for person in range(people):
            if number not in missing:
                _draw(room, points[number, person], _PEOPLE[person][2])
        return room

    length = Fraction(pts[-1] - pts[0]) * time_base + Fraction(1, 5)
    start = Fraction(pts[0]) * time_base
    write_clip(
        folder / name,
        pts,
        time_base,
        size=size,
        picture=picture,
        options={"crf": "20", "preset": "veryfast"},
        audio=[("aac", 16000, length)] if sound else [],
        audio_offset=max(start, Fraction(0)),
    )
    landmarks = folder / (Path(name).stem + "_landmarks.npz")
    np.savez(landmarks, points=points)
    return Talk(folder / name, landmarks, points)


def _points(seconds: NDArray[np.float64], person: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """68 points of a head that turns, nods and speaks. [N, 68, 2]"""
    turn = 2 * np.pi * (seconds / 1.7 + 0.3 * person)
    pose = np.zeros((len(seconds), 6))
    pose[:, 0], pose[:, 1], pose[:, 2] = 0.35 * np.sin(turn), 0.1 * np.sin(1.3 * turn), 0.06 * np.cos(turn)
    shape = np.repeat(MEAN_68[None], len(seconds), axis=0)
    open_mouth = 0.02 * (1 + np.sin(5 * turn))
    shape[:, 55:60, 1] -= open_mouth[:, None]
    shape[:, 65:68, 1] -= open_mouth[:, None]
    uv, _ = project(torch.tensor(shape, dtype=torch.float32), Camera.from_pose(torch.tensor(pose, dtype=torch.float32)))
    (x, y), side, _ = _PEOPLE[person]
    sway = np.stack([0.03 * np.sin(turn), 0.02 * np.cos(turn)], axis=1)[:, None]
    return np.asarray(((x, y) + sway + side * (uv.double().numpy() - 0.5)) * size[1], np.float64)


def _room(size: tuple[int, int], number: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(float)
    stripes = [60 + 50 * np.sin(x / 11 + number), 70 + 60 * number + y / 3, 150 - 90 * number + 20 * np.sin(y / 9)]
    return np.clip(np.stack(stripes, axis=2), 0, 255).astype(np.uint8)


def _draw(picture: NDArray[np.uint8], points: NDArray[np.float64], skin: tuple[int, int, int]) -> None:
    def fill(part: NDArray[np.float64], color: tuple[int, int, int]) -> None:
        cv2.fillConvexPoly(picture, cv2.convexHull(np.round(part * 16).astype(np.int32)), color, cv2.LINE_AA, shift=4)

    eyes = points[36:48].mean(axis=0)
    crown = eyes + 1.25 * (eyes - points[6:11].mean(axis=0)) + 0.9 * (points[[0, 16]] - points[[0, 16]].mean(axis=0))
    fill(np.concatenate([points[:17], crown]), (70, 45, 30))
    fill(np.concatenate([points[:17], points[17:27]]), skin)
    for first in (36, 42):
        fill(points[first : first + 6], (245, 245, 245))
        centre = points[first : first + 6].mean(axis=0)
        cv2.circle(picture, tuple(np.round(centre).astype(int).tolist()), 2, (40, 60, 90), -1, cv2.LINE_AA)
    fill(points[[27, 31, 35]], tuple(int(0.85 * c) for c in skin))  # type: ignore[arg-type]
    fill(points[48:60], (170, 60, 60))
    fill(points[60:68], (60, 20, 20))
