import numpy as np
import pytest

from lrm.evaluation.estimates import as_json, compare, number, ranking_statistics, retrieval_statistics
from lrm.evaluation.metrics.bootstrap import draw_users, mean
from lrm.evaluation.predictions import Ranking, Ranks, Retrieval

DRAWS = draw_users(2, 200, np.random.default_rng(0))


def test_retrieval_metrics_are_means_over_requests():
    task = Retrieval(np.array([4, 9]), np.array([0, 1]), np.array([0, 0, 1]), np.array([0, 1, 2]))
    ranks = Ranks(np.array([1, 5, 3]), np.array([1, 4, 2]), np.array([[0, 3], [0, 1]]), 0)
    found = retrieval_statistics(DRAWS, task, ranks, k=3, masked=True)
    assert found["hit_rate@3"].value == 1
    assert found["recall@3"].value == pytest.approx((1 / 2 + 1) / 2)
    assert found["ndcg@3"].value == pytest.approx((1 / (1 + 1 / np.log2(3)) + 1 / 2) / 2)
    assert found["mrr_masked"].value == pytest.approx((1 + 1 / 2) / 2)
    assert found["ndcg@3"].n_users == 2


def test_lists_are_counted_over_the_catalogue_and_over_the_head():
    task = Retrieval(np.array([4, 9]), np.array([0, 1]), np.array([0, 1]), np.array([0, 1]))
    ranks = Ranks(np.array([1, 1]), np.array([1, 1]), np.array([[0, 3], [0, 1]]), 0)
    head = np.array([True, False, False, False, False])
    found = retrieval_statistics(DRAWS, task, ranks, k=2, masked=False, head=head)
    assert found["coverage@2"].value == 3 / 5
    assert found["concentration@2"].value == 1 / 2


def test_ndcg_of_candidates_skips_requests_without_a_positive():
    task = Ranking(
        np.array([4, 9]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.arange(4), np.array([0.0, 1.0, 0.0, 0.0])
    )
    found = ranking_statistics(DRAWS, task, np.array([2.0, 1.0, 0.0, 0.0]), k=10)
    assert found["ndcg@10"].value == pytest.approx(1 / np.log2(3))
    assert found["ndcg@10"].n_users == 1
    assert found["auc"].value == pytest.approx(2 / 3)


def test_a_lower_log_loss_is_the_better_one():
    loss = {"challenger": 0.5, "champion": 0.6}
    models = {name: {"log_loss": mean(DRAWS, np.arange(2), np.full(2, value))} for name, value in loss.items()}
    (row,) = compare(models, task="ranking", confidence=0.95)
    assert row.difference == pytest.approx(-0.1)
    assert row.p_worse == pytest.approx(11 / 201)  # two users that agree tell little, and the draws no more than this


def test_a_slice_where_nothing_changed_is_unharmed_in_every_draw():
    models = {name: {"auc": mean(DRAWS, np.array([0]), np.ones(1))} for name in ("challenger", "champion")}
    (row,) = compare(models, task="ranking", confidence=0.95, slice_name="new users", margin=0.01)
    assert (row.slice, row.n_users, row.p_unharmed) == ("new users", 1, 1.0)


def test_what_could_not_be_computed_is_null():
    assert [number(value) for value in (float("nan"), float("-inf"), 0.12345678)] == [None, None, 0.123457]
    cell = as_json(mean(DRAWS, np.arange(2), np.full(2, np.nan)), confidence=0.95)
    assert cell == {"value": None, "low": None, "high": None, "n_users": 0}
