"""Read the tables of a data folder, holding each column against what is declared about it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from lrm.errors import DataError, SchemaError
from lrm.features.declarations import View
from lrm.features.files import require_file
from lrm.schema import BAG, CREATED_TIME, DENSE, EMBEDDING, EVENT_TIME, SPARSE, Signal

INSTANT_TYPE = pl.Datetime("us", "UTC")
COLUMN_TYPES: dict[str, Any] = {
    DENSE: pl.Float32,
    SPARSE: pl.String,
    BAG: pl.List(pl.String),
    EMBEDDING: pl.List(pl.Float32),
}
"""The type that each kind of signal has in the examples."""


def column_types(signals: Iterable[Signal]) -> dict[Any, Any]:
    """The type of each signal's column in the examples."""
    return {signal.name: COLUMN_TYPES[signal.kind] for signal in signals}


def read_table(
    path: Path,
    *,
    keys: Iterable[str],
    times: Iterable[str],
    signals: Iterable[Signal],
    numbers: Iterable[str] = (),
    n_rows: int | None = None,
) -> pl.DataFrame:
    """Read the named columns of one Parquet file: keys as they are, times in UTC, signals in the type of their kind.

    Columns that nobody declared are ignored. `n_rows`: the first of them alone.

    Raises:
        DataError: the file is missing, a folder, or no Parquet file, or a value does not fit its type here.
        SchemaError: a column is missing or its type does not fit what is declared.
    """
    keys, times, signals, numbers = tuple(keys), tuple(times), tuple(signals), tuple(numbers)
    require_file(path)
    try:
        held = pl.scan_parquet(path, glob=False).collect_schema()
    except pl.exceptions.ComputeError as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again") from error
    for column in (*keys, *times, *numbers, *(signal.name for signal in signals)):
        if column not in held:
            raise SchemaError(
                f"{path.name}: column {column!r} is missing, it has {', '.join(held)}; "
                "add it to the data or take its Field out of views.py"
            )
    read = pl.scan_parquet(path, glob=False).select(
        *(_key(path, key, held[key]) for key in keys),
        *(_instant(path, time, held[time]) for time in times),
        *(_number(path, number, held[number]) for number in numbers),
        *(_signal(path, signal, held[signal.name]) for signal in signals),
    )
    try:
        table = (read if n_rows is None else read.head(n_rows)).collect()
    except pl.exceptions.InvalidOperationError as error:
        seen = str(error).partition("\n")[0]
        raise DataError(f"{path.name}: a value cannot be kept ({seen}); convert the column in the data") from error
    _require_calendar(table, times, path)
    return table


def read_view(view: View, *, n_rows: int | None = None) -> pl.DataFrame:
    """Read the table of a view that is joined point in time: its keys, `event_time`, `created_time`, its signals.

    Where the source has no `created_time`, a value counts as written at its `event_time`. `n_rows`: the first of them
    alone.
    """
    times = (EVENT_TIME, CREATED_TIME) if view.created else (EVENT_TIME,)
    table = read_table(view.path, keys=view.keys, times=times, signals=view.signals, n_rows=n_rows)
    require_known(table, times, view.path)
    return table if view.created else table.with_columns(pl.col(EVENT_TIME).alias(CREATED_TIME))


def key_types(views: Iterable[View]) -> dict[str, pl.DataType]:
    """The type of each join key, as the views' tables have it.

    Raises:
        DataError: a table is missing, or is no Parquet file.
        SchemaError: two tables hold a key in two types, or a table lacks it.
    """
    found: dict[str, tuple[pl.DataType, str]] = {}
    for view in views:
        table = read_table(view.path, keys=view.keys, times=(), signals=(), n_rows=0)
        for key in view.keys:
            kind, name = found.setdefault(key, (table.schema[key], view.path.name))
            if kind != table.schema[key]:
                raise SchemaError(
                    f"key {key!r} is {kind} in {name} and {table.schema[key]} in {view.path.name}; write it in one type"
                )
    return {key: kind for key, (kind, _) in found.items()}


def require_known(table: pl.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Refuse nulls in keys and instants.

    Raises:
        DataError: a value is null.
    """
    for column in columns:
        n_null = table[column].null_count()
        if n_null:
            raise DataError(
                f"{path.name}: {n_null} of {table.height} values of {column!r} are null; drop or mend the rows"
            )


def _require_calendar(table: pl.DataFrame, times: Iterable[str], path: Path) -> None:
    """Refuse instants that nothing else can hold: Parquet reaches 290,000 years back and ahead."""
    for time in times:
        strange = (~table[time].dt.year().is_between(datetime.min.year, datetime.max.year)).arg_true()
        if len(strange):
            seen = table[time].dt.year()[strange[0]]
            raise DataError(
                f"{path.name}, row {strange[0] + 1}: {time!r} lies in the year {seen}, and instants can be kept of the "
                f"years {datetime.min.year} to {datetime.max.year}; mend it and {len(strange) - 1} more"
            )


def _key(path: Path, name: str, held: pl.DataType) -> pl.Expr:
    if held.is_integer():
        return pl.col(name).cast(pl.Int64)
    if held == pl.String:
        return pl.col(name)
    raise SchemaError(f"{path.name}: key {name!r} must be int64 or string, got {held}; convert it in the data")


def _number(path: Path, name: str, held: pl.DataType) -> pl.Expr:
    if held.is_numeric() or held == pl.Boolean:
        return pl.col(name).cast(pl.Float32)
    raise SchemaError(f"{path.name}: {name!r} must be a number, got {held}; convert it in the data")


def _instant(path: Path, name: str, held: pl.DataType) -> pl.Expr:
    if not isinstance(held, pl.Datetime):
        raise SchemaError(f"{path.name}: {name!r} must be a UTC timestamp[us], got {held}; parse it in the data")
    if held.time_zone != "UTC":
        seen = held.time_zone or "no zone"
        raise SchemaError(f"{path.name}: {name!r} must be UTC, got {seen}; write it as timestamp[us, tz=UTC]")
    if held.time_unit != "us":
        raise SchemaError(
            f"{path.name}: {name!r} must have microseconds, got {held.time_unit}; write it as timestamp[us]"
        )
    return pl.col(name)


def _signal(path: Path, signal: Signal, held: pl.DataType) -> pl.Expr:
    inner = held.inner if isinstance(held, pl.List | pl.Array) else None
    fits = {
        DENSE: held.is_numeric() or held == pl.Boolean,
        SPARSE: _is_category(held),
        BAG: inner is not None and _is_category(inner),
        EMBEDDING: inner is not None and inner.is_numeric(),
    }
    if held != pl.Null and not fits[signal.kind]:
        raise SchemaError(
            f"{path.name}: {signal.name!r} is declared {signal.kind}, its column holds {held}; "
            f"mend the tags in view {signal.view!r} or convert the column"
        )
    return in_one_form(pl.col(signal.name).cast(COLUMN_TYPES[signal.kind]), signal.kind)


def in_one_form(column: pl.Expr, kind: str) -> pl.Expr:
    """A signal's column without null members in its lists, which no online store keeps.

    A member of a bag that is not known is no member; a number of a vector that is not known is NaN.
    """
    if kind == BAG:
        return column.list.drop_nulls()
    return column.list.eval(pl.element().fill_null(float("nan"))) if kind == EMBEDDING else column


def _is_category(held: Any) -> bool:
    return held.is_integer() or held in (pl.String, pl.Boolean) or isinstance(held, pl.Categorical | pl.Enum)
