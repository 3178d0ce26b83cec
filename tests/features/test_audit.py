import polars as pl

from lrm.features.audit import audit
from lrm.features.join import point_in_time
from tests.features.test_join import asked, view_of, written

SOURCE = written((1, 0, 0, 10.0), (1, 5, 5, 50.0), (2, 0, 0, 20.0), (2, 3, 8, 30.0))
ROWS = asked((1, 4), (1, 5), (2, 7))


def told(levels):
    joined = pl.DataFrame({"level": pl.Series(levels, dtype=pl.Float32)})
    (row,) = audit(ROWS, "event_time", view_of(), SOURCE, joined, seed=0)
    return row


def test_what_the_join_answers_was_known_at_the_instant():
    joined = point_in_time(ROWS, "event_time", view_of(), SOURCE)
    (row,) = audit(ROWS, "event_time", view_of(), SOURCE, joined, seed=0)
    assert row == {"signal": "level", "view": "levels", "n_checked": 3, "n_late": 0, "example": None}


def test_a_planted_value_that_became_true_later_is_found_with_its_row():
    row = told([50.0, 50.0, 20.0])  # user 1 at hour 4 is given the value of hour 5
    assert (row["n_checked"], row["n_late"]) == (3, 1)
    assert row["example"] == "user_id=1 at 2024-01-01T04:00:00+00:00, known from 2024-01-01T05:00:00+00:00 on"


def test_a_planted_value_that_was_written_later_is_found():
    assert told([10.0, 50.0, 30.0])["n_late"] == 1  # true since hour 3, written at hour 8, read at hour 7


def test_nulls_are_not_looked_up():
    assert told([None, 50.0, None])["n_checked"] == 1
