"""report.html: one self-contained page with frames, curves and figures. No scripts, nothing fetched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.io.reader import VideoReader

_COLORS = ("#9aa3ad", "#e0933a", "#2f6fdf", "#3d9a5b")
_FRAMES_SHOWN = 6

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem; padding: 0 1rem; color: #1d2329; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { width: 100%; display: block; margin-bottom: 6px; border-radius: 4px; }
table { border-collapse: collapse; } td { padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
td:first-child { color: #59636e; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; background: #f6f8fa; border-radius: 4px; } .note { color: #8a5a00; }
code { background: #f0f2f4; padding: 0 .25rem; border-radius: 3px; }
"""

_FILES = {
    "rgb.mp4": "the result in the first view, with the source's sound and exact times",
    "depth.mp4": "its depth in colours (near is warm), one fixed range",
    "depth.mkv": "its depth exactly: 16-bit lossless; scale and offset in portrait.json",
    "rgb_*.mp4": "the result in another view",
    "depth_*.mp4": "its depth in colours",
    "depth_*.mkv": "its depth exactly",
    "compare.mp4": "input, global reconstruction, result, another view and depth side by side",
    "cameras.json": "camera of every frame as EG3D labels",
    "transforms.json": "the same for nerfstudio",
    "portrait.safetensors": "codes, cameras, crops and landmarks of every frame",
    "generator.safetensors": "parameters of the generator tuned to this person; the others are the model's own",
    "portrait.json": "what each array of portrait.safetensors is, and the scale of depth.mkv",
    "report.json": "everything on this page for programs",
}


@dataclass(frozen=True)
class Curve:
    """One line of a plot; NaN leaves a gap. [N]"""

    name: str
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Plot:
    """Curves over time in seconds. [N]"""

    title: str
    times_s: NDArray[np.float64]
    curves: Sequence[Curve]


def page(folder: Path, report: Mapping[str, Any], plots: Sequence[Plot]) -> str:
    """The whole page.

    Args:
        folder: Result folder with all other files.
        report: What report.json holds.
        plots: Curves to show.
    """
    frames = "".join(f'<img alt="frame {number}" src="{source}">' for number, source in _shown(folder / "compare.mp4"))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report["notes"])
    model = report["model"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(report["video"]["file"])} – e3dge-video</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(report["video"]["file"])}</h1>
<p>{_summary(report)}</p>{notes}
<h2>Frames</h2><p>Input, global reconstruction (code alone), result, another view, depth.</p>{frames}
<h2>Over time</h2><div class="plots">{"".join(map(_svg, plots))}</div>
<h2>Figures</h2>{_table(_figures(report))}
<h2>Where the time went</h2>{_table(_times(report["time"]))}
<h2>Files</h2>{_table(_files(folder))}
<h2>Video</h2>{_table(_video(report["video"]))}
<h2>Model</h2>{_table({"name": escape(model["name"]), "licence": escape(model["licence"])})}
<p>{escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))}</p>
</body></html>
"""


def _summary(report: Mapping[str, Any]) -> str:
    frames, edits = report["frames"], report["options"]["edits"]
    toon = [f"toon {report['options']['toon']:g}"] if report["options"]["toon"] else []
    edited = ", ".join([*toon, *edits]) or "no edit"
    return escape(
        f"{report['video']['frames_used']} frames, {frames['with_face']} with a face; {edited}; "
        f"views {', '.join(report['options']['views'])}; {report['time']['frames_per_second']:g} frames per second; "
        f"landmarks by {report['options']['landmarks']}."
    )


def _figures(report: Mapping[str, Any]) -> dict[str, str]:
    quality, frames = report["quality"], report["frames"]
    rows = {
        "crop jitter, px of 512, before → after smoothing": f"{quality['crop_jitter_px_512_before']:.2f} → "
        f"{quality['crop_jitter_px_512_after']:.2f}",
        "pose jitter, degrees, before → after": f"{quality['pose_jitter_deg_before']:.2f} → "
        f"{quality['pose_jitter_deg_after']:.2f}",
        "global reconstruction, MAE on the head (range 2)": f"{quality['global_reconstruction_mae']:.3f}",
    }
    if "landmark_residual_share_of_eye_distance" in quality:
        residual = 100 * quality["landmark_residual_share_of_eye_distance"]
        rows["predicted head against landmarks, % of the eye distance"] = f"{residual:.1f}"
    if "share_of_head_with_own_detail" in quality:
        rows["share of the head with the person's own detail"] = f"{quality['share_of_head_with_own_detail']:.2f}"
    if (refined := report["refinement"])["mode"] != "none":
        steps = f"{refined['steps']:g} steps, {refined['seconds_per_frame']:.2f} s per frame"
        rows[f"test-time optimisation ({escape(refined['mode'])})"] = steps
        rows["its loss, before → after"] = f"{refined['loss_before']:.4f} → {refined['loss_after']:.4f}"
        rows["its loss is made of"] = escape("; ".join(refined["objective"]))
    for name in ("bridged", "without_face", "repeated", "corrupt", "lost"):
        if frames[name]:
            rows[f"frames {name.replace('_', ' ')}"] = str(frames[name])
    if frames["cuts"]:
        rows["scene cuts at frames"] = ", ".join(map(str, frames["cuts"]))
    return rows


def _files(folder: Path) -> dict[str, str]:
    """The other files of the folder, each with a link and what it is."""
    rows: dict[str, str] = {}
    for pattern, text in _FILES.items():
        for path in sorted(folder.glob(pattern)):
            rows[f'<a href="{quote(path.name)}"><code>{escape(path.name)}</code></a>'] = escape(text)
    return rows


def _video(video: Mapping[str, Any]) -> dict[str, str]:
    width, height = video["size"]
    first, used, total = video["first_frame"], video["frames_used"], video["frames_in_file"]
    rows = {
        "picture": f"{width} × {height}, {video['codec']}, {video['mean_rate']:g} frames per second on average",
        "frames": f"{first} to {first + used - 1} of {total}" if used < total else f"all {total}",
        "sound": ", ".join(video["audio"]) or "none",
    }
    if video["assumed"]:
        rows["assumed"] = "; ".join(video["assumed"])
    return {name: escape(text) for name, text in rows.items()}


def _times(time: Mapping[str, Any]) -> dict[str, str]:
    rows = {escape(name): f"{seconds:.1f} s" for name, seconds in time["stage_s"].items()}
    rows["whole run"] = f"{time['wall_s']:.1f} s" + (", going on from an earlier one" if time["resumed"] else "")
    if time["workers_lost"]:
        rows["workers lost and replaced"] = str(time["workers_lost"])
    return rows


def _table(rows: Mapping[str, str]) -> str:
    return "<table>" + "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows.items()) + "</table>"


def _shown(video: Path) -> list[tuple[int, str]]:
    """Some frames, evenly spread, as data URLs."""
    with VideoReader(video) as reader:
        count = min(_FRAMES_SHOWN, len(reader))
        numbers = [(2 * k + 1) * len(reader) // (2 * count) for k in range(count)]
        return [(number, _data_url(reader.read(number, number + 1).rgb[0])) for number in numbers]


def _data_url(rgb: NDArray[np.uint8]) -> str:
    code = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(code.tobytes()).decode()


def _svg(plot: Plot, width: int = 520, height: int = 190) -> str:
    left, right, top, bottom = 44, 10, 34, 22
    values = np.concatenate([curve.values for curve in plot.curves])
    low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if np.isfinite(values).any() else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad
    end = float(plot.times_s[-1]) or 1.0

    def at(time: float, value: float) -> str:
        x = left + (width - left - right) * time / end
        return f"{x:.1f},{top + (height - top - bottom) * (high - value) / (high - low):.1f}"

    lines, names = [], []
    for curve, color in zip(plot.curves, _COLORS, strict=False):
        for part in np.ma.clump_unmasked(np.ma.masked_invalid(curve.values)):
            points = " ".join(
                at(float(t), float(v)) for t, v in zip(plot.times_s[part], curve.values[part], strict=True)
            )
            lines.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.4" points="{points}"/>')
        names.append(f'<tspan fill="{color}" dx="10">{escape(curve.name)}</tspan>')
    ticks = "".join(
        f'<text x="{left - 5}" y="{float(at(0, v).split(",")[1]) + 4}" text-anchor="end" font-size="10">{v:.3g}</text>'
        for v in (low + pad, high - pad)
    )
    title = f'<text x="8" y="15" font-size="12">{escape(plot.title)}</text>'
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">{title}'
        f'<text x="0" y="29" font-size="10.5">{"".join(names)}</text>{ticks}'
        f'<text x="{width - right}" y="{height - 6}" text-anchor="end" font-size="10">{end:.1f} s</text>'
        f"{''.join(lines)}</svg>"
    )
