"""MovieLens with ratings and instants (100K, or the published 1M): every signal, one line each."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

from lrm.schema import bag, dense, sparse

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parents[3] / "data" / "ml-100k"))

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="A movie.")


def table(name: str) -> FileSource:
    """A table of signal values: true from `event_time` on, written at `created_time`."""
    path = str(DATA / f"{name}.parquet")
    return FileSource(name=name, path=path, timestamp_field="event_time", created_timestamp_column="created_time")


events = FeatureView(
    name="events",
    source=FileSource(name="events", path=str(DATA / "events.parquet"), timestamp_field="event_time"),
    entities=[user, item],
    tags={"role": "events"},
    online=False,
    schema=[
        Field(name="rating", dtype=Float32, tags=dense("history", "pair", known="after", minimum=1, maximum=5)),
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

user_activity = FeatureView(
    name="user_activity",
    source=table("user_activity"),
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="user_ratings", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="user_mean_rating", dtype=Float32, tags=dense("query", "user", minimum=1, maximum=5)),
        Field(name="user_like_rate", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=1)),
        Field(name="user_idle_days", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="user_surprise", dtype=Float32, tags=dense("query", "user", minimum=-4, maximum=4)),
        Field(name="user_recent_surprise", dtype=Float32, tags=dense("query", "user", minimum=-4, maximum=4)),
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

item_activity = FeatureView(
    name="item_activity",
    source=table("item_activity"),
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="item_ratings", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="item_mean_rating", dtype=Float32, tags=dense("candidate", "item", minimum=1, maximum=5)),
        Field(name="item_like_rate", dtype=Float32, tags=dense("candidate", "item", minimum=0, maximum=1)),
        Field(name="item_idle_days", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="item_residual", dtype=Float32, tags=dense("candidate", "item", minimum=-8, maximum=8)),
        Field(name="item_recent_residual", dtype=Float32, tags=dense("candidate", "item", minimum=-8, maximum=8)),
    ],
)

user_item = FeatureView(
    name="user_item",
    source=table("pairs"),
    entities=[user, item],
    ttl=timedelta(0),
    schema=[
        Field(name="expected_rating", dtype=Float32, tags=dense("candidate", "pair", minimum=-3, maximum=9)),
        Field(name="genre_ratings", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="genre_mean_rating", dtype=Float32, tags=dense("candidate", "pair", minimum=1, maximum=5)),
        Field(name="genre_like_rate", dtype=Float32, tags=dense("candidate", "pair", minimum=0, maximum=1)),
        Field(name="genre_residual", dtype=Float32, tags=dense("candidate", "pair", minimum=-8, maximum=8)),
        Field(name="neighbour_residual", dtype=Float32, tags=dense("candidate", "pair", minimum=-8, maximum=8)),
        Field(name="neighbour_weight", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="together_residual", dtype=Float32, tags=dense("candidate", "pair", minimum=-8, maximum=8)),
    ],
)

recommendation = FeatureService(
    name="recommendation",
    features=[events, user_profile, user_activity, item_content, item_activity, user_item],
)
