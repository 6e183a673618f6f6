import os
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from e3dge_video.errors import BackendError, ConfigError
from e3dge_video.training.loop import LoopConfig, learning_rate_factor, train
from e3dge_video.training.workers import choose_device, placed
from tests.support import shared_batch
from tests.support.training_runs import log_figures

ROOT = Path(__file__).parents[2]


class LineStage:
    """Fit y = 2x + 1; small enough to watch every weight."""

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model, self.stop_at = nn.Linear(1, 1), stop_at

    def modules(self):
        return {"line": self.model}

    def parameters(self):
        return self.model.parameters()

    def losses(self, step, rng):
        if step == self.stop_at:
            raise RuntimeError("power cut")
        x = torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32)) + 0.01 * torch.randn(16, 1)
        return {"fit": (self.model(x) - 2 * x - 1).square().mean(), "size": 0 * self.model.weight.sum()}

    def evaluate(self, modules):
        return {"slope": float(modules["line"].weight)}, np.zeros((4, 4, 3), np.uint8)


CONFIG = LoopConfig(
    steps=120, learning_rate=0.1, warmup_steps=5, log_every=10, checkpoint_every=25, evaluate_every=60, device="cpu"
)


def same_state(one: Path, two: Path) -> None:
    """Both runs ended with the same numbers, moments and averages included."""
    first, second = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, two))
    flat = [torch.utils._pytree.tree_flatten(state)[0] for state in (first, second)]
    for a, b in zip(*flat, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_training_learns_logs_and_saves(tmp_path):
    figures = train(LineStage(), CONFIG, tmp_path, notes={"loss": "squares"})
    assert figures["slope"] == pytest.approx(2.0, abs=0.1)
    records = log_figures(tmp_path)
    assert records[0] == {"step": 0, "notes": {"loss": "squares"}}
    fits = [r["fit"] for r in records if "fit" in r]
    assert len(fits) == 12 and fits[-1] < 0.05 * fits[0]
    assert (tmp_path / "samples" / "0000120.png").exists()
    averaged = torch.load(tmp_path / "averaged.pt", weights_only=True)
    assert float(averaged["line"]["weight"]) == pytest.approx(figures["slope"])
    assert train(LineStage(), CONFIG, tmp_path) == figures  # a finished run has nothing left to do
    assert not list(tmp_path.glob(".*partial"))


def test_a_module_learns_at_a_rate_of_its_own(tmp_path):
    class TwoLines(LineStage):
        def __init__(self):
            super().__init__()
            self.slow = nn.Linear(1, 1)

        def modules(self):
            return {"line": self.model, "slow": self.slow}

        def parameters(self):
            return (p for module in self.modules().values() for p in module.parameters())

        def groups(self):
            return [(1.0, list(self.model.parameters())), (0.25, list(self.slow.parameters()))]

        def losses(self, step, rng):
            return {name: 100 * sum(p.sum() for p in module.parameters()) for name, module in self.modules().items()}

    stage = TwoLines()
    before = [float(p.detach()) for p in stage.parameters()]
    train(stage, replace(CONFIG, steps=1, warmup_steps=1, decay_from=1.0), tmp_path)
    # Adam's first step is as long as the rate, whatever the gradient.
    moved = [b - float(p.detach()) for b, p in zip(before, stage.parameters(), strict=True)]
    assert moved == pytest.approx([0.1, 0.1, 0.025, 0.025], rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, precision):
    config = replace(CONFIG, precision=precision)
    train(LineStage(), config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(LineStage(stop_at=78), config, tmp_path / "stopped")
    with (tmp_path / "stopped" / "log.jsonl").open("a") as log:
        log.write('{"step": 79, "fi')  # what a killed process leaves of a line
    train(LineStage(), config, tmp_path / "stopped")
    assert log_figures(tmp_path / "stopped") == log_figures(tmp_path / "whole")
    same_state(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    train(LineStage(), CONFIG, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power cut"):
        train(LineStage(stop_at=20), CONFIG, tmp_path / "stopped")
    train(LineStage(), CONFIG, tmp_path / "stopped")
    assert log_figures(tmp_path / "stopped") == log_figures(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_finishes_its_step_and_says_how_to_go_on(tmp_path, number):
    class Interrupted(LineStage):
        def losses(self, step, rng):
            if step == 42:
                os.kill(os.getpid(), number)
            return super().losses(step, rng)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 43 of 120; .* the same command goes on"):
        train(Interrupted(), CONFIG, tmp_path / "stopped")
    assert signal.getsignal(number) is before
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["step"] == 43
    train(LineStage(), CONFIG, tmp_path / "whole")
    train(LineStage(), CONFIG, tmp_path / "stopped")
    assert log_figures(tmp_path / "stopped") == log_figures(tmp_path / "whole")


def test_scaled_gradients_that_overflow_cost_a_step_and_nothing_else(tmp_path):
    """fp16 begins with a scale of 65536: gradients of this loss overflow until it has been halved often enough."""

    class Steep(LineStage):
        def losses(self, step, rng):
            return {"fit": 1e35 * super().losses(step, rng)["fit"]}

    config = replace(CONFIG, precision="fp16", steps=3, warmup_steps=1, evaluate_every=3)
    train(Steep(), config, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["scaler"]["scale"] == 65536 / 8
    untouched = LineStage().model.state_dict()
    assert torch.equal(state["modules"]["line"]["weight"], untouched["weight"])


def test_resuming_with_other_options_is_refused(tmp_path):
    train(LineStage(), CONFIG, tmp_path, resolved={"rate": 1})
    with pytest.raises(ConfigError, match="other options"):
        train(LineStage(), CONFIG, tmp_path, resolved={"rate": 2})


def test_resuming_with_another_number_of_processes_is_refused(tmp_path):
    train(LineStage(), CONFIG, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(state | {"workers": 4}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="written by 4 processes, these are 1; start as many"):
        train(LineStage(), CONFIG, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_with_one_line(tmp_path):
    class Broken(LineStage):
        def losses(self, step, rng):
            return {"fit": super().losses(step, rng)["fit"] * (float("nan") if step == 30 else 1)}

    with pytest.raises(ConfigError, match=r"no number any more at step 30 \(fit nan\)"):
        train(Broken(), CONFIG, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 25


def test_events_for_tensorboard_are_those_of_the_log(tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    train(LineStage(), CONFIG, tmp_path)
    [file] = (tmp_path / "tensorboard").iterdir()
    data, start, scalars, pictures = file.read_bytes(), 0, {}, []
    while start < len(data):  # records: length, its checksum, event, its checksum
        [length] = struct.unpack_from("<Q", data, start)
        event = event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
        start += 16 + length
        for value in event.summary.value:
            if value.HasField("image"):
                pictures.append((value.tag, event.step))
            else:
                scalars[value.tag, event.step] = value.simple_value
    logged = {}
    for record in log_figures(tmp_path):
        step = record.pop("step")
        group, values = ("evaluation", record["evaluation"]) if "evaluation" in record else ("train", record)
        logged |= {(f"{group}/{name}", step): value for name, value in values.items()}
    assert scalars == pytest.approx(logged, abs=1e-5) and len(scalars) == 12 * 3 + 2
    assert pictures == [("samples", 60), ("samples", 120)]


def test_events_are_asked_for_without_their_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(BackendError, match=r"pip install tensorboardX, or set loop\.tensorboard=false"):
        train(LineStage(), CONFIG, tmp_path / "with")
    train(LineStage(), replace(CONFIG, tensorboard=False), tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"torch finds no usable GPU here; set loop\.device=cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU of its own, there are 2"):
        choose_device("cuda")


def test_batches_are_moved_whole():
    from e3dge_video.geometry.cameras import Camera
    from e3dge_video.training.pose_stage import PoseBatch
    from e3dge_video.training.teacher import TeacherView

    camera = Camera(torch.eye(4)[None], torch.eye(3)[None])
    pose = PoseBatch(torch.zeros(1), None, torch.zeros(1))
    view = TeacherView(torch.zeros(1), camera, torch.zeros(1), pose, torch.zeros(1))
    image, camera, viewpoint, inner, _ = vars(placed((view, 3), torch.device("meta"))[0]).values()
    assert {image.device.type, camera.cam2world.device.type, viewpoint.device.type, inner.pose.device.type} == {"meta"}
    assert inner.landmarks is None


def start_two(*arguments: object) -> list[int]:
    """The run of `shared_batch` in two processes, as torchrun starts them; returns their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "tests.support.shared_batch", *map(str, arguments)]
    processes = [
        subprocess.Popen(command, env={**common, "RANK": rank, "LOCAL_RANK": rank}, cwd=ROOT, stderr=subprocess.DEVNULL)
        for rank in "01"
    ]
    return [process.wait(timeout=300) for process in processes]


def test_two_processes_with_half_a_batch_each_do_what_one_does_with_the_whole(tmp_path):
    alone = shared_batch.SharedBatch()
    train(alone, shared_batch.CONFIG, tmp_path / "one")
    assert start_two(tmp_path / "two") == [0, 0]
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("one", "two"))
    for kind in ("modules", "averages"):
        for name, value in one[kind]["fit"].items():
            torch.testing.assert_close(two[kind]["fit"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    means = (state["modules"]["statistics"]["running_mean"] for state in (two, one))
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-6)
    first, second = ([r["fit"] for r in log_figures(tmp_path / name) if "fit" in r] for name in ("one", "two"))
    assert first == pytest.approx(second, rel=1e-4) and len(first) == 3
    draws = [(tmp_path / "two" / f"draws{rank}.txt").read_text() for rank in (0, 1)]
    assert draws[0] == repr(alone.draws) != draws[1]  # each draws a share of its own
    # A stopped run of two goes on, to the very same numbers.
    assert 0 not in start_two(tmp_path / "stopped", 8)
    assert start_two(tmp_path / "stopped") == [0, 0]
    assert log_figures(tmp_path / "stopped") == log_figures(tmp_path / "two")
    same_state(tmp_path / "stopped", tmp_path / "two")


def test_learning_rate_warms_up_holds_and_falls_to_zero():
    config = LoopConfig(steps=100, warmup_steps=10, decay_from=0.5)
    factors = [learning_rate_factor(s, config) for s in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[30] == 1 and factors[75] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-9) and all(np.diff(factors[50:]) <= 0)
