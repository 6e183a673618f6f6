"""Stage `assemble`: segments → files; codes and cameras → portrait.safetensors, cameras.json, transforms.json."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from e3dge_video.io import atomic
from e3dge_video.io.mux import MuxReport, mux
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.pipelines.stages.arrays import Arrays, joined


@dataclass(frozen=True)
class Assemble:
    """Write the result files. Runs in the driver.

    Attributes:
        video: Source of the sound.
        folder: Where the files go; what is there is thrown away.
        views: Names of the views that become files; the first has no suffix.
        size: Side of the pictures, pixels.
        start: Sound before this time on the file's clock is left out; None: nothing is.
        end: Sound from this time on is left out; None: nothing is.
        origin: Time on the file's clock that becomes zero.
    """

    video: Path
    folder: Path
    views: tuple[str, ...]
    size: int
    start: Fraction | None
    end: Fraction | None
    origin: Fraction

    def __call__(
        self, chunks: Sequence[Chunk], encoded: Sequence[Payload], track: Sequence[Payload], settled: Sequence[Payload]
    ) -> BarrierResult:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        reports = []
        for number, view in enumerate(self.views):
            suffix = "" if number == 0 else f"_{view}"
            reports.append(self._mux(f"rgb{suffix}.mp4", encoded, f"rgb_{number}", sound=True))
            reports.append(self._mux(f"depth{suffix}.mp4", encoded, f"depth_{number}", sound=True))
            reports.append(self._mux(f"depth{suffix}.mkv", encoded, f"exact_{number}", sound=False))
        reports.append(self._mux("compare.mp4", encoded, "compare", sound=True))
        small = joined(encoded, "camera_0", "coarse_mae", "lifted_share")
        arrays = portrait_arrays(joined(track, *_TRACK), settled) | {"view_cameras": small["camera_0"]}
        atomic.write_bytes(self.folder / "portrait.safetensors", safetensors.numpy.save(arrays))
        if "generator" in settled[0]:
            atomic.write_bytes(self.folder / "generator.safetensors", bytes(settled[0]["generator"]))
        write_json(self.folder / "cameras.json", eg3d_labels(small["camera_0"], arrays["times_s"]), indent=None)
        transforms = nerf_transforms(small["camera_0"], arrays["times_s"], self.size)
        write_json(self.folder / "transforms.json", transforms, indent=None)
        return BarrierResult(value={"files": reports, **small})

    def _mux(self, name: str, encoded: Sequence[Payload], key: str, *, sound: bool) -> MuxReport:
        return mux(
            self.folder / name,
            (bytes(part[key]) for part in encoded),
            audio=self.video if sound else None,
            start=self.start,
            end=self.end,
            origin=self.origin,
        )


_TRACK = ("crop", "landmarks", "run", "source", "time_s")


def portrait_arrays(track: Arrays, settled: Sequence[Payload]) -> Arrays:
    """Everything needed to render again: codes, cameras, crops, which frame shows which.

    Codes stand as anchor and expression, or whole, as they were settled. A scene that reaches over several chunks has
    its anchor in each of them; here it stands once.
    """
    kept = {
        "crop": track["crop"],
        "landmarks": track["landmarks"],
        "run": track["run"].astype(np.int32),
        "source": track["source"].astype(np.int32),
        "times_s": track["time_s"],
    }
    if "latents" in settled[0]:
        return joined(settled, "latents", "cam2world") | kept
    anchors: list[NDArray] = []
    number_of: dict[bytes, int] = {}
    places = []
    for part in settled:
        own = []
        for anchor in np.asarray(part["anchors"]):
            number = number_of.setdefault(anchor.tobytes(), len(anchors))
            if number == len(anchors):
                anchors.append(anchor)
            own.append(number)
        places.append(np.array(own, np.int32)[np.asarray(part["anchor"])])
    return {
        "anchors": np.stack(anchors),
        "anchor": np.concatenate(places),
        **joined(settled, "expression", "cam2world", *(["offset"] if "offset" in settled[0] else [])),
        **kept,
    }


def eg3d_labels(cameras: NDArray[np.float32], times_s: NDArray[np.float64]) -> dict[str, object]:
    """EG3D's dataset.json: one label of 25 numbers per frame. [N, 25], [N]"""
    labels = np.round(cameras.astype(float), 7).tolist()
    return {
        "labels": [[_frame_name(k), label] for k, label in enumerate(labels)],
        "times_s": times_s.tolist(),
        "convention": "cam2world 4x4 (OpenCV axes, world units of the model), then intrinsics 3x3 divided by the "
        "image size; frames of rgb.mp4 in order",
    }


def nerf_transforms(cameras: NDArray[np.float32], times_s: NDArray[np.float64], size: int) -> dict[str, object]:
    """nerfstudio's transforms.json: OpenGL axes (x right, y up, z backward), lengths in pixels. [N, 25], [N]"""
    poses = cameras[:, :16].astype(float).reshape(-1, 4, 4) @ np.diag([1.0, -1.0, -1.0, 1.0])
    focal = float(cameras[0, 16])
    return {
        "camera_model": "OPENCV",
        **{"w": size, "h": size, "fl_x": focal * size, "fl_y": focal * size, "cx": 0.5 * size, "cy": 0.5 * size},
        "frames": [
            {"file_path": f"{_frame_name(k)}.png", "time": float(time), "transform_matrix": pose}
            for k, (time, pose) in enumerate(zip(times_s, np.round(poses, 7).tolist(), strict=True))
        ],
    }


def _frame_name(number: int) -> str:
    return f"frame_{number:06d}"
