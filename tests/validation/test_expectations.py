"""Each expectation passes once, on a sound world, and fails once, when one thing in it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from lrm.features.tables import Tables, read
from lrm.schema import Signal
from lrm.validation.columns import Placed, place
from lrm.validation.expectation_runner import Judgement, judge
from lrm.validation.expectations import data_wide, structure
from lrm.validation.profile import statistics
from lrm.validation.rule import Rule
from lrm.validation.signal_expectations import declared
from tests.validation.conftest import declared_signals
from tests.worlds import START, renamed

AS_OF = START + timedelta(days=24)
PLACED = place(declared_signals())


def rules_of(tables: Tables, *, reference: dict | None = None, placed: Placed = PLACED) -> list[Rule]:
    seen = statistics(tables, placed)
    return [
        *structure(tables, placed, reference=reference),
        *data_wide(tables, as_of=AS_OF, reference=reference),
        *declared(tables, placed, statistics=seen, reference=reference),
    ]


def judge_one(rules: list[Rule], tables: Tables, name: str, table: str, column: str) -> Judgement:
    chosen = [rule for rule in rules if (rule.name, rule.table, rule.column) == (name, table, column)]
    assert len(chosen) == 1, f"{name} of {table}.{column} is {len(chosen)} rules"
    return judge(tables, chosen, what="test")[0]


def put(table: str, column: str, value: object, rows: int = 1) -> Callable[[Tables], Tables]:
    """Write a value into the first rows of a column."""

    def change(tables: Tables) -> Tables:
        frame: pl.DataFrame = getattr(tables, table)
        new = pl.lit(value, dtype=frame.schema[column])
        first = pl.int_range(pl.len()) < rows
        return tables._replace(**{table: frame.with_columns(pl.when(first).then(new).otherwise(column).alias(column))})

    return change


def drop(table: str, where: pl.Expr) -> Callable[[Tables], Tables]:
    return lambda tables: tables._replace(**{table: getattr(tables, table).filter(~where)})


def shift(table: str, by: timedelta) -> Callable[[Tables], Tables]:
    return lambda tables: tables._replace(
        **{table: getattr(tables, table).with_columns(pl.col("event_time") + pl.lit(by))}
    )


def swap_first_two_events(tables: Tables) -> Tables:
    return tables._replace(events=pl.concat([tables.events[[1, 0]], tables.events[2:]]))


ALL, NEVER = 10**9, datetime.fromisoformat("2200-01-01T00:00:00+00:00")
VECTOR = [1.0, 2.0, 3.0, 4.0]
BROKEN = [
    # name, table, column, severity, what breaks it, bad rows
    ("not null", "events", "item_id", "critical", put("events", "item_id", None, 3), 3),
    ("not null", "requests", "event_time", "critical", put("requests", "event_time", None), 1),
    ("not null", "candidates", "label", "critical", put("candidates", "label", None), 1),
    ("unique", "events", "event_id", "critical", put("events", "event_id", 1), 2),
    ("unique", "requests", "request_id", "critical", put("requests", "request_id", 1), 2),
    ("unique", "candidates", "candidate_id", "critical", put("candidates", "candidate_id", 1), 2),
    ("unique", "items", "item_id", "critical", put("items", "item_id", 101), 2),
    ("unique", "requests", "user_id, event_time", "critical", put("requests", "user_id", 2), 2),
    (
        *("unique", "candidates", "request_id, item_id", "critical"),
        lambda t: t._replace(candidates=pl.concat([t.candidates, t.candidates.head(1)])),
        2,
    ),
    ("unique", "targets", "request_id, item_id", "critical", lambda t: t._replace(targets=t.targets[[0, 0, 1]]), 2),
    ("known", "candidates", "request_id", "critical", put("candidates", "request_id", -1, 4), 4),
    ("known", "targets", "request_id", "critical", put("targets", "request_id", -1), 1),
    ("known", "events", "item_id", "critical", put("events", "item_id", 9999, 2), 2),
    ("known", "candidates", "item_id", "critical", put("candidates", "item_id", 9999), 1),
    ("known", "targets", "item_id", "critical", put("targets", "item_id", 9999), 1),
    ("in time order", "events", "event_time", "critical", swap_first_two_events, 1),
    ("before as_of", "events", "event_time", "critical", put("events", "event_time", AS_OF), 1),
    ("before as_of", "requests", "event_time", "critical", put("requests", "event_time", NEVER), 1),
    ("fresh", "events", "event_time", "warning", shift("events", timedelta(days=-8)), 0),
    ("several users", "events", "user_id", "critical", put("events", "user_id", 1, ALL), 0),
    (
        *("told once", "events", "user_id, item_id, event_time", "warning"),
        lambda t: t._replace(events=pl.concat([t.events, t.events.head(t.events.height // 50)])),
        0,
    ),
    ("known split", "requests", "split", "critical", put("requests", "split", "trian"), 1),
    ("no empty split", "requests", "split", "critical", drop("requests", pl.col("split") == "validation"), 0),
    ("no empty split", "events", "split", "critical", put("events", "split", "test", ALL), 0),
    ("0 or 1", "candidates", "label", "critical", put("candidates", "label", 0.5), 1),
    ("both labels in test", "candidates", "label", "critical", put("candidates", "label", 0.0, ALL), 0),
    ("finite", "candidates", "affinity", "critical", put("candidates", "affinity", float("nan"), 2), 2),
    ("finite", "candidates", "price", "critical", put("candidates", "price", float("inf")), 1),
    ("finite", "events", "vector", "critical", put("events", "vector", [1.0, float("nan"), 3.0, 4.0]), 1),
    ("finite", "items", "vector", "critical", put("items", "vector", [1.0, None, 3.0, 4.0]), 1),
    ("width", "candidates", "vector", "critical", put("candidates", "vector", [1.0, 2.0]), 1),
    ("in range", "requests", "age", "critical", put("requests", "age", 121.0, 5), 5),
    ("in range", "candidates", "price", "critical", put("candidates", "price", -0.5), 1),
    ("in range", "events", "spent", "critical", put("events", "spent", 2e6), 1),
    ("declared category", "items", "colour", "critical", put("items", "colour", "mauve"), 1),
    ("declared category", "events", "tags", "critical", put("events", "tags", ["t1", "t99"]), 1),
    ("null rate", "requests", "age", "critical", put("requests", "age", None, 400), None),
    ("null rate", "candidates", "colour", "critical", put("candidates", "colour", None, ALL), 4320),
    ("null rate", "items", "colour", "warning", put("items", "colour", None, ALL), 30),
    ("not all null", "requests", "country", "warning", put("requests", "country", None, ALL), 0),
    ("not all null", "events", "tags", "warning", put("events", "tags", None, ALL), 0),
    ("not constant", "requests", "hour", "warning", put("requests", "hour", 3.0, ALL), 0),
    ("not constant", "candidates", "vector", "warning", put("candidates", "vector", VECTOR, ALL), 0),
    ("not constant", "candidates", "tags", "warning", put("candidates", "tags", ["t1", "t2"], ALL), 0),
]


@pytest.fixture(scope="module")
def sound(world: Path) -> Tables:
    return read(world)


@pytest.mark.parametrize(
    ("name", "table", "column", "severity", "breaks", "n_bad"), BROKEN, ids=[f"{b[1]}.{b[2]}: {b[0]}" for b in BROKEN]
)
def test_each_expectation_holds_on_a_sound_world_and_fails_once_one_thing_is_broken(
    sound: Tables, name, table, column, severity, breaks, n_bad
):
    check, bad = judge_one(rules_of(sound), sound, name, table, column)
    assert check["success"], check
    assert len(bad) == 0

    broken = breaks(sound)
    check, bad = judge_one(rules_of(broken), broken, name, table, column)
    assert not check["success"]
    assert check["severity"] == severity
    expected = getattr(broken, table)[column].null_count() if n_bad is None else n_bad
    assert check["n_bad"] == len(bad) == expected
    assert len(check["examples"]) == min(expected, 3)


def test_every_rule_holds_on_a_sound_world(sound: Tables):
    failed = [one.check for one in judge(sound, rules_of(sound), what="test") if not one.check["success"]]
    assert failed == []


def test_every_rule_holds_of_signals_that_are_called_rows_and_users(sound: Tables):
    tables, signals = renamed(sound, declared_signals(), spent="rows", vector="users", hour="splits")
    rules = rules_of(tables, placed=place(signals))
    assert [one.check for one in judge(tables, rules, what="test") if not one.check["success"]] == []


@pytest.mark.parametrize(
    ("column", "wrong", "observed"),
    [
        ("price", pl.col("price").cast(pl.Float64), "Float64"),
        ("tags", pl.lit("t1").alias("tags"), "String"),
        ("item_id", pl.col("item_id").cast(pl.String), "String"),
    ],
)
def test_a_column_of_another_type_is_named_with_the_type_seen(sound: Tables, column, wrong, observed):
    broken = sound._replace(candidates=sound.candidates.with_columns(wrong))
    rules = structure(broken, PLACED, reference=None)
    check, _ = judge_one(rules, broken, "present with its type", "candidates", column)
    assert not check["success"]
    assert check["observed"] == observed


def test_a_missing_column_and_an_empty_table_are_seen(sound: Tables):
    broken = sound._replace(requests=sound.requests.drop("age"), items=sound.items.clear())
    rules = structure(broken, PLACED, reference=None)
    assert judge_one(rules, broken, "present with its type", "requests", "age").check["observed"] == "absent"
    assert not judge_one(rules, broken, "has rows", "items", "").check["success"]


def test_no_candidate_means_no_ranking_task_unless_the_champion_had_one(sound: Tables):
    without = sound._replace(candidates=sound.candidates.clear())
    assert {one.check["table"] for one in judge(without, rules_of(without), what="test")} == {
        "events",
        "requests",
        "targets",
        "items",
    }
    rules = structure(without, PLACED, reference=statistics(sound, PLACED))
    assert not judge_one(rules, without, "has rows", "candidates", "").check["success"]


def test_a_retired_signal_out_of_its_range_is_a_warning(sound: Tables):
    signals = [replace(signal, retired=signal.name == "age") for signal in declared_signals()]
    changed = put("requests", "age", -1.0)(sound)
    check, _ = judge_one(rules_of(changed, placed=place(signals)), changed, "in range", "requests", "age")
    assert (check["success"], check["severity"]) == (False, "warning")


def test_a_table_that_halves_and_a_null_rate_that_moves_against_the_champion_are_warnings(sound: Tables):
    reference = statistics(sound, PLACED)
    changed = sound._replace(events=sound.events.head(700), requests=put("requests", "hour", None, 300)(sound).requests)
    rules = rules_of(changed, reference=reference)
    for name, table, column in [("volume as before", "events", ""), ("null rate as before", "requests", "hour")]:
        check, _ = judge_one(rules, changed, name, table, column)
        assert (check["success"], check["severity"]) == (False, "warning")
        assert judge_one(rules, sound, name, table, column).check["success"]


def test_a_value_equal_to_a_declared_bound_is_in_range_though_float32_rounds_it_up(sound: Tables):
    signal = Signal(name="hour", kind="dense", makers=("query",), entity="request", view="requests", maximum=0.1)
    tables = put("requests", "hour", 0.1, ALL)(sound)
    rules = rules_of(tables, placed=place((signal,)))
    assert judge_one(rules, tables, "in range", "requests", "hour").check["success"]


@pytest.mark.parametrize(("n_null", "passes"), [(70, True), (71, False)])
def test_a_null_rate_of_exactly_what_is_declared_is_allowed(sound: Tables, n_null, passes):
    kept = {"kind": "dense", "makers": ("query",), "entity": "request", "view": "requests", "max_null_rate": 0.7}
    hundred = sound._replace(requests=sound.requests.head(100).with_columns(hour=pl.lit(3.0, dtype=pl.Float32)))
    tables = put("requests", "hour", None, n_null)(hundred)
    rules = rules_of(tables, placed=place((Signal(name="hour", **kept),)))
    assert judge_one(rules, tables, "null rate", "requests", "hour").check["success"] == passes


def test_two_users_rows_may_follow_each_other_in_time_but_not_interleave(sound: Tables):
    first, second = sound.events[:2], sound.events[24:26]
    interleaved = sound._replace(events=pl.concat([first[:1], second, first[1:]]))
    check, bad = judge_one(rules_of(interleaved), interleaved, "in time order", "events", "event_time")
    assert bad.to_list() == [3]
    assert check["examples"][0]["user_id"] == 1
