"""Stage `track`: from all faces of a clip to one person's smoothed crops. Runs in the driver, tiny data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import InputError
from e3dge_video.faces.scan import ScanResult
from e3dge_video.faces.smoothing import smooth_crops
from e3dge_video.faces.tracking import TrackOptions, track_person
from e3dge_video.pipelines.core.spec import BarrierResult, Chunk, Payload


@dataclass(frozen=True)
class FollowPerson:
    """Choose the person, smooth the crop, and say for every frame which picture it is made from.

    Attributes:
        video: For messages.
        times_s: Time of each frame from the clip's start, seconds.
        person: Which person.
        smooth_s: Window of the sliding mean, seconds.
        crop: Which generator's crop.
    """

    video: Path
    times_s: tuple[float, ...]
    person: int
    smooth_s: float
    crop: Literal["eg3d", "ffhq"] = "eg3d"

    def __call__(self, chunks: Sequence[Chunk], scan: Sequence[Payload]) -> BarrierResult:
        parts, times = list(scan), np.array(self.times_s)
        found = ScanResult.concatenate(
            [ScanResult.from_arrays({name: np.asarray(value) for name, value in part.items()}) for part in parts]
        )
        track = track_person(found, times, TrackOptions(person=self.person, crop=self.crop))
        if not track.valid.any():
            raise InputError(self._no_face(found))
        crop = smooth_crops(track.crop, times, track.run, self.smooth_s) if self.smooth_s > 0 else track.crop
        source = nearest_valid(track.valid)
        landmarks = crop.into_crop(track.points)
        status = np.concatenate([part["status"] for part in parts])
        per_chunk: list[dict[str, NDArray]] = [
            {
                "crop": crop.parameters[source[part]],
                "landmarks": landmarks[source[part]].astype(np.float32),
                "source": source[part],
                "run": track.run[part],
                "scene": track.identity[source[part]],
                "time_s": times[part],
                "silhouette_jaw": np.asarray(parts[0]["silhouette_jaw"]),
            }
            for part in (slice(chunk.start, chunk.stop) for chunk in chunks)
        ]
        value = {"track": track, "smoothed": crop, "status": status, "faces": found.count}
        return BarrierResult(per_chunk, value)

    def _no_face(self, found: ScanResult) -> str:
        frames, most = len(found), int(found.count.max(initial=0))
        if most == 0:
            return (
                f"{self.video}: no face found in any of its {frames} frames; expected a talking head, "
                "at least about 80 pixels wide and not in profile"
            )
        return (
            f"{self.video}: person {self.person} (counted from 0) was asked for, but at most {most} "
            f"{'face is' if most == 1 else 'faces are'} seen at a time; give a smaller --person"
        )


def _arrays(payload: Payload) -> dict[str, NDArray]:
    return {name: np.asarray(value) for name, value in payload.items()}


def nearest_valid(valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each frame, the frame that stands in for it: itself if valid, else the last valid one, else the next."""
    numbers = np.arange(len(valid))
    before = np.maximum.accumulate(np.where(valid, numbers, -1))
    after = np.minimum.accumulate(np.where(valid, numbers, len(valid))[::-1])[::-1]
    return np.where(before >= 0, before, after)
