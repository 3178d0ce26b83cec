import numpy as np
import polars as pl
import pytest

from lrm.errors import DataError
from lrm.evaluation.baselines.simple import EaseMarkov, OwnHistory, Popular
from lrm.evaluation.baselines.trees import Trees
from lrm.evaluation.metrics.metrics import auc
from lrm.evaluation.predictions import histories
from tests.worlds import SIGNALS, renamed


def of(predictions, task, metric="hit"):
    return float((predictions.ranks.plain <= 3).mean()) if metric == "hit" else auc(predictions.logits, task.label)


def test_the_chain_finds_the_planted_cycle_and_popularity_does_not(held_out, baselines):
    assert of(baselines["ease_markov"], held_out.retrieval) > 0.8
    assert of(baselines["popular"], held_out.retrieval) < 0.3


def test_trees_find_the_planted_signal_and_popularity_does_not(held_out, baselines):
    assert of(baselines["trees"], held_out.ranking, "auc") > 0.9
    assert 0.4 < of(baselines["popular"], held_out.ranking, "auc") < 0.6


def test_the_future_changes_no_baseline(held_out, tables):
    test = tables.requests.filter(split="test")
    request = test["request_id"].to_numpy()[:1].copy()
    until = test["event_time"][0]
    poisoned = tables.events.with_columns(
        item_id=pl.when((pl.col("event_time") >= until) & (pl.col("split") == "test"))
        .then(pl.lit(100))
        .otherwise(pl.col("item_id"))
    )
    for kind in (Popular, OwnHistory, EaseMarkov):
        plain, other = (
            kind(known, histories(known)).item_scores(request) for known in (tables, tables._replace(events=poisoned))
        )
        np.testing.assert_array_equal(plain, other)


def test_popularity_counts_a_recent_event_more(tables):
    events = tables.events.filter(pl.col("split") == "train").sort("event_time")
    events = pl.concat([events[:2].with_columns(item_id=100), events[-1:].with_columns(item_id=101)])
    known = tables._replace(events=events.sort("user_id", "event_time"))
    scores = Popular(known, histories(known)).item_scores(np.array([0]))[0]
    assert scores[1] == 1
    assert scores[0] == pytest.approx(2 * 0.5**8)


def test_own_history_ranks_what_was_chosen_most_first_and_all_else_by_popularity(held_out):
    model = OwnHistory(held_out.tables, held_out.seen)
    request_id = held_out.retrieval.request_ids[0]
    scores = model.item_scores(np.array([request_id]))[0]
    seen = np.unique(held_out.seen.items(request_id))
    assert scores[seen].min() > np.delete(scores, seen).max()
    popular = Popular(held_out.tables, held_out.seen).item_scores(np.array([request_id]))[0]
    unseen = np.setdiff1d(np.arange(scores.size), seen)
    assert np.argsort(-scores[unseen]).tolist() == np.argsort(-popular[unseen]).tolist()


def test_items_outside_the_most_frequent_follow_behind(held_out):
    model = EaseMarkov(held_out.tables, held_out.seen, n_items=5)
    scores = model.item_scores(held_out.retrieval.request_ids[:20])
    trained = held_out.tables.events.filter(split="train")["item_id"].value_counts(sort=True)
    kept = np.sort(np.argsort(-scores, axis=1)[:, :5], axis=1)
    assert (kept == kept[0]).all()
    assert trained["count"][0] in trained.filter(pl.col("item_id").is_in((kept[0] + 100).tolist()))["count"].to_list()


def test_without_training_events_no_baseline_is_fitted(tables):
    known = tables._replace(events=tables.events.filter(pl.col("split") != "train"))
    for kind in (Popular, OwnHistory, EaseMarkov):
        with pytest.raises(DataError, match="no event is in the training split"):
            kind(known, histories(known))


def test_trees_give_the_same_logits_for_the_same_seed(held_out):
    first, again = (Trees(held_out.tables, SIGNALS, n_trees=5, seed=1) for _ in range(2))
    rows = held_out.ranking.request_ids
    np.testing.assert_array_equal(first.candidate_logits(rows), again.candidate_logits(rows))


def test_trees_read_every_kind_of_signal_and_nulls(held_out):
    trees = Trees(held_out.tables, SIGNALS, n_trees=5, seed=0)
    # age, country, hour; title, colour, size of the bag and its 8 tags, 4 of the vector, price, affinity
    assert trees.n_features == 3 + 2 + 9 + 4 + 2


def test_trees_read_signals_that_are_called_count_and_category(held_out):
    trees, again = (
        Trees(*world, n_trees=2, seed=0).candidate_logits(held_out.ranking.request_ids)
        for world in ((held_out.tables, SIGNALS), renamed(held_out.tables, country="count", tags="category"))
    )
    assert (trees == again).all()


def test_trees_do_without_validation_rows(tables, held_out):
    requests = tables.requests.with_columns(split=pl.col("split").replace("validation", "train"))
    trees = Trees(tables._replace(requests=requests), SIGNALS, n_trees=4, seed=0)
    assert trees.n_rounds == 4
    assert np.isfinite(trees.candidate_logits(held_out.ranking.request_ids)).all()
