"""Retrieval beside what a ranker makes of the user's own history: worked by hand, and absent with a word why."""

import numpy as np
import pytest

from lrm.evaluation.baselines.history_rerankers import SortedHistory, own_candidates, predict_rerankers
from lrm.evaluation.evaluate import evaluate
from lrm.evaluation.held_out import Predictions, predict, prepare
from tests.evaluation.conftest import Oracle
from tests.worlds import SIGNALS


@pytest.fixture(scope="module")
def trees(held_out):
    return Predictions(None, -np.arange(held_out.ranking.label.size, dtype=np.float32), "", 0.0)


def test_own_candidates_come_first_by_their_logits_and_all_else_by_popularity(held_out, oracle):
    own = own_candidates(held_out.ranking, held_out.seen)
    request_id = next(request for request, rows in own.items() if rows.size == 4)
    rows, asked = own[request_id], held_out.ranking.request_ids[held_out.ranking.request] == request_id
    held = set(held_out.seen.items(request_id))
    assert [item in held for item in held_out.ranking.item[asked]].count(True) == 4 < asked.sum()
    assert set(held_out.ranking.item[rows]) <= held
    lists = SortedHistory(held_out, own, oracle.logits)
    (scores,) = lists.item_scores(np.array([request_id]))
    order = np.argsort(-scores, kind="stable")
    assert order[: rows.size].tolist() == held_out.ranking.item[rows][np.argsort(-oracle.logits[rows])].tolist()
    (without,) = SortedHistory(held_out, {}, oracle.logits).item_scores(np.array([request_id]))
    rest = [item for item in np.argsort(-without, kind="stable") if item not in held_out.ranking.item[rows]]
    assert order[rows.size :].tolist() == rest
    assert (np.diff(without[rest]) <= 0).all()


def test_the_lists_are_compared_with_the_challengers_and_say_of_how_many(held_out, oracle, baselines, policy):
    found, absent = predict_rerankers(held_out, {"challenger": oracle} | baselines)
    assert (list(found), absent) == (["history_by_ranker", "history_by_trees"], [])
    result = evaluate(held_out, {"challenger": oracle} | baselines | found, policy, seed=0, masked=False)
    cell = result["models"]["history_by_ranker"]["retrieval"]["ndcg@10"]
    assert set(cell) == {"value", "low", "high", "n_users", "n_requests"}
    assert (cell["n_users"], cell["n_requests"]) == (60, held_out.retrieval.request_ids.size)
    assert {"history_by_ranker", "history_by_trees"} <= {row["against"] for row in result["comparisons"]}
    assert "ranking" not in result["models"]["history_by_ranker"]


def test_a_better_ranker_makes_the_better_list(held_out, trees):
    """Logits that know the targets put those of them that the history holds first."""
    targets = np.zeros((held_out.ranking.request_ids.size, held_out.tables.items.height))
    place = np.searchsorted(held_out.ranking.request_ids, held_out.retrieval.request_ids[held_out.retrieval.request])
    targets[place, held_out.retrieval.item] = 1
    knowing = Predictions(None, targets[held_out.ranking.request, held_out.ranking.item], "", 0.0)
    found, _ = predict_rerankers(held_out, {"challenger": knowing, "trees": trees})
    mean_rank = {name: prediction.ranks.plain.mean() for name, prediction in found.items()}
    assert mean_rank["history_by_ranker"] < mean_rank["history_by_trees"]


def test_a_ndcg_within_candidates_counts_only_the_requests_that_have_a_positive(held_out, oracle, policy):
    has_positive = np.bincount(held_out.ranking.request, held_out.ranking.label) > 0
    cells = evaluate(held_out, {"challenger": oracle}, policy, seed=0, masked=False)["models"]["challenger"]["ranking"]
    assert 0 < has_positive.sum() < has_positive.size
    assert cells["ndcg@10"]["n_requests"] == has_positive.sum()
    assert {cells[metric]["n_requests"] for metric in ("auc", "log_loss", "ece")} == {has_positive.size}


def whys(held_out, predictions):
    found, absent = predict_rerankers(held_out, predictions)
    assert found == {}
    assert [(row["model"], row["task"]) for row in absent] == [
        ("history_by_ranker", "retrieval"),
        ("history_by_trees", "retrieval"),
    ]
    return [row["why"] for row in absent]


def test_lists_that_cannot_be_made_say_why(held_out, tables, oracle, trees, config):
    both = {"challenger": oracle, "trees": trees}
    assert set(whys(held_out._replace(ranking=None), both)) == {"the data have no ranking task"}
    new = tables.candidates.join(tables.requests.select("request_id", "user_id"), on="request_id").join(
        tables.events.select("user_id", "item_id").unique(), on=["user_id", "item_id"], how="anti"
    )
    only_new = prepare(tables._replace(candidates=new.drop("user_id")), SIGNALS, config, seed=0)
    predictions = {"challenger": predict(only_new, "challenger", retriever=None, ranker=Oracle(only_new.tables))}
    n = only_new.retrieval.request_ids.size
    assert set(whys(only_new, predictions)) == {
        f"0 of {n:,} requests have a candidate from their own history, less than half"
    }
    broken = Predictions(None, None, "broken", 0.0)
    assert whys(held_out, {"challenger": broken}) == [
        "the ranking head gave no scores of candidates",
        "the boosted trees gave no scores of candidates",
    ]
    assert predict_rerankers(held_out._replace(retrieval=None), both) == ({}, [])
