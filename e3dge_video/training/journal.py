"""What a run writes while it goes on: `log.jsonl`, sample sheets, and the same as events for TensorBoard."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.io.atomic import write_bytes

log = logging.getLogger(__name__)


class Journal:
    """The log of one run, continued.

    Args:
        folder: Of the run.
        step: Where the run begins or goes on: what an interrupted run logged beyond it is removed, to be logged again.
        tensorboard: Also write events into `folder/tensorboard`.

    Raises:
        BackendError: TensorBoard's writer is asked for and not installed.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self.folder = folder
        path = folder / "log.jsonl"
        if path.exists():
            write_bytes(path, _kept(path, step))
        self.file = path.open("a", encoding="utf-8")
        self.events = _events(folder / "tensorboard", step) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()
        if self.events is not None:
            self.events.close()

    def notes(self, step: int, notes: Mapping[str, str]) -> None:
        """What the run is made of, in words."""
        self._write({"step": step, "notes": dict(notes)})

    def losses(self, step: int, values: Mapping[str, float], **times: float) -> None:
        """Means since the last record."""
        self._write({"step": step, **times, **values})
        self._scalars("train", values, step)

    def evaluation(self, step: int, figures: Mapping[str, float], sheet: NDArray[np.uint8] | None) -> None:
        """Held-out figures and a sample sheet. [H, W, 3]"""
        self._write({"step": step, "evaluation": dict(figures)})
        log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
        if sheet is not None:
            (self.folder / "samples").mkdir(exist_ok=True)
            cv2.imwrite(str(self.folder / "samples" / f"{step:07d}.png"), sheet[..., ::-1])
            if self.events is not None:
                self.events.add_image("samples", sheet, step, dataformats="HWC")
        self._scalars("evaluation", figures, step)

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self.events is not None:
            for name, value in values.items():
                self.events.add_scalar(f"{group}/{name}", value, step)
            self.events.flush()

    def _write(self, record: Mapping[str, Any]) -> None:
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
        self.file.write(json.dumps(rounded) + "\n")
        self.file.flush()


def _kept(path: Path, step: int) -> bytes:
    """The records up to a step; a line that a killed run left unfinished is dropped."""
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if 0 < step >= record["step"]:
            lines.append(line)
    return b"".join(lines)


def _events(folder: Path, step: int) -> Any:
    try:
        writer = importlib.import_module("tensorboardX")
    except ImportError:
        raise BackendError(
            "loop.tensorboard is on, but tensorboardX is not installed; pip install tensorboardX, or set "
            "loop.tensorboard=false (log.jsonl holds the same figures)"
        ) from None
    return writer.SummaryWriter(str(folder), purge_step=step + 1)
