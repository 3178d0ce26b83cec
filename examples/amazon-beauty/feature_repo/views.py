"""Amazon Beauty: every signal, one line each."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

from lrm.schema import bag, dense

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parents[3] / "data" / "amazon-beauty"))

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="A product.")

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

item_content = FeatureView(
    name="item_content",
    source=FileSource(
        name="items",
        path=str(DATA / "items.parquet"),
        timestamp_field="event_time",
        created_timestamp_column="created_time",
    ),
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="attributes", dtype=Array(String), tags=bag("history,candidate", "item")),
    ],
)

recommendation = FeatureService(name="recommendation", features=[requests, item_content])
