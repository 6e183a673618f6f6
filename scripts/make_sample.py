#!/usr/bin/env python3
"""Render the bundled talking clip: a procedural head on a video call, saying hello in a synthetic voice.

    python scripts/make_sample.py OUT.mp4

Everything in it is computed here from fixed seeds: nobody was filmed or recorded. Needs the extra `heads`.
The same machine and package versions give the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from sample_clip.actor import Actor
from sample_clip.performance import perform
from sample_clip.room import draw_room, to_srgb
from sample_clip.voice import SAMPLE_RATE, speak
from tqdm import tqdm

from e3dge_video.heads import HeadSampler, RenderedHead
from e3dge_video.heads.sampler import identity_code
from e3dge_video.heads.spec import HeadSpec, Light
from e3dge_video.io.mux import mux
from e3dge_video.io.segments import H264, encode_segment

#: Who it is: `identity_code(*IDENTITY)`, then dressed and lit below.
IDENTITY = (2026, 130)
ROOM_SEED, NOISE_SEED, VOICE_SEED = 3, 4, 5
SIZE, FRAMES, RATE = 512, 125, 25
#: Pictures are rendered this many times larger and averaged.
_OVERSAMPLING = 2
_CRF = 19
_AUDIO_BITS = 64_000
#: Standard deviation of the camera's noise, grey levels.
_NOISE = 0.8


def speaker() -> HeadSpec:
    """The identity with clothes for a video call, little make-up, and light from the room's window."""
    spec = HeadSampler().decode(identity_code(*IDENTITY))
    change = dataclasses.replace
    return change(
        spec,
        clothing=change(
            spec.clothing,
            style="crew", neckline=1.6, pattern=0.0, colour=(0.86, 0.84, 0.80), second_colour=(0.17, 0.34, 0.38),
        ),
        skin=change(spec.skin, dark_circles=0.1, redness=0.4),
        brows=change(spec.brows, arch=0.25 * spec.brows.arch, tilt=-0.1, density=0.8),
        makeup=change(spec.makeup, eyeshadow=0.15, blush=0.15, eyeliner=0.35, lipstick=min(0.3, spec.makeup.lipstick)),
        light=Light(
            azimuth=-0.65, elevation=0.42, key=1.08, fill=0.14, ambient=0.27,
            key_colour=(1.04, 1.0, 0.95), ambient_colour=(0.99, 1.0, 1.03), ground=0.5, exposure=1.0,
        ),
    )  # fmt: skip


def frames() -> Iterator[NDArray[np.uint8]]:
    """The clip's pictures. [SIZE, SIZE, 3] each"""
    actor = Actor(speaker(), SIZE * _OVERSAMPLING)
    room = to_srgb(draw_room(SIZE, ROOM_SEED))
    rng = np.random.default_rng(NOISE_SEED)
    for expression, pose in perform(FRAMES, RATE):
        picture = _over(actor.show(expression, pose), room)
        noise = _NOISE * (rng.standard_normal((SIZE, SIZE, 1)) + 0.4 * rng.standard_normal((SIZE, SIZE, 3)))
        yield np.clip(np.round(255 * picture + noise), 0, 255).astype(np.uint8)


def _over(shot: RenderedHead, room: NDArray[np.float32]) -> NDArray[np.float32]:
    """The averaged render over the room. [SIZE, SIZE, 3]"""
    alpha = shot.alpha[..., None].astype(np.float32) / 255
    layers = np.concatenate([shot.rgb.astype(np.float32) / 255 * alpha, alpha], axis=2)
    layers = layers.reshape(SIZE, _OVERSAMPLING, SIZE, _OVERSAMPLING, 4).mean((1, 3))
    return np.asarray(layers[..., :3] + (1 - layers[..., 3:]) * room, np.float32)


def write_sound(path: Path) -> None:
    """The voice as mono AAC."""
    sound = speak(FRAMES / RATE, VOICE_SEED)
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        stream.codec_context.bit_rate = _AUDIO_BITS
        stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
        size = 1024
        for start in range(0, len(sound), size):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + size], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_clip(path: Path) -> None:
    """Render, speak, encode and join."""
    pictures = np.stack(list(tqdm(frames(), total=FRAMES, unit="frame")))
    pts = np.arange(FRAMES, dtype=np.int64)
    video = encode_segment(
        pictures, pts, np.ones_like(pts), Fraction(1, RATE), H264(crf=_CRF, preset="slow", gop=64), rate=Fraction(RATE)
    )
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "voice.mp4"
        write_sound(sound)
        mux(path, [video], audio=sound)


def main() -> None:
    """Parse the command line and write the clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.mp4")
    out = parser.parse_args().out
    write_clip(out)
    print(f"{out}: {FRAMES} frames, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
