from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from lrm.errors import DataError
from lrm.evaluation.predictions import histories, rank_targets, ranking_task, retrieval_task
from lrm.features.tables import Tables

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def at(hours):
    return [NOON + timedelta(hours=h) for h in hours]


@pytest.fixture
def shop():
    """User 1 had items 10, 11 and 12 at hours 0, 1, 2; user 2 nothing yet. Each makes one test request at hour 1."""
    return Tables(
        events=pl.DataFrame(
            {"event_id": [0, 1, 2], "user_id": [1, 1, 1], "item_id": [10, 11, 12], "event_time": at([0, 1, 2])}
        ).with_columns(split=pl.lit("train")),
        requests=pl.DataFrame({"request_id": [0, 1], "user_id": [1, 2], "event_time": at([1, 1])}).with_columns(
            split=pl.lit("test")
        ),
        candidates=pl.DataFrame(
            {"candidate_id": [0, 1, 2], "request_id": [0, 0, 1], "item_id": [10, 13, 13], "label": [1.0, 0.0, 1.0]}
        ),
        targets=pl.DataFrame({"request_id": [0, 0, 1], "item_id": [10, 11, 13]}),
        items=pl.DataFrame({"item_id": [10, 11, 12, 13]}),
    )


class Fixed:
    """The same scores for every request, columns in an order of its own."""

    def __init__(self, scores):
        self.item_ids, self.scores = np.array(list(scores)), np.array(list(scores.values()), dtype=float)

    def item_scores(self, request_ids):
        return np.tile(self.scores, (len(request_ids), 1))


def test_a_request_sees_only_what_happened_strictly_before_it(shop):
    seen = histories(shop)
    assert [seen.items(request).tolist() for request in (0, 1)] == [[0], []]


def test_targets_are_ranked_in_the_whole_catalogue_whatever_the_order_of_columns(shop):
    task = retrieval_task(shop, max_requests=9, rng=np.random.default_rng(0))
    ranks = rank_targets(Fixed({13: 1, 12: 2, 11: 3, 10: 4}), task, histories(shop), tables=shop, name="fixed")
    assert ranks.plain.tolist() == [1, 2, 4]
    assert ranks.n_not_finite == 0


def test_masked_ranks_skip_items_of_the_history_and_put_a_seen_target_last(shop):
    task = retrieval_task(shop, max_requests=9, rng=np.random.default_rng(0))
    ranks = rank_targets(Fixed({13: 1, 12: 2, 11: 3, 10: 4}), task, histories(shop), tables=shop, name="fixed")
    assert ranks.masked.tolist() == [4, 1, 4]


def test_the_best_items_of_each_request_are_kept_as_rows_of_the_catalogue(shop):
    task = retrieval_task(shop, max_requests=9, rng=np.random.default_rng(0))
    fixed = Fixed({13: 1, 12: 2, 11: 3, 10: 4})
    ranks = rank_targets(fixed, task, histories(shop), tables=shop, name="fixed", n_top=2)
    ids = shop.items["item_id"].to_numpy()
    assert [sorted(ids[top].tolist()) for top in ranks.top] == [[10, 11]] * len(task.request_ids)


def test_scores_that_are_not_finite_are_counted(shop):
    task = retrieval_task(shop, max_requests=9, rng=np.random.default_rng(0))
    scores = {13: np.nan, 12: np.inf, 11: 3, 10: 4}
    assert rank_targets(Fixed(scores), task, histories(shop), tables=shop, name="fixed").n_not_finite == 4


def test_a_catalogue_of_other_items_is_refused(shop):
    task = retrieval_task(shop, max_requests=9, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match=r"fixed scores 3 items and lacks 1 of the 4 in items\.parquet"):
        rank_targets(Fixed({13: 1, 12: 2, 11: 3}), task, histories(shop), tables=shop, name="fixed")


def test_a_target_outside_the_catalogue_is_refused(shop):
    with pytest.raises(DataError, match=r"items\.parquet lacks item 10 and 0 other rows'"):
        retrieval_task(shop._replace(items=shop.items[1:]), max_requests=9, rng=np.random.default_rng(0))


def test_the_sample_of_requests_depends_on_the_seed_alone(tables):
    first, again = (retrieval_task(tables, max_requests=40, rng=np.random.default_rng(3)) for _ in range(2))
    assert first.request_ids.size == 40
    assert first.request_ids.tolist() == again.request_ids.tolist()
    assert (np.diff(first.request_ids) > 0).all()


def test_ranking_asks_for_every_candidate_row_of_the_test_requests(shop):
    task = ranking_task(shop)
    assert (task.request.tolist(), task.user.tolist(), task.item.tolist()) == ([0, 0, 1], [0, 0, 1], [0, 3, 3])
    assert task.label.tolist() == [1, 0, 1]


def test_a_task_without_rows_is_absent(shop):
    assert ranking_task(shop._replace(candidates=shop.candidates[:0])) is None
    assert retrieval_task(shop._replace(targets=shop.targets[:0]), max_requests=9, rng=np.random.default_rng(0)) is None
