"""What a run found out about its clip: report.json for programs, report.html to look at, portrait.json."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import e3dge_video
from e3dge_video.faces.alignment import Similarity
from e3dge_video.inversion.refinement.objective import objective_terms
from e3dge_video.io import atomic
from e3dge_video.io.index import FrameIndex
from e3dge_video.io.reader import CORRUPT, LOST
from e3dge_video.pipelines.core.spec import Job, MapStage, Outcome
from e3dge_video.pipelines.jsonfile import write_json
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.output import MARKER
from e3dge_video.pipelines.report_page import Curve, Plot, page
from e3dge_video.pipelines.stages.depth import depth_code_of
from e3dge_video.weights.bundle import BundleSpec


@dataclass(frozen=True)
class Run:
    """A run whose files are written.

    Attributes:
        video: The clip.
        index: Its frames.
        options: What was asked.
        spec: The model's specification.
        job: The job.
        outcome: How it went.
        values: What the barriers returned.
        seconds: Wall time.
    """

    video: Path
    index: FrameIndex
    options: PortraitOptions
    spec: BundleSpec
    job: Job
    outcome: Outcome
    values: Mapping[str, Any]
    seconds: float


def write_report(folder: Path, run: Run) -> dict[str, Any]:
    """Write report.json, report.html and portrait.json into the result folder; returns what report.json holds."""
    track, settle, assembled = (run.values[name] for name in ("track", "settle", "assemble"))
    settle = settle | run.values.get("refined", {})
    report: dict[str, Any] = {
        "video": _video_facts(run),
        "options": _plain_options(run.options),
        "model": {"name": run.spec.name, "licence": run.spec.licence, "files": run.spec.files},
        "frames": _frame_counts(track),
        "quality": _quality(track, settle, assembled),
        "refinement": _refinement(run),
        "time": _timings(run),
        "notes": _notes(run.index, assembled),
        "versions": _versions(),
    }
    write_json(folder / MARKER, _portrait_description(run.spec, run.options))
    write_json(folder / "report.json", report)
    atomic.write_bytes(folder / "report.html", page(folder, report, _plots(track, settle, assembled)).encode())
    return report


def second_difference(values: NDArray[np.floating], run: NDArray[np.integer]) -> float:
    """Mean size of the second difference inside runs: jitter, in the units of `values`. [N] or [N, D]"""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    inside = (run[2:] >= 0) & (run[2:] == run[:-2]) & (run[1:-1] == run[:-2])
    if not inside.any():
        return 0.0
    change = rows[2:] - 2 * rows[1:-1] + rows[:-2]
    return float(np.linalg.norm(change[inside], axis=1).mean())


def _video_facts(run: Run) -> dict[str, Any]:
    index, first = run.index, run.job.params.first
    return {
        "file": run.video.name,
        "size": list(index.info.size),
        "codec": index.info.codec,
        "frames_in_file": len(index),
        "first_frame": first,
        "frames_used": run.job.frames,
        "starts_at_s": float(index.time(first)),
        "mean_rate": round(float(index.rate), 4),
        "audio": [track.codec for track in index.info.audio],
        "assumed": list(index.info.notes),
    }


def _plain_options(options: PortraitOptions) -> dict[str, Any]:
    return {
        "edits": {edit.label: [list(k) for k in edit.keyframes] for edit in options.edits},
        "orthogonal": options.orthogonal,
        "toon": options.toon,
        "views": [view.name for view in options.views],
        "smooth_s": options.smooth_s,
        "no_face": options.no_face,
        "person": options.person,
        "start_s": None if options.start_s is None else float(options.start_s),
        "end_s": None if options.end_s is None else float(options.end_s),
        "landmarks": options.landmarks.backend,
        "device": options.device,
        "refine": options.refine.mode,
    }


def _frame_counts(track: Mapping[str, Any]) -> dict[str, Any]:
    followed, status = track["track"], track["status"]
    missing = np.flatnonzero(~followed.valid)
    return {
        "with_face": int(followed.valid.sum()),
        "bridged": int(followed.bridged.sum()),
        "without_face": len(missing),
        "without_face_spans": _spans(missing),
        "most_faces_at_once": int(track["faces"].max()),
        "cuts": [int(k) for k in np.flatnonzero(followed.cuts)],
        "repeated": int(followed.repeated.sum()),
        "corrupt": int((status == CORRUPT).sum()),
        "lost": int((status == LOST).sum()),
    }


def _spans(frames: NDArray[np.intp]) -> list[list[int]]:
    """Consecutive frame numbers as [first, last] pairs."""
    groups = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return [[int(group[0]), int(group[-1])] for group in groups if len(group)]


def _crop_corners(crop: Similarity) -> NDArray[np.float64]:
    """Corners of the crops in units of 512ths of their mean side. [N, 8]"""
    side = np.nanmean(crop.side)
    return np.nan_to_num(crop.corners().reshape(len(crop), 8)) * (512 / side)


def _quality(track: Mapping[str, Any], settle: Mapping[str, Any], assembled: Mapping[str, Any]) -> dict[str, float]:
    followed = track["track"]
    run, valid = followed.run, followed.valid
    before = settle.get("angles_fitted", settle["angles_regressed"])
    quality = {
        "crop_jitter_px_512_before": second_difference(_crop_corners(followed.crop), run),
        "crop_jitter_px_512_after": second_difference(_crop_corners(track["smoothed"]), run),
        "pose_jitter_deg_before": second_difference(np.degrees(before), run),
        "pose_jitter_deg_after": second_difference(np.degrees(settle["angles"]), run),
        "global_reconstruction_mae": float(assembled["coarse_mae"][valid].mean()),
    }
    if "residual" in settle:  # a model with 3D landmarks
        eyes = settle["landmarks"][:, 36:42].mean(1) - settle["landmarks"][:, 42:48].mean(1)
        eye_distance = np.linalg.norm(eyes, axis=1)[valid].mean()
        quality["landmark_residual_share_of_eye_distance"] = float(settle["residual"][valid].mean() / eye_distance)
    lifted = assembled["lifted_share"][valid]
    if not np.isnan(lifted).any():  # a model that lifts
        quality["share_of_head_with_own_detail"] = float(lifted.mean())
    return quality


def _refinement(run: Run) -> dict[str, Any]:
    """What test-time optimisation did; `mode` alone where there was none."""
    refine = run.options.refine
    if refine.mode == "none":
        return {"mode": refine.mode}
    found, seconds = run.values["refined"], run.outcome.seconds
    spent = sum(value for name, value in seconds.items() if name in ("refine", "collect") or name.startswith("tune"))
    networks = {name: bool(value) for name, value in vars(refine.metrics).items()}
    facts = {
        "mode": refine.mode,
        "objective": objective_terms(**networks),
        "steps": round(found["steps"], 1),
        "loss_before": found["loss_before"],
        "loss_after": found["loss_after"],
        "seconds_per_frame": round(spent / run.job.frames, 3),
    }
    if "angles_refined" in found:
        track = run.values["track"]["track"]
        facts["pose_jitter_deg_unsmoothed"] = second_difference(np.degrees(found["angles_refined"]), track.run)
    if "choose" in run.values:
        facts["key_frames"] = run.values["choose"]["key_frames"]
    return facts


def _timings(run: Run) -> dict[str, Any]:
    outcome, chunks = run.outcome, -(-run.job.frames // run.job.chunk_frames)
    kept = [stage.name for stage in run.job.graph.stages if isinstance(stage, MapStage) and stage.persist]
    return {
        "wall_s": round(run.seconds, 3),
        "frames_per_second": round(run.job.frames / run.seconds, 3),
        "stage_s": {name: round(value, 3) for name, value in outcome.seconds.items()},
        "tasks": dict(outcome.tasks),
        "resumed": any(outcome.tasks.get(stage, 0) < chunks for stage in kept),
        "workers_lost": outcome.crashes,
    }


def _notes(index: FrameIndex, assembled: Mapping[str, Any]) -> list[str]:
    """What the user should know about this video, each thing once: sound and times are alike in all files."""
    # That mkv rounds times is known, and said in portrait.json.
    warnings = [note for report in assembled["files"] if report.path.suffix != ".mkv" for note in report.warnings]
    news = [note for note in index.notes if note not in index.info.notes]
    return list(dict.fromkeys([*news, *warnings]))


def _versions() -> dict[str, str]:
    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # Ray on a machine without it, OpenCV under another name
            return "not installed"

    names = ("torch", "av", "numpy", "scipy", "opencv-python", "ray")
    own = {"e3dge-video": e3dge_video.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in names}


_SETTLED_CODES = {
    "anchors": "identity of each scene [A, L, W]",
    "anchor": "which of them a frame uses [N]",
    "expression": "coefficients in the expression basis [N, K]",
}
_OFFSETS = {"offset": "what --refine added to each frame's own code [N, L, W]"}
_WHOLE_CODES = {"latents": "smoothed code of each frame [N, L, W]"}
_UNITS = {
    "eg3d": "world unit of the model; the distance between the eyes of its mean head is about 0.168",
    "stylesdf": "world unit of the model; its cameras stand at 1 from the middle of the head",
}


def _portrait_description(spec: BundleSpec, options: PortraitOptions) -> dict[str, Any]:
    whole, depth = spec.encoder is None, depth_code_of(spec.backbone)
    return {
        "format": 1,
        "views": [view.name for view in options.views],
        "model": spec.name,
        "crop": spec.crop,
        "resolution": spec.resolution,
        "codes": "W+ code of frame t = "
        + (
            "latents[t]"
            if whole
            else "anchors[anchor[t]] + expression[t] @ basis, basis from the model's edits file; "
            "plus offset[t] where there is one"
        ),
        "arrays": {
            **(_WHOLE_CODES if whole else _SETTLED_CODES),
            **(_OFFSETS if options.refine.gives_offsets else {}),
            "cam2world": "camera of each crop, OpenCV axes, world units of the model [N, 4, 4]",
            "view_cameras": "camera of rgb.mp4: cam2world 16 numbers, intrinsics 9, divided by the image size [N, 25]",
            "crop": "centre x, y in pixels of the source, log of the side in pixels, angle in radians [N, 4]",
            "landmarks": "68 points in crop coordinates 0..1 [N, 68, 2]",
            "run": "stretch of frames that belongs together; negative: no face [N]",
            "source": "frame whose picture is shown (differs where there is no face) [N]",
            "times_s": "time of each frame from the clip's start, seconds [N]",
        },
        "depth": {
            "files": "depth*.mkv: FFV1, 16-bit grey, lossless; mkv counts in milliseconds, times_s is exact",
            "meaning": "distance along the ray from the camera = code * scale + offset, world units; code 0: no head",
            "scale": depth.scale,
            "offset": depth.offset,
            "unit": _UNITS.get(spec.backbone, "world unit of the model"),
        },
    }


def _plots(track: Mapping[str, Any], settle: Mapping[str, Any], assembled: Mapping[str, Any]) -> list[Plot]:
    times = np.array(track["track"].times_s)
    gap = ~track["track"].valid

    def curve(name: str, values: NDArray[np.floating]) -> Curve:
        return Curve(name, np.where(gap, np.nan, np.asarray(values, np.float64)))

    titles = {"angles_regressed": "regressed (E_ξ)", "angles_fitted": "fitted to landmarks", "angles": "used"}
    angles = {title: np.degrees(settle[name]) for name, title in titles.items() if name in settle}
    plots = [
        Plot(
            f"{label}, degrees",
            times,
            [curve(title, values[:, k]) for title, values in angles.items()],
        )
        for k, label in enumerate(("Yaw", "Pitch", "Roll"))
    ]
    raw, smoothed = track["track"].crop, track["smoothed"]
    side, middle = np.nanmean(raw.side), np.nanmean(raw.centre, axis=0)
    crop = Plot(
        "Crop centre, share of its side",
        times,
        [
            curve(f"{axis} {kind}", (crop.centre[:, k] - middle[k]) / side)
            for k, axis in enumerate("xy")
            for kind, crop in (("raw", raw), ("smoothed", smoothed))
        ],
    )
    error = Plot(
        "Global reconstruction: mean absolute error on the head (range 2)",
        times,
        [curve("MAE", assembled["coarse_mae"])],
    )
    return [*plots, crop, error]
