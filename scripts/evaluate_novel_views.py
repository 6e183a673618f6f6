"""The paper's novel-view figures (§7.2): generator-made heads, one random view in, the rest of an ellipse as truth.

    python scripts/evaluate_novel_views.py --model starter --identities 100 --views 250 --out novel_views

Every identity's figures are appended to OUT.jsonl when they are there; the same command goes on where it stopped. In
the end it prints the means and writes OUT.json. Rows: the global code, what `run` draws (the lift with what the model
has of it), and, with `--local`, E1 beneath it. `features` and `E0` stand in for LPIPS and identity where their networks
are missing.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from e3dge_video.evaluation.judge import HeadJudge
from e3dge_video.evaluation.novel_views import ELLIPSE_VIEWS, novel_view_figures
from e3dge_video.inversion.load import load_inverter
from e3dge_video.pipelines.jsonfile import write_json

log = logging.getLogger("evaluate_novel_views")


def main() -> None:
    """Measure, write, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--views", type=int, default=ELLIPSE_VIEWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--local", action="store_true", help="also with E1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("novel_views"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    model = load_inverter(arguments.model)
    inverters = {"lift": model}
    if arguments.local:
        inverters["E1, lift"] = load_inverter(arguments.model, local=True)
    judge = HeadJudge(model)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    journal = arguments.out.with_suffix(".jsonl")
    settings = {"model": arguments.model, "views": arguments.views, "seed": arguments.seed, "rows": list(inverters)}
    done = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["settings"] != settings:
                parser.error(f"{journal}: holds figures of {row['settings']}, not of {settings}; choose another --out")
            done[row["identity"]] = row["figures"]
    for identity in tqdm(range(arguments.identities), unit="head"):
        if identity in done:
            continue
        found = novel_view_figures(model, inverters, judge, identity, views=arguments.views, seed=arguments.seed)
        done[identity] = found
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"settings": settings, "identity": identity, "figures": found}) + "\n")
    rows = [done[identity] for identity in range(arguments.identities)]
    table = {
        name: {metric: float(np.mean([row[name][metric] for row in rows])) for metric in rows[0][name]}
        for name in rows[0]
    }
    write_json(arguments.out.with_suffix(".json"), {**settings, "identities": len(rows), "figures": table})
    for name, values in table.items():
        log.info("%-12s %s", name, "  ".join(f"{metric} {value:.4f}" for metric, value in values.items()))


if __name__ == "__main__":
    main()
