"""A made-up world with 30 query signals, for costs alone: its values carry no meaning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import BAG, DENSE, SPARSE, Signal

START = datetime(2024, 1, 1, tzinfo=UTC)
N_ITEMS = 2000
N_DENSE, N_SPARSE, N_BAGS = 20, 8, 2
WORDS = ("north coast", "south coast", "old town", "new harbour", "west end")


def thirty_signals(*, n_users: int, n_events: int, seed: int = 0) -> tuple[Tables, tuple[Signal, ...]]:
    """Tables of users with `n_events` events each and one request with one candidate, all of the training split."""
    rng = np.random.default_rng(seed)
    signals = (
        *(_signal(f"number_{i}", DENSE, "query", "user") for i in range(N_DENSE)),
        *(_signal(f"category_{i}", SPARSE, "query", "user") for i in range(N_SPARSE)),
        *(_signal(f"bag_{i}", BAG, "query", "user") for i in range(N_BAGS)),
        _signal("watched", DENSE, "history", "pair"),
        Signal(name="title", kind=SPARSE, makers=("history", "candidate"), entity="item", view="items"),
    )
    titles = [f"film {i % 97} part {i % 7}" for i in range(N_ITEMS)]
    items = pl.DataFrame({"item_id": np.arange(N_ITEMS), "title": titles})
    user = np.repeat(np.arange(n_users), n_events)
    events = pl.DataFrame(
        {
            "user_id": user,
            "event_time": [START + timedelta(hours=int(i)) for i in np.tile(np.arange(n_events), n_users)],
            "item_id": rng.integers(0, N_ITEMS, len(user)),
            "split": "train",
            "watched": rng.lognormal(size=len(user)).astype(np.float32),
        }
    ).join(items, on="item_id", how="left", maintain_order="left")
    asked = pl.DataFrame(
        {
            "request_id": np.arange(n_users),
            "user_id": np.arange(n_users),
            "event_time": [START + timedelta(hours=n_events)] * n_users,
            "split": "train",
            **{f"number_{i}": rng.lognormal(size=n_users).astype(np.float32) for i in range(N_DENSE)},
            **{f"category_{i}": rng.choice(WORDS, n_users) for i in range(N_SPARSE)},
            **{f"bag_{i}": rng.choice(WORDS, (n_users, 3)).tolist() for i in range(N_BAGS)},
        }
    )
    chosen = pl.DataFrame({"request_id": np.arange(n_users), "item_id": rng.integers(0, N_ITEMS, n_users)})
    candidates = chosen.join(items, on="item_id", maintain_order="left").with_columns(
        label=pl.Series(rng.integers(0, 2, n_users), dtype=pl.Int8)
    )
    return Tables(events=events, requests=asked, candidates=candidates, targets=chosen, items=items), signals


def _signal(name: str, kind: str, maker: str, entity: str) -> Signal:
    return Signal(name=name, kind=kind, makers=(maker,), entity=entity, view="made_up")
