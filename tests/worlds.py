"""Small synthetic worlds with a planted answer, in the form of an examples folder.

The planted answers: a user's next item follows the last one along a fixed cycle with probability `p_follow` (so order
in the history predicts it and popularity does not); a candidate's label depends on the pair signal `affinity` alone, so
ranking by it is nearly perfect and ranking by anything else is chance.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import torch

from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.schema import Signal, write_signals

START = datetime(2024, 1, 1, tzinfo=UTC)
COLOURS = ("red", "green", "blue")
SIGNALS = (
    Signal(name="spent", kind="dense", makers=("history",), entity="pair", view="events", known="after"),
    Signal(name="age", kind="dense", makers=("query",), entity="user", view="user_profile", minimum=0.0, maximum=120.0),
    Signal(name="country", kind="sparse", makers=("query",), entity="user", view="user_profile"),
    Signal(name="hour", kind="dense", makers=("query",), entity="request", view="requests"),
    Signal(name="title", kind="sparse", makers=("history", "candidate"), entity="item", view="item_content"),
    Signal(name="colour", kind="sparse", makers=("history", "candidate"), entity="item", view="item_content"),
    Signal(name="tags", kind="bag", makers=("history", "candidate"), entity="item", view="item_content"),
    Signal(name="vector", kind="embedding", makers=("history", "candidate"), entity="item", view="item_content", dim=4),
    Signal(name="price", kind="dense", makers=("candidate",), entity="item", view="item_activity", minimum=0.0),
    Signal(name="affinity", kind="dense", makers=("candidate",), entity="pair", view="user_item"),
)


def write_examples(
    folder: Path,
    *,
    n_users: int = 60,
    n_items: int = 30,
    n_events: int = 24,
    n_candidates: int = 6,
    p_follow: float = 0.9,
    seed: int = 0,
) -> Path:
    """Write an examples folder: one event a day per user, a request before each of the last twelve days.

    The last three days are the test window, the three before them the validation window. About a tenth of the signal
    values are null.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    items = _items(n_items, rng)
    events = _events(n_users, n_events, n_items, p_follow, rng)
    test_from, validation_from = START + timedelta(days=n_events - 3), START + timedelta(days=n_events - 6)
    events = _with_split(events, validation_from, test_from)
    content = [signal.name for signal in SIGNALS if "history" in signal.makers and signal.entity == "item"]
    events = events.join(items.select("item_id", *content), on="item_id", how="left", maintain_order="left")
    requests = _requests(n_users, n_events, rng)
    requests = _with_split(requests, validation_from, test_from)
    candidates = _candidates(requests, items, n_candidates, rng)
    targets = (
        requests.join(events.select("user_id", "item_id", at="event_time"), on="user_id")
        .filter(pl.col("at").is_between(pl.col("event_time"), pl.col("event_time") + timedelta(days=1), closed="left"))
        .select("request_id", "item_id")
        .unique()
        .sort("request_id", "item_id")
    )
    tables = {"events": events, "requests": requests, "candidates": candidates, "targets": targets}
    tables["items"] = items.select("item_id", *content)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    write_signals(SIGNALS, folder / "signals.json")
    manifest = {
        "snapshot_id": f"world-{seed}",
        "data": {
            "name": "tiny-world",
            "protocol": "temporal",
            "as_of": (START + timedelta(days=n_events)).isoformat(),
            "validation_days": 3,
            "test_days": 3,
            "horizon_seconds": 86_399,
            "description": "synthetic",
            "terms": "none",
            "source_sha256": {},
            "sha256": "0" * 64,
        },
        "service": "world",
        "service_version": "1",
        "as_of": (START + timedelta(days=n_events)).isoformat(),
        "validation_from": validation_from.isoformat(),
        "test_from": test_from.isoformat(),
        "rows": {name: table.height for name, table in tables.items()},
        "engine": "none",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return folder


def renamed(tables: Tables, signals: tuple[Signal, ...] = SIGNALS, **names: str) -> tuple[Tables, tuple[Signal, ...]]:
    """A world and its signals, some of them under other names: {old: new}."""
    frames = (table.rename(names, strict=False) for table in tables)
    return Tables(*frames), tuple(replace(signal, name=names.get(signal.name, signal.name)) for signal in signals)


def _some_null(values: list, rng: np.random.Generator) -> list:  # type: ignore[type-arg]
    return [None if rng.random() < 0.1 else value for value in values]


def _items(n_items: int, rng: np.random.Generator) -> pl.DataFrame:
    tags = [[f"t{i % 5}", f"t{5 + i % 3}"] if i % 7 else [] for i in range(n_items)]
    return pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + n_items),
            "title": [f"item {i}" for i in range(n_items)],
            "colour": _some_null([COLOURS[i % 3] for i in range(n_items)], rng),
            "tags": _some_null(tags, rng),
            "vector": _some_null(rng.normal(size=(n_items, 4)).tolist(), rng),
            "price": _some_null(rng.lognormal(1.0, 1.0, n_items).tolist(), rng),
        },
        schema_overrides={"price": pl.Float32, "vector": pl.List(pl.Float32)},
    )


def _events(n_users: int, n_events: int, n_items: int, p_follow: float, rng: np.random.Generator) -> pl.DataFrame:
    item = np.empty((n_users, n_events), dtype=np.int64)
    item[:, 0] = rng.integers(0, n_items, n_users)
    for day in range(1, n_events):
        follows = rng.random(n_users) < p_follow
        item[:, day] = np.where(follows, (item[:, day - 1] + 1) % n_items, rng.integers(0, n_items, n_users))
    n = n_users * n_events
    times = [START + timedelta(days=day, hours=12) for day in range(n_events)] * n_users
    return pl.DataFrame(
        {
            "event_id": np.arange(n),
            "user_id": np.repeat(np.arange(1, n_users + 1), n_events),
            "item_id": item.ravel() + 100,
            "event_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "spent": pl.Series(_some_null(rng.lognormal(2.0, 1.0, n).tolist(), rng), dtype=pl.Float32),
        }
    )


def _requests(n_users: int, n_events: int, rng: np.random.Generator) -> pl.DataFrame:
    n_requests = min(12, n_events - 1)
    n = n_users * n_requests
    days = list(range(n_events - n_requests, n_events))
    ages, countries = rng.integers(18, 80, n_users), rng.integers(0, 4, n_users)
    return pl.DataFrame(
        {
            "request_id": np.arange(n),
            "user_id": np.repeat(np.arange(1, n_users + 1), n_requests),
            "event_time": pl.Series(
                [START + timedelta(days=d) for d in days] * n_users, dtype=pl.Datetime("us", "UTC")
            ),
            "age": pl.Series(_some_null(np.repeat(ages, n_requests).tolist(), rng), dtype=pl.Float32),
            "country": _some_null([f"c{c}" for c in np.repeat(countries, n_requests)], rng),
            "hour": pl.Series(_some_null(rng.integers(0, 24, n).tolist(), rng), dtype=pl.Float32),
        }
    )


def _candidates(
    requests: pl.DataFrame, items: pl.DataFrame, n_candidates: int, rng: np.random.Generator
) -> pl.DataFrame:
    n = requests.height * n_candidates
    chosen = np.concatenate([rng.choice(items.height, n_candidates, replace=False) for _ in range(requests.height)])
    affinity = rng.normal(size=n)
    label = rng.random(n) < 1 / (1 + np.exp(-6 * affinity))
    rows = pl.DataFrame(
        {
            "candidate_id": np.arange(n),
            "request_id": np.repeat(requests["request_id"].to_numpy(), n_candidates),
            "item_id": items["item_id"].to_numpy()[chosen],
            "label": label.astype(np.float32),
            "affinity": pl.Series(_some_null(affinity.tolist(), rng), dtype=pl.Float32),
        }
    )
    signals = [signal.name for signal in SIGNALS if "candidate" in signal.makers and signal.name != "affinity"]
    return rows.join(items.select("item_id", *signals), on="item_id", how="left", maintain_order="left").select(
        "candidate_id", "request_id", "item_id", "label", *signals, "affinity"
    )


def _with_split(table: pl.DataFrame, validation_from: datetime, test_from: datetime) -> pl.DataFrame:
    split = (
        pl.when(pl.col("event_time") >= test_from)
        .then(pl.lit("test"))
        .when(pl.col("event_time") >= validation_from)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
    position = table.columns.index("event_time") + 1
    return table.with_columns(split=split).select(*table.columns[:position], "split", *table.columns[position:])


def random_weights(recommender: Recommender) -> Recommender:
    """The recommender with no weight at zero: blocks begin as the identity, which would hide any leak."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in recommender.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * (parameter == 0))
    return recommender.eval()
