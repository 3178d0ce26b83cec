"""Drift sees a planted shift, and is silent where only the sample differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lrm.features.tables import Tables, read
from lrm.schema import Signal
from lrm.validation.columns import place
from lrm.validation.drift import jensen_shannon, measure_drift, population_stability_index
from lrm.validation.profile import bin_labels, moments, of_signal, statistics
from tests.validation.conftest import write_world
from tests.worlds import SIGNALS

PLACED = place(SIGNALS)
AGE = Signal(name="age", kind="dense", makers=("query",), entity="user", view="v")
VECTOR = Signal(name="vector", kind="embedding", makers=("query",), entity="user", view="v", dim=2)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return read(write_world(tmp_path_factory.mktemp("large") / "examples", n_users=400))


def half(tables: Tables, *, odd: bool) -> Tables:
    """The world as told by every second user."""
    mine = pl.col("user_id") % 2 == int(odd)
    requests = tables.requests.filter(mine)
    chosen = pl.col("request_id").is_in(requests["request_id"].implode())
    return tables._replace(
        events=tables.events.filter(mine), requests=requests, candidates=tables.candidates.filter(chosen)
    )


def drifted(tables: Tables, reference: dict) -> set[tuple[str, str]]:
    return {(row["table"], row["signal"]) for row in measure_drift(tables, PLACED, reference) if row["drifted"]}


@pytest.mark.parametrize(
    ("before", "now", "distance"),
    [([1, 1], [10, 10], 0.0), ([4, 0], [0, 9], 1.0), ([2, 0], [1, 1], (1.5 - 0.75 * np.log2(3)) ** 0.5)],
)
def test_jensen_shannon_distance_is_zero_for_equal_shares_and_one_for_disjoint_ones(before, now, distance):
    assert jensen_shannon(before, now) == pytest.approx(distance)
    assert jensen_shannon(now, before) == pytest.approx(distance)


def test_psi_of_a_quarter_moved_between_two_bins_is_its_known_value():
    assert population_stability_index([500_000, 500_000], [750_000, 250_000]) == pytest.approx(
        0.25 * np.log(3), rel=1e-4
    )


def test_two_halves_of_the_users_do_not_differ(large: Tables):
    """Ages and countries come in runs of twelve rows of one user: rows are not independent, and the threshold knows."""
    reference = statistics(half(large, odd=False), PLACED)
    assert drifted(half(large, odd=True), reference) == set()


@pytest.mark.parametrize(
    ("table", "column", "moved"),
    [
        ("requests", "hour", pl.col("hour") + 6.0),
        ("requests", "age", pl.col("age") * 0.5),
        ("requests", "country", pl.lit("c1")),
        ("events", "spent", pl.col("spent") * 3.0),
        ("events", "spent", pl.when(pl.col("event_id") % 3 > 0).then(pl.col("spent"))),
        ("events", "tags", pl.col("tags").list.head(1)),
        ("candidates", "colour", pl.lit("mauve")),
        ("candidates", "vector", pl.col("vector").list.eval(pl.element() + 1.0)),
    ],
)
def test_a_planted_shift_is_seen_in_that_signal_alone(large: Tables, table, column, moved):
    reference = statistics(half(large, odd=False), PLACED)
    other = half(large, odd=True)
    frame = getattr(other, table)
    changed = other._replace(**{table: frame.with_columns(moved.cast(frame.schema[column]).alias(column))})
    assert drifted(changed, reference) == {(table, column)}


def test_a_row_of_drift_says_what_was_measured_and_where_the_mass_went(large: Tables):
    reference = statistics(large, PLACED)
    moved = large._replace(requests=large.requests.with_columns(country=pl.lit("elsewhere")))
    row = measure_drift(moved, PLACED, reference)[0]
    assert (row["signal"], row["measure"], row["drifted"]) == ("country", "Jensen-Shannon distance", True)
    assert dict(zip(row["bins"], row["now"], strict=True))["(other)"] == 1.0
    assert sum(row["before"]) == pytest.approx(1.0)
    assert row["distance"] > row["threshold"]


def test_statistics_survive_json_and_give_no_drift_against_themselves(large: Tables):
    reference = json.loads(json.dumps(statistics(large, PLACED), allow_nan=False))
    rows = measure_drift(large, PLACED, reference)
    assert [row["distance"] for row in rows] == pytest.approx([0.0] * len(rows), abs=1e-6)
    assert {(row["table"], row["signal"]) for row in rows} == {(t, s.name) for t, ss in PLACED.items() for s in ss}


def test_a_signal_new_to_the_champion_or_of_another_kind_is_not_compared(large: Tables):
    reference = statistics(large, PLACED)
    del reference["requests"]["signals"]["age"]
    reference["requests"]["signals"]["hour"] = reference["requests"]["signals"]["country"]
    compared = {row["signal"] for row in measure_drift(large, PLACED, reference) if row["table"] == "requests"}
    assert compared == {"country"}


def test_ten_equal_rows_of_each_of_four_users_are_worth_three_draws():
    values = pl.Series("age", np.repeat([1.0, 1.0, 2.0, 2.0], 10), dtype=pl.Float32)
    alone, together = np.arange(40), np.repeat(np.arange(4), 10)
    assert of_signal(values, alone, AGE)["n_effective"] == pytest.approx(39.0)
    assert of_signal(values, together, AGE)["n_effective"] == pytest.approx(3.0)


def test_an_embedding_that_is_one_vector_per_user_is_worth_as_many_draws_as_users():
    vectors = pl.Series([[1.0, 0.0]] * 5 + [[-1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5 + [[0.0, -1.0]] * 5 + [[9.0]] + [None])
    found = moments(vectors.cast(pl.List(pl.Float32)), np.repeat(np.arange(5), 5)[:22], VECTOR)
    assert found["mean"] == pytest.approx([0.0, 0.0])
    assert found["variance"] == pytest.approx(1.0)
    assert found["n_effective"] == pytest.approx(4.0)


def test_nan_and_null_share_a_bin_and_infinity_takes_the_last_one():
    values = pl.Series("age", [1.0, 2.0, 3.0, float("inf"), float("nan"), None], dtype=pl.Float32)
    found = of_signal(values, np.arange(6), AGE)
    assert dict(zip(bin_labels(found), found["counts"], strict=True)) == {
        "up to 1": 1,
        "1 to 2": 1,
        "above 2": 2,
        "(null)": 2,
    }
    assert (found["minimum"], found["median"], found["maximum"]) == (1.0, 2.0, 3.0)
    assert found["null_rate"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(("kind", "dtype"), [("dense", pl.Float32), ("sparse", pl.String), ("bag", pl.List(pl.String))])
def test_a_signal_without_any_value_has_one_bin_of_nulls(kind, dtype):
    signal = Signal(name="x", kind=kind, makers=("query",), entity="user", view="v")
    found = of_signal(pl.Series("x", [None, None], dtype=dtype), np.arange(2), signal)
    assert found["counts"] == [0, 2]
    assert json.dumps(found, allow_nan=False)


def test_rare_categories_are_counted_together(tmp_path: Path):
    signal = Signal(name="x", kind="sparse", makers=("query",), entity="user", view="v")
    values = pl.Series("x", ["often"] * 3 + [f"rare {number:03}" for number in range(60)])
    found = of_signal(values, np.arange(63), signal)
    assert found["categories"][0] == "often"
    assert found["counts"] == [3] + [1] * 49 + [11, 0]
