"""Valid training targets per CPU-second: our step against RecTools SASRec's, in one process, in turns.

    python -m benchmarks.training_speed [--data ml-1m complete-journey] [--rounds 7]

Both learn the next item, full cross-entropy over the same catalogue, width 64, two layers, two heads, the latest 200
events of the same users, 128 users a step, no dropout. A round is the same drawn users for each; sampling and batch
building are inside the time. Lengths are those of the data; items are folded into `--items` classes, so that only
lengths differ between data sets. Targets that are padding do not count. The ratio is taken within each round. The last
row is how the preset trains: it also learns a bias of the items already in the history, which RecTools has not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from benchmarks import peers
from benchmarks.command import positive, run
from lrm.errors import DataError
from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.presets import preset
from lrm.schema import EVENT_TIME, ITEM_ID, LABEL, REQUEST_ID, SPLIT, TRAIN, USER_ID
from lrm.tokens.corpus import Corpus, encode_corpus, fit_vocabulary
from lrm.tokens.prompt import build_batch
from lrm.tokens.segments import Segments
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.objectives import next_item
from lrm.training.optimizer import make_optimizer, step

PROJECT = Path(__file__).resolve().parent.parent
T, USERS, N_FACTORS, N_LAYERS, N_HEADS = 200, 128, 64, 2, 2
Round = Callable[[np.ndarray], int]
"""Train on these users; returns how many targets."""


class Timed(NamedTuple):
    """Targets per CPU-second of each round."""

    name: str
    rates: list[float]


def orders(data: str, *, n_items: int, n_users: int) -> Tables:
    """Tables that hold nothing but each user's order: real lengths, items folded into `n_items`."""
    path = PROJECT / "data" / data / "events.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing; prepare it: python -m lrm.features.datasets {data}")
    events = pl.read_parquet(path, columns=["user_id", "item_id", "event_time"], glob=False)
    events = events.sort("user_id", "event_time", maintain_order=True).filter(pl.len().over("user_id") > 2)
    users = events["user_id"].unique(maintain_order=True)
    chosen = users.sample(min(n_users, len(users)), seed=0)
    events = (
        events.filter(pl.col("user_id").is_in(chosen.implode())).group_by("user_id", maintain_order=True).tail(T + 1)
    )
    instant = pl.datetime(2000, 1, 1, time_zone="UTC", time_unit="us") + pl.duration(days=pl.int_range(pl.len()))
    events = events.select(
        USER_ID, (pl.col(ITEM_ID).hash(0) % n_items).cast(pl.Int64), instant.over(USER_ID).alias(EVENT_TIME)
    ).with_columns(pl.lit(TRAIN).alias(SPLIT))
    none = events.clear().with_columns(pl.lit(0, pl.Int64).alias(REQUEST_ID), pl.lit(0.0, pl.Float32).alias(LABEL))
    return Tables(
        events=events,
        requests=none.select(REQUEST_ID, USER_ID, EVENT_TIME, SPLIT),
        candidates=none.select(REQUEST_ID, ITEM_ID, LABEL),
        targets=none.select(REQUEST_ID, ITEM_ID),
        items=pl.DataFrame({ITEM_ID: np.arange(n_items)}),
    )


def ours(tables: Tables, *, bfloat16: bool, with_seen: bool = False) -> Round:
    """Our step; `with_seen` adds the learned bias of items in the history."""
    config = preset("sequential")
    model = replace(
        config.model, d_model=N_FACTORS, n_layers=N_LAYERS, n_heads=N_HEADS, n_kv_heads=N_HEADS, dropout=0.0
    )
    training = replace(config.training, bfloat16=bfloat16, full_softmax_items=tables.items.height)
    config = replace(config, model=model, training=training)
    torch.manual_seed(0)
    vocabulary = fit_vocabulary(tables, (), config.tokens)
    corpus, recommender = encode_corpus(tables, (), vocabulary), Recommender(config, (), vocabulary)
    if not with_seen:
        recommender.head.seen = None
    losses = Losses(recommender, TrainingData(corpus, recommender))
    optimizer, rng = make_optimizer(recommender, config.training), np.random.default_rng(0)
    lengths = np.diff(corpus.user_offset_U)

    def train(users: np.ndarray) -> int:
        by_length, n_targets = users[np.argsort(lengths[users], kind="stable")], 0
        for first in range(0, len(users), USERS):
            batch = build_batch(corpus, _whole(corpus, by_length[first : first + USERS]), recommender.prompt_shape())
            recommender.train()
            context = losses.context(batch, rng, bfloat16=bfloat16)
            with context.precision():
                states = recommender(batch)
            loss = next_item.loss(states, context)
            step(recommender, optimizer, loss, rate=1e-3, clip=1.0, where="the benchmark")
            n_targets += int((~batch.is_first_E).sum())
        return n_targets

    return train


def _whole(corpus: Corpus, users: np.ndarray) -> Segments:
    start, end = corpus.user_offset_U[users], corpus.user_offset_U[users + 1]
    return Segments(start, end, start, np.zeros(len(users) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


def theirs(tables: Tables, *, bfloat16: bool) -> Round:
    """RecTools' own batches, network, loss and optimizer."""
    from rectools.models.nn.transformers.data_preparator import SequenceDataset

    model = peers.fit(
        "SASRec",
        peers.interactions(tables),
        epochs=0,
        after_epoch=lambda *_: True,
        n_factors=N_FACTORS,
        n_blocks=N_LAYERS,
        n_heads=N_HEADS,
        session_max_len=T,
        dropout_rate=0.0,
        batch_size=USERS,
    )
    prepared, lightning = model.data_preparator, model.lightning_model
    sequences = SequenceDataset.from_interactions(prepared.train_dataset.interactions.df)
    optimizer = lightning.configure_optimizers()

    def train(users: np.ndarray) -> int:
        n_targets = 0
        for first in range(0, len(users), USERS):
            batch = prepared._collate_fn_train([sequences[int(user)] for user in users[first : first + USERS]])
            lightning.train()
            with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
                loss = lightning.loss_calculator(lightning.get_batch_logits(batch), batch["y"], batch["yw"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_targets += int((batch["y"] != 0).sum())
        return n_targets

    return train


def measure(rounds: dict[str, Round], *, n_rounds: int, n_users: int) -> list[Timed]:
    """Take turns; the first turn of each warms up and does not count."""
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(n_rounds + 1):
        users, targets = rng.choice(n_users, 2 * USERS, replace=False), set()
        for name in rng.permutation(list(rounds)):
            started = time.process_time()
            n_targets = rounds[name](users)
            targets.add(n_targets)
            if number:
                rates[name].append(n_targets / (time.process_time() - started))
        if len(targets) > 1:
            sys.exit(
                f"error: the models were given different numbers of targets, {sorted(targets)}; compare equal work"
            )
    return [Timed(name, rate) for name, rate in rates.items()]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["ml-1m", "complete-journey"], help="folders of data/")
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--items", type=positive, default=3416)
    parser.add_argument("--users", type=positive, default=2000, help="drawn once; rounds draw from these")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    print(
        "| lengths (mean valid of 200) | step | targets / CPU-s, median [least, most] | ratio, median [least, most] |"
    )
    print("|---|---|---|---|")
    for data in options.data:
        tables = orders(data, n_items=options.items, n_users=options.users)
        n_users = tables.events[USER_ID].n_unique()
        mean = tables.events.height / n_users - 1
        rounds: dict[str, Any] = {
            "RecTools SASRec": theirs(tables, bfloat16=False),
            "RecTools SASRec, bfloat16": theirs(tables, bfloat16=True),
            "ours": ours(tables, bfloat16=False),
            "ours, bfloat16": ours(tables, bfloat16=True),
            "ours, bfloat16, bias of items seen": ours(tables, bfloat16=True, with_seen=True),
        }
        timed = measure(rounds, n_rounds=options.rounds, n_users=n_users)
        base = np.array(timed[0].rates)
        for one in timed:
            rates, ratios = np.array(one.rates), np.array(one.rates) / base
            cells = f"{_spread(rates, ',.0f')} | {_spread(ratios, '.2f')}"
            print(f"| {data} ({mean:.0f}) | {one.name} | {cells} |", flush=True)


def _spread(values: np.ndarray, form: str) -> str:
    return f"{np.median(values):{form}} [{values.min():{form}}, {values.max():{form}}]"


if __name__ == "__main__":
    run(main)
