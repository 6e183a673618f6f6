import json

import numpy as np
import pytest
import torch
from torch import nn

from e3dge_video.errors import ConfigError
from e3dge_video.training.loop import LoopConfig, learning_rate_factor, train


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
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32)) + 0.01 * torch.randn(16, 1)
        return {"fit": (self.model(x) - 2 * x - 1).square().mean()}

    def evaluate(self, modules):
        return {"slope": float(modules["line"].weight)}, np.zeros((4, 4, 3), np.uint8)


CONFIG = LoopConfig(steps=120, learning_rate=0.1, warmup_steps=5, log_every=10, checkpoint_every=30, evaluate_every=60)


def test_training_learns_logs_and_saves(tmp_path):
    figures = train(LineStage(), CONFIG, tmp_path)
    assert figures["slope"] == pytest.approx(2.0, abs=0.1)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    fits = [r["fit"] for r in records if "fit" in r]
    assert len(fits) == 12 and fits[-1] < 0.05 * fits[0]
    assert (tmp_path / "samples" / "0000120.png").exists()
    averaged = torch.load(tmp_path / "averaged.pt", weights_only=True)
    assert float(averaged["line"]["weight"]) == pytest.approx(figures["slope"])


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    train(LineStage(), CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(LineStage(stop_at=75), CONFIG, tmp_path / "stopped")
    train(LineStage(), CONFIG, tmp_path / "stopped")
    one, two = (torch.load(tmp_path / f / "checkpoint.pt", weights_only=True) for f in ("whole", "stopped"))
    assert torch.equal(one["modules"]["line"]["weight"], two["modules"]["line"]["weight"])
    assert torch.equal(one["averages"]["line"]["bias"], two["averages"]["line"]["bias"])


def test_resuming_with_other_options_is_refused(tmp_path):
    train(LineStage(), CONFIG, tmp_path, resolved={"rate": 1})
    with pytest.raises(ConfigError, match="other options"):
        train(LineStage(), CONFIG, tmp_path, resolved={"rate": 2})


def test_learning_rate_warms_up_holds_and_falls_to_zero():
    config = LoopConfig(steps=100, warmup_steps=10, decay_from=0.5)
    factors = [learning_rate_factor(s, config) for s in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[30] == 1 and factors[75] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0, abs=1e-9) and all(np.diff(factors[50:]) <= 0)
