"""What a run is asked to do: plain values that travel to every worker and enter the keys of its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from e3dge_video.faces.landmarks import LandmarkOptions
from e3dge_video.geometry.views import View
from e3dge_video.inversion.editing import Edit
from e3dge_video.inversion.refinement.frames import FrameRefinementConfig
from e3dge_video.inversion.refinement.load import MetricFiles
from e3dge_video.inversion.refinement.personalization import OwnOffsets, PersonalizationConfig

NoFace = Literal["hold", "pass", "blank"]
RefineMode = Literal["none", "pose", "pose+code", "clip"]


@dataclass(frozen=True)
class RefineOptions:
    """Test-time optimisation between `settle` and `portrait`.

    Attributes:
        mode: None; pose, or pose and code of every frame (P, P+C); one generator tuned to the whole clip.
        frames: Schedule of P and P+C; None: the paper's, on a CPU a quick one.
        clip: Schedule of the clip's generator.
        own_offsets: What becomes of the own offsets of key frames, where that schedule has any: dropped, or carried to
            every frame, linear in time between key frames.
        metrics: Networks of the objective; the run looks for them when it begins.
    """

    mode: RefineMode = "none"
    frames: FrameRefinementConfig | None = None
    clip: PersonalizationConfig = field(default_factory=PersonalizationConfig)
    own_offsets: OwnOffsets = "interpolate"
    metrics: MetricFiles = field(default_factory=MetricFiles)

    @property
    def gives_offsets(self) -> bool:
        """Whether every frame gets a code offset of its own."""
        between = self.mode == "clip" and self.own_offsets == "interpolate" and self.clip.own_code_lr > 0
        return self.mode == "pose+code" or between


@dataclass(frozen=True)
class PortraitOptions:
    """Everything about one run except the video and where the result goes.

    Attributes:
        model: Folder of the model bundle.
        edits: Edits to apply; several add up.
        orthogonal: Each edit leaves alone what those before it move along.
        toon: Degree of toonification, 0 (none) to 1.
        views: Views to render; the first is `rgb.mp4`.
        smooth_s: Length of the sliding mean over crop, camera and expression, seconds; 0 turns it off.
        no_face: What frames without a face show: the nearest frame with one, the source's own crop, or black.
        person: 0 for the main person, 1 for the second, …
        start_s: Beginning of the part to use, counted from the video's first frame, seconds; None for the first frame.
        end_s: End of it, or None.
        landmarks: How faces are found.
        device: Where the networks run, as torch names it.
        refine: Test-time optimisation.
    """

    model: Path
    edits: tuple[Edit, ...] = ()
    orthogonal: bool = False
    toon: float = 0.0
    views: tuple[View, ...] = (View("input", "input"),)
    smooth_s: float = 0.2
    no_face: NoFace = "hold"
    person: int = 0
    start_s: Fraction | None = None
    end_s: Fraction | None = None
    landmarks: LandmarkOptions = field(default_factory=LandmarkOptions)
    device: str = "cpu"
    refine: RefineOptions = field(default_factory=lambda: RefineOptions())
