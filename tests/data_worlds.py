"""A small data folder with its feature repo and a planted answer: where a run begins, as a user would bring it.

The planted answers are those of `worlds.py`: a user's next item follows the last one along a fixed cycle with
probability `p_follow`, and a candidate's label depends on the pair signal `affinity` alone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
COLOURS = ("red", "green", "blue")

FEATURE_STORE = """\
project: tiny_world
provider: local
registry: state/registry.db
online_store:
  type: sqlite
  path: state/online.db
offline_store:
  type: duckdb
entity_key_serialization_version: 3
"""

POLICY = """\
[decision]
min_users = 20
n_resamples = 500

[leakage]
max_signal_auc = 0.99  # labels follow the planted `affinity` alone
"""

VIEWS = '''\
"""The signals of a tiny world."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

from lrm.schema import bag, dense, embedding, sparse

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parent.parent))
COLOURS = ("red", "green", "blue")

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


def base(name):
    return FileSource(name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_time")


def signals(name):
    path = str(DATA / f"{name}.parquet")
    return FileSource(name=name, path=path, timestamp_field="event_time", created_timestamp_column="created_time")


events = FeatureView(
    name="events",
    source=base("events"),
    entities=[user, item],
    tags={"role": "events"},
    schema=[
        Field(name="spent", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
    ],
)

requests = FeatureView(
    name="requests",
    source=base("requests"),
    entities=[user],
    tags={"role": "requests"},
    schema=[
        Field(name="hour", dtype=Float32, tags=dense("query", "request", minimum=0, maximum=23)),
    ],
)

user_profile = FeatureView(
    name="user_profile",
    source=signals("users"),
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="age", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=120)),
        Field(name="country", dtype=String, tags=sparse("query", "user")),
    ],
)

item_content = FeatureView(
    name="item_content",
    source=signals("items"),
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="title", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="colour", dtype=String, tags=sparse("history,candidate", "item", categories=COLOURS)),
        Field(name="tags", dtype=Array(String), tags=bag("history,candidate", "item")),
        Field(name="vector", dtype=Array(Float32), tags=embedding("history,candidate", "item", dim=4)),
    ],
)

item_activity = FeatureView(
    name="item_activity",
    source=signals("item_activity"),
    entities=[item],
    ttl=timedelta(days=2),
    schema=[
        Field(name="price", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
    ],
)

user_item = FeatureView(
    name="user_item",
    source=signals("pairs"),
    entities=[user, item],
    ttl=timedelta(days=1),
    schema=[
        Field(name="affinity", dtype=Float32, tags=dense("candidate", "pair")),
    ],
)

recommendation = FeatureService(
    name="recommendation",
    features=[events, requests, user_profile, item_content, item_activity, user_item],
)
'''


def write_data_folder(
    folder: Path,
    *,
    n_users: int = 60,
    n_items: int = 40,
    n_days: int = 40,
    n_candidates: int = 6,
    p_follow: float = 0.9,
    seed: int = 0,
) -> Path:
    """Write a data folder, with its `feature_repo/` inside: one event per user and day, a request before each of the
    last twenty days. The last five days are the test window, the five before them the validation window. About one in
    twenty signal values is null.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    requests = _requests(n_users, n_days, rng)
    candidates = _candidates(requests, n_items, n_candidates, rng)
    tables = {
        "events": _events(n_users, n_items, n_days, p_follow, rng),
        "requests": requests,
        "candidates": candidates.drop("affinity"),
        "users": _users(n_users, rng),
        "items": _items(n_items, rng),
        "item_activity": _item_activity(n_items, n_days, rng),
        "pairs": candidates.select("user_id", "item_id", "event_time", "affinity", created_time="event_time"),
    }
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    dataset = {
        "name": "tiny-world",
        "protocol": "temporal",
        "as_of": (START + timedelta(days=n_days)).isoformat(),
        "validation_days": 5,
        "test_days": 5,
        "horizon_seconds": 86_399,
        "description": "synthetic",
        "terms": "none",
        "source_sha256": {},
    }
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "feature_repo").mkdir(exist_ok=True)
    (folder / "feature_repo" / "feature_store.yaml").write_text(FEATURE_STORE)
    (folder / "feature_repo" / "views.py").write_text(VIEWS)
    (folder / "feature_repo" / "policy.toml").write_text(POLICY)
    return folder


def _some_null(values: list, rng: np.random.Generator) -> list:  # type: ignore[type-arg]
    return [None if rng.random() < 0.05 else value for value in values]


def _instants(days: list[float]) -> pl.Series:
    return pl.Series([START + timedelta(days=day) for day in days], dtype=INSTANT)


def _events(n_users: int, n_items: int, n_days: int, p_follow: float, rng: np.random.Generator) -> pl.DataFrame:
    item = np.empty((n_users, n_days), dtype=np.int64)
    item[:, 0] = rng.integers(0, n_items, n_users)
    for day in range(1, n_days):
        follows = rng.random(n_users) < p_follow
        item[:, day] = np.where(follows, (item[:, day - 1] + 1) % n_items, rng.integers(0, n_items, n_users))
    n = n_users * n_days
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(1, n_users + 1), n_days),
            "item_id": item.ravel() + 100,
            "event_time": _instants([day + 0.5 for day in range(n_days)] * n_users),
            "spent": _some_null(rng.lognormal(2.0, 1.0, n).tolist(), rng),
        }
    )


def _requests(n_users: int, n_days: int, rng: np.random.Generator) -> pl.DataFrame:
    days = list(range(n_days // 2, n_days))
    n = n_users * len(days)
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(1, n_users + 1), len(days)),
            "event_time": _instants([float(day) for day in days] * n_users),
            "hour": _some_null(rng.integers(0, 24, n).astype(float).tolist(), rng),
        }
    )


def _candidates(requests: pl.DataFrame, n_items: int, n_each: int, rng: np.random.Generator) -> pl.DataFrame:
    n = requests.height * n_each
    chosen = np.concatenate([rng.choice(n_items, n_each, replace=False) for _ in range(requests.height)])
    affinity = rng.normal(size=n)
    asked = requests.select("user_id", "event_time").select(pl.all().repeat_by(n_each).explode())
    return asked.with_columns(
        item_id=pl.Series(chosen + 100),
        label=pl.Series((rng.random(n) < 1 / (1 + np.exp(-6 * affinity))).astype(np.int8)),
        affinity=pl.Series(_some_null(affinity.tolist(), rng)),
    )


def _users(n_users: int, rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1),
            "event_time": _instants([-1.0] * n_users),
            "created_time": _instants([-1.0] * n_users),
            "age": _some_null(rng.integers(18, 80, n_users).astype(float).tolist(), rng),
            "country": _some_null([f"c{c}" for c in rng.integers(0, 4, n_users)], rng),
        }
    )


def _items(n_items: int, rng: np.random.Generator) -> pl.DataFrame:
    tags = [[f"t{i % 5}", f"t{5 + i % 3}"] if i % 7 else [] for i in range(n_items)]
    return pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + n_items),
            "event_time": _instants([-1.0] * n_items),
            "created_time": _instants([-1.0] * n_items),
            "title": [f"item {i}" for i in range(n_items)],
            "colour": _some_null([COLOURS[i % 3] for i in range(n_items)], rng),
            "tags": _some_null(tags, rng),
            "vector": _some_null(rng.normal(size=(n_items, 4)).tolist(), rng),
        }
    )


def _item_activity(n_items: int, n_days: int, rng: np.random.Generator) -> pl.DataFrame:
    """A price each day, written two hours after it became true; about a quarter of the days have none."""
    held = rng.random((n_items, n_days)) < 0.75
    item, day = np.nonzero(held)
    return pl.DataFrame(
        {
            "item_id": item + 100,
            "event_time": _instants(day.astype(float).tolist()),
            "created_time": _instants((day + 1 / 12).tolist()),
            "price": _some_null(rng.lognormal(1.0, 1.0, item.size).tolist(), rng),
        }
    )
