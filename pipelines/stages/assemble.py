"""Stage `assemble`: segments → files; codes and cameras → portrait.safetensors, cameras.json, transforms.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from e3dge_video.io import atomic
from e3dge_video.io.mux import MuxReport, mux
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload


@dataclass(frozen=True)
class Assemble:
    """Write the result files.

    Attributes:
        video: Source of the sound.
        folder: Where the files go.
        views: Names of the views that become files; the first has no suffix.
        times_s: Time of each frame from the clip's start, seconds.
        start: Beginning of the part used, on the file's clock; None for the file's own.
        end: End of it.
        origin: Time on the file's clock that becomes zero.
    """

    video: Path
    folder: Path
    views: tuple[str, ...]
    times_s: tuple[float, ...]
    start: Fraction | None
    end: Fraction | None
    origin: Fraction

    def __call__(
        self, chunks: Sequence[Chunk], encoded: Sequence[Payload], track: Sequence[Payload], settled: Sequence[Payload]
    ) -> BarrierResult:
        self.folder.mkdir(parents=True, exist_ok=True)
        reports = []
        for number, view in enumerate(self.views):
            suffix = "" if number == 0 else f"_{view}"
            reports.append(self._mux(f"rgb{suffix}.mp4", encoded, f"rgb_{number}", sound=True))
            reports.append(self._mux(f"depth{suffix}.mp4", encoded, f"depth_{number}", sound=True))
            reports.append(self._mux(f"depth{suffix}.mkv", encoded, f"exact_{number}", sound=False))
        reports.append(self._mux("compare.mp4", encoded, "compare", sound=True))
        cameras = np.concatenate([part["camera_0"] for part in encoded])
        self._write_cameras(cameras)
        self._write_portrait(track, settled, cameras)
        small = {name: np.concatenate([part[name] for part in encoded]) for name in ("coarse_mae", "lifted_share")}
        return BarrierResult(value={"files": reports, "cameras": cameras, **small})

    def _mux(self, name: str, encoded: Sequence[Payload], key: str, *, sound: bool) -> MuxReport:
        segments: Iterator[bytes] = (bytes(part[key]) for part in encoded)
        return mux(
            self.folder / name,
            segments,
            audio=self.video if sound else None,
            start=self.start,
            end=self.end,
            origin=self.origin,
        )

    def _write_cameras(self, cameras: NDArray[np.float32]) -> None:
        """EG3D's dataset.json labels, and transforms.json in nerfstudio's (OpenGL) axes."""
        names = [f"frame_{k:06d}" for k in range(len(cameras))]
        rounded = np.round(cameras.astype(float), 7).tolist()
        labels = [[name, label] for name, label in zip(names, rounded, strict=True)]
        note = "cam2world 4x4 (OpenCV axes, world units of the model), then intrinsics 3x3 divided by the image size"
        _write_json(self.folder / "cameras.json", {"labels": labels, "times_s": list(self.times_s), "convention": note})
        flip = np.diag([1.0, -1.0, -1.0, 1.0])
        focal = float(cameras[0, 16])
        frames = [
            {
                "file_path": f"{name}.png",
                "time": time,
                "transform_matrix": np.round(label[:16].reshape(4, 4) @ flip, 7).tolist(),
            }
            for name, time, label in zip(names, self.times_s, cameras.astype(float), strict=True)
        ]
        angle = 2 * np.arctan(0.5 / focal)
        _write_json(self.folder / "transforms.json", {"camera_angle_x": angle, "frames": frames})

    def _write_portrait(
        self, track: Sequence[Payload], settled: Sequence[Payload], cameras: NDArray[np.float32]
    ) -> None:
        """Everything needed to render again: codes as anchor and expression, cameras, crops, validity."""
        anchors, places, offset = [], [], 0
        for part in settled:
            anchors.append(part["anchors"])
            places.append(np.asarray(part["anchor"]) + offset)
            offset += len(part["anchors"])
        arrays = {
            "anchors": np.concatenate(anchors),
            "anchor": np.concatenate(places).astype(np.int32),
            "expression": np.concatenate([part["expression"] for part in settled]),
            "cam2world": np.concatenate([part["cam2world"] for part in settled]),
            "view_cameras": cameras,
            "crop": np.concatenate([part["crop"] for part in track]),
            "landmarks": np.concatenate([part["landmarks"] for part in track]),
            "run": np.concatenate([part["run"] for part in track]).astype(np.int32),
            "source": np.concatenate([part["source"] for part in track]).astype(np.int32),
            "times_s": np.array(self.times_s),
        }
        with atomic.replacing(self.folder / "portrait.safetensors") as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary)


def _write_json(path: Path, value: object) -> None:
    atomic.write_bytes(path, (json.dumps(value) + "\n").encode())
