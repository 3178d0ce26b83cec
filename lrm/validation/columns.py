"""Which column stands in which table of the examples folder, and with which type (docs/artifacts.md, section 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from lrm.features.tables import Tables
from lrm.schema import (
    BAG,
    CANDIDATE,
    CANDIDATE_ID,
    DENSE,
    EMBEDDING,
    EVENT_ID,
    EVENT_TIME,
    HISTORY,
    ITEM,
    ITEM_ID,
    LABEL,
    QUERY,
    REQUEST_ID,
    SPARSE,
    SPLIT,
    USER_ID,
    Signal,
    for_maker,
)

Placed = Mapping[str, tuple[Signal, ...]]
"""The signals of each table, in declared order."""

ID_TYPES: tuple[pl.DataType, ...] = (pl.Int64(), pl.String())
INSTANT: tuple[pl.DataType, ...] = (pl.Datetime("us", "UTC"),)
KEY_TYPES: dict[str, dict[str, tuple[pl.DataType, ...]]] = {
    "events": {
        EVENT_ID: (pl.Int64(),),
        USER_ID: ID_TYPES,
        ITEM_ID: ID_TYPES,
        EVENT_TIME: INSTANT,
        SPLIT: (pl.String(),),
    },
    "requests": {REQUEST_ID: (pl.Int64(),), USER_ID: ID_TYPES, EVENT_TIME: INSTANT, SPLIT: (pl.String(),)},
    "candidates": {
        CANDIDATE_ID: (pl.Int64(),),
        REQUEST_ID: (pl.Int64(),),
        ITEM_ID: ID_TYPES,
        LABEL: (pl.Float32(),),
    },
    "targets": {REQUEST_ID: (pl.Int64(),), ITEM_ID: ID_TYPES},
    "items": {ITEM_ID: ID_TYPES},
}
"""The columns that are no signals, and the types each may have."""

SIGNAL_TYPES: dict[str, pl.DataType] = {
    DENSE: pl.Float32(),
    SPARSE: pl.String(),
    BAG: pl.List(pl.String),
    EMBEDDING: pl.List(pl.Float32),
}
ROW_ID = {
    "events": (EVENT_ID,),
    "requests": (REQUEST_ID,),
    "candidates": (CANDIDATE_ID,),
    "targets": (REQUEST_ID, ITEM_ID),
    "items": (ITEM_ID,),
}
"""The columns by which a person finds a row again."""


def place(signals: Iterable[Signal]) -> Placed:
    """The table or tables in which each signal stands; an item's history signal stands in events and in items."""
    declared = tuple(signals)
    history = for_maker(declared, HISTORY)
    return {
        "events": history,
        "requests": for_maker(declared, QUERY),
        "candidates": for_maker(declared, CANDIDATE),
        "items": tuple(signal for signal in history if signal.entity == ITEM),
    }


def without(placed: Placed, broken: Iterable[tuple[str, str]]) -> Placed:
    """`placed` less the signals whose (table, column) is among `broken`."""
    gone = frozenset(broken)
    return {table: tuple(s for s in signals if (table, s.name) not in gone) for table, signals in placed.items()}


def inhabited(tables: Tables) -> tuple[str, ...]:
    """The tables to look into: all, but for the candidates where the data has no ranking task (no row at all)."""
    return tuple(name for name in Tables._fields if name != "candidates" or tables.candidates.height)


def row_id(table: str) -> pl.Expr:
    """Where a row stands, as text: its id, or both ids of a target."""
    return pl.concat_str([pl.col(name).cast(pl.String) for name in ROW_ID[table]], separator="/", ignore_nulls=True)
