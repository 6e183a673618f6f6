"""What this machine can do, found out by trying: the checks behind `e3dge-video doctor`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from e3dge_video import __version__
from e3dge_video.errors import E3DGEError

_LOW_DISK_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: What it belongs to: machine, packages, codecs, landmarks, models, pipeline, optional.
        name: What it is.
        ok: Whether it works.
        detail: What was found, or what is wrong.
        required: Whether the main job needs it.
        advice: What to do if it does not work.
    """

    group: str
    name: str
    ok: bool
    detail: str
    required: bool = False
    advice: str = ""


def examine(*, start_ray: bool = False) -> list[Check]:
    """All checks, in the order in which a person wants to read them.

    Args:
        start_ray: Start Ray for real, or join the cluster of `RAY_ADDRESS`, which takes some seconds.
    """
    groups: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("machine", _machine),
        ("packages", _packages),
        ("packages", _devices),
        ("codecs", _codecs),
        ("landmarks", _landmarks),
        ("models", _models),
        ("pipeline", partial(_pipeline, start_ray)),
        ("optional", _optional),
    )
    return [check for group, checks in groups for check in _guarded(group, checks)]


def problems(checks: list[Check]) -> list[str]:
    """What keeps the main job from running, one short line each; empty if nothing does."""
    return [f"{c.name}: {c.detail}" + (f"; {c.advice}" if c.advice else "") for c in checks if c.required and not c.ok]


def _guarded(group: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A broken installation is a finding, not a crash."""
    try:
        yield from checks()
    except Exception as error:  # whatever a broken package raises on import
        yield Check(group, group, False, _first_line(error), True, "install e3dge-video again")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _machine() -> Iterator[Check]:
    yield Check("machine", "system", True, f"{platform.system()} {platform.machine()}")
    cores, all_cores = _usable_cores(), os.cpu_count() or 1
    yield Check("machine", "cores", True, f"{cores}" + (f" of {all_cores}" if cores != all_cores else ""))
    memory = _memory_gb()
    yield Check("machine", "memory", True, f"{memory:.1f} GB" if memory else "unknown")
    for name, folder in (("disk, here", Path.cwd()), ("disk, temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free / 1e9
        advice = "" if free >= _LOW_DISK_GB else "make room: a few minutes of video need about a gigabyte"
        yield Check("machine", name, free >= _LOW_DISK_GB, f"{free:.1f} GB free in {folder}", advice=advice)
    yield _cache_check()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gb() -> float | None:
    """Memory of the machine, or of the container if that has less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None  # Windows
    limit = Path("/sys/fs/cgroup/memory.max")
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        total = min(total, int(limit.read_text()))
    return total / 1e9


def _cache_check() -> Check:
    from e3dge_video.config.paths import cache_root

    folder = cache_root()
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        detail = f"{folder} cannot be written ({error.strerror})"
        return Check("machine", "cache folder", False, detail, advice="let E3DGE_CACHE name another folder")
    return Check("machine", "cache folder", True, str(folder))


def _packages() -> Iterator[Check]:
    yield Check("packages", "e3dge-video", True, __version__)
    yield Check("packages", "Python", True, f"{platform.python_version()} ({sys.executable})")
    for module, package, name in (
        ("torch", "torch", "PyTorch"),
        ("numpy", "numpy", "NumPy"),
        ("cv2", "opencv-python", "OpenCV"),
        ("av", "av", "PyAV"),
    ):
        try:
            loaded = importlib.import_module(module)
        except Exception as error:  # a broken wheel raises what it likes
            yield Check("packages", name, False, _first_line(error), True, f"pip install --force-reinstall {package}")
            continue
        detail = str(getattr(loaded, "__version__", "unknown version"))
        if module == "av":
            detail += f" with FFmpeg {getattr(loaded, 'ffmpeg_version_info', 'of unknown version')}"
        yield Check("packages", name, True, detail)


def _devices() -> Iterator[Check]:
    import torch

    yield Check("packages", "device cpu", True, f"threads: {torch.get_num_threads()}")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        detail = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB"
        try:
            works = float((torch.ones(8, device=f"cuda:{index}") * 2).sum()) == 16.0
        except RuntimeError as error:
            works, detail = False, f"{detail}: {_first_line(error)}"
        advice = "" if works else "--device cpu works without it"
        yield Check("packages", f"device cuda:{index}", works, detail, advice=advice)


def _codecs() -> Iterator[Check]:
    from e3dge_video.sample import PROBE_CODECS

    again = "pip install --force-reinstall av"
    for name, attempt, required in (
        ("H.264 write", _try_h264, True),
        ("FFV1 write", _try_ffv1, True),
        ("AAC write", _try_aac, False),
    ):
        yield _tried("codecs", name, attempt, required, again)
    titles = {"h264": "H.264 read", "hevc": "HEVC read", "vp9": "VP9 read", "av1": "AV1 read"}
    for codec in PROBE_CODECS:
        advice = again if codec == "h264" else "convert such videos to H.264 first"
        yield _tried("codecs", titles[codec], partial(_try_read, codec), codec == "h264", advice)


def _tried(group: str, name: str, attempt: Callable[[], str], required: bool, advice: str) -> Check:
    try:
        return Check(group, name, True, attempt(), required)
    except Exception as error:  # a failure of any kind is the answer
        return Check(group, name, False, _first_line(error), required, advice)


def _try_h264() -> str:
    """Write a few frames as the pipeline does and read them back."""
    import numpy as np

    from e3dge_video.io.segments import H264, encode_segment, open_segment

    levels = (40, 128, 216)
    frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in levels])
    with open_segment(_segment(encode_segment, frames, H264())) as container:
        means = [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    _compare(means, levels, tolerance=4.0)
    return "libx264, written and read back"


def _try_ffv1() -> str:
    import numpy as np

    from e3dge_video.io.segments import LosslessGray16, encode_segment, open_segment

    frames = np.arange(2 * 64 * 64, dtype=np.uint16).reshape(2, 64, 64) * 7
    with open_segment(_segment(encode_segment, frames, LosslessGray16())) as container:
        back = np.stack([frame.to_ndarray(format="gray16le") for frame in container.decode(video=0)])
    if not np.array_equal(back, frames):
        raise ValueError("16-bit frames came back changed")
    return "16-bit grey, written and read back without loss"


def _segment(encode: Callable[..., bytes], frames: Any, encoding: object) -> bytes:
    import numpy as np

    pts = np.arange(len(frames), dtype=np.int64)
    return encode(frames, pts, np.ones_like(pts), Fraction(1, 25), encoding)


def _try_aac() -> str:
    import av
    import numpy as np

    encoder: Any = av.CodecContext.create("aac", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "fltp"
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    if not [*encoder.encode(frame), *encoder.encode(None)]:
        raise ValueError("the encoder gave nothing")
    return "works (sound is copied, this is not needed for it)"


def _try_read(codec: str) -> str:
    import av

    from e3dge_video.sample import PROBE_LEVELS, probe_clip

    with av.open(io.BytesIO(probe_clip(codec)), "r") as container:
        stream = container.streams.video[0]
        name = stream.codec_context.codec.name
        height = stream.height
        means = [float(frame.to_ndarray()[:height].mean()) for frame in container.decode(stream)]
    _compare(means, PROBE_LEVELS, tolerance=3.0)
    return name


def _compare(means: list[float], wanted: tuple[int, ...], tolerance: float) -> None:
    if len(means) != len(wanted) or any(abs(a - b) > tolerance for a, b in zip(means, wanted, strict=True)):
        raise ValueError(f"frames came back wrong: mean grey {[round(mean) for mean in means]}, not {list(wanted)}")


def _landmarks() -> Iterator[Check]:
    from e3dge_video.faces.landmarks import LandmarkOptions, available_backends, choose_backend

    for status in available_backends():
        yield Check("landmarks", status.name, status.ready, f"{status.detail} [{status.licence}]")
    try:
        name, _ = choose_backend(LandmarkOptions())
    except E3DGEError:
        from e3dge_video.faces.landmarks.model_files import MESH_ADVICE

        yield Check("landmarks", "face landmarks", False, "no back end is ready", True, MESH_ADVICE)
        return
    advice = "choose another one with --landmarks"
    yield _tried("landmarks", f"auto: {name}", partial(_try_landmarks, name), True, advice)


def _try_landmarks(name: str) -> str:
    """Find the speaker of the sample clip's first frame."""
    import av
    import numpy as np

    from e3dge_video.faces.landmarks import LandmarkOptions, load_backend
    from e3dge_video.sample import sample_video

    backend = load_backend(LandmarkOptions(backend=name))  # type: ignore[arg-type]
    with av.open(str(sample_video()), "r") as container:
        frame = np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"), np.uint8)
    began = time.perf_counter()
    faces = backend.detect(frame, 0)
    if len(faces) != 1:
        raise ValueError(f"found {len(faces)} faces in the sample clip, which shows one")
    return f"found the face of the sample clip in {1000 * (time.perf_counter() - began):.0f} ms"


def _models() -> Iterator[Check]:
    from e3dge_video.weights.bundle import read_spec, sha256
    from e3dge_video.weights.catalog import bundle_roots, installed_bundles

    folders = list(installed_bundles())
    usable = 0
    for folder in folders:
        try:
            spec = read_spec(folder)
            for file, digest in spec.files.items():
                if not (folder / file).is_file():
                    raise E3DGEError(f"{file} is missing")
                if sha256(folder / file) != digest:
                    raise E3DGEError(f"{file} differs from its SHA-256")
        except E3DGEError as error:
            yield Check("models", folder.name, False, f"damaged: {error}", advice=f"install {folder} again")
            continue
        usable += 1
        size = sum((folder / file).stat().st_size for file in spec.files) / 1e6
        detail = f"{spec.resolution} px, {size:.1f} MB, SHA-256 as it should be, licence {spec.licence}, {folder}"
        yield Check("models", folder.name, True, detail)
    names = [folder.name for folder in folders]
    if not usable:
        places = " or ".join(str(root) for root in bundle_roots())
        detail = "none that can be used is installed" if folders else "none is installed"
        advice = f"install e3dge-video again, or put a bundle into {places}"
        yield Check("models", "model bundle", False, detail, True, advice)
    elif "starter" not in names:
        yield Check("models", "starter", False, "not installed", advice=f"name another one: --model {names[0]}")


def _pipeline(start_ray: bool) -> Iterator[Check]:
    advice = "pip install ray, or use --executor local"
    began = time.perf_counter()
    try:
        from e3dge_video.pipelines.core.rayexec import RaySession

        version = importlib.metadata.version("ray")
    except Exception as error:  # see `_packages`
        yield Check("pipeline", "Ray", False, _first_line(error), advice=advice)
        return
    if not start_ray:
        yield Check("pipeline", "Ray", True, f"{version}, can be imported (--ray starts it)")
        return
    session = RaySession()
    try:
        session.connect()
        store = session.store_bytes() / 1e9
        where = f"joined {session.address}" if session.joined else "started here"
        seconds = time.perf_counter() - began
        yield Check("pipeline", "Ray", True, f"{version}, {where} in {seconds:.1f} s, object store {store:.1f} GB")
    except E3DGEError as error:
        yield Check("pipeline", "Ray", False, str(error), advice="use --executor local")
    finally:
        session.close()


def _optional() -> Iterator[Check]:
    for module, package, use, advice in (
        ("anny", "anny", "procedural heads, for training", "pip install 'e3dge-video[heads]'"),
        ("decord", "decord", "random frames of many videos", "pip install decord, where it has a wheel"),
        ("lpips", "lpips", "perceptual loss and metric", "pip install lpips"),
    ):
        if importlib.util.find_spec(module) is None:
            yield Check("optional", module, False, f"not installed ({use})", advice=advice)
            continue
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown version"
        yield Check("optional", module, True, f"{version} ({use})")
