import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lrm.errors import DataError
from lrm.evaluation.evaluate import evaluate
from lrm.evaluation.gate.gate_inputs import Facts
from lrm.evaluation.held_out import predict, predict_baselines, prepare
from lrm.evaluation.policy import SlicePolicy
from lrm.evaluation.sample_recommendations import recommend
from tests.evaluation.conftest import Oracle, small_policy
from tests.worlds import SIGNALS


def judged(held_out, predictions, policy, *, masked=False, **facts):
    return evaluate(held_out, predictions, policy, seed=0, masked=masked, facts=Facts(**facts))


def test_a_planted_oracle_beats_popularity_and_is_promoted(held_out, oracle, baselines, policy):
    result = judged(held_out, {"challenger": oracle} | baselines, policy)
    assert result["verdict"] == "promote", result["reasons"]
    assert result["models"]["challenger"]["retrieval"]["ndcg@10"]["value"] == 1
    assert {row["against"] for row in result["comparisons"]} == {"popular", "own_history", "ease_markov", "trees"}


def test_an_oracle_replaces_a_blurred_champion_but_not_the_other_way_round(held_out, oracle, baselines, policy):
    blurred = Oracle(held_out.tables, noise=1.0)
    champion = predict(held_out, "champion", retriever=blurred, ranker=blurred)
    better = judged(held_out, {"challenger": oracle, "champion": champion} | baselines, policy)
    worse = judged(held_out, {"challenger": champion, "champion": oracle} | baselines, policy)
    assert (better["verdict"], worse["verdict"]) == ("promote", "keep")
    row = next(row for row in better["comparisons"] if (row["metric"], row["against"]) == ("auc", "champion"))
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert {row["slice"] for row in better["slice_comparisons"]} == {row["slice"] for row in better["slices"]}


def test_an_identical_challenger_is_not_promoted(held_out, oracle, baselines, policy):
    result = judged(held_out, {"challenger": oracle, "champion": oracle} | baselines, policy, is_identical=True)
    assert result["verdict"] == "keep"
    assert "identical" in result["reasons"][0]
    assert all(row["difference"] == 0 for row in result["comparisons"] if row["against"] == "champion")


def test_scores_that_are_not_finite_reject_the_challenger_and_leave_no_numbers(held_out, baselines, policy):
    class Broken(Oracle):
        def candidate_logits(self, request_ids):
            logits = super().candidate_logits(request_ids)
            logits[:3] = np.nan
            return logits

    broken = predict(held_out, "challenger", retriever=Broken(held_out.tables), ranker=Broken(held_out.tables))
    result = judged(held_out, {"challenger": broken} | baselines, policy)
    assert result["verdict"] == "reject"
    assert "The challenger is broken: 3 of 1,080 candidate logits are NaN or infinite." in result["reasons"]
    assert result["models"]["challenger"] == {}
    json.dumps(result, allow_nan=False)


def test_too_few_users_are_inconclusive(held_out, oracle, baselines, policy):
    few = replace(small_policy(min_users=61), slices=SlicePolicy(min_users=61))
    result = judged(held_out, {"challenger": oracle} | baselines, few)
    assert result["verdict"] == "inconclusive"
    assert "60 test users, fewer than the 61" in result["reasons"][0]
    assert not any(row["is_conclusive"] for row in result["slices"])


def test_popularity_itself_does_not_pass(held_out, baselines, policy):
    result = judged(held_out, baselines | {"challenger": baselines["popular"]}, policy)
    assert result["verdict"] != "promote"


def test_a_backfill_promotes_only_where_allowed(held_out, oracle, baselines, policy):
    predictions = {"challenger": oracle} | baselines
    assert judged(held_out, predictions, policy, is_backfill=True)["verdict"] == "keep"
    allowed = small_policy(allow_backfill=True)
    assert judged(held_out, predictions, allowed, is_backfill=True)["verdict"] == "promote"


def test_the_same_seed_gives_the_same_numbers(held_out, oracle, baselines, policy):
    first, again = (judged(held_out, {"challenger": oracle} | baselines, policy) for _ in range(2))
    assert first == again


def test_leave_one_out_also_reports_masked_metrics(held_out, oracle, baselines, policy):
    result = judged(held_out, {"challenger": oracle} | baselines, policy, masked=True)
    assert {"ndcg@10", "ndcg_masked@10", "hit_rate_masked@10"} <= set(result["models"]["popular"]["retrieval"])


def test_without_candidates_retrieval_is_judged_alone(tables, config, policy):
    held_out = prepare(tables._replace(candidates=tables.candidates[:0]), SIGNALS, config, seed=0)
    scorer = Oracle(held_out.tables)
    predictions = {"challenger": predict(held_out, "challenger", retriever=scorer, ranker=scorer)}
    result = judged(held_out, predictions | predict_baselines(held_out, config, seed=0), policy)
    assert list(result["tasks"]) == ["retrieval"]
    assert result["primary"] == {"task": "retrieval", "metric": "ndcg@10"}
    assert result["verdict"] == "promote"
    assert result["calibration"] == []
    assert "trees" not in result["models"]


def test_without_targets_ranking_is_judged_alone(tables, config, policy):
    held_out = prepare(tables._replace(targets=tables.targets[:0]), SIGNALS, config, seed=0)
    scorer = Oracle(held_out.tables)
    predictions = {"challenger": predict(held_out, "challenger", retriever=scorer, ranker=scorer)}
    result = judged(held_out, predictions | predict_baselines(held_out, config, seed=0), policy)
    assert list(result["tasks"]) == ["ranking"]
    assert result["verdict"] == "promote"
    assert recommend(held_out, scorer, k=3, rng=np.random.default_rng(0)) == []


def test_test_labels_of_one_class_are_inconclusive(tables, config, policy):
    candidates = tables.candidates.with_columns(label=pl.lit(0.0, dtype=pl.Float32))
    held_out = prepare(tables._replace(candidates=candidates), SIGNALS, config, seed=0)
    scorer = Oracle(held_out.tables)
    predictions = {"challenger": predict(held_out, "challenger", retriever=scorer, ranker=scorer)}
    result = judged(held_out, predictions | predict_baselines(held_out, config, seed=0), policy)
    assert result["verdict"] == "inconclusive"
    assert "ranking has 0 test users with the rarer outcome, fewer than the 10" in result["reasons"][0]
    assert "Ranking AUC could not be compared" in result["reasons"][1]


def test_a_handful_of_positives_decides_nothing_however_many_users_have_a_row(tables, config, policy):
    of_three = tables.requests.filter(pl.col("user_id") <= 3)["request_id"].implode()
    candidates = tables.candidates.with_columns(pl.col("label") * pl.col("request_id").is_in(of_three))
    held_out = prepare(tables._replace(candidates=candidates, targets=tables.targets[:0]), SIGNALS, config, seed=0)
    lucky, noisy = (Oracle(held_out.tables, noise=noise) for noise in (0.0, 3.0))
    predictions = {
        "challenger": predict(held_out, "challenger", retriever=lucky, ranker=lucky),
        "champion": predict(held_out, "champion", retriever=noisy, ranker=noisy),
    }
    result = judged(held_out, predictions | predict_baselines(held_out, config, seed=0), replace(policy, margins={}))
    assert result["verdict"] == "inconclusive", result["reasons"]
    assert "ranking has 3 test users with the rarer outcome, fewer than the 10" in result["reasons"][0]
    assert result["tasks"]["ranking"]["users"] == 60
    assert not any(row["is_conclusive"] for row in result["slices"])


def test_nothing_to_ask_is_an_error(tables, config):
    with pytest.raises(DataError, match="no test request has a target or a candidate"):
        prepare(tables._replace(candidates=tables.candidates[:0], targets=tables.targets[:0]), SIGNALS, config, seed=0)


def test_a_logit_for_each_row_is_demanded(held_out):
    class Short(Oracle):
        def candidate_logits(self, request_ids):
            return super().candidate_logits(request_ids)[1:]

    with pytest.raises(DataError, match=r"challenger gave logits of shape \(1079,\) for 1080 candidate rows"):
        predict(held_out, "challenger", retriever=None, ranker=Short(held_out.tables))


def test_recommendations_carry_titles_hits_and_the_history_they_came_from(held_out):
    cards = recommend(held_out, Oracle(held_out.tables), k=3, rng=np.random.default_rng(0))
    assert len(cards) == 5
    for card in cards:
        assert [item["hit"] for item in card["recommended"]] == [True, False, False]
        assert card["recommended"][0]["title"].startswith("item ")
        assert len(card["history"]) == 10
        assert [event["time"] for event in card["history"]] == sorted(event["time"] for event in card["history"])
        assert card["history"][-1]["time"] < card["time"]
