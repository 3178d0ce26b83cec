import numpy as np
import pytest

from lrm.evaluation.metrics.metrics import (
    Bins,
    auc,
    calibration,
    concordance,
    expected_calibration_error,
    hit_rate,
    log_loss,
    ndcg,
    probability,
    rank_against_ties,
    rank_within_groups,
    recall,
    reciprocal_rank,
)


def test_rank_counts_every_item_that_scores_at_least_as_much():
    assert rank_against_ties(np.array([3.0, 1.0, 2.0, 2.0]), np.array([0, 2, 1])).tolist() == [1, 3, 4]


def test_a_constant_score_ranks_every_target_last():
    assert rank_against_ties(np.zeros(100), np.array([0, 57])).tolist() == [100, 100]


def test_ranks_within_groups_start_anew_and_share_the_worst_rank_of_a_tie():
    scores, groups = np.array([1.0, 5.0, 5.0, 2.0, 2.0]), np.array([7, 7, 7, 3, 3])
    assert rank_within_groups(scores, groups).tolist() == [3, 2, 2, 2, 2]
    assert rank_within_groups(np.zeros(0), np.zeros(0, dtype=int)).tolist() == []


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (3, 0.5), (11, 0.0)])
def test_ndcg_at_10_halves_at_rank_three_and_ends_after_ten(rank, expected):
    assert ndcg(np.array([rank]), np.array([0]), n_requests=1, k=10)[0] == pytest.approx(expected)


def test_ndcg_of_several_targets_is_over_the_ideal_of_those_that_fit():
    ranks, request = np.array([1, 3, 2, 9, 9]), np.array([0, 0, 1, 1, 1])
    ideal_of_two = 1 + 1 / np.log2(3)
    expected = [1.5 / ideal_of_two, (1 / np.log2(3)) / ideal_of_two]
    assert ndcg(ranks, request, n_requests=2, k=2).tolist() == pytest.approx([1 / ideal_of_two, expected[1]])
    assert ndcg(ranks, request, n_requests=2, k=3)[0] == pytest.approx(expected[0])


def test_recall_divides_by_the_most_targets_that_fit_in_the_list():
    ranks, request = np.array([1, 2, 5, 6]), np.array([0, 0, 0, 1])
    assert recall(ranks, request, n_requests=2, k=2).tolist() == [1.0, 0.0]
    assert recall(ranks, request, n_requests=2, k=5).tolist() == [1.0, 0.0]
    assert recall(ranks[:2], np.array([0, 1]), n_requests=2, k=1).tolist() == [1.0, 0.0]


def test_hit_rate_and_reciprocal_rank_look_at_the_best_target_and_skip_requests_without_any():
    ranks, request = np.array([8, 4, 20]), np.array([0, 0, 2])
    np.testing.assert_equal(hit_rate(ranks, request, n_requests=3, k=5), [1, np.nan, 0])
    np.testing.assert_equal(reciprocal_rank(ranks, request, n_requests=3), [0.25, np.nan, 0.05])


def test_auc_counts_a_tie_as_one_half():
    labels = np.array([1.0, 0, 1, 0])
    assert auc(np.array([4.0, 3, 2, 1]), labels) == 0.75
    assert auc(np.array([2.0, 2, 2, 1]), labels) == 0.75
    assert auc(np.zeros(4), labels) == 0.5


def test_auc_agrees_with_counting_all_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 200).astype(float), (rng.random(200) < 0.3).astype(float)
    gap = scores[labels > 0][:, None] - scores[labels == 0][None, :]
    expected = float((np.sign(gap) / 2 + 0.5).mean())
    assert auc(scores, labels) == pytest.approx(expected)
    assert concordance(scores, labels)[labels == 0].mean() == pytest.approx(expected)


def test_auc_of_one_class_is_not_a_number():
    assert np.isnan(auc(np.array([1.0, 2]), np.ones(2)))
    assert np.isnan(auc(np.array([1.0, 2]), np.zeros(2)))


def test_log_loss_comes_from_logits_without_clipping():
    assert log_loss(np.array([0.0]), np.array([1.0]))[0] == pytest.approx(np.log(2))
    assert log_loss(np.array([-800.0, 800.0]), np.array([1.0, 1.0])).tolist() == [800.0, 0.0]
    assert probability(np.array([-800.0, 0.0, 800.0], dtype=np.float32)).tolist() == [0.0, 0.5, 1.0]


def test_calibration_error_weighs_each_bin_by_its_rows():
    assert expected_calibration_error(Bins(np.array([0.2, 0.8]), np.array([0.2, 0.4]), np.array([1, 3]))) == 0.75 * 0.4
    assert np.isnan(expected_calibration_error(calibration(np.zeros(0), np.zeros(0))))


def test_a_constant_probability_fills_one_bin():
    bins = calibration(np.full(10, 0.3), np.array([1.0] * 4 + [0.0] * 6))
    assert bins.n_rows.tolist() == [10]
    assert expected_calibration_error(bins) == pytest.approx(0.1)


def test_bins_hold_about_equally_many_rows():
    chance = np.linspace(0, 1, 1500)
    bins = calibration(chance, chance)
    assert bins.n_rows.min() >= 99
    assert bins.n_rows.size == 15
