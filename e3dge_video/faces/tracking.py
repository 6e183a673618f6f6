"""From the faces of every frame to one person per shot: whole clip, tiny data, no randomness.

Faces are linked from frame to frame by the distance of their points, never across a scene cut. Tracks of one shot that
cannot be two people at once (they do not overlap in time) and lie close together are one person. The wanted person of a
shot is the one with the largest sum of face sizes over its frames, or the k-th by that order.

A run is a stretch of frames over which motion may be smoothed: it ends at cuts, at gaps longer than the bridged ones,
and where the person changes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from e3dge_video.errors import ConfigError
from e3dge_video.faces.alignment import Similarity, eg3d_crop, ffhq_crop
from e3dge_video.faces.scan import ScanResult
from e3dge_video.faces.signatures import colour_change, repeated_frames, scene_cuts

#: A face moves by less than this share of its size from one frame to the next. Violent shakes reach 0.45.
_MAX_STEP = 0.8
#: … and after a gap or at a new track by less than this.
_MAX_RETURN = 2.0
#: Its size changes by less than this factor.
_MAX_ZOOM = 1.5
#: Two pictures whose colours differ by less than this show the same setting.
_SAME_SETTING = 0.06


@dataclass(frozen=True)
class TrackOptions:
    """Whom to follow.

    Attributes:
        person: 0 for the main person of each shot, 1 for the second, …
        bridge_s: Gaps up to this long are filled by interpolation; longer ones are frames without a face.
        crop: Which generator's crop.
    """

    person: int = 0
    bridge_s: float = 0.3
    crop: Literal["eg3d", "ffhq"] = "eg3d"

    def __post_init__(self) -> None:
        if self.person < 0 or self.bridge_s < 0:
            raise ConfigError(f"faces.tracking: person {self.person} and bridge_s {self.bridge_s} must not be negative")
        if self.crop not in ("eg3d", "ffhq"):
            raise ConfigError(f"faces.tracking.crop is {self.crop!r}; it must be eg3d or ffhq")


@dataclass(frozen=True)
class Track:
    """One person per shot through N frames; fields are NaN or -1 where there is no face.

    Attributes:
        times_s: Presentation time of each frame in seconds. [N]
        points: iBUG points in pixels. [N, 68, 2] float32
        score: Confidence; NaN in bridged frames. [N] float32
        run: Stretch that may be smoothed. [N] int32
        identity: Equal numbers mean the same person, as far as can be told from place and setting. [N] int32
        crop: The unsmoothed crop of each frame. [N]
        cuts: Frames that open a new shot. [N]
        repeated: Frames that repeat the picture before them. [N]
    """

    times_s: NDArray[np.float64]
    points: NDArray[np.float32]
    score: NDArray[np.float32]
    run: NDArray[np.int32]
    identity: NDArray[np.int32]
    crop: Similarity
    cuts: NDArray[np.bool_]
    repeated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.run)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Frames with a face, seen or bridged. [N]"""
        return self.run >= 0

    @property
    def bridged(self) -> NDArray[np.bool_]:
        """Frames whose face is interpolated. [N]"""
        return self.valid & np.isnan(self.score)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as plain arrays, to send or to save."""
        return {
            "times_s": self.times_s,
            "points": self.points,
            "score": self.score,
            "run": self.run,
            "identity": self.identity,
            "crop": self.crop.parameters,
            "cuts": self.cuts,
            "repeated": self.repeated,
        }

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray]) -> Track:
        """Inverse of `arrays`."""
        crop = Similarity.from_parameters(arrays["crop"])
        return Track(**{name: value for name, value in arrays.items() if name != "crop"}, crop=crop)


@dataclass
class _Tracklet:
    """One face linked over frames of one shot: frame → place in the scan."""

    frames: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def add(self, frame: int, place: int) -> None:
        self.frames.append(frame)
        self.places.append(place)


def track_person(scan: ScanResult, times_s: ArrayLike, options: TrackOptions | None = None) -> Track:
    """Choose one person per shot and follow them.

    Args:
        scan: Faces of all frames of the clip.
        times_s: Presentation times in seconds, increasing. [N]
        options: Whom to follow.
    """
    options = options or TrackOptions()
    times = np.asarray(times_s, dtype=np.float64)
    if times.shape != (len(scan),):
        raise ValueError(f"{len(scan)} frames scanned, but times of shape {times.shape}")
    cuts = scene_cuts(scan.signatures)
    points = np.full((len(scan), *scan.points.shape[2:]), np.nan, dtype=np.float32)
    score = np.full(len(scan), np.nan, dtype=np.float32)
    run = np.full(len(scan), -1, dtype=np.int32)
    identity = np.full(len(scan), -1, dtype=np.int32)
    known: list[int] = []  # last frame of every identity so far
    next_run = 0
    for first, last in _shots(cuts):
        people = _people(_linked(scan, times, first, last, options.bridge_s), scan)
        if options.person >= len(people):
            continue
        opening = people[options.person][0]
        who = _known_identity(known, points, scan, opening)
        for tracklet in people[options.person]:
            frames = np.array(tracklet.frames)
            points[frames], score[frames] = scan.points[frames, tracklet.places], scan.score[frames, tracklet.places]
            # Every inner gap of a tracklet is short enough to be bridged.
            inside = slice(frames[0], frames[-1] + 1)
            points[inside] = _interpolated(points[inside], times[inside])
            run[inside], identity[inside] = next_run, who
            next_run += 1
        known[who : who + 1] = [people[options.person][-1].frames[-1]]
    crop = (eg3d_crop if options.crop == "eg3d" else ffhq_crop)(points)
    return Track(times, points, score, run, identity, crop, cuts, repeated_frames(scan.signatures))


def _shots(cuts: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and one-past-last frame of each shot."""
    edges = [0, *np.flatnonzero(cuts).tolist(), len(cuts)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]


def _known_identity(known: list[int], points: NDArray[np.float32], scan: ScanResult, opening: _Tracklet) -> int:
    """Number of the earlier identity that returns here, or the next free number.

    Nobody's features are compared: a face that stands where one stood earlier, before the same background (a
    conversation filmed by two cameras, a blank picture in between), is the same person.
    """
    frame, place = opening.frames[0], opening.places[0]
    here = scan.signatures[frame : frame + 1]
    for who in reversed(range(len(known))):
        last = known[who]
        distance, zoom = _step(points[last], scan.points[frame, place])
        same_picture = colour_change(scan.signatures[last : last + 1], here)[0] < _SAME_SETTING
        if same_picture and distance < _MAX_RETURN and zoom < _MAX_ZOOM:
            return who
    return len(known)


def _step(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """Mean distance of the points over the larger size, and the factor between the sizes. [68, 2], [68, 2]"""
    size = [float(np.sqrt(np.prod(p.max(axis=0) - p.min(axis=0)))) + 1e-6 for p in (a, b)]
    return float(np.linalg.norm(a - b, axis=1).mean()) / max(size), max(size) / min(size)


def _linked(scan: ScanResult, times: NDArray[np.float64], first: int, last: int, bridge_s: float) -> list[_Tracklet]:
    """Tracklets of one shot: nearest pairs first, each face once."""
    done: list[_Tracklet] = []
    alive: list[_Tracklet] = []
    for frame in range(first, last):
        # A tracklet waits for its face as long as the gap could still be bridged.
        waiting = [t for t in alive if times[frame] - times[t.frames[-1]] <= bridge_s + _period(times) * 1.01]
        done += [t for t in alive if all(t is not w for w in waiting)]
        pairs = []
        for i, tracklet in enumerate(waiting):
            missed = frame - tracklet.frames[-1] - 1
            for place in range(int(scan.count[frame])):
                old = scan.points[tracklet.frames[-1], tracklet.places[-1]]
                distance, zoom = _step(old, scan.points[frame, place])
                if distance < min(_MAX_STEP * (1 + 0.25 * missed), _MAX_RETURN) and zoom < _MAX_ZOOM:
                    pairs.append((distance, i, place))
        taken_tracklets: set[int] = set()
        taken_places: set[int] = set()
        for _, i, place in sorted(pairs):
            if i in taken_tracklets or place in taken_places:
                continue
            taken_tracklets.add(i)
            taken_places.add(place)
            waiting[i].add(frame, place)
        fresh = [_Tracklet([frame], [p]) for p in range(int(scan.count[frame])) if p not in taken_places]
        alive = waiting + fresh
    return done + alive


def _period(times: NDArray[np.float64]) -> float:
    """Median time between frames: a gap of k missing frames lasts k + 1 periods from face to face."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _people(tracklets: list[_Tracklet], scan: ScanResult) -> list[list[_Tracklet]]:
    """Tracklets grouped into people, the most prominent first; each person's tracklets in order of time."""

    def weight(group: list[_Tracklet]) -> float:
        total = 0.0
        for t in group:
            p = scan.points[t.frames, t.places].astype(np.float64)
            total += float(np.sqrt((p.max(axis=1) - p.min(axis=1)).prod(axis=1)).sum())
        return total

    people: list[list[_Tracklet]] = []
    for tracklet in sorted(tracklets, key=lambda t: (-weight([t]), t.frames[0], t.places[0])):
        fits = [(_return_distance(tracklet, group, scan), i) for i, group in enumerate(people)]
        distance, i = min(fits, default=(np.inf, 0))
        if distance < _MAX_RETURN:
            people[i].append(tracklet)
        else:
            people.append([tracklet])
    people.sort(key=lambda group: (-weight(group), group[0].frames[0], group[0].places[0]))
    return [sorted(group, key=lambda t: t.frames[0]) for group in people]


def _return_distance(tracklet: _Tracklet, group: list[_Tracklet], scan: ScanResult) -> float:
    """How far the tracklet lies from the nearest one of a person in time; infinite if both exist at once."""
    nearest = (np.inf, np.inf)
    for other in group:
        if tracklet.frames[0] <= other.frames[-1] and other.frames[0] <= tracklet.frames[-1]:
            return float(np.inf)
        early, late = (other, tracklet) if other.frames[0] < tracklet.frames[0] else (tracklet, other)
        distance, zoom = _step(
            scan.points[early.frames[-1], early.places[-1]], scan.points[late.frames[0], late.places[0]]
        )
        gap = late.frames[0] - early.frames[-1]
        nearest = min(nearest, (gap, distance if zoom < _MAX_ZOOM else np.inf))
    return float(nearest[1])


def _interpolated(points: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float32]:
    """Fill frames without points linearly in time; the first and the last frame have points. [n, 68, 2]"""
    known = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    if len(known) == len(points):
        return points
    filled = points.copy()
    for a, b in itertools.pairwise(known.tolist()):
        share = ((times[a + 1 : b] - times[a]) / (times[b] - times[a]))[:, None, None]
        filled[a + 1 : b] = (1 - share) * points[a] + share * points[b]
    return filled
