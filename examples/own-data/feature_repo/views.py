"""The bookshop's signals, one line each."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Float32, String

from lrm.schema import dense, sparse

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parent.parent))

reader = Entity(name="reader", join_keys=["user_id"], value_type=ValueType.STRING)
book = Entity(name="book", join_keys=["item_id"], value_type=ValueType.STRING)


def base(name: str) -> FileSource:
    """One of the three base tables."""
    return FileSource(name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_time")


def table(name: str) -> FileSource:
    """A table of signal values: true from `event_time` on, written at `created_time`."""
    path = str(DATA / f"{name}.parquet")
    return FileSource(name=name, path=path, timestamp_field="event_time", created_timestamp_column="created_time")


events = FeatureView(
    name="events",
    source=base("events"),
    entities=[reader, book],
    tags={"role": "events"},
    online=False,
    schema=[
        Field(name="paid", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
    ],
)

requests = FeatureView(
    name="requests",
    source=base("requests"),
    entities=[reader],
    tags={"role": "requests"},
    online=False,
    schema=[
        Field(name="weekday", dtype=String, tags=sparse("query", "request", categories=tuple("1234567"))),
    ],
)

readers = FeatureView(
    name="readers",
    source=table("users"),
    entities=[reader],
    ttl=timedelta(0),  # for ever
    schema=[
        Field(name="town", dtype=String, tags=sparse("query", "user")),
    ],
)

books = FeatureView(
    name="books",
    source=table("items"),
    entities=[book],
    ttl=timedelta(0),
    schema=[
        Field(name="author", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="pages", dtype=Float32, tags=dense("history,candidate", "item", minimum=1)),
    ],
)

prices = FeatureView(
    name="prices",
    source=table("prices"),
    entities=[book],
    ttl=timedelta(days=10),  # a price older than that is not shown: better none than a wrong one
    schema=[
        Field(name="price", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
    ],
)

author_counts = FeatureView(
    name="author_counts",
    source=table("author_counts"),
    entities=[reader, book],
    ttl=timedelta(days=1),
    schema=[
        Field(name="author_bought", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
    ],
)

bookshop = FeatureService(name="bookshop", features=[events, requests, readers, books, prices, author_counts])
