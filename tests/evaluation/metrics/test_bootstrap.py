import numpy as np
import pytest

from lrm.evaluation.metrics.bootstrap import (
    auc,
    calibration_error,
    draw_users,
    interval,
    mean,
    minus,
    probability_worse,
)
from lrm.evaluation.metrics.metrics import auc as plain_auc
from lrm.evaluation.metrics.metrics import calibration, expected_calibration_error


def draws_of(n_users, n_bootstrap=1000, seed=0):
    return draw_users(n_users, n_bootstrap, np.random.default_rng(seed))


def test_every_draw_holds_as_many_users_as_there_are():
    draws = draws_of(40, 10)
    assert draws.counts.sum(axis=1).tolist() == [40] * 10


def test_beyond_4096_users_bags_of_users_give_the_interval_of_users():
    values, user = np.random.default_rng(8).exponential(size=20_000), np.arange(20_000)
    draws = draws_of(20_000, 4000)
    assert draws.counts.shape == (4000, 4096)
    found = interval(mean(draws, user, values), confidence=0.95)
    reach = 1.96 * values.std() / np.sqrt(20_000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * reach, rel=0.05)
    assert mean(draws, user, values).n_users == 20_000


def test_the_same_seed_gives_the_same_interval():
    values, user = np.random.default_rng(1).normal(size=50), np.arange(50)
    first, second = (interval(mean(draws_of(50), user, values), confidence=0.95) for _ in range(2))
    assert first == second


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng, draws, covered = np.random.default_rng(2), draws_of(80, 400), 0
    for _ in range(200):
        user = np.repeat(np.arange(80), 3)
        values = np.repeat(rng.normal(size=80), 3) + 0.1 * rng.normal(size=240)
        low, high = interval(mean(draws, user, values), confidence=0.9)[1:]
        covered += low <= 0 <= high
    assert 0.83 <= covered / 200 <= 0.96


def test_repeating_a_users_rows_does_not_narrow_the_interval():
    values, draws = np.random.default_rng(3).normal(size=60), draws_of(60)
    once = interval(mean(draws, np.arange(60), values), confidence=0.95)
    often = interval(mean(draws, np.repeat(np.arange(60), 9), np.repeat(values, 9)), confidence=0.95)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=1e-3)


def test_a_paired_difference_is_narrower_than_its_parts():
    rng, draws = np.random.default_rng(4), draws_of(100)
    base = rng.normal(size=100)
    left, right = (mean(draws, np.arange(100), base + shift) for shift in (0.1, 0.0))
    difference = interval(minus(left, right), confidence=0.95)
    assert difference == pytest.approx((0.1, 0.1, 0.1), abs=1e-5)


def test_probability_worse_is_small_for_the_better_model_and_knows_the_direction():
    draws = draws_of(100)
    better, worse = (mean(draws, np.arange(100), np.full(100, value)) for value in (0.7, 0.6))
    gain = minus(better, worse)
    assert probability_worse(gain, lower_is_better=False) == pytest.approx(0.5**100)  # all of 100 users agree
    assert probability_worse(gain, lower_is_better=True) == 1.0
    assert probability_worse(minus(better, better), lower_is_better=False) == 1.0


@pytest.mark.parametrize("n_resamples", [100, 1000])
def test_the_chance_of_a_far_draw_is_neither_zero_nor_that_of_one_draw(n_resamples):
    values = 4.5 / np.sqrt(400) + np.random.default_rng(10).normal(size=400)
    values += 4.5 / np.sqrt(400) - values.mean()
    found = probability_worse(mean(draws_of(400, n_resamples), np.arange(400), values), lower_is_better=False)
    assert 1e-7 < found < 1e-4  # 4.5 deviations: .0000045 by the t distribution


def test_a_chance_that_the_draws_can_tell_is_their_share():
    rng, draws = np.random.default_rng(11), draws_of(50, 1000)
    gain = mean(draws, np.arange(50), rng.exponential(size=50) - 0.7)
    share = (1 + np.count_nonzero(gain.draws <= 0)) / 1001
    assert 0.012 < share < 0.5
    assert probability_worse(gain, lower_is_better=False) == share


def test_an_interval_of_a_confidence_beyond_the_draws_is_wider_than_all_of_them():
    values = np.random.default_rng(12).normal(size=200)
    few = mean(draws_of(200, 100), np.arange(200), values)
    value, low, high = interval(few, confidence=0.9999)
    assert low < few.draws.min() < few.draws.max() < high
    assert high - value == pytest.approx(3.97 * values.std(ddof=1) / np.sqrt(200), rel=0.15)  # t of 199 users


def test_the_linear_auc_interval_agrees_with_sorting_each_draw_anew():
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(120), 20)
    labels = (rng.random(2400) < 0.2).astype(float)
    scores = labels + rng.normal(size=2400) + np.repeat(rng.normal(size=120), 20)
    draws = draws_of(120, 300)
    low, high = interval(auc(draws, user, scores, labels), confidence=0.95)[1:]
    exact = []
    for draw in draws.counts:
        rows = np.repeat(np.arange(2400), draw[user].astype(int))
        exact.append(plain_auc(scores[rows], labels[rows]))
    expected = np.quantile(exact, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.004)
    assert auc(draws, user, scores, labels).value == plain_auc(scores, labels)


def test_of_an_area_as_many_users_count_as_have_the_rarer_outcome():
    scores, user = np.random.default_rng(9).normal(size=60), np.arange(60) // 2
    labels = (np.arange(60) < 5).astype(float)
    assert auc(draws_of(30), user, scores, labels).n_users == 3
    assert auc(draws_of(30), user, scores, 1 - labels).n_users == 3


def test_calibration_error_is_that_of_the_bins():
    rng = np.random.default_rng(6)
    chance, user = rng.random(600), np.arange(600) % 60
    labels = (rng.random(600) < chance).astype(float)
    estimate = calibration_error(draws_of(60), user, chance, labels)
    assert estimate.value == pytest.approx(expected_calibration_error(calibration(chance, labels)))
    assert estimate.n_users == 60


def test_nothing_to_average_is_not_a_number_and_has_no_users():
    draws = draws_of(5)
    nothing = np.zeros(0)
    for found in (
        mean(draws, np.arange(2), np.full(2, np.nan)),
        auc(draws, np.arange(2), np.arange(2.0), np.ones(2)),
        calibration_error(draws, nothing.astype(int), nothing, nothing),
    ):
        assert np.isnan(found.value)
        assert found.n_users == 0
        assert np.isnan(interval(found, confidence=0.9).low)
