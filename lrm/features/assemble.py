"""From base tables and views to the five tables of an examples folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import polars as pl

from lrm.errors import SchemaError
from lrm.features.declarations import Declarations, View
from lrm.features.events import Base
from lrm.features.request_limits import require_askable
from lrm.features.sources import INSTANT_TYPE, column_types, read_view
from lrm.features.split import targets
from lrm.features.tables import Tables
from lrm.progress import progress
from lrm.schema import (
    CANDIDATE,
    CANDIDATE_ID,
    CREATED_TIME,
    EVENT_ID,
    EVENT_TIME,
    HISTORY,
    ITEM_ID,
    LABEL,
    QUERY,
    REQUEST_ID,
    SPLIT,
    USER_ID,
    for_maker,
)

Join = Callable[[pl.DataFrame, str, View, pl.DataFrame], pl.DataFrame]
"""`join.point_in_time`, or another engine with its promise."""


def assemble(
    base: Base, declared: Declarations, *, join: Join, until: datetime, known_at: datetime, horizon_seconds: float
) -> Tables:
    """Give every row every signal that its maker reads, as known at the row's instant.

    Args:
        base: the base tables, with `split`.
        declared: the views.
        join: the engine.
        until: the instant at which the world ends: an item first described later does not exist.
        known_at: the instant at which the held-out part begins; the catalogue's content is read as it was known then,
            and that of an item whose first event comes later, as it was known at that event.
        horizon_seconds: how far a request's retrieval targets reach.

    Raises:
        DataError: the table of a view is missing, or holds what cannot be read.
        SchemaError: a column of it is missing, or is not of the type that it must have.
    """
    join_keys = {key for view in declared.joined for key in view.keys} & set(base.requests.columns)
    asked = base.requests.select(REQUEST_ID, EVENT_TIME, *sorted(join_keys))
    rows = {
        HISTORY: base.events,
        QUERY: base.requests,
        CANDIDATE: base.candidates.join(asked, on=REQUEST_ID, how="left", maintain_order="left"),
    }
    columns: dict[str, list[pl.DataFrame]] = {HISTORY: [], QUERY: [], CANDIDATE: []}
    catalogue = [base.events.select(ITEM_ID)]
    content: list[tuple[View, pl.DataFrame]] = []
    for view in progress(declared.joined, what="join point in time", unit="view"):
        source = read_view(view)
        require_askable(source, view.path, keys=view.keys)
        _require_same_keys(view, source, rows.values())
        for maker, table in rows.items():
            read = view._replace(signals=for_maker(view.signals, maker))
            if read.signals:
                columns[maker].append(join(table, EVENT_TIME, read, source))
        if view.keys == (ITEM_ID,):
            described = source.filter(pl.col(EVENT_TIME) < until, pl.col(CREATED_TIME) < until)
            catalogue.append(described.select(ITEM_ID))
            content.append((view._replace(signals=for_maker(view.signals, HISTORY)), source))
    items = pl.concat(catalogue).unique().sort(ITEM_ID)
    first = base.events.group_by(ITEM_ID).agg(pl.col(EVENT_TIME).min())
    at = items.join(first, on=ITEM_ID, how="left", maintain_order="left").with_columns(
        pl.max_horizontal(pl.lit(known_at).cast(INSTANT_TYPE), EVENT_TIME).alias(EVENT_TIME)
    )
    described_as = [join(at, EVENT_TIME, view, source) for view, source in content if view.signals]
    return Tables(
        events=_ordered(
            base.events, columns[HISTORY], declared, HISTORY, EVENT_ID, USER_ID, ITEM_ID, EVENT_TIME, SPLIT
        ),
        requests=_ordered(base.requests, columns[QUERY], declared, QUERY, REQUEST_ID, USER_ID, EVENT_TIME, SPLIT),
        candidates=_ordered(
            base.candidates, columns[CANDIDATE], declared, CANDIDATE, CANDIDATE_ID, REQUEST_ID, ITEM_ID, LABEL
        ),
        targets=targets(base.requests, base.events, horizon_seconds=horizon_seconds),
        items=pl.concat([items, *described_as], how="horizontal"),
    )


def _require_same_keys(view: View, source: pl.DataFrame, tables: Iterable[pl.DataFrame]) -> None:
    for key in view.keys:
        types = {table.schema[key] for table in tables if key in table.columns} - {source.schema[key]}
        if types:
            raise SchemaError(
                f"{view.path.name}: key {key!r} is {source.schema[key]}, and {types.pop()} in the tables that view "
                f"{view.name!r} is joined to; write it in one type"
            )


def _ordered(
    table: pl.DataFrame, joined: list[pl.DataFrame], declared: Declarations, maker: str, *keys: str
) -> pl.DataFrame:
    types = column_types(for_maker(declared.signals, maker))
    return pl.concat([table, *joined], how="horizontal").select(*keys, *types).cast(types)
