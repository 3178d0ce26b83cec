"""MovieLens 1M in the order of the published sequential split: every signal, one line each."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

from lrm.schema import bag, dense, sparse

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parents[3] / "data" / "ml-1m"))

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="A movie.")


def table(name: str) -> FileSource:
    """A table of signal values: true from `event_time` on, written at `created_time`."""
    path = str(DATA / f"{name}.parquet")
    return FileSource(name=name, path=path, timestamp_field="event_time", created_timestamp_column="created_time")


requests = FeatureView(
    name="requests",
    source=FileSource(name="requests", path=str(DATA / "requests.parquet"), timestamp_field="event_time"),
    entities=[user],
    tags={"role": "requests"},
    online=False,
    schema=[
        Field(name="events_before", dtype=Float32, tags=dense("query", "request", minimum=1)),
    ],
)

user_profile = FeatureView(
    name="user_profile",
    source=table("users"),
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="age", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=120)),
        Field(name="gender", dtype=String, tags=sparse("query", "user", categories=("F", "M"))),
        Field(name="occupation", dtype=String, tags=sparse("query", "user")),
        Field(name="zip_region", dtype=String, tags=sparse("query", "user")),
    ],
)

item_content = FeatureView(
    name="item_content",
    source=table("items"),
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="title", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="year", dtype=Float32, tags=dense("history,candidate", "item", minimum=1890, maximum=2030)),
        Field(name="genres", dtype=Array(String), tags=bag("history,candidate", "item")),
    ],
)

recommendation = FeatureService(name="recommendation", features=[requests, user_profile, item_content])
