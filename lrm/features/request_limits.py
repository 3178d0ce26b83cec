"""Rows that no client could ever send: a server takes keys and values within limits, and so does the staging check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lrm.errors import DataError, SchemaError
from lrm.features.declarations import Declarations
from lrm.limits import MAX_BAG, MAX_FIELDS, MAX_TEXT
from lrm.schema import BAG, CANDIDATES, EVENTS, ITEM_ID, REQUESTS, SPARSE, USER_ID, Signal

SHOWN = 40
"""Characters of a value that a message repeats."""


class Limit(NamedTuple):
    """What a server takes at most."""

    column: str
    size: pl.Expr
    most: int
    unit: str


def require_askable(table: pl.DataFrame, path: Path, *, keys: Iterable[str], signals: Iterable[Signal] = ()) -> None:
    """Refuse a table with rows that a server would refuse; every limit that is broken is named.

    Args:
        table: in the order of its file.
        path: the file.
        keys: its columns that a request names.
        signals: those that a request brings.

    Raises:
        DataError: a row exceeds a limit.
    """
    limits = [*_of_keys(table, keys), *_of_signals(signals)]
    too_large = table.select((one.size > one.most).fill_null(False).alias(str(at)) for at, one in enumerate(limits))
    faults = [
        _in_words(table, path, one, too_large[str(at)].arg_true())
        for at, one in enumerate(limits)
        if too_large[str(at)].any()
    ]
    if faults:
        raise DataError(f"{'; '.join(faults)}; a server refuses such a request: shorten the values or drop the rows")


def require_few_fields(declared: Declarations) -> None:
    """Refuse declarations by which a request would carry more names than a server takes.

    Raises:
        SchemaError: a request, a candidate or an event would.
    """
    keys = {key for view in declared.joined for key in view.keys} - {USER_ID, ITEM_ID}
    carried = {REQUESTS: len(keys), CANDIDATES: 1, EVENTS: len(keys)}
    for role, n_others in carried.items():
        n_fields = len(declared.of_role(role)) + n_others
        if n_fields > MAX_FIELDS:
            raise SchemaError(
                f"the view of {role} declares {len(declared.of_role(role))} signals: with its keys, a server would be "
                f"sent {n_fields} names of each, and it takes {MAX_FIELDS}; keep some in a view of their own"
            )


def _of_keys(table: pl.DataFrame, keys: Iterable[str]) -> Iterator[Limit]:
    for key in keys:
        if table.schema[key] == pl.String:
            yield Limit(key, pl.col(key).str.len_chars(), MAX_TEXT, "characters")


def _of_signals(signals: Iterable[Signal]) -> Iterator[Limit]:
    for signal in signals:
        value = pl.col(signal.name)
        if signal.kind == SPARSE:
            yield Limit(signal.name, value.str.len_chars(), MAX_TEXT, "characters")
        elif signal.kind == BAG:
            yield Limit(signal.name, value.list.len(), MAX_BAG, "members")
            longest = value.list.eval(pl.element().str.len_chars()).list.max()
            yield Limit(signal.name, longest, MAX_TEXT, "characters in a member")


def _in_words(table: pl.DataFrame, path: Path, limit: Limit, rows: pl.Series) -> str:
    row = rows[0]
    value = str(table[limit.column].slice(row, 1).to_list()[0])
    size = table.slice(row, 1).select(limit.size).item()
    shown = value if len(value) <= SHOWN else f"{value[:SHOWN]}..."
    more = f", as have {len(rows) - 1:,} rows more" if len(rows) > 1 else ""
    return (
        f"{path.name}, row {row + 1:,}: {limit.column!r} {shown!r} has {size:,} {limit.unit}, at most {limit.most:,} "
        f"are taken{more}"
    )
