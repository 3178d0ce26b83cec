"""Training on a large catalogue: targets per second and memory, sparse gradients of the item table against dense ones.

    python -m benchmarks.large_catalogue --items 10000 100000 1000000

Made-up users and items (popularity as 1/rank, lengths log-normal around 60): only costs are measured. A step is batch
building, forward, sampled softmax with 1,024 shared negatives, backward, clipping and optimizer. Each cell runs in a
process of its own; the first steps warm up. Peak memory is of the whole process, world and corpus included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import polars as pl
import torch

from benchmarks.command import positive, run
from benchmarks.common import PROJECT, machine, markdown
from lrm.config import ModelConfig, RunConfig, TokensConfig, TrainingConfig
from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.tokens import factory
from lrm.tokens.corpus import encode_corpus, fit_vocabulary
from lrm.tokens.segments import Segments
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.optimizer import make_optimizer, step

DENSE, SPARSE = "dense", "sparse"


def made_up(n_items: int, *, n_events: int, seed: int = 0) -> Tables:
    """Events of made-up users, all of the training split; no requests."""
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(4.1, 0.8, n_events // 60).astype(np.int64).clip(5, 400)
    user = np.repeat(np.arange(len(lengths)), lengths)
    item = (n_items ** rng.random(len(user))).astype(np.int64) - 1
    events = pl.DataFrame(
        {
            "user_id": user,
            "event_time": pl.Series(np.arange(len(user)) * 1_000_000).cast(pl.Datetime("us", "UTC")),
            "item_id": item,
            "split": "train",
        }
    )
    keys = {"request_id": pl.Int64, "user_id": pl.Int64, "event_time": pl.Datetime("us", "UTC"), "split": pl.String}
    requests = pl.DataFrame(schema=keys)
    pairs = pl.DataFrame(schema={"request_id": pl.Int64, "item_id": pl.Int64, "label": pl.Int8})
    items = pl.DataFrame({"item_id": np.arange(n_items)})
    return Tables(events=events, requests=requests, candidates=pairs, targets=pairs.drop("label"), items=items)


def cell(n_items: int, gradients: str, options: argparse.Namespace) -> dict[str, float]:
    """Targets per second and peak memory of one configuration."""
    torch.set_num_threads(options.threads)
    factory.DENSE_ROWS = sys.maxsize if gradients == DENSE else 0
    tables = made_up(n_items, n_events=options.events)
    config = RunConfig(
        name="large",
        tokens=TokensConfig(n_query_tokens=0, min_item_count=1),
        model=ModelConfig(max_history=200),
        training=TrainingConfig(full_softmax_items=1, batch_tokens=8192),
    )
    vocabulary = fit_vocabulary(tables, (), config.tokens)
    vocabulary = replace(vocabulary, item_counts=vocabulary.item_counts + 1)  # every item has a row of its own
    recommender, corpus = Recommender(config, (), vocabulary), encode_corpus(tables, (), vocabulary)
    data, optimizer = TrainingData(corpus, recommender), make_optimizer(recommender, config.training)
    losses, epoch = Losses(recommender, data), data.epoch(np.random.default_rng(0))
    rates = []
    for at in range(options.steps + 3):
        began = time.perf_counter()
        part = epoch.batch(at % len(epoch.rows))
        loss = losses.of_step(part, seed=0, at=at)["next_item"]
        step(recommender, optimizer, loss, rate=1e-3, clip=1.0, where=f"step {at}")
        rates.append(_targets(part) / (time.perf_counter() - began))
    low, middle, high = statistics.quantiles(rates[3:], n=4)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"low": low, "rate": middle, "high": high, "memory": memory}


def _targets(segments: Segments) -> int:
    """Next-item targets of some segments."""
    return int((segments.end_G - np.maximum(segments.target_from_G, segments.start_G + 1)).sum())


def main() -> None:
    """Run every cell in a process of its own and print the table."""
    options = parsed()
    if options.cell:
        n_items, gradients = options.cell
        print(json.dumps(cell(int(n_items), gradients, options)))
        return
    began, rows = time.monotonic(), []
    shared = [f"--events={options.events}", f"--steps={options.steps}", f"--threads={options.threads}"]
    for n_items in options.items:
        found = {}
        for gradients in (SPARSE, DENSE):
            command = [sys.executable, "-m", "benchmarks.large_catalogue", *shared, "--cell", str(n_items), gradients]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT)
            found[gradients] = json.loads(done.stdout.splitlines()[-1])
        for gradients, value in found.items():
            ratio = value["rate"] / found[DENSE]["rate"]
            speed = f"{value['rate']:,.0f} [{value['low']:,.0f}, {value['high']:,.0f}]"
            rows.append((f"{n_items:,}", gradients, speed, f"{ratio:.1f}", f"{value['memory']:,.0f}"))
    print(markdown(("items", "gradients of the table", "targets a second", "against dense", "peak MB"), rows))
    print(
        f"\nMedian [quartiles] of {options.steps} steps of 8,192 tokens, d64 L2, {options.events:,} events; "
        f"{machine()}; {time.monotonic() - began:.0f} s"
    )


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", nargs="+", type=positive, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--events", type=positive, default=2_000_000)
    parser.add_argument("--steps", type=positive, default=20)
    parser.add_argument("--threads", type=positive, default=1, help="of torch")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
