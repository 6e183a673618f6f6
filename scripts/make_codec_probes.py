#!/usr/bin/env python3
"""Write the tiny clips by which `e3dge-video doctor` finds out what this machine can decode.

    python scripts/make_codec_probes.py e3dge_video/sample/codecs

Needs an FFmpeg with the encoders libx264, libx265, libvpx-vp9 and libsvtav1, as PyAV's wheels have.
"""

from __future__ import annotations

import argparse
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from e3dge_video.sample import PROBE_LEVELS

os.environ.setdefault("SVT_LOG", "1")  # errors only
_SIZE = 64
_ENCODERS = {
    "h264": ("libx264", {"preset": "medium"}),
    "hevc": ("libx265", {"preset": "medium", "x265-params": "log-level=none:info=0"}),
    "vp9": ("libvpx-vp9", {"lag-in-frames": "0"}),
    "av1": ("libsvtav1", {"preset": "8"}),
}


def write_probe(path: Path, encoder: str, options: dict[str, str]) -> None:
    """One clip: a frame of plain grey for each level."""
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream(encoder, rate=Fraction(25), options=options)
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        for number, level in enumerate(PROBE_LEVELS):
            # Planes themselves, so that no conversion of colours takes part.
            planes = np.full((_SIZE * 3 // 2, _SIZE), 128, np.uint8)
            planes[:_SIZE] = level
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def main() -> None:
    """Parse the command line and write all clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for codec, (encoder, options) in _ENCODERS.items():
        path = folder / f"{codec}.mkv"
        write_probe(path, encoder, options)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
