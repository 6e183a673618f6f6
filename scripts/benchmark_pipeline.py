"""How fast a run is, and how much everything around the model adds to the model's own time.

    python scripts/benchmark_pipeline.py talk.mp4 --model starter --threads 2 --rounds 3

Each round measures, one after the other so that a busy machine disturbs all alike:

* `model`  the stages `observe` and `portrait` alone, in this process, their inputs ready in memory;
* `local`  the whole run in this process, from the video file to the output folder;
* `ray`    the whole run on Ray, starting Ray included.

Printed are wall seconds of each round, then frames per second and the ratio whole run / model of the medians, then the
time spent in each stage of the last runs (on Ray stages overlap). The output folders are thrown away.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from e3dge_video.faces.landmarks import LandmarkOptions, choose_backend
from e3dge_video.inversion.editing import parse_edits
from e3dge_video.io.indexing import build_index
from e3dge_video.pipelines.core.plan import cut_chunks
from e3dge_video.pipelines.core.spec import Job, MapStage, Payload
from e3dge_video.pipelines.core.threads import limit_threads
from e3dge_video.pipelines.graph import build_job
from e3dge_video.pipelines.options import PortraitOptions
from e3dge_video.pipelines.output import OutputFolder
from e3dge_video.pipelines.portrait import make_executor, run_video
from e3dge_video.weights.bundle import read_spec
from e3dge_video.weights.catalog import find_bundle

_MODEL_STAGES = ("observe", "portrait")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    model = find_bundle(arguments.model).absolute()
    spec = read_spec(model)
    backend, _ = choose_backend(LandmarkOptions())
    options = PortraitOptions(
        model,
        edits=parse_edits(arguments.edit, spec.edits, spec.generator.latent_shape[0]),
        landmarks=LandmarkOptions(backend),
    )
    video, threads = arguments.video.absolute(), arguments.threads
    with tempfile.TemporaryDirectory(prefix="e3dge-benchmark-") as scratch:
        job, model_alone = _model_alone(video, OutputFolder(Path(scratch) / "alone"), options, threads)
        print(f"{video.name}: {job.frames} frames, model {model.name}, landmarks {backend}, {threads} threads")
        stages: dict[str, Mapping[str, float]] = {}

        def whole(executor: str) -> Callable[[], None]:
            def run() -> None:
                with make_executor(executor) as runner:  # type: ignore[arg-type]
                    result = run_video(video, Path(scratch) / "out", options, runner, overwrite=True, threads=threads)
                stages[executor] = result.report["time"]["stage_s"]

            return run

        ways: dict[str, Callable[[], None]] = {"model": model_alone}
        ways |= {executor: whole(executor) for executor in arguments.executor or ("local", "ray")}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(1, arguments.rounds + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
            print(f"round {number}: " + "  ".join(f"{name} {taken[-1]:.2f} s" for name, taken in seconds.items()))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        ratio = "" if name == "model" else f"   {median / medians['model']:.2f} × the model alone"
        print(f"{name:<6} {median:8.2f} s  {job.frames / median:7.2f} frames/s{ratio}")
    for name, taken in stages.items():
        print(f"{name} stages: " + "  ".join(f"{stage} {value:.2f} s" for stage, value in taken.items()))


def _arguments() -> argparse.Namespace:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path, help="a clip with a face; some seconds are enough")
    parser.add_argument("--model", default="starter", help="name or folder of a bundle (default: starter)")
    parser.add_argument("--edit", action="append", default=[], help="as for `run`; repeatable")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8), help="of the model's worker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--executor", action="append", choices=["local", "ray"], help="only this one; repeatable")
    return parser.parse_args()


def _model_alone(
    video: Path, folder: OutputFolder, options: PortraitOptions, threads: int
) -> tuple[Job, Callable[[], None]]:
    """The job, and a function that runs its two model stages over the whole clip with all inputs ready."""
    index = build_index(video)
    job = build_job(video, index, folder, options, read_spec(options.model), threads=threads)
    folder.prepare()
    job.params.index.write_bytes(index.to_bytes())
    chunks = cut_chunks(job)
    tools = {unit.name: unit.setup() for unit in job.graph.units}
    results: dict[str, list[Payload]] = {}

    def run(stage: MapStage) -> list[Payload]:
        made = []
        for chunk in chunks:
            inputs = {argument: results[source][chunk.index] for argument, source in stage.inputs.items()}
            made.append(stage.body(chunk, tools[stage.unit], **inputs))
        return made

    limit_threads(threads)
    for stage in job.graph.stages:
        if stage.name == "encode":
            break
        if isinstance(stage, MapStage):
            results[stage.name] = run(stage)
        else:
            done = stage.body(chunks, **{argument: results[source] for argument, source in stage.inputs.items()})
            results[stage.name] = list(done.per_chunk)
    del results["portrait"]
    parts = [stage for stage in job.graph.stages if isinstance(stage, MapStage) and stage.name in _MODEL_STAGES]

    def model_alone() -> None:
        before = torch.get_num_threads()
        limit_threads(threads)
        for part in parts:
            run(part)
        torch.set_num_threads(before)

    return job, model_alone


if __name__ == "__main__":
    # Idle threads must sleep, see `pipelines/core/threads.py`; read when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
