from dataclasses import replace

import pytest

from lrm.config import EvaluationConfig
from lrm.evaluation.estimates import Comparison
from lrm.evaluation.gate import Evidence, decide, primary_metric

CONFIG = EvaluationConfig(min_users=50, max_guard_drop=0.005)
NDCG = "ndcg@10"


def row(task, metric, against, low, high, **extra):
    return Comparison(task, metric, against, (low + high) / 2, low, high, 0.01, 100, **extra)


POPULAR = [row("retrieval", NDCG, "popular", 0.1, 0.2), row("ranking", "auc", "popular", 0.1, 0.2)]
GUARDS = [
    row("retrieval", NDCG, "champion", -0.001, 0.01),
    row("retrieval", "recall@10", "champion", -0.001, 0.01),
    row("ranking", "log_loss", "champion", -0.01, 0.001),
    row("ranking", "ece", "champion", -0.01, 0.001),
]
BETTER = row("ranking", "auc", "champion", 0.001, 0.01)


def evidence(*champion_rows, n_users=100, **extra):
    users = n_users if isinstance(n_users, dict) else {"retrieval": n_users, "ranking": n_users}
    known = {"comparisons": [*POPULAR, *champion_rows], "n_users": users, "has_champion": bool(champion_rows)}
    return Evidence(**known | extra)


def test_better_beyond_doubt_with_every_guard_held_promotes():
    verdict, reasons = decide(evidence(BETTER, *GUARDS), CONFIG)
    assert verdict == "promote"
    assert reasons[0].startswith("Ranking AUC is 0.0055 above the champion's (95% interval +0.0010 to +0.0100, 100")


@pytest.mark.parametrize(
    ("case", "verdict", "reason"),
    [
        (evidence(row("ranking", "auc", "champion", -0.001, 0.02), *GUARDS), "keep", "not better beyond doubt"),
        (evidence(row("ranking", "auc", "champion", -0.02, -0.01), *GUARDS), "keep", "0.0150 below the champion's"),
        (evidence(row("ranking", "auc", "champion", 0.0, 0.0), *GUARDS), "keep", "not better beyond doubt"),
        (evidence(*GUARDS), "reject", "Inconclusive: Ranking AUC could not be compared with the champion's"),
        (evidence(BETTER, *GUARDS, is_identical=True), "keep", "identical"),
        (evidence(BETTER, *GUARDS, is_backfill=True), "keep", "backfill"),
        (evidence(BETTER, *GUARDS, is_backfill=True, allow_backfill=True), "promote", "No guarded metric"),
        (evidence(BETTER, *GUARDS, faults=("The challenger is broken: 3 NaN.",)), "reject", "broken"),
        (
            evidence(BETTER, *GUARDS, n_users=49),
            "reject",
            "Inconclusive: retrieval has 49 test users, fewer than the 50",
        ),
        (evidence(), "promote", "no champion yet"),
        (evidence(BETTER, champion_faults=("The champion is broken.",)), "promote", "The champion is broken."),
        (evidence(comparisons=POPULAR[:1]), "reject", "Inconclusive: Ranking AUC could not be compared with that of"),
        (
            evidence(comparisons=[POPULAR[0], row("ranking", "auc", "popular", -0.1, 0.2)]),
            "keep",
            "Ranking AUC is 0.0500 above that of the most popular",
        ),
        (
            evidence(comparisons=[row("retrieval", NDCG, "popular", -0.2, -0.1), BETTER, *GUARDS], has_champion=True),
            "reject",
            "Worse than the most popular items: Retrieval NDCG@10 is 0.1500 below",
        ),
    ],
)
def test_truth_table(case, verdict, reason):
    decision = decide(case, CONFIG)
    assert decision.verdict == verdict
    assert reason in " ".join(decision.reasons)


@pytest.mark.parametrize(
    "guard",
    [
        row("retrieval", NDCG, "champion", -0.006, 0.01),
        row("retrieval", "recall@10", "champion", -0.006, 0.01),
        row("ranking", "log_loss", "champion", -0.01, 0.006),
        row("ranking", "ece", "champion", -0.01, 0.006),
        row("ranking", "auc", "champion", -0.006, 0.01, slice="head items", share_of_users=0.9),
    ],
)
def test_a_guard_that_may_have_fallen_too_far_keeps_the_champion(guard):
    verdict, reasons = decide(evidence(BETTER, guard), CONFIG)
    assert verdict == "keep"
    assert reasons[1].startswith("Guarded, and may have fallen by more than 0.005")


def test_a_small_slice_and_an_unguarded_metric_do_not_decide():
    small = row("ranking", "auc", "champion", -0.5, 0.1, slice="new users", share_of_users=0.2)
    few = Comparison("ranking", "auc", "champion", -0.2, -0.5, 0.1, 0.5, 20, "new users", 0.9)
    unguarded = row("ranking", NDCG, "champion", -0.5, 0.1)
    assert decide(evidence(BETTER, small, few, unguarded), CONFIG).verdict == "promote"


def test_retrieval_decides_where_there_is_no_ranking_task():
    assert primary_metric({"retrieval": 9}, k=20) == ("retrieval", "ndcg@20")
    assert primary_metric({"retrieval": 9, "ranking": 9}, k=20) == ("ranking", "auc")
    rows = [row("retrieval", NDCG, "champion", 0.001, 0.01), row("retrieval", "recall@10", "champion", 0.0, 0.01)]
    alone = evidence(comparisons=[POPULAR[0], *rows], n_users={"retrieval": 100}, has_champion=True)
    assert decide(alone, CONFIG).verdict == "promote"


def test_the_confidence_is_written_in_the_reasons():
    assert "90% interval" in decide(evidence(BETTER), replace(CONFIG, confidence=0.9)).reasons[0]
