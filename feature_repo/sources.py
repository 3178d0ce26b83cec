"""Where the tables are: one Parquet file each, in the data folder that LRM_DATA_DIR names."""

import os
from pathlib import Path

from feast import FileSource

DATA = Path(os.environ.get("LRM_DATA_DIR", Path(__file__).resolve().parent.parent / "data" / "complete-journey"))


def base(table: str) -> FileSource:
    """One of the three base tables: events, requests or candidates."""
    return FileSource(name=table, path=str(DATA / f"{table}.parquet"), timestamp_field="event_time")


def signals(table: str) -> FileSource:
    """A table of signal values: true from `event_time` on, written at `created_time`."""
    return FileSource(
        name=table,
        path=str(DATA / f"{table}.parquet"),
        timestamp_field="event_time",
        created_timestamp_column="created_time",
    )


events = base("events")
requests = base("requests")
candidates = base("candidates")
users = signals("users")
user_activity = signals("user_activity")
items = signals("items")
item_activity = signals("item_activity")
pairs = signals("pairs")
mailings = signals("mailings")
promotions = signals("promotions")
