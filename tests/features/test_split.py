from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lrm.errors import DataError
from lrm.features.split import Cutoffs, cutoffs, parse_instant, require_windows, targets, with_split

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")


def at(*hours):
    return pl.Series([NEW_YEAR + timedelta(hours=hour) for hour in hours], dtype=INSTANT)


def test_windows_are_counted_back_from_the_end():
    found = cutoffs(datetime(2024, 3, 1, tzinfo=UTC), validation_days=10, test_days=5)
    assert found == Cutoffs(datetime(2024, 2, 15, tzinfo=UTC), datetime(2024, 2, 25, tzinfo=UTC))


def test_a_row_at_a_cut_belongs_to_the_later_window():
    table = pl.DataFrame({"event_time": at(-1, 0, 1, 2, 3)})
    cuts = Cutoffs(NEW_YEAR, NEW_YEAR + timedelta(hours=2))
    assert with_split(table, cuts)["split"].to_list() == ["train", "validation", "validation", "test", "test"]


def test_targets_are_the_distinct_items_from_the_request_to_its_horizon():
    requests = pl.DataFrame({"request_id": [0, 1], "user_id": [1, 2], "event_time": at(0, 0)})
    events = pl.DataFrame(
        {"user_id": [1, 1, 1, 1, 2], "item_id": [7, 5, 5, 9, 8], "event_time": at(0, 1, 1.5, 2.5, -0.1)}
    )
    found = targets(requests, events, horizon_seconds=2 * 3600)
    assert found.rows() == [(0, 5), (0, 7)]


def test_a_horizon_of_zero_takes_the_events_of_that_very_instant():
    requests = pl.DataFrame({"request_id": [0], "user_id": ["a"], "event_time": at(1)})
    events = pl.DataFrame({"user_id": ["a", "a"], "item_id": ["x", "y"], "event_time": at(1, 1.1)})
    assert targets(requests, events, horizon_seconds=0).rows() == [(0, "x")]


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00"])
def test_an_instant_is_read_in_utc(text):
    assert parse_instant(text, "as_of") == NEW_YEAR


def test_a_text_that_is_no_instant_is_refused():
    with pytest.raises(DataError, match=r"as_of must be an ISO instant .* got 'yesterday'"):
        parse_instant("yesterday", "as_of")


@pytest.mark.parametrize("absent", ["train", "validation", "test"])
def test_an_empty_window_is_refused(absent):
    splits = [split for split in ("train", "validation", "test") if split != absent]
    with pytest.raises(DataError, match=rf"no request falls into the {absent} window .*0 {absent}"):
        require_windows(pl.DataFrame({"split": splits}))


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match=r"split 'dev' is not one of train, validation, test"):
        require_windows(pl.DataFrame({"split": ["train", "validation", "test", "dev"]}))
