"""A small formant synthesiser: glottal pulses and noise through resonances that follow the sounds of a sentence.

Source and filter as in Klatt (1980), "Software for a cascade/parallel formant synthesizer"; the glottal pulse is
Rosenberg's. Nothing is recorded from anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from .speech import RATE, Sound, sounds

Array = NDArray[np.float64]

SAMPLE_RATE = 48_000
_BLOCK = 192  # filters change every 4 ms
_BANDWIDTHS = (70.0, 95.0, 140.0, 230.0, 320.0)
_HIGHER = (4050.0, 5100.0)


@dataclass(frozen=True)
class _Target:
    """What a sound asks of the voice.

    Attributes:
        formants: First three resonances at the sound's start, Hz; with `glide`, they move there.
        voicing, breath: Amounts of glottal pulses and of breath through the whole mouth.
        hiss: Amount of noise made at the teeth, around `hiss_hz`.
        burst: A stop: silence first, then a short release of noise.
    """

    formants: tuple[float, float, float]
    voicing: float = 1.0
    glide: tuple[float, float, float] | None = None
    breath: float = 0.0
    hiss: float = 0.0
    hiss_hz: float = 6500.0
    burst: bool = False


_TARGETS = {
    "_": _Target((500, 1500, 2700), 0.0),
    "HH": _Target((600, 1900, 2800), 0.0, breath=0.9),
    "EH": _Target((610, 1980, 2800)),
    "L": _Target((390, 1150, 2850), 0.62),
    "OW": _Target((540, 1050, 2700), glide=(390, 850, 2650)),
    "N": _Target((290, 1600, 2650), 0.38),
    "AY": _Target((860, 1380, 2750), glide=(430, 2250, 2950)),
    "S": _Target((350, 1800, 2800), 0.0, hiss=0.26, hiss_hz=7200),
    "Z": _Target((330, 1800, 2800), 0.30, hiss=0.12, hiss_hz=6900),
    "T": _Target((400, 1900, 2900), 0.0, hiss=0.30, hiss_hz=4600, burst=True),
    "D": _Target((330, 1850, 2850), 0.18, hiss=0.09, hiss_hz=4200, burst=True),
    "AX": _Target((560, 1520, 2700), 0.8),
    "M": _Target((280, 1050, 2400), 0.42),
    "B": _Target((300, 950, 2300), 0.20, hiss=0.05, hiss_hz=1200, burst=True),
    "IY": _Target((330, 2650, 3250)),
    "Y": _Target((310, 2600, 3250), 0.7),
    "UW": _Target((370, 1250, 2500), glide=(350, 920, 2450)),
    "AE": _Target((790, 1900, 2800)),
    "EY": _Target((540, 2200, 2850), glide=(390, 2500, 3050)),
    "V": _Target((330, 1150, 2500), 0.40, hiss=0.02, hiss_hz=5000),
    "AH": _Target((730, 1420, 2750)),
    "ER": _Target((520, 1500, 1950), 0.9),
}


def speak(seconds: float, seed: int) -> NDArray[np.float32]:
    """The sentence as sound, peak below one. [seconds * SAMPLE_RATE]"""
    count = round(seconds * SAMPLE_RATE)
    rng = np.random.default_rng(seed)
    spoken = sounds()
    steps = round(seconds * RATE)
    time, fine = np.arange(steps) / RATE, np.arange(count) / SAMPLE_RATE
    slow = _curves(spoken, time) | {"pitch": _pitch(spoken, time, rng)}
    curves = {name: np.interp(fine, time, curve) for name, curve in slow.items()}
    pulses = _glottal_pulses(curves["pitch"], rng)
    noise = rng.standard_normal(count)
    source = curves["voicing"] * (pulses + 0.035 * noise * (0.4 + 0.6 * (pulses > 0.1)))
    source = source + 0.16 * curves["breath"] * noise
    formants = np.stack([curves[f"formant{k}"] for k in range(3)], axis=1)
    sound = _vocal_tract(source, formants) + _hiss(noise, curves["hiss"], curves["hiss_hz"])
    # Presence, as a microphone close to the mouth gives it.
    sound = sound + 1.3 * sosfilt(butter(1, 1700, "high", fs=SAMPLE_RATE, output="sos"), sound)
    sound = sosfilt(butter(2, 70, "high", fs=SAMPLE_RATE, output="sos"), sound)
    sound = sosfilt(butter(1, 9500, "low", fs=SAMPLE_RATE, output="sos"), sound)
    sound = _in_a_room(sound, rng)[:count]
    fade = np.clip(np.minimum(fine, fine[::-1]) / 0.02, 0, 1)
    sound = np.tanh(1.1 * sound / np.quantile(np.abs(sound), 0.999)) * fade
    return (0.62 * sound).astype(np.float32)


def _curves(spoken: list[Sound], time: Array) -> dict[str, Array]:
    """Amounts and resonances over time. [n] each"""
    curves = {name: np.zeros(len(time)) for name in ("voicing", "breath", "hiss")}
    curves["hiss_hz"] = np.full(len(time), 6000.0)
    formants = np.tile(np.array(_TARGETS["_"].formants, float), (len(time), 1))
    for sound in spoken:
        target = _TARGETS[sound.name]
        inside = (time >= sound.start) & (time < sound.end)
        share = (time[inside] - sound.start) / (sound.end - sound.start)
        glide = np.clip((share - 0.25) / 0.6, 0, 1)[:, None]
        formants[inside] = np.array(target.formants) * (1 - glide) + np.array(target.glide or target.formants) * glide
        curves["voicing"][inside] = target.voicing * (1.12 if sound.accent else 1.0)
        curves["breath"][inside] = target.breath
        curves["hiss_hz"][inside] = target.hiss_hz
        if target.burst:
            curves["hiss"][inside] = target.hiss * np.exp(-np.clip((share - 0.6) / 0.16, 0, None)) * (share >= 0.6)
        else:
            curves["hiss"][inside] = target.hiss * np.sin(np.pi * share) ** 0.5
    for name, spread in (("voicing", 0.011), ("breath", 0.012), ("hiss", 0.004), ("hiss_hz", 0.004)):
        curves[name] = gaussian_filter1d(curves[name], spread * RATE, mode="nearest")
    formants = gaussian_filter1d(formants, 0.018 * RATE, axis=0, mode="nearest")
    return curves | {f"formant{k}": formants[:, k] for k in range(3)}


def _pitch(spoken: list[Sound], time: Array, rng: np.random.Generator) -> Array:
    """Fundamental frequency, Hz: falls over each phrase, rises on accents, never quite still. [n]"""
    pitch = np.full(len(time), 196.0)
    phrase: list[Sound] = []
    for sound in [*spoken, Sound("_", 1e9, 1e9, False)]:
        if sound.name != "_":
            phrase.append(sound)
            continue
        if phrase:
            inside = (time >= phrase[0].start - 0.05) & (time < phrase[-1].end + 0.1)
            share = (time - phrase[0].start) / (phrase[-1].end - phrase[0].start)
            pitch[inside] = np.interp(share[inside], (0, 0.15, 0.8, 1.0), (205, 218, 186, 165))
        phrase = []
    for sound in spoken:
        if sound.accent:
            middle = sound.start + 0.4 * (sound.end - sound.start)
            pitch += 34.0 * np.exp(-(((time - middle) / 0.085) ** 2))
    pitch = gaussian_filter1d(pitch, 0.03 * RATE, mode="nearest")
    wander = gaussian_filter1d(rng.standard_normal(len(time)), 0.05 * RATE, mode="wrap")
    vibrato = 0.006 * np.sin(2 * np.pi * 5.1 * time)
    return pitch * (1 + 0.008 * wander / wander.std() + vibrato)


def _glottal_pulses(pitch: Array, rng: np.random.Generator) -> Array:
    """The change of air flow through the vocal folds: Rosenberg pulses of slightly uneven strength. [n]"""
    phase = np.cumsum(pitch) / SAMPLE_RATE
    cycle = np.floor(phase).astype(int)
    strength = 1 + 0.04 * rng.standard_normal(cycle[-1] + 2)
    t = phase - cycle
    opening, closing = 0.40, 0.18
    flow = np.where(
        t < opening,
        0.5 * (1 - np.cos(np.pi * t / opening)),
        np.where(t < opening + closing, np.cos(0.5 * np.pi * (t - opening) / closing), 0.0),
    )
    change = np.diff(flow * strength[cycle], prepend=0.0) * SAMPLE_RATE / 600.0
    # The folds close softly: less brightness than the plain pulse has.
    b, a = butter(1, 5500, fs=SAMPLE_RATE)
    return np.asarray(lfilter(b, a, change), np.float64)


def _vocal_tract(source: Array, formants: Array) -> Array:
    """Five resonators in a row, the first three moving. [n]"""
    result = np.empty_like(source)
    states = np.zeros((5, 2))
    for start in range(0, len(source), _BLOCK):
        block = source[start : start + _BLOCK]
        centres = (*formants[min(start + _BLOCK // 2, len(source) - 1)], *_HIGHER)
        for k, (centre, width) in enumerate(zip(centres, _BANDWIDTHS, strict=True)):
            b, a = _resonator(centre, width)
            block, states[k] = lfilter(b, a, block, zi=states[k])
        result[start : start + _BLOCK] = block
    return result


def _resonator(centre: float, width: float) -> tuple[list[float], list[float]]:
    """A two-pole resonance with gain one at zero frequency."""
    radius = np.exp(-np.pi * width / SAMPLE_RATE)
    first, second = 2 * radius * np.cos(2 * np.pi * centre / SAMPLE_RATE), -(radius**2)
    return [1 - first - second], [1.0, -first, -second]


def _hiss(noise: Array, amount: Array, centre: Array) -> Array:
    """Noise of teeth and lips in a band about `centre`. [n]"""
    result = np.zeros_like(noise)
    state = np.zeros((2, 2))
    for start in range(0, len(noise), _BLOCK):
        block = noise[start : start + _BLOCK]
        middle = float(centre[min(start + _BLOCK // 2, len(noise) - 1)])
        b, a = _resonator(middle, 0.28 * middle)
        # Differences take away the lows that the resonance lets through.
        block, state[0] = lfilter([1.0, -2.0, 1.0], [1.0], block, zi=state[0])
        block, state[1] = lfilter(b, a, block, zi=state[1])
        result[start : start + _BLOCK] = block
    return result * amount


def _in_a_room(sound: Array, rng: np.random.Generator) -> Array:
    """A short, dark echo of a furnished room. [n + tail]"""
    length = round(0.22 * SAMPLE_RATE)
    tail = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.045 * SAMPLE_RATE))
    tail = sosfilt(butter(2, 3200, fs=SAMPLE_RATE, output="sos"), tail)
    tail[: round(0.006 * SAMPLE_RATE)] = 0
    wet = fftconvolve(sound, tail / np.linalg.norm(tail))
    return np.pad(sound, (0, length - 1)) + 0.10 * wet
