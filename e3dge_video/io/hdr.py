"""HDR and wide-gamut video to the SDR pictures that faces, models and screens here expect.

A colour table maps coded R'G'B' of the source to coded R'G'B' of an SDR BT.709 display (BT.1886, gamma 2.4):

    coded → light in cd/m² (PQ: SMPTE ST 2084; HLG: BT.2100 with system gamma 1.2 at 1000 cd/m²; SDR: gamma 2.4)
          → highlights rolled off to the reference white of 203 cd/m² (BT.2408) with the knee of BT.2390
          → BT.709 primaries, negative light clipped → coded

Skin in HDR masters lies below the knee, so faces keep their graded brightness.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Transfer = Literal["sdr", "pq", "hlg"]
Primaries = Literal["bt709", "bt2020", "p3"]

TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}  # AVColorTransferCharacteristic
PRIMARIES: dict[int, Primaries] = {9: "bt2020", 12: "p3"}  # AVColorPrimaries; 12: P3 with D65 white

WHITE_NITS = 203.0  # light of a white page in HDR video, BT.2408
PEAK_NITS = 1000.0  # what HLG displays and most PQ masters reach; brighter light is clipped
BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
_SDR_GAMMA = 2.4
_TABLE_SIZE = 33

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32

# Linear RGB → linear BT.709 RGB (BT.2087; P3-D65 from its chromaticities)
_TO_BT709 = {
    "bt709": np.eye(3),
    "bt2020": np.array(
        [
            [1.660491, -0.587641, -0.072850],
            [-0.124550, 1.132900, -0.008349],
            [-0.018151, -0.100579, 1.118730],
        ]
    ),
    "p3": np.array(
        [
            [1.224940, -0.224940, 0.0],
            [-0.042057, 1.042057, 0.0],
            [-0.019638, -0.078636, 1.098274],
        ]
    ),
}


def pq_to_nits(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084: code value in [0, 1] → light in cd/m²."""
    root = np.power(coded, 1 / _M2)
    return 10000.0 * np.power(np.maximum(root - _C1, 0.0) / (_C2 - _C3 * root), 1 / _M1)


def nits_to_pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `pq_to_nits`."""
    power = np.power(np.maximum(nits, 0.0) / 10000.0, _M1)
    return np.power((_C1 + _C2 * power) / (1.0 + _C3 * power), _M2)


def hlg_to_nits(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """BT.2100 HLG for a display of 1000 cd/m²: R'G'B' in [0, 1] → light in cd/m². [..., 3]"""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3.0, (np.exp((coded - c) / a) + b) / 12.0)
    luminance = scene @ BT2020_LUMINANCE
    return PEAK_NITS * np.power(np.maximum(luminance, 1e-9), 0.2)[..., None] * scene


def roll_off(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """BT.2390 knee: light up to `PEAK_NITS` → light up to `WHITE_NITS`, shadows and mid-tones untouched."""
    peak = float(nits_to_pq(np.array(PEAK_NITS)))
    source = np.minimum(nits_to_pq(nits) / peak, 1.0)
    top = float(nits_to_pq(np.array(WHITE_NITS))) / peak
    knee = 1.5 * top - 0.5
    t = np.clip((source - knee) / (1.0 - knee), 0.0, 1.0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1.0 - knee) + (-2 * t**3 + 3 * t**2) * top
    return pq_to_nits(np.where(source < knee, source, spline) * peak)


def to_sdr(coded: NDArray[np.float64], transfer: Transfer, primaries: Primaries) -> NDArray[np.float64]:
    """Coded R'G'B' of the source in [0, 1] → coded R'G'B' for an SDR BT.709 display in [0, 1]. [..., 3]"""
    if transfer == "sdr":
        light = np.power(coded, _SDR_GAMMA)
    else:
        nits = pq_to_nits(coded) if transfer == "pq" else hlg_to_nits(coded)
        # Rolling off the largest channel and scaling the others along keeps the hue.
        largest = np.maximum(nits.max(-1, keepdims=True), 1e-6)
        light = nits * (roll_off(largest) / largest) / WHITE_NITS
    light = light @ _TO_BT709[primaries].T
    return np.power(np.clip(light, 0.0, 1.0), 1 / _SDR_GAMMA)


@contextlib.contextmanager
def lookup_file(transfer: Transfer, primaries: Primaries) -> Iterator[Path]:
    """The table of `to_sdr` as a temporary .cube file for FFmpeg's lut3d filter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "to_sdr.cube"
        path.write_text(_cube(transfer, primaries))
        yield path


@functools.lru_cache
def _cube(transfer: Transfer, primaries: Primaries) -> str:
    levels = np.linspace(0.0, 1.0, _TABLE_SIZE)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")  # red runs fastest in .cube files
    table = to_sdr(np.stack([red, green, blue], -1), transfer, primaries).reshape(-1, 3)
    rows = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in table)
    return f"LUT_3D_SIZE {_TABLE_SIZE}\n{rows}\n"
