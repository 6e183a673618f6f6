"""Data sets of rendered heads on disk: shards that are written once, atomically, and read by memory mapping.

A folder holds `meta.json` and `shard_00000.safetensors`, …; every row is one identity (or one paired edit of one).
Each row depends only on the seed and its index, so the worker count does not matter and a stopped run resumes by
skipping finished shards.

Arrays of a shard (n rows, V views of S pixels): `z` float32 [n, Z], `cameras` float32 [n, V, 25] (EG3D labels),
`landmarks` float32 [n, 68, 3] world, `attributes` float32 [n, A], `rgba` uint8 [n, V, S, S, 4] straight colour,
`identity` int64 [n], `edit` int16 [n] (-1 for the plain head, else index in `EDIT_NAMES`), `strength` float32 [n], and
the optional maps `depth` float16 [n, V, S, S] (ray length, 0 = none), `label` uint8 [n, V, S, S],
`normal` int8 [n, V, S, S, 3] (127 * world normal).
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import InputError
from e3dge_video.heads.decode import ATTRIBUTE_NAMES, attributes
from e3dge_video.heads.edits import EDIT_NAMES, edit
from e3dge_video.heads.latent import ENTRIES, GROUPS, LAYOUT, Z_DIM
from e3dge_video.heads.paint import LABELS
from e3dge_video.heads.spec import Style
from e3dge_video.heads.viewpoints import random_cameras

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MAPS = ("depth", "label", "normal")
#: Edits that paired rows draw from, with the ranges of their strength.
PAIRED_EDITS: tuple[tuple[str, float, float], ...] = (
    ("age", -1.0, 1.0),
    ("gender", -1.0, 1.0),
    ("smile", 0.5, 1.0),
    ("mouth_open", 0.4, 1.0),
    ("eyes_closed", 0.5, 1.0),
    ("glasses", 1.0, 1.0),
    ("beard", 1.0, 1.0),
    ("grey", 0.5, 1.0),
    ("surprise", 0.5, 1.0),
    ("brow", -1.0, 1.0),
    ("wrinkles", 1.2, 2.0),
)


@dataclass(frozen=True)
class HeadDatasetConfig:
    """Everything that decides the bytes of a data set.

    Attributes:
        count: Identities.
        views: Views of each; the first is near-frontal.
        size: Image size in pixels.
        seed: Changes every identity and camera.
        maps: Which of `MAPS` are written.
        edit_share: Share of identities that are followed by a paired edit (same z and cameras, one edit).
        shard_rows: Identities per shard.
        edits: Which of `PAIRED_EDITS` the pairs draw from.
        style: How the heads are drawn.
    """

    count: int
    views: int = 6
    size: int = 128
    seed: int = 0
    maps: tuple[str, ...] = ("depth", "label")
    edit_share: float = 0.0
    shard_rows: int = 32
    edits: tuple[str, ...] = tuple(name for name, _, _ in PAIRED_EDITS)
    style: Style = "photo"

    def __post_init__(self) -> None:
        known = [name for name, _, _ in PAIRED_EDITS]
        if not self.edits or not set(self.edits) <= set(known):
            raise InputError(f"paired edits {', '.join(self.edits) or 'none'}: expected some of {', '.join(known)}")
        unknown = set(self.maps) - set(MAPS)
        if unknown or self.count < 1 or self.views < 1 or self.size < 8 or not 0 <= self.edit_share <= 1:
            raise InputError(
                f"a head data set needs count, views >= 1, size >= 8, edit_share in 0..1 and maps of {MAPS}; got {self}"
            )


def write_dataset(
    out: Path | str,
    count: int,
    *,
    views: int = 6,
    size: int = 128,
    seed: int = 0,
    workers: int = 1,
    maps: Sequence[str] = ("depth", "label"),
    edit_share: float = 0.0,
    shard_rows: int = 32,
    edits: Sequence[str] | None = None,
    style: Style = "photo",
    progress: bool = True,
) -> Path:
    """Render a data set, or finish one that was begun with the same numbers.

    Args:
        out: Folder, created if needed.
        workers: Processes; the result does not depend on it.
        progress: Show a bar on terminals.
        (the others: see `HeadDatasetConfig`)

    Returns:
        The folder.
    """
    from tqdm import tqdm

    drawn = HeadDatasetConfig.edits if edits is None else tuple(edits)
    config = HeadDatasetConfig(count, views, size, seed, tuple(maps), edit_share, shard_rows, drawn, style)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _write_meta(folder, config)
    shards = range(-(-count // shard_rows))
    missing = [index for index in shards if not _shard_path(folder, index).is_file()]
    logger.info("%s: %d of %d shards to render", folder, len(missing), len(shards))
    with tqdm(
        total=len(shards),
        initial=len(shards) - len(missing),
        unit="shard",
        desc=folder.name,
        disable=None if progress else True,
    ) as bar:
        if workers <= 1:
            for index in missing:
                _write_shard(folder, config, index)
                bar.update()
            return folder
        # Parse and build the shared parts once, before the workers are started.
        shared_sampler()
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context()) as pool:
            for future in as_completed([pool.submit(_write_shard, folder, config, index) for index in missing]):
                future.result()
                bar.update()
    return folder


def render_rows(config: HeadDatasetConfig, index: int) -> list[dict[str, Any]]:
    """The rows of one identity: the plain head and, for a share of identities, one paired edit."""
    from e3dge_video.heads.render import paint, render
    from e3dge_video.heads.sampler import identity_code

    rng = np.random.default_rng([config.seed, index, 1])
    z = identity_code(config.seed, index)
    cameras = np.concatenate([random_cameras(1, rng, near_frontal=True), random_cameras(config.views - 1, rng)])
    variants: list[tuple[NDArray[np.float32], int, float]] = [(z, -1, 0.0)]
    if rng.random() < config.edit_share:
        choices = [entry for entry in PAIRED_EDITS if entry[0] in config.edits]
        name, low, high = choices[int(rng.integers(len(choices)))]
        strength = float(rng.uniform(low, high))
        variants.append((edit(z, name, strength), EDIT_NAMES.index(name), strength))
    rows = []
    sampler = shared_sampler()
    for code, edit_index, strength in variants:
        spec = sampler.decode(code)
        head = sampler.build(spec, config.style)
        skin = paint(head, config.size)
        shots = [
            render(head, label[:16].reshape(4, 4), label[16:].reshape(3, 3), config.size, skin=skin)
            for label in cameras
        ]
        row: dict[str, Any] = {
            "z": code,
            "cameras": cameras,
            "landmarks": head.landmarks,
            "attributes": np.array(list(attributes(spec).values()), np.float32),
            "rgba": np.stack([np.concatenate([shot.rgb, shot.alpha[..., None]], axis=-1) for shot in shots]),
            "identity": np.int64(index),
            "edit": np.int16(edit_index),
            "strength": np.float32(strength),
        }
        if "depth" in config.maps:
            row["depth"] = np.stack([shot.depth for shot in shots]).astype(np.float16)
        if "label" in config.maps:
            row["label"] = np.stack([shot.label for shot in shots])
        if "normal" in config.maps:
            row["normal"] = np.round(127 * np.stack([shot.normal for shot in shots])).astype(np.int8)
        rows.append(row)
    return rows


class HeadDataset:
    """Random access to a data set on disk; arrays are views of memory-mapped files.

    `dataset.array(name, row)` gives one row of one array without copying; `dataset.small(name)` gathers a small array
    (`z`, `cameras`, `landmarks`, `attributes`, `identity`, `edit`, `strength`) over all rows.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{self.folder} is no head data set: meta.json cannot be read ({error})") from error
        if self.meta.get("format") != FORMAT_VERSION:
            raise InputError(
                f"{self.folder}: format {self.meta.get('format')}, expected {FORMAT_VERSION}; render it again"
            )
        paths = sorted(self.folder.glob("shard_*.safetensors"))
        if not paths:
            raise InputError(f"{self.folder} holds no finished shard; run the command that renders it again")
        self._shards = [_map_safetensors(path) for path in paths]
        rows = [len(shard["z"]) for shard in self._shards]
        self._starts = np.cumsum([0, *rows])
        self.attribute_names: tuple[str, ...] = tuple(self.meta["attribute_names"])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def array(self, name: str, row: int) -> NDArray[Any]:
        """One row of an array, memory-mapped."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._shards[shard][name][row - int(self._starts[shard])]

    def small(self, name: str) -> NDArray[Any]:
        """An array over all rows, copied into memory."""
        return np.concatenate([np.asarray(shard[name]) for shard in self._shards])

    def pairs(self) -> list[tuple[int, int]]:
        """Rows (plain head, its edit) of the paired edits."""
        edits = self.small("edit")
        return [(int(i) - 1, int(i)) for i in np.flatnonzero(edits >= 0)]


def _map_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a safetensors file as views of one memory map; nothing is read until it is used."""
    kinds = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "I64": np.int64}
    raw = np.memmap(path, np.uint8, "r")
    length = int(raw[:8].view("<u8")[0])
    header = json.loads(bytes(raw[8 : 8 + length]))
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            arrays[name] = raw[begin:end].view(kinds[entry["dtype"]]).reshape(entry["shape"])
    return arrays


@lru_cache(maxsize=1)
def shared_sampler() -> Any:
    """The sampler of this process; what it shares between heads is parsed and built once."""
    from e3dge_video.heads.sampler import HeadSampler

    return HeadSampler()


def _shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard_{index:05d}.safetensors"


def _write_shard(folder: Path, config: HeadDatasetConfig, index: int) -> None:
    from safetensors.numpy import save

    first = index * config.shard_rows
    identities = range(first, min(first + config.shard_rows, config.count))
    rows = [row for identity in identities for row in render_rows(config, identity)]
    arrays = {name: np.ascontiguousarray(np.stack([row[name] for row in rows])) for name in rows[0]}
    path = _shard_path(folder, index)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(save(arrays))
    unfinished.replace(path)


def _config_numbers(config: HeadDatasetConfig) -> dict[str, Any]:
    """What stands in `meta.json`; data sets from before there were cartoons say nothing of their style."""
    numbers = asdict(config)
    if config.style == "photo":
        del numbers["style"]
    return numbers


def _write_meta(folder: Path, config: HeadDatasetConfig) -> None:
    meta = {
        "format": FORMAT_VERSION,
        "config": _config_numbers(config),
        "z_dim": Z_DIM,
        "layout": {group: [part.start, part.stop] for group, part in LAYOUT.items()},
        "groups": {group: list(names) for group, names in GROUPS.items()},
        "entries": list(ENTRIES),
        "attribute_names": list(ATTRIBUTE_NAMES),
        "edit_names": list(EDIT_NAMES),
        "labels": list(LABELS),
        "camera": "EG3D label: cam2world 16, intrinsics 9; OpenCV axes; depth is ray length in world units, 0 = none",
    }
    path = folder / "meta.json"
    if path.is_file():
        known = json.loads(path.read_text())
        if known != json.loads(json.dumps(meta)):
            different = sorted(key for key in meta if known.get(key) != json.loads(json.dumps(meta[key])))
            raise InputError(
                f"{folder} holds a data set rendered differently ({', '.join(different)}); "
                "use another folder or delete it"
            )
        return
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(meta, indent=1))
    unfinished.replace(path)
