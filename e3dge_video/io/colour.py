"""Decoded frames to 8-bit RGB with BT.709 primaries and an SDR display in mind.

Rules, where a file leaves something open:

* matrix: as tagged; untagged (or tagged with one swscale does not know) → BT.2020 if the primaries say so, else BT.709
  from 720p up (long side ≥ 1280 or short side > 576), else BT.601: what players assume.
* range: as tagged; untagged → full for RGB and the old `yuvj` formats, limited for everything else.
* PQ and HLG (HDR) are tone-mapped and wide-gamut primaries (BT.2020, P3) are brought to BT.709, see `hdr`.
* a PQ tag is disbelieved, and all colour tags with it, if the file has no HDR10 metadata and its first frame would be
  brighter on average (400 cd/m²) than HDR masters are: SDR video that was merely tagged.
* transparency is shown on white.

All work is done by an FFmpeg filter graph with exact rounding and interpolated chroma, one graph per stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.stream import VideoStream
from numpy.typing import NDArray

from e3dge_video.io import hdr
from e3dge_video.io.display import Display, side_data
from e3dge_video.io.pixels import on_white

Matrix = Literal["bt709", "bt601", "fcc", "smpte240m", "bt2020"]

# AVColorSpace → the names of FFmpeg's scale filter
_MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
    10: "bt2020",
}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_UNSPECIFIED_RANGE = 0
_BRIGHTEST_MEAN_NITS = 400.0  # frame averages of HDR10 masters stay below (their MaxFALL)


@dataclass(frozen=True)
class Colour:
    """What the numbers in a stream mean."""

    matrix: Matrix
    full_range: bool
    transfer: hdr.Transfer
    primaries: hdr.Primaries
    notes: tuple[str, ...] = ()  # what was assumed where the file says nothing, or nothing credible

    @property
    def needs_mapping(self) -> bool:
        """Whether more than a matrix stands between the stream and SDR BT.709."""
        return self.transfer != "sdr" or self.primaries != "bt709"


def colour_of(stream: VideoStream, frame: av.VideoFrame) -> Colour:
    """Read the colour tags of a stream and its first decoded frame, and fill the gaps by the rules above."""
    tags = stream.codec_context
    tagged_range = int(frame.color_range)
    full_range = tagged_range == _FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    primaries = hdr.PRIMARIES.get(int(tags.color_primaries), "bt709")
    transfer = hdr.TRANSFERS.get(int(tags.color_trc), "sdr")
    tagged = _MATRICES.get(int(frame.colorspace))
    matrix = tagged or ("bt2020" if primaries == "bt2020" else _matrix_by_size(frame))
    if transfer == "pq" and not _has_hdr10_metadata(frame):
        light = _mean_light(frame, Colour(matrix, full_range, "sdr", "bt709"))
        if light > _BRIGHTEST_MEAN_NITS:
            matrix = _matrix_by_size(frame)
            note = f"tagged PQ (HDR), but a mean light of {light:.0f} cd/m² is not HDR video; shown as SDR {matrix}"
            return Colour(matrix, full_range, "sdr", "bt709", (note,))
    notes = []
    if tagged is None and not frame.format.is_rgb:
        notes.append(f"colour matrix not tagged, {matrix} assumed")
    if tagged_range == _UNSPECIFIED_RANGE and not full_range:
        notes.append("colour range not tagged, limited assumed")
    return Colour(matrix, full_range, transfer, primaries, tuple(notes))


def _matrix_by_size(frame: av.VideoFrame) -> Matrix:
    short, long = sorted((frame.width, frame.height))
    return "bt709" if long >= 1280 or short > 576 else "bt601"


def _has_hdr10_metadata(frame: av.VideoFrame) -> bool:
    return not {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}.isdisjoint(side_data(frame))


def _mean_light(frame: av.VideoFrame, colour: Colour) -> float:
    """Average light of a frame in cd/m² if its numbers are PQ."""
    size = (frame.width, frame.height)
    coded = PictureConverter(colour, Display(size, size, Fraction(1)))(frame) / 255.0
    return float((hdr.pq_to_nits(coded) @ hdr.BT2020_LUMINANCE).mean())


class PictureConverter:
    """Frames of one stream → upright RGB pictures with square pixels, all of one size."""

    def __init__(self, colour: Colour, display: Display) -> None:
        self.colour = colour
        self.display = display
        self._graph: Graph | None = None
        self._graph_input: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """One decoded frame as it is shown. → uint8 RGB [H, W, 3]"""
        found = (frame.width, frame.height, frame.format.name)
        if self._graph is None or found != self._graph_input:  # streams may change size or format midway
            self._graph, self._graph_input = self._build(frame), found
        self._graph.push(frame)
        return self.display.orient(_to_rgb(self._graph.pull()))

    def _build(self, frame: av.VideoFrame) -> Graph:
        width, height = self.display.square_size
        resized = (width, height) != (frame.width, frame.height)
        flags = ("bicubic" if resized else "bilinear") + "+accurate_rnd+full_chroma_int"
        source_range = "pc" if self.colour.full_range else "tv"
        alpha = any(component.is_alpha for component in frame.format.components)
        target = "gbrap" if alpha else "gbrp"
        to_rgb = (
            f"w={width}:h={height}:flags={flags}:out_range=pc:in_range={source_range}"
            f":in_color_matrix={self.colour.matrix}"
        )
        steps: list[tuple[str, str | None, dict[str, str]]] = [("scale", to_rgb, {})]
        with hdr.lookup_file(self.colour.transfer, self.colour.primaries) as table:
            if self.colour.needs_mapping:
                deep = target + "16le"  # the depth for which lut3d has SIMD code
                steps += [("format", deep, {}), ("lut3d", None, {"file": str(table), "interp": "tetrahedral"})]
                steps += [("scale", "sws_dither=none:flags=accurate_rnd:in_range=pc:out_range=pc", {})]
            steps += [("format", target, {})]
            graph = Graph()
            geometry = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1"
            last = graph.add("buffer", geometry)
            for name, arguments, options in [*steps, ("buffersink", None, {})]:
                step = graph.add(name, arguments, **options)
                last.link_to(step)
                last = step
            graph.configure()  # the table is read here; its file may go
        return graph


def _to_rgb(frame: Any) -> NDArray[np.uint8]:
    """Planar G, B, R (, A) to interleaved RGB on white. [H, W, 3]"""
    green, blue, red, *alpha = (_plane(plane) for plane in frame.planes)
    picture = np.asarray(cv2.merge([red, green, blue]), np.uint8)
    return on_white(picture, alpha[0]) if alpha else picture


def _plane(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
