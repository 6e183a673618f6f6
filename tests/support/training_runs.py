"""What tests of training runs share: a run's log without what differs from machine to machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def log_figures(folder: Path) -> list[dict[str, Any]]:
    """Every record of a run's log but for its times."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "from")} for record in records]
