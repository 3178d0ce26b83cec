import polars as pl
import pytest

from lrm.features.datasets.neighbours import neighbour_signals

RATED = [
    # user, movie, second, surprise
    *((1, 1, 10, 2.0), (1, 2, 20, 2.0), (2, 1, 30, 2.0), (2, 2, 40, 2.0), (2, 3, 40, -1.0)),
]


def signals(rows):
    columns = {"user_id": pl.Int64, "item_id": pl.Int64, "seconds": pl.Int64, "surprise": pl.Float64}
    found = neighbour_signals(pl.DataFrame(rows, schema=columns, orient="row"))
    return {row[:2]: row[3:] for row in found.rows()}


def test_a_movie_takes_the_residuals_of_those_that_others_liked_with_it():
    found = signals(RATED)
    # User 1, surprised by 2 once, leans by 2 / 4: residuals 1.5 at movies 1 and 2, so product and squares 2.25.
    agreement = 2.25 / (2.25 + 10)
    together = 1 / (12 * 11) ** 0.5  # two ratings of movie 1, one of movie 2, each with ten more
    expected = (agreement * 1.5 / (agreement + 0.5), agreement, together * 1.5 / (together + 0.5))
    assert found[2, 2] == pytest.approx(expected)
    assert found[1, 2] == found[2, 3] == (0, 0, 0)  # nobody had rated both


def test_no_signal_knows_its_own_second_or_later():
    before = {pair: signals(RATED)[pair] for pair in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3))}
    poisoned = [row if row[2] < 40 else (*row[:3], 4.0) for row in RATED]
    later = [*poisoned, (3, 1, 50, -2.0), (3, 2, 60, -2.0)]
    found = signals(later)
    assert {pair: found[pair] for pair in before} == before


def test_the_order_of_the_rows_changes_nothing():
    assert signals(RATED[::-1]) == signals(RATED)
