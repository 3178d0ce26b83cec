"""Data of which only each user's order is known: pseudo-instants, and the last event of each user held out.

The n-th event of every user gets the instant START + n days. These instants order a user's own events and mean nothing
between users.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lrm.schema import TEST, TRAIN, VALIDATION

START = datetime(2000, 1, 1)
N_TRAIN_REQUESTS = 3
"""Training requests of a user at most, at seeded places of the history."""


def build_order(order: pl.DataFrame, folder: Path) -> dict[str, Any]:
    """Write events and requests; return what belongs into dataset.json.

    A user's last event is the test target, the one before it the validation target. Requests stand at both instants and
    at up to three earlier events that have a history.

    Args:
        order: user_id, item_id, pos (0, 1, ... for each user).
        folder: where the tables go.
    """
    at = pl.lit(START).dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC")) + pl.duration(days=pl.col("pos"))
    from_end = pl.len().over("user_id") - 1 - pl.col("pos")
    split = (
        pl.when(from_end == 0).then(pl.lit(TEST)).when(from_end == 1).then(pl.lit(VALIDATION)).otherwise(pl.lit(TRAIN))
    )
    events = order.sort("user_id", "pos").with_columns(event_time=at, split=split)
    draw = pl.Series(np.random.default_rng(0).random(events.height))
    asked = events.filter(pl.col("pos") > 0).with_columns(draw=draw.filter(events["pos"] > 0))
    kept = (pl.col("split") != TRAIN) | (pl.col("draw").rank("ordinal").over("user_id", "split") <= N_TRAIN_REQUESTS)
    requests = asked.filter(kept).with_columns(events_before=pl.col("pos").cast(pl.Float32))
    events.select("user_id", "item_id", "event_time", "split").write_parquet(folder / "events.parquet")
    requests.select("user_id", "event_time", "split", "events_before").write_parquet(folder / "requests.parquet")
    ends = START.replace(tzinfo=UTC) + timedelta(days=int(order["pos"].max() or 0) + 1)  # type: ignore[arg-type]
    return {
        "protocol": "leave-one-out",
        "as_of": ends.isoformat(),
        "validation_days": 0,
        "test_days": 0,
        "horizon_seconds": 0,
        "time_note": "Instants are made up: one day per place in a user's order, from 2000-01-01.",
    }
