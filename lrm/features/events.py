"""The three base tables of a data folder: events, requests and candidates, checked, cut and numbered."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import DataError, SchemaError
from lrm.features.declarations import Declarations
from lrm.features.files import DATASET
from lrm.features.request_limits import require_askable
from lrm.features.sources import read_table, require_known
from lrm.features.split import Cutoffs, apart
from lrm.schema import (
    CANDIDATE_ID,
    CANDIDATES,
    EVENT_ID,
    EVENT_TIME,
    EVENTS,
    ITEM_ID,
    LABEL,
    REQUEST_ID,
    REQUESTS,
    SPLIT,
    USER_ID,
)

TEMPORAL, LEAVE_ONE_OUT = "temporal", "leave-one-out"
_TEXTS = ("name", "protocol", "as_of")
_NUMBERS = ("validation_days", "test_days", "horizon_seconds")


class Base(NamedTuple):
    """The base tables, numbered and in the order of docs/artifacts.md; `split` is there for leave-one-out data only."""

    events: pl.DataFrame
    requests: pl.DataFrame
    """Also carries the join keys of the views that are joined to requests or candidates."""
    candidates: pl.DataFrame
    """Empty where the data has no ranking task."""
    cut: dict[str, int]
    """Rows left out: `events` and `requests` at or after `as_of`, `unfinished_requests` whose horizon ends at it or
    after, `crossing_requests` whose horizon reaches into a later window or, for leave-one-out data, an event of one."""


def read_dataset(data: Path) -> dict[str, Any]:
    """Read `dataset.json`.

    Raises:
        DataError: the file is missing, is no JSON object, lacks a key, has a value of a wrong type, a negative number,
            a name unfit for a folder, or an unknown protocol.
    """
    path = data / DATASET
    if not path.is_file():
        raise DataError(
            f"{path} is missing; prepare built-in data with `python -m lrm.features.datasets NAME`, "
            "or see docs/own-data.md for your own"
        )
    try:
        dataset = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); write it again") from error
    if not isinstance(dataset, dict):
        raise DataError(f"{path} must hold a JSON object, got {type(dataset).__name__}; see docs/artifacts.md")
    for key in (*_TEXTS, *_NUMBERS):
        if key not in dataset:
            raise DataError(f"{path}: the key {key!r} is missing, it has {', '.join(dataset)}; see docs/artifacts.md")
    _check_values(path, dataset)
    if dataset["protocol"] not in (TEMPORAL, LEAVE_ONE_OUT):
        raise DataError(f"{path}: protocol must be {TEMPORAL!r} or {LEAVE_ONE_OUT!r}, got {dataset['protocol']!r}")
    return dataset


def _check_values(path: Path, dataset: dict[str, Any]) -> None:
    for key in _TEXTS:
        if not isinstance(dataset[key], str):
            raise DataError(f"{path}: {key} must be a text, got {dataset[key]!r}; put it in quotes")
    for key in _NUMBERS:
        value = dataset[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and value >= 0):
            raise DataError(f"{path}: {key} must be a number, zero or more, got {value!r}; mend it")
    if not re.fullmatch(r"\w[\w.-]*", dataset["name"]):
        raise DataError(
            f"{path}: name must consist of letters, digits, '_', '.' and '-' and not begin with '.' or '-', "
            f"got {dataset['name']!r}; it names the model and its folder"
        )


def read_base(
    data: Path, declared: Declarations, *, as_of: datetime, cuts: Cutoffs | None, dataset: dict[str, Any]
) -> Base:
    """Read, check, cut at `as_of`, order and number the base tables.

    A request whose horizon ends at `as_of` or after it is left out too: its outcome was not known then. So is one whose
    horizon reaches into a later window: its outcome would tell of that window. Where the data bring the split, a window
    is its events, and the end of the data cuts no horizon: the last event of a user is the one held out.

    Args:
        data: the data folder.
        declared: the views.
        as_of: the instant at which the world ends.
        cuts: where the windows lie; None for leave-one-out data.
        dataset: what `read_dataset` read.

    Raises:
        DataError: no event is left, a request or a candidate is there twice, or a candidate belongs to no request.
        SchemaError: the tables disagree on the type of a key.
    """
    split = (SPLIT,) if dataset["protocol"] == LEAVE_ONE_OUT else ()
    horizon = timedelta(seconds=dataset["horizon_seconds"])
    all_events = _read(data, declared, EVENTS, keys=(USER_ID, ITEM_ID, *split))
    all_requests = _read(data, declared, REQUESTS, keys=(USER_ID, *_request_keys(declared), *split))
    _same_type(all_events, all_requests, USER_ID)
    _unique_requests(all_requests)
    in_time = pl.col(EVENT_TIME) < as_of
    events, asked = all_events.filter(in_time), all_requests.filter(in_time)
    finished = asked.filter(pl.col(EVENT_TIME) + horizon < as_of) if not split else asked
    kept = apart(finished, events, cuts, horizon_seconds=dataset["horizon_seconds"])
    if events.is_empty():
        raise DataError(
            f"{data / 'events.parquet'} holds no event before {as_of.isoformat()} ({all_events.height} in all); "
            "take a later as_of or another data folder"
        )
    requests = kept.sort(EVENT_TIME, USER_ID).with_row_index(REQUEST_ID).cast({REQUEST_ID: pl.Int64})
    candidates = _candidates(data, declared, requests, all_requests, events)
    cut = {
        "events": all_events.height - events.height,
        "requests": all_requests.height - asked.height,
        "unfinished_requests": asked.height - finished.height,
        "crossing_requests": finished.height - kept.height,
    }
    numbered = events.with_row_index(EVENT_ID).sort(USER_ID, EVENT_TIME, EVENT_ID).drop(EVENT_ID)
    return Base(numbered.with_row_index(EVENT_ID).cast({EVENT_ID: pl.Int64}), requests, candidates, cut)


def _read(data: Path, declared: Declarations, role: str, *, keys: tuple[str, ...]) -> pl.DataFrame:
    path = data / f"{role}.parquet"
    table = read_table(path, keys=keys, times=(EVENT_TIME,), signals=declared.of_role(role))
    require_known(table, {USER_ID, ITEM_ID, EVENT_TIME, SPLIT} & set(table.columns), path)
    require_askable(table, path, keys=keys, signals=declared.of_role(role) if role != EVENTS else ())
    return table


def _request_keys(declared: Declarations) -> tuple[str, ...]:
    keys = dict.fromkeys(key for view in declared.joined for key in view.keys)
    return tuple(key for key in keys if key not in (USER_ID, ITEM_ID))


def _unique_requests(requests: pl.DataFrame) -> None:
    twice = requests.filter(requests.select(USER_ID, EVENT_TIME).is_duplicated())
    if not twice.is_empty():
        raise DataError(
            f"requests.parquet: {twice.height} rows share {USER_ID} and {EVENT_TIME}, for instance user "
            f"{twice[USER_ID][0]!r} at {twice[EVENT_TIME][0]}; a request is unique in both: keep one"
        )


def _candidates(
    data: Path, declared: Declarations, requests: pl.DataFrame, all_requests: pl.DataFrame, events: pl.DataFrame
) -> pl.DataFrame:
    path = data / f"{CANDIDATES}.parquet"
    schema: dict[str, Any] = {
        CANDIDATE_ID: pl.Int64,
        REQUEST_ID: pl.Int64,
        ITEM_ID: events.schema[ITEM_ID],
        LABEL: pl.Float32,
    }
    if not path.is_file():
        if declared.of_role(CANDIDATES):
            raise DataError(f"{path} is missing, yet a view has the role 'candidates'; add it, or drop that view")
        return pl.DataFrame(schema=schema)
    signals = declared.of_role(CANDIDATES)
    table = read_table(path, keys=(USER_ID, ITEM_ID), times=(EVENT_TIME,), numbers=(LABEL,), signals=signals)
    require_known(table, (USER_ID, ITEM_ID, EVENT_TIME, LABEL), path)
    require_askable(table, path, keys=(USER_ID, ITEM_ID), signals=signals)
    _same_type(events, table, ITEM_ID)
    _same_type(events, table, USER_ID)
    key = [USER_ID, EVENT_TIME]
    stray = table.join(all_requests, on=key, how="anti")
    if not stray.is_empty():
        raise DataError(
            f"{path.name}: {stray.height} of {table.height} rows belong to no request, for instance user "
            f"{stray[USER_ID][0]!r} at {stray[EVENT_TIME][0]}; add those requests or drop the rows"
        )
    twice = table.filter(table.select(*key, ITEM_ID).is_duplicated())
    if not twice.is_empty():
        raise DataError(
            f"{path.name}: {twice.height} of {table.height} rows share {USER_ID}, {EVENT_TIME} and {ITEM_ID}, for "
            f"instance user {twice[USER_ID][0]!r} at {twice[EVENT_TIME][0]} with item {twice[ITEM_ID][0]!r}; "
            "a request shows an item once: keep one"
        )
    if not ((table[LABEL] == 0) | (table[LABEL] == 1)).all():
        raise DataError(f"{path.name}: {LABEL} must be 0 or 1, got {table[LABEL].unique().sort().head(5).to_list()}")
    return (
        table.join(requests.select(*key, REQUEST_ID), on=key, how="inner", maintain_order="left")
        .sort(REQUEST_ID, maintain_order=True)
        .with_row_index(CANDIDATE_ID)
        .select(*schema, *(signal.name for signal in signals))
        .cast({CANDIDATE_ID: pl.Int64})
    )


def _same_type(events: pl.DataFrame, other: pl.DataFrame, key: str) -> None:
    if events.schema[key] != other.schema[key]:
        raise SchemaError(
            f"{key!r} is {events.schema[key]} in events.parquet and {other.schema[key]} elsewhere; write it in one type"
        )
