from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm.errors import DataError
from lrm.features.declarations import View
from lrm.features.join import latest, point_in_time
from lrm.schema import Signal

INSTANT = pl.Datetime("us", "UTC")
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def hours(*values):
    return pl.Series([MONDAY + timedelta(hours=float(value)) for value in values], dtype=INSTANT)


def view_of(keys=("user_id",), ttl=None, names=("level",)):
    signals = tuple(Signal(name=n, kind="dense", makers=("query",), entity="user", view="levels") for n in names)
    return View("levels", None, keys, ttl, Path("levels.parquet"), "event_time", "created_time", signals)


def written(*rows):
    """Rows of (user, hour it became true, hour it was written, value)."""
    users, events, created, levels = zip(*rows, strict=True)
    return pl.DataFrame({"user_id": users, "event_time": hours(*events), "created_time": hours(*created)}).with_columns(
        level=pl.Series(levels, dtype=pl.Float32)
    )


def asked(*rows):
    users, instants = zip(*rows, strict=True)
    return pl.DataFrame({"user_id": pl.Series(users, dtype=pl.Int64), "event_time": hours(*instants)})


def levels(rows, source, **options):
    return point_in_time(rows, "event_time", view_of(**options), source)["level"].to_list()


def test_the_newest_value_known_at_the_instant_wins():
    source = written((1, 0, 0, 10.0), (1, 5, 5, 50.0), (2, 0, 0, 20.0))
    assert levels(asked((1, 4), (1, 5), (2, 9), (3, 9)), source) == [10.0, 50.0, 20.0, None]


def test_a_value_one_microsecond_in_the_future_is_not_seen():
    source = written((1, 0, 0, 10.0), (1, 5, 5, 666.0))
    rows = asked((1, 5)).with_columns(pl.col("event_time") - timedelta(microseconds=1))
    assert levels(rows, source) == [10.0]


def test_a_late_correction_is_seen_only_after_it_was_written():
    source = written((1, 0, 0, 10.0), (1, 0, 3, 11.0))
    assert levels(asked((1, 2), (1, 3)), source) == [10.0, 11.0]


def test_a_correction_of_the_past_does_not_replace_what_is_newer():
    source = written((1, 0, 0, 10.0), (1, 5, 5, 50.0), (1, 1, 7, 11.0))
    assert levels(asked((1, 6), (1, 8)), source) == [50.0, 50.0]


def test_a_value_written_before_it_becomes_true_waits():
    source = written((1, 0, 0, 10.0), (1, 5, 1, 50.0))
    assert levels(asked((1, 4), (1, 5)), source) == [10.0, 50.0]


def test_a_value_expires_after_its_time_to_live_and_not_before():
    rows, source = asked((1, 2), (1, 3)), written((1, 0, 0, 10.0))
    assert levels(rows, source, ttl=timedelta(hours=2)) == [10.0, None]


def test_a_correction_written_late_expires_by_the_time_at_which_it_was_true():
    source = written((1, 0, 4, 10.0))
    assert levels(asked((1, 4)), source, ttl=timedelta(hours=2)) == [None]


def test_rows_keep_their_number_and_order_also_when_they_repeat_or_have_no_key():
    rows = asked((2, 9), (1, 9), (2, 9), (None, 9), (1, 1))
    assert levels(rows, written((1, 0, 0, 10.0), (2, 5, 5, 20.0))) == [20.0, 10.0, 20.0, None, 10.0]


def test_no_rows_give_no_rows():
    answer = point_in_time(asked((1, 1)).clear(), "event_time", view_of(), written((1, 0, 0, 10.0)))
    assert answer.schema == {"level": pl.Float32}
    assert answer.is_empty()


def test_lists_and_names_with_spaces_pass_through():
    source = written((1, 0, 0, 10.0)).with_columns(pl.Series("my tags", [["a", "b"]]))
    answer = point_in_time(asked((1, 1)), "event_time", view_of(names=("my tags",)), source)
    assert answer["my tags"].to_list() == [["a", "b"]]


def test_two_values_of_which_neither_is_newer_are_refused():
    source = written((1, 0, 0, 10.0), (1, 0, 0, 11.0))
    with pytest.raises(DataError, match=r"levels.parquet: two rows have user_id=1, event_time=.*neither .* newer"):
        levels(asked((1, 1)), source)


def by_hand(user, instant, source, ttl):
    """The rule as it is written, one row at a time."""
    known = [
        row
        for row in source.iter_rows(named=True)
        if row["user_id"] == user and row["event_time"] <= instant and row["created_time"] <= instant
    ]
    if not known:
        return None
    newest = max(known, key=lambda row: (row["event_time"], row["created_time"]))
    expired = ttl is not None and newest["event_time"] + ttl < instant
    return None if expired else newest["level"]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ttl_hours=st.sampled_from([None, 1, 3, 8]))
def test_any_rows_agree_with_the_rule_as_written(seed, ttl_hours):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    event = rng.integers(0, 12, n)
    lag = rng.integers(-2, 6, n)
    source = written(*zip(rng.integers(0, 3, n), event, event + lag, np.arange(float(n)), strict=True)).unique(
        ["user_id", "event_time", "created_time"], maintain_order=True
    )
    rows = asked(*zip(rng.integers(0, 4, 20).tolist(), rng.integers(0, 20, 20), strict=True))
    ttl = timedelta(hours=ttl_hours) if ttl_hours else None
    expected = [by_hand(user, instant, source, ttl) for user, instant in rows.iter_rows()]
    assert levels(rows, source, ttl=ttl) == expected
    for until in hours(5, 11):
        held = {row[0]: row[3] for row in latest(view_of(ttl=ttl), source, until).iter_rows()}
        assert held == {u: v for u in range(3) if (v := by_hand(u, until, source, ttl)) is not None}
