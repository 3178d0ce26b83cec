"""A small shop as a data folder with its feature repo: every kind of signal, late corrections, expiring values.

When the data ends, item 100's `popularity` has expired (its view lives two days, the last value is three days old), and
item 101's newest `popularity`, 1000, was written an hour too late to be known.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS, N_USERS, N_ITEMS = 16, 20, 12
AS_OF = START + timedelta(days=N_DAYS)
INSTANT = pl.Datetime("us", "UTC")

FEATURE_REPO = """
import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

from lrm.schema import bag, dense, embedding, sparse

DATA = Path(os.environ["LRM_DATA_DIR"])
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
store = Entity(name="store", join_keys=["store_id"], value_type=ValueType.INT64)


def view(name, entities, schema, *, ttl=0, role=None):
    created = None if role else "created_time"
    source = FileSource(
        name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_time", created_timestamp_column=created
    )
    return FeatureView(
        name=name,
        source=source,
        entities=entities,
        ttl=timedelta(days=ttl),
        schema=schema,
        online=role is None,
        tags={"role": role} if role else {},
    )


events = view("events", [user, item], role="events", schema=[
    Field(name="spent", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
])
requests = view("requests", [user], role="requests", schema=[
    Field(name="hour", dtype=Float32, tags=dense("query", "request")),
    Field(name="device", dtype=String, tags=sparse("query", "request", categories=("phone", "laptop"))),
])
candidates = view("candidates", [user, item], role="candidates", schema=[
    Field(name="shelf", dtype=Float32, tags=dense("candidate", "pair")),
])
users = view("users", [user], [
    Field(name="age", dtype=Float32, tags=dense("query", "user")),
    Field(name="country", dtype=String, tags=sparse("query", "user")),
])
items = view("items", [item], [
    Field(name="title", dtype=String, tags=sparse("history,candidate", "item")),
    Field(name="tags", dtype=Array(String), tags=bag("history,candidate", "item")),
    Field(name="vector", dtype=Array(Float32), tags=embedding("history,candidate", "item", dim=3)),
])
item_activity = view("item_activity", [item], ttl=2, schema=[
    Field(name="popularity", dtype=Float32, tags=dense("candidate", "item")),
])
pairs = view("pairs", [user, item], [
    Field(name="bought", dtype=Float32, tags=dense("candidate", "pair")),
])
promotions = view("promotions", [store, item], ttl=7, schema=[
    Field(name="price", dtype=Float32, tags=dense("candidate", "item")),
])
service = FeatureService(
    name="shop", features=[events, requests, candidates, users, items, item_activity, pairs, promotions]
)
"""

FEATURE_STORE = """
project: shop
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""


def write_shop(folder: Path, *, n_users: int = N_USERS) -> tuple[Path, Path]:
    """Write the data folder and the feature repo, and return both."""
    data, repo = folder / "data", folder / "feature_repo"
    data.mkdir(parents=True)
    repo.mkdir()
    (repo / "definitions.py").write_text(FEATURE_REPO)
    (repo / "feature_store.yaml").write_text(FEATURE_STORE)
    rng = np.random.default_rng(0)
    user_ids, item_ids = np.arange(1, n_users + 1), np.arange(100, 100 + N_ITEMS)
    days = np.tile(np.arange(N_DAYS), n_users)
    buyers = np.repeat(user_ids, N_DAYS)
    bought = item_ids[(buyers + days) % N_ITEMS]
    n = len(buyers)
    tables = {
        "events": {"user_id": buyers, "item_id": bought, "event_time": instants(days, 12)}
        | {"spent": rng.lognormal(size=n).astype(np.float32)},
        "requests": {"user_id": buyers, "event_time": instants(days, 6)}
        | {"hour": np.full(n, 6.0, dtype=np.float32), "device": ["phone", "laptop"] * (n // 2), "store_id": buyers % 2},
    }
    asking, offered = np.repeat(np.arange(n), 4), rng.integers(0, N_ITEMS, 4 * n)
    candidates = pl.DataFrame(
        {"user_id": buyers[asking], "event_time": instants(days[asking], 6), "item_id": item_ids[offered]}
        | {"label": (offered % 2).astype(np.float32), "shelf": rng.normal(size=4 * n).astype(np.float32)}
    ).unique(["user_id", "event_time", "item_id"], maintain_order=True)
    tables["users"] = {"user_id": user_ids, "age": 20.0 + user_ids, "country": [f"c{u % 3}" for u in user_ids]} | first(
        n_users
    )
    tables["items"] = {
        "item_id": item_ids,
        "title": [f"item {i}" for i in item_ids],
        "tags": [["sweet", "cold"][: i % 3] for i in item_ids],
        "vector": rng.normal(size=(N_ITEMS, 3)).tolist(),
    } | first(N_ITEMS)
    # a value a day for every item, but none in the last three days for item 100
    sold_days = np.repeat(np.arange(N_DAYS), N_ITEMS)
    sold = pl.DataFrame(
        {"item_id": np.tile(item_ids, N_DAYS), "popularity": rng.lognormal(size=N_DAYS * N_ITEMS)}
        | {"event_time": instants(sold_days, 1), "created_time": instants(sold_days, 2)}
    ).filter((pl.col("item_id") != 100) | (pl.col("event_time") < AS_OF - timedelta(days=3)))
    late = pl.DataFrame(
        {"item_id": [101], "popularity": [1000.0]}
        | {"event_time": [AS_OF - timedelta(hours=2)], "created_time": [AS_OF + timedelta(hours=1)]},
        schema=sold.schema,
    )
    tables["pairs"] = (
        {"user_id": np.repeat(user_ids, N_ITEMS), "item_id": np.tile(item_ids, n_users)}
        | {"bought": rng.poisson(2.0, n_users * N_ITEMS).astype(np.float32)}
        | first(n_users * N_ITEMS)
    )
    tables["promotions"] = {"store_id": np.repeat([0, 1], N_ITEMS), "item_id": np.tile(item_ids, 2)} | {
        "price": rng.lognormal(size=2 * N_ITEMS).astype(np.float32),
        "event_time": instants(np.full(2 * N_ITEMS, N_DAYS - 5), 0),
        "created_time": instants(np.full(2 * N_ITEMS, N_DAYS - 5), 0),
    }
    for name, table in tables.items():
        pl.DataFrame(table).write_parquet(data / f"{name}.parquet")
    candidates.write_parquet(data / "candidates.parquet")
    pl.concat([sold, late]).write_parquet(data / "item_activity.parquet")
    dataset = {"name": "shop", "protocol": "temporal", "as_of": AS_OF.isoformat(), "validation_days": 3, "test_days": 3}
    more = {"horizon_seconds": 80_000, "description": "synthetic", "terms": "none", "source_sha256": {}}
    (data / "dataset.json").write_text(json.dumps(dataset | more))
    return data, repo


def instants(days: np.ndarray, hour: int) -> pl.Series:
    return pl.Series([START + timedelta(days=int(day), hours=hour) for day in days], dtype=INSTANT)


def first(n: int) -> dict[str, pl.Series]:
    """Times of values that hold from the start."""
    return {"event_time": instants(np.zeros(n), 0), "created_time": instants(np.zeros(n), 0)}
