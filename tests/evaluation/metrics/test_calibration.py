"""A challenger that is worse calibrated by the margin does not pass because its data are few and noisy."""

import numpy as np
import pytest

from benchmarks.calibration import simulate
from lrm.evaluation.metrics.bootstrap import draw_users
from lrm.evaluation.metrics.calibration import difference
from lrm.evaluation.metrics.metrics import calibration, expected_calibration_error

MARGIN = 0.005


@pytest.mark.parametrize(
    "scene", ["too high", "too sure", "too low, after too high", "too high, others see other things"]
)
def test_at_the_edge_of_the_margin_at_most_one_in_twenty_passes(scene):
    bound, _ = simulate(scene, MARGIN, n_users=200, n_pairs=60, margin=MARGIN, seed=1)
    assert bound <= 0.05


def test_the_difference_of_two_estimates_lets_most_of_them_pass():
    bound, plain = simulate("too high", 1.2 * MARGIN, n_users=200, n_pairs=40, margin=MARGIN, seed=2)
    assert bound == 0
    assert plain > 0.75


@pytest.mark.parametrize("n_users", [50, 200])
def test_a_model_that_is_as_good_passes(n_users):
    assert simulate("both too high", None, n_users=n_users, n_pairs=20, margin=MARGIN, seed=3)[0] == 1


def test_a_model_that_sees_other_things_and_is_as_good_passes_where_there_are_users_enough():
    few, many = (
        simulate("too high, others see other things", None, n_users=n, n_pairs=6, margin=0.01, seed=4)[0]
        for n in (50, 5000)
    )
    assert few < many
    assert many > 0.8


def rows(n_users=400, n_rows=100, seed=5):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 0.7, n_users * n_rows)
    return np.repeat(np.arange(n_users), n_rows), p, (rng.random(p.size) < p).astype(float)


def found(own, other, user, labels, confidence=0.95):
    draws = draw_users(int(user.max()) + 1, 500, np.random.default_rng(0))
    return difference(draws, user, own, other, labels, confidence=confidence)[0]


def test_the_same_answers_are_no_difference():
    user, p, labels = rows()
    assert found(p, p, user, labels) == (0, 0, 0)


def test_an_error_that_is_known_beyond_doubt_is_found_in_either_direction():
    user, p, labels = rows()
    value, low, high = found(p + 0.1, p + 0.04, user, labels)
    assert value == pytest.approx(0.06, abs=1e-4)
    assert 0.05 < low <= value <= high < 0.061
    assert found(p + 0.04, p + 0.1, user, labels) == pytest.approx((-value, -high, -low))


def test_where_the_sides_are_not_known_the_distance_of_the_two_counts_as_worse():
    user, p, labels = rows(n_users=50, n_rows=20)
    value, low, high = found(p + 0.01, p, user, labels)
    assert high == pytest.approx(0.01, abs=2e-3)
    assert low == pytest.approx(-0.01, abs=2e-3)
    assert low <= value <= high


def test_the_value_is_the_difference_of_the_two_errors():
    user, p, labels = rows(n_users=60, n_rows=10)
    errors = [expected_calibration_error(calibration(each, labels)) for each in (p**2, p)]
    assert found(p**2, p, user, labels).value == pytest.approx(errors[0] - errors[1])


def test_without_rows_nothing_is_known():
    nothing = np.zeros(0)
    assert np.isnan(
        difference(
            draw_users(3, 100, np.random.default_rng(0)),
            nothing.astype(int),
            nothing,
            nothing,
            nothing,
            confidence=0.95,
        )[0]
    ).all()
