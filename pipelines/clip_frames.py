"""A clip's frames as the pipeline's own stages prepare them, for measuring and looking outside of a run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from e3dge_video.faces.landmarks import LandmarkOptions, choose_backend
from e3dge_video.faces.pose import camera_angles
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.spec import Chunk, Job, MapStage, Payload
from e3dge_video.pipelines.graph import build_job
from e3dge_video.pipelines.options import PortraitOptions, RefineOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.stages.batches import frame_cameras, frame_images, frame_latents, rows
from e3dge_video.weights.bundle import read_spec
from e3dge_video.weights.catalog import find_bundle


@dataclass(frozen=True)
class Frames:
    """Frames of a clip, ready to be inverted.

    Attributes:
        image: Face crops in [-1, 1]. [T, 3, S, S]
        landmarks: 68 points in crop coordinates 0..1. [T, 68, 2]
        latents: W+ codes. [T, L, W]
        camera: T cameras.
    """

    image: Tensor
    landmarks: Tensor
    latents: Tensor
    camera: Camera

    def __getitem__(self, index: list[int]) -> Frames:
        i = torch.tensor(index)
        return Frames(self.image[i], self.landmarks[i], self.latents[i], self.camera[i])


class ClipFrames:
    """The pipeline's stages up to `settle`, and those of a refinement, run one after another over a whole clip.

    Args:
        clip: The video.
        model: Name or folder of a model bundle.
        seconds: How much of it is used, from its beginning.
        threads: Threads of the networks.
    """

    def __init__(self, clip: Path, model: str, seconds: Fraction, threads: int) -> None:
        self._folder, self._threads = find_bundle(model).absolute(), threads
        backend, _ = choose_backend(LandmarkOptions())
        self._options = PortraitOptions(self._folder, end_s=seconds, landmarks=LandmarkOptions(backend))
        self._temporary = tempfile.TemporaryDirectory()
        self._clip, self._output = clip.absolute(), OutputFolder(Path(self._temporary.name) / "out")
        self._index = build_index(clip)
        self._output.prepare()
        job = self._job(RefineOptions())
        job.params.index.write_bytes(self._index.to_bytes())
        self._tools = {unit.name: unit.setup() for unit in job.graph.units}
        self.results: dict[str, Payload] = {}
        self._bodies: dict[str, Any] = {}
        self._run(job, "portrait")

    @property
    def inverter(self) -> Inverter:
        """The model."""
        inverter: Inverter = self._tools["portrait"]
        return inverter

    @property
    def yaw(self) -> np.ndarray:
        """Yaw of every frame, radians. [T]"""
        return np.asarray(camera_angles(np.asarray(self.results["settle"]["cam2world"]))[:, 0])

    def refine(self, options: RefineOptions) -> Payload:
        """Run the stages of a refinement; returns what the last of them gives."""
        self._run(self._job(options), "portrait")
        return self.results["refined"]

    def key_frames(self, options: RefineOptions) -> list[int]:
        """Frames that `refine` with `clip` tunes on."""
        self._run(self._job(options), "collect")
        return [int(k) for k in np.asarray(self.results["choose"]["place"])]

    def frames(self, settled: str = "settle") -> Frames:
        """All frames of the clip, with the codes and cameras of a stage."""
        inverter, payload = self.inverter, self.results[settled]
        every = np.arange(len(np.asarray(payload["cam2world"])))
        return Frames(
            frame_images(self.results["prep"], every, inverter),
            rows(self.results["track"]["landmarks"], every, inverter),
            frame_latents(payload, every, inverter),
            frame_cameras(payload, every, inverter),
        )

    def _job(self, refine: RefineOptions) -> Job:
        options = replace(self._options, refine=refine)
        return build_job(self._clip, self._index, self._output, options, read_spec(self._folder), threads=self._threads)

    def _run(self, job: Job, until: str) -> None:
        """Run the stages before `until` that have not been run yet as they now are."""
        fresh: set[str] = set()
        chunk = Chunk(0, 0, job.frames, job.frames, job.params)
        for stage in job.graph.stages:
            if stage.name == until:
                return
            known = self._bodies.get(stage.name) == stage.body and stage.name in self.results
            if known and fresh.isdisjoint(stage.inputs.values()):
                continue
            fresh.add(stage.name)
            self._bodies[stage.name] = stage.body
            inputs = {argument: self.results[source] for argument, source in stage.inputs.items()}
            if isinstance(stage, MapStage):
                self.results[stage.name] = stage.body(chunk, self._tools[stage.unit], **inputs)
            else:
                done = stage.body([chunk], **{argument: [payload] for argument, payload in inputs.items()})
                self.results[stage.name] = done.per_chunk[0]
