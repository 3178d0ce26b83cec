"""A made-up shop of any size, released with a model of random weights: serving costs the same, trained or not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from lrm.serving.releases.builder import EXACT_UP_TO, build_release

NAME = "made-up"
START = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS = 30
EVENTS_EACH = 50
REPO = """
import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, String

from lrm.schema import dense, sparse

DATA = Path(os.environ["LRM_DATA_DIR"])
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)


def view(name, entities, schema, *, role=None):
    source = FileSource(
        name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_time",
        created_timestamp_column=None if role else "created_time",
    )
    return FeatureView(
        name=name, source=source, entities=entities, ttl=timedelta(0), schema=schema, online=role is None,
        tags={"role": role} if role else {},
    )


service = FeatureService(name="made_up", features=[
    view("events", [user, item], [Field(name="spent", dtype=Float32, tags=dense("history", "pair", known="after"))],
         role="events"),
    view("requests", [user], [Field(name="hour", dtype=Float32, tags=dense("query", "request"))], role="requests"),
    view("candidates", [user, item], [Field(name="shelf", dtype=Float32, tags=dense("candidate", "pair"))],
         role="candidates"),
    view("users", [user], [Field(name="age", dtype=Float32, tags=dense("query", "user")),
                           Field(name="country", dtype=String, tags=sparse("query", "user"))]),
    view("items", [item], [Field(name="price", dtype=Float32, tags=dense("history,candidate", "item")),
                           Field(name="kind", dtype=String, tags=sparse("history,candidate", "item"))]),
])
"""
STORE = """
project: made_up
provider: local
registry: registry.db
online_store: {type: sqlite, path: online.db}
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""


def made_release(
    folder: Path,
    *,
    n_items: int,
    n_users: int,
    preset: str,
    exact_up_to: int | None = EXACT_UP_TO,
    only_users: bool = False,
) -> Path:
    """Write data, retrieve examples, make a model, and build a release; returns its folder.

    With `only_users`, items have no values in the online store: enough for recommendations, and much sooner written.
    """
    import torch

    from lrm.features.run import retrieve_features
    from lrm.features.store import materialise_online
    from lrm.features.tables import read, read_declared
    from lrm.model.artifact import save
    from lrm.model.recommender import Recommender
    from lrm.presets import preset as preset_of
    from lrm.registry import bundle as bundles
    from lrm.tokens.corpus import fit_vocabulary

    data, repo = folder / "data", folder / "feature_repo"
    write_data(data, n_items=n_items, n_users=n_users)
    repo.mkdir(parents=True)
    (repo / "definitions.py").write_text(REPO)
    (repo / "feature_store.yaml").write_text(STORE)
    retrieve_features(data, repo, folder / "examples")
    tables, signals, config = read(folder / "examples"), read_declared(folder / "examples"), preset_of(preset)
    torch.manual_seed(0)
    save(Recommender(config, signals, fit_vocabulary(tables, signals, config.tokens)), folder / "model")
    tables.items.write_parquet(folder / "model" / "items.parquet")
    (folder / "judged").mkdir()
    for name in (bundles.EVALUATION, bundles.STATISTICS):
        (folder / "judged" / name).write_text("{}")
    bundles.build(folder / "model", folder / "judged", folder / "judged", folder / "bundle", lineage={"run_id": "none"})
    told = {"state": folder / "state", "name": NAME, "version": "1", "exact_up_to": exact_up_to}
    if only_users:
        told["online"] = folder / "online"
        materialise_online(repo, data, START + timedelta(days=N_DAYS), state=told["online"], only={"item_id": [0]})
    return build_release(folder / "bundle", folder / "examples", data, repo, **told).folder


def write_data(folder: Path, *, n_items: int, n_users: int) -> None:
    """A data folder: users with `EVENTS_EACH` events each, popular items more often."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(n_users), EVENTS_EACH)
    minutes = np.sort(rng.integers(0, N_DAYS * 24 * 60, (n_users, EVENTS_EACH)), axis=1).ravel()
    item = (n_items ** rng.random(len(user))).astype(np.int64) - 1
    is_asked = rng.random(len(user)) < 0.1
    asked = pl.DataFrame({"user_id": user[is_asked], "event_time": _instants(minutes[is_asked])}).unique()
    first = {"event_time": _instants(np.zeros(1)), "created_time": _instants(np.zeros(1))}
    tables = {
        "events": pl.DataFrame({"user_id": user, "item_id": item, "event_time": _instants(minutes)}).with_columns(
            spent=pl.lit(1.0, dtype=pl.Float32)
        ),
        "requests": asked.with_columns(hour=pl.lit(6.0, dtype=pl.Float32)),
        "candidates": asked.with_columns(
            item_id=pl.lit(0, dtype=pl.Int64), label=pl.lit(1.0, dtype=pl.Float32), shelf=pl.lit(1.0, dtype=pl.Float32)
        ),
        "users": pl.DataFrame(
            {
                "user_id": np.arange(n_users),
                "age": rng.random(n_users) * 80,
                "country": [f"c{u % 9}" for u in range(n_users)],
            }
        ).join(pl.DataFrame(first), how="cross"),
        "items": pl.DataFrame(
            {
                "item_id": np.arange(n_items),
                "price": rng.lognormal(size=n_items),
                "kind": [f"k{i % 50}" for i in range(n_items)],
            }
        ).join(pl.DataFrame(first), how="cross"),
    }
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    facts = {"name": NAME, "protocol": "temporal", "as_of": (START + timedelta(days=N_DAYS)).isoformat()}
    facts |= {
        "validation_days": 3,
        "test_days": 3,
        "horizon_seconds": 80_000,
        "description": "made up",
        "terms": "none",
    }
    (folder / "dataset.json").write_text(json.dumps(facts | {"source_sha256": {}}))


def _instants(minutes: np.ndarray) -> pl.Series:
    microseconds = int(START.timestamp()) * 1_000_000 + minutes.astype(np.int64) * 60_000_000
    return pl.Series(microseconds).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
