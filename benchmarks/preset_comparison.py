"""Presets beside each other and beside published figures, on public sequences: every cell is kept and found again.

    python -m benchmarks.preset_comparison --data ml-1m --presets sequential tiny --seeds 0 1 2 [--epochs 40] \\
        [--minutes 60] [--without-times] [--results build/presets]

A cell is a preset on a data set with a seed. Each is trained, chosen and ranked as in `benchmarks.sequential`, and its
figures are written to one JSON file. A cell whose file is there is not trained again, and one that was stopped goes on
from its checkpoint, so a long comparison is one command that may be repeated. `--without-times` leaves the order of
events and takes their times away. The table shows the mean over seeds and the lowest and highest seed.

Published rows are for leave-one-out, all items ranked, items seen left out. Their sources are in the code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.command import run
from benchmarks.common import machine, markdown
from benchmarks.sequential import PROJECT, Trained, ask, train_ours
from lrm.config import RunConfig, to_json
from lrm.evaluation.metrics.metrics import hit_rate, ndcg
from lrm.features.run import retrieve_features
from lrm.features.tables import MANIFEST, Tables, read, read_manifest
from lrm.presets import preset, preset_names
from lrm.schema import EVENT_TIME, REQUEST_ID, USER_ID
from lrm.training import checkpoint

DATA = ("amazon-beauty", "ml-1m", "ml-100k")
K = 10
PUBLISHED: dict[str, tuple[tuple[str, float, float, str], ...]] = {
    "amazon-beauty": (
        ("SASRec, one negative", 0.0668, 0.0354, "RecBoard, 5 seeds"),
        ("eSASRec", 0.0921, 0.0531, "2508.06450, repository"),
        ("TIGER", 0.0648, 0.0384, "2305.05065"),
        ("TIGER", 0.0669, 0.0371, "RecBoard, 5 seeds"),
        ("BSARec", 0.1002, 0.0610, "RecBoard"),
    ),
    "ml-1m": (
        ("gSASRec", 0.3003, 0.1726, "RecTools"),
        ("HSTU", 0.3097, 0.1720, "2402.17152"),
        ("HSTU", 0.3226, 0.1880, "RecTools, stable sort"),
        ("HSTU without times", 0.3023, 0.1718, "RecTools, stable sort"),
        ("HSTU, large", 0.3294, 0.1893, "2402.17152"),
        ("HSTU, large, mixture of logits", 0.3412, 0.1979, "2407.15462"),
    ),
    "ml-100k": (),
}
"""Name, HR@10, NDCG@10 and source of each row. A row is comparable only if the data were split and sorted alike."""


def without_times(tables: Tables) -> Tables:
    """Put the n-th instant of each user n hours after 1970: the order stays, and gaps say nothing."""
    instants = pl.concat([tables.events.select(USER_ID, EVENT_TIME), tables.requests.select(USER_ID, EVENT_TIME)])
    hours = pl.duration(hours=pl.col(EVENT_TIME).rank("dense").over(USER_ID))
    start = pl.lit(datetime(1970, 1, 1)).dt.replace_time_zone("UTC").cast(tables.events.schema[EVENT_TIME])
    place = instants.unique().with_columns(_at=start + hours)

    def placed(table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(place, on=[USER_ID, EVENT_TIME], how="left", maintain_order="left")
        return joined.with_columns(pl.col("_at").alias(EVENT_TIME)).drop("_at")

    return tables._replace(events=placed(tables.events), requests=placed(tables.requests).sort(REQUEST_ID))


def cell(
    examples: Path, tables: Tables, config: RunConfig, *, seed: int, options: argparse.Namespace, data: str
) -> dict[str, Any]:
    """Train a preset with a seed and return its figures, or find those of an earlier call."""
    parts = (read_manifest(examples)["snapshot_id"], to_json(config), str(seed), data)
    limits = f"{options.epochs} epochs, {options.minutes} minutes"
    path = options.results / data / f"{config.name}-{seed}-{checkpoint.identity(*parts, limits)}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    question = ask(examples, tables)
    trained = train_ours(examples, question, config, epochs=options.epochs, minutes=options.minutes, seed=seed)
    n_requests = len(question.test.request_ids)
    figures: dict[str, Any] = {"data": data, "preset": config.name, "seed": seed, "limits": limits}
    for name, ranks in (("masked", trained.ranks.masked), ("plain", trained.ranks.plain)):
        for metric, measure in (("HR", hit_rate), ("NDCG", ndcg)):
            values = measure(ranks, question.test.request, n_requests=n_requests, k=K)
            figures[f"{name} {metric}@{K}"] = float(np.mean(values))
    figures |= _cost(trained) | {"machine": machine(), "configuration": asdict(config)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=1) + "\n")
    partial.replace(path)
    return figures


def _cost(trained: Trained) -> dict[str, Any]:
    return {"parameters": trained.parameters, "cpu_seconds": trained.cpu_seconds, "epochs": trained.epochs}


def rows(cells: Sequence[dict[str, Any]], data: str) -> list[tuple[object, ...]]:
    """The table's rows: each preset over its seeds, then the published figures."""
    table: list[tuple[object, ...]] = []
    for name in dict.fromkeys(cell["preset"] for cell in cells):
        of_preset = [cell for cell in cells if cell["preset"] == name]
        spans = [_span([cell[f"masked {metric}@{K}"] for cell in of_preset]) for metric in ("HR", "NDCG")]
        seconds = np.mean([cell["cpu_seconds"] for cell in of_preset])
        cost = (f"{of_preset[0]['parameters']:,}", f"{seconds:.0f}", f"{np.mean([c['epochs'] for c in of_preset]):.0f}")
        table.append((f"{name} ({len(of_preset)} seeds)", *spans, *cost, "this run"))
    table += [(name, f"{hr:.4f}", f"{gain:.4f}", "", "", "", source) for name, hr, gain, source in PUBLISHED[data]]
    return table


def _span(values: list[float]) -> str:
    middle = f"{np.mean(values):.4f}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.4f}, {max(values):.4f}]"


def main() -> None:
    """Train or find every cell and print a table for each data set."""
    options = parsed()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    os.environ.setdefault(checkpoint.CHECKPOINT_ROOT, str((options.results / "checkpoints").resolve()))
    for data in options.data:
        with tempfile.TemporaryDirectory() as place:
            examples = options.examples or Path(place)
            if not (examples / MANIFEST).is_file():
                feature_repo = PROJECT / "examples" / data / "feature_repo"
                retrieve_features(PROJECT / "data" / data, feature_repo, examples)
            tables = without_times(read(examples)) if options.without_times else read(examples)
            name = f"{data}, without times" if options.without_times else data
            cells = [
                cell(examples, tables, preset(each), seed=seed, options=options, data=name)
                for each in options.presets
                for seed in options.seeds
            ]
        header = ("model", f"HR@{K}", f"NDCG@{K}", "parameters", "CPU-s", "epochs", "source")
        print(f"{name}\n\n{markdown(header, rows(cells, data))}\n", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["ml-1m"])
    parser.add_argument("--presets", nargs="+", choices=preset_names(), default=["sequential"], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=0, help="at most; 0: as the preset says")
    parser.add_argument("--minutes", type=float, default=math.inf, help="CPU-minutes of training for each cell")
    parser.add_argument("--without-times", action="store_true", help="take the times away and leave the order")
    parser.add_argument("--examples", type=Path, help="an examples folder of the one data set; default: made anew")
    parser.add_argument("--results", type=Path, default=PROJECT / "build/presets", help="where figures are kept")
    options = parser.parse_args()
    if options.examples and len(options.data) > 1:
        parser.error("--examples is of one data set; give one --data")
    return options


if __name__ == "__main__":
    run(main)
