"""The data-wide part of the suite: structure, keys, references, order, time, splits, labels, freshness, volume.

What the declarations say of single signals is in `signal_expectations.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import great_expectations.expectations as gxe
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import (
    EVENT_TIME,
    ITEM_ID,
    LABEL,
    REQUEST_ID,
    SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    USER_ID,
    VALIDATION,
)
from lrm.validation.columns import KEY_TYPES, ROW_ID, SIGNAL_TYPES, Placed, inhabited
from lrm.validation.rule import CRITICAL, WARNING, Rule, figure, holds

FRESH_DAYS = 7.0
"""Days between the newest event and `as_of` beyond which the data counts as stale."""
MAX_TOLD_TWICE = 0.01
"""Share of events that repeat another beyond which they are taken for delivered twice."""
VOLUME_CHANGE = 2.0
"""Factor by which a table may grow or shrink against the champion's data."""
ROWS = pl.len().alias("_rows")


def structure(tables: Tables, placed: Placed, *, reference: Mapping[str, Any] | None) -> list[Rule]:
    """Every column there, with its type, and rows in every table: without these nothing else can be judged.

    No candidate at all means that the data has no ranking task, unless the champion's data had one.
    """
    rules = []
    counted = dict.fromkeys([*inhabited(tables), *(reference or {})])
    for table in counted:
        rules.append(figure("has rows", table, "", "at least one row", ROWS, severity=CRITICAL, minimum=1))
    for table in inhabited(tables):
        signals = {signal.name: (SIGNAL_TYPES[signal.kind],) for signal in placed.get(table, ())}
        rules += [_typed(tables, table, name, allowed) for name, allowed in (KEY_TYPES[table] | signals).items()]
    return rules


def _typed(tables: Tables, table: str, column: str, allowed: tuple[pl.DataType, ...]) -> Rule:
    """User ids have the type they have in events, item ids that of items, so that the tables can be joined."""
    home = {USER_ID: tables.events, ITEM_ID: tables.items}.get(column)
    if home is not None and table not in ("events", "items") and home.schema.get(column) in allowed:
        allowed = (home.schema[column],)
    spelled = [str(kind) for kind in allowed]
    seen = getattr(tables, table).schema.get(column)
    expectation = gxe.ExpectColumnDistinctValuesToBeInSet(column=column, value_set=spelled, severity=CRITICAL)
    values = (pl.lit("absent" if seen is None else str(seen)).alias(column),)
    return Rule("present with its type", table, column, " or ".join(spelled), expectation, values, of_rows=False)


def data_wide(tables: Tables, *, as_of: datetime, reference: Mapping[str, Any] | None) -> list[Rule]:
    """The rules that hold whatever the signals are; `tables` has passed `structure`."""
    rules = []
    for table in inhabited(tables):
        rules += [_filled(table, column) for column in KEY_TYPES[table]]
        rules += _unique(table)
        rules += _references(table, tables)
        if EVENT_TIME in KEY_TYPES[table]:
            rules.append(_before(table, as_of))
        if reference and table in reference:
            rules.append(_volume(table, reference[table]["rows"]))
    rules += [_time_order(), _fresh(as_of), _several_users(), _told_once(), *_splits(tables)]
    if tables.candidates.height:
        rules += _labels(tables.requests)
    return rules


def _filled(table: str, column: str) -> Rule:
    expectation = gxe.ExpectColumnValuesToNotBeNull(column=column, severity=CRITICAL)
    return Rule("not null", table, column, "a value in every row", expectation, (pl.col(column),))


def _unique(table: str) -> Iterator[Rule]:
    natural = {"requests": (USER_ID, EVENT_TIME), "candidates": (REQUEST_ID, ITEM_ID)}
    for key in [ROW_ID[table], *([natural[table]] if table in natural else [])]:
        if len(key) == 1:
            expectation: gxe.Expectation = gxe.ExpectColumnValuesToBeUnique(column=key[0], severity=CRITICAL)
        else:
            expectation = gxe.ExpectCompoundColumnsToBeUnique(column_list=list(key), severity=CRITICAL)
        yield Rule("unique", table, ", ".join(key), "no value twice", expectation, tuple(map(pl.col, key)))


def _references(table: str, tables: Tables) -> Iterator[Rule]:
    for column, home in ((REQUEST_ID, "requests"), (ITEM_ID, "items")):
        if column in KEY_TYPES[table] and table != home:
            known = getattr(tables, home)[column].unique().implode()
            yield holds("known", table, column, f"an id of {home}", pl.col(column).is_in(known))


def _since(as_of: datetime, probe: str) -> pl.Expr:
    """Days from a row's instant to `as_of`; as a number, which Great Expectations compares far faster than instants."""
    return (pl.lit(as_of) - pl.col(EVENT_TIME)).dt.total_microseconds().truediv(86_400e6).alias(probe)


def _before(table: str, as_of: datetime) -> Rule:
    probe = "days before as_of"
    expectation = gxe.ExpectColumnValuesToBeBetween(column=probe, min_value=0, strict_min=True, severity=CRITICAL)
    expected = f"before {as_of.isoformat()}"
    return Rule("before as_of", table, EVENT_TIME, expected, expectation, (_since(as_of, probe),))


def _fresh(as_of: datetime) -> Rule:
    newest = _since(as_of, "days from the newest event to as_of").min()
    expected = f"the newest event at most {FRESH_DAYS:g} days before as_of"
    return figure("fresh", "events", EVENT_TIME, expected, newest, severity=WARNING, maximum=FRESH_DAYS)


def _time_order() -> Rule:
    user, instant = pl.col(USER_ID), pl.col(EVENT_TIME)
    same, back = user == user.shift(), user < user.shift()
    claim = pl.when(same).then(instant >= instant.shift()).when(back).then(pl.lit(False))
    return holds("in time order", "events", EVENT_TIME, "rows sorted by user, then by time", claim)


def _told_once() -> Rule:
    """A loader that delivers twice makes histories longer and items more popular than they are."""
    twice = (1 - pl.struct(USER_ID, ITEM_ID, EVENT_TIME).n_unique() / pl.len()).alias("_told_twice")
    expected = f"at most {MAX_TOLD_TWICE:.0%} of events with user, item and instant of another"
    event = f"{USER_ID}, {ITEM_ID}, {EVENT_TIME}"
    return figure("told once", "events", event, expected, twice, severity=WARNING, maximum=MAX_TOLD_TWICE)


def _several_users() -> Rule:
    users = pl.col(USER_ID).n_unique().alias("_users")
    return figure("several users", "events", USER_ID, "at least 2 users", users, severity=CRITICAL, minimum=2)


def _splits(tables: Tables) -> Iterator[Rule]:
    """Events to train on, requests to validate and test on; where there are candidates, requests to train on too."""
    needed = {"events": [TRAIN], "requests": [*([TRAIN] if tables.candidates.height else []), VALIDATION, TEST]}
    for table, splits in needed.items():
        known = gxe.ExpectColumnValuesToBeInSet(column=SPLIT, value_set=list(SPLITS), severity=CRITICAL)
        yield Rule("known split", table, SPLIT, ", ".join(SPLITS), known, (pl.col(SPLIT),))
        filled = gxe.ExpectColumnDistinctValuesToContainSet(column=SPLIT, value_set=splits, severity=CRITICAL)
        yield Rule("no empty split", table, SPLIT, f"rows in {', '.join(splits)}", filled, (pl.col(SPLIT),))


def _labels(requests: pl.DataFrame) -> Iterator[Rule]:
    binary = gxe.ExpectColumnValuesToBeInSet(column=LABEL, value_set=[0.0, 1.0], severity=CRITICAL)
    yield Rule("0 or 1", "candidates", LABEL, "0 or 1", binary, (pl.col(LABEL),))
    for split in SPLITS:
        probe = f"label of a {split} request"
        inside = pl.col(REQUEST_ID).is_in(requests.filter(pl.col(SPLIT) == split)[REQUEST_ID].unique().implode())
        both = gxe.ExpectColumnDistinctValuesToContainSet(column=probe, value_set=[0.0, 1.0], severity=CRITICAL)
        values = (pl.when(inside).then(pl.col(LABEL)).alias(probe),)
        yield Rule(f"both labels in {split}", "candidates", LABEL, "at least one 0 and one 1", both, values)


def _volume(table: str, rows: int) -> Rule:
    fewest, most = int(rows / VOLUME_CHANGE), int(rows * VOLUME_CHANGE)
    expected = f"{fewest:,} to {most:,} rows (the champion's data had {rows:,})"
    return figure("volume as before", table, "", expected, ROWS, severity=WARNING, minimum=fewest, maximum=most)
