"""A second opinion on the point-in-time join: was a joined value known at the instant of its row?

On a sample of rows each value is looked up again in the view's source, by plain comparison of instants and by no
engine: some source row of the same keys, with `event_time` and `created_time` not after the row's instant, must hold
it. A value that only later source rows hold came from the future. Training goes on; the gate refuses the model, with
the signal named.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from lrm.features.declarations import View
from lrm.schema import CREATED_TIME, EVENT_TIME

N_ROWS = 500
"""Rows of a table that are looked up again for each view."""
ROW, AT, VALUE = "_row", "_at", "_value"


def audit(
    rows: pl.DataFrame, instant: str, view: View, source: pl.DataFrame, joined: pl.DataFrame, *, seed: int
) -> list[dict[str, Any]]:
    """Look up a sample of joined values again.

    Args:
        rows: what was joined to: the view's keys and a UTC instant.
        instant: the name of that column.
        view: the view, with the signals that were joined.
        source: its table.
        joined: the join's answer, one row for each of `rows`.
        seed: of the sample.

    Returns:
        For each signal `signal`, `view`, `n_checked`, `n_late` and `example`: a row whose value was not yet known.
    """
    asked = rows.select(*view.keys, pl.col(instant).alias(AT)).hstack(joined).with_row_index(ROW)
    asked = asked.sample(min(N_ROWS, asked.height), seed=seed)
    known = source.join(asked.select(view.keys).unique(), on=view.keys, how="semi")
    found = []
    for signal in view.signals:
        values = asked.drop_nulls(signal.name).select(ROW, AT, *view.keys, pl.col(signal.name).alias(VALUE))
        held = known.select(*view.keys, EVENT_TIME, CREATED_TIME, signal.name)
        same = values.join(held, on=view.keys).filter(pl.col(VALUE) == pl.col(signal.name))
        in_time = same.filter(pl.col(EVENT_TIME) <= pl.col(AT), pl.col(CREATED_TIME) <= pl.col(AT))
        late = same.join(in_time.select(ROW), on=ROW, how="anti").unique(ROW, maintain_order=True)
        found.append({
            "signal": signal.name, "view": view.name, "n_checked": values.height, "n_late": late.height,
            "example": _example(late, view) if late.height else None,
        })  # fmt: skip
    return found


def _example(late: pl.DataFrame, view: View) -> str:
    row = late.row(0, named=True)
    keys = ", ".join(f"{key}={row[key]}" for key in view.keys)
    known = max(row[EVENT_TIME], row[CREATED_TIME])
    return f"{keys} at {row[AT].isoformat()}, known from {known.isoformat()} on"
