"""How fast a generator draws, stage by stage: the fast path, which it runs by itself, against the plain path.

    python scripts/benchmark_generators.py --model eg3d-ffhq512 --threads 1 --rounds 5

Each round runs every stage on the plain path and then on the fast one, so that a busy machine disturbs both alike;
printed are medians. CPU time with one thread is what other programs disturb least. GMAC counts the multiplications of
matrix products and convolutions on the plain path (the fast path does fewer in wide 3×3 convolutions); "share of peak"
is that number per second of the fast path, over what square matrix products of this run reach.

`eg3d-ffhq512` and `stylesdf` are the released architectures with random weights, `starter` is the bundled model.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from e3dge_video import load_generator
from e3dge_video.config.generators import EG3DConfig
from e3dge_video.config.stylesdf import StyleSDFConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.reference import PlainEG3D, PlainStyleSDF

MODELS = ("eg3d-ffhq512", "stylesdf", "starter")
MATRIX_SIDE = 2048
Times = tuple[float, float]  # wall and CPU, ms


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    generator = _build(arguments.model)
    if arguments.memory:
        print(_peak_memory(generator, arguments.memory))
        return
    plain = PlainEG3D(generator) if isinstance(generator, EG3D) else PlainStyleSDF(generator)
    print(f"{arguments.model}, threads: {arguments.threads}, rounds: {arguments.rounds}, torch {torch.__version__}.")
    with torch.no_grad():
        _stages(generator, plain, arguments.rounds)
        if arguments.scaling:
            _scaling(generator, arguments.rounds)
    if arguments.scaling:
        for resolution in (generator.config.resolution, 512):
            command = [sys.executable, __file__, "--model", arguments.model, "--threads", str(arguments.threads)]
            command += ["--memory", str(resolution)]
            peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(f"\nPeak memory above the weights, planes and rendering at {resolution} px: {peak}.")


def _stages(generator: EG3D | StyleSDF, plain: PlainEG3D | PlainStyleSDF, rounds: int) -> None:
    """Time of each stage on both paths, and how far their results are apart."""
    z, camera = _codes(generator, 1), generator.frontal_camera()
    latents = generator.map(z)
    planes = plain.planes(latents)
    rendered = plain.render(planes, camera)
    stages: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "mapping": (lambda: generator.map(z), lambda: generator.map(z)),
        "planes": (lambda: plain.planes(latents), lambda: generator.planes(latents)),
        "rendering": (lambda: plain.render(planes, camera), lambda: generator.render(planes, camera)),
        "upsampling": (lambda: plain.upsample(rendered, latents), lambda: generator.upsample(rendered, latents)),
        "whole": (lambda: plain.synthesize(latents, camera), lambda: generator.synthesize(latents, camera)),
    }
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE)
    products = [_timed(lambda: matrix @ matrix) for _ in range(2)][1:]
    times: dict[str, tuple[list[Times], list[Times]]] = {name: ([], []) for name in stages}
    for number in range(rounds + 1):
        for name, ways in stages.items():
            taken = [_timed(way) for way in ways]
            if number:  # the first round warms up
                for values, value in zip(times[name], taken, strict=True):
                    values.append(value)
        products += [_timed(lambda: matrix @ matrix) for _ in range(3)]
    peak = MATRIX_SIDE**3 / min(cpu for _, cpu in products) / 1e6
    print(f"Matrix products of this run: {peak:.0f} GMAC per second of CPU time at best.\n")
    _row("stage", "plain, ms", "fast, ms", "ratio", "plain, CPU ms", "fast, CPU ms", "ratio", "GMAC", "of peak")
    _row(*["---"] * 9)
    for name, ways in stages.items():
        before, after = ([statistics.median(kind) for kind in zip(*values, strict=True)] for values in times[name])
        gmac = _gmac(ways[0])
        cells = [
            cell
            for slow, fast in zip(before, after, strict=True)
            for cell in (f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.2f}")
        ]
        _row(name, *cells, f"{gmac:.2f}", f"{gmac / after[1] * 1e3 / peak:.0%}")
    ours = generator.render(planes, camera)
    apart = {name: getattr(ours, name) - getattr(rendered, name) for name in ("rgb", "depth", "alpha")}
    apart["image"] = generator.synthesize(latents, camera) - plain.synthesize(latents, camera)
    print(
        "\nLargest difference: " + ", ".join(f"{name} {float(d.abs().max()):.1e}" for name, d in apart.items()) + ".\n"
    )


def _scaling(generator: EG3D | StyleSDF, rounds: int) -> None:
    """Time of an image among several: each of another code, and of further views of one code."""

    def image(latents: Tensor, camera: Camera) -> Callable[[], object]:
        return lambda: generator.synthesize(latents, camera)

    ways = {}
    for count in (1, 2, 4):
        cameras = generator.frontal_camera()[torch.zeros(count, dtype=torch.long)]
        ways[f"{count} codes, a view each"] = (count, image(generator.map(_codes(generator, count)), cameras))
        ways[f"{count} views of one code"] = (count, image(generator.map(_codes(generator, 1)), cameras))
    times: dict[str, list[Times]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (_, way) in ways.items():
            times[name].append(_timed(way))
    _row("fast path", "ms per image", "CPU ms per image")
    _row(*["---"] * 3)
    for name, (count, _) in sorted(ways.items(), key=lambda item: item[0][::-1]):
        wall, cpu = (statistics.median(kind) / count for kind in zip(*times[name], strict=True))
        _row(name, f"{wall:.1f}", f"{cpu:.1f}")


def _peak_memory(generator: EG3D | StyleSDF, resolution: int) -> str:
    """Largest resident size while planes are drawn and rendered, less the one with the weights loaded."""
    status = Path("/proc/self/status")
    if not status.exists():
        return "not measured (needs /proc)"

    def kilobytes(name: str) -> int:
        match = re.search(rf"{name}:\s+(\d+) kB", status.read_text())
        assert match
        return int(match[1])

    latents = generator.map(_codes(generator, 1)).detach()
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    with torch.no_grad():
        generator.render(generator.planes(latents), generator.frontal_camera(), resolution=resolution)
    return f"{(kilobytes('VmHWM') - before) / 1024:.0f} MiB"


def _build(name: str) -> EG3D | StyleSDF:
    torch.manual_seed(0)
    if name == "starter":
        generator = load_generator(name)
        assert isinstance(generator, EG3D | StyleSDF)
        return generator
    generator = EG3D(EG3DConfig()) if name == "eg3d-ffhq512" else StyleSDF(StyleSDFConfig())
    return generator.eval().requires_grad_(False)


def _codes(generator: EG3D | StyleSDF, count: int) -> Tensor:
    return torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(1))


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def _timed(way: Callable[[], object]) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def _gmac(way: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        way()
    return counter.get_total_flops() / 2e9


def _arguments() -> argparse.Namespace:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scaling", action="store_true", help="also several codes, several views, and peak memory")
    parser.add_argument("--memory", type=int, metavar="PX", help="only the peak memory of rendering PX² rays")
    return parser.parse_args()


if __name__ == "__main__":
    # Idle threads must sleep, see `pipelines/core/threads.py`; read when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
