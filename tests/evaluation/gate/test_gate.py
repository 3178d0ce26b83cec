from dataclasses import replace

import pytest

from lrm.evaluation.estimates import Comparison
from lrm.evaluation.gate.accuracy_rules import sentence
from lrm.evaluation.gate.alpha_spending import Looks
from lrm.evaluation.gate.gate import decide
from lrm.evaluation.gate.gate_inputs import Facts, GateInputs
from lrm.evaluation.metrics.bootstrap import Interval
from lrm.evaluation.policy import (
    DecisionPolicy,
    FirstModelPolicy,
    GuardrailPolicy,
    LeakagePolicy,
    Policy,
    SlicePolicy,
    StagingPolicy,
)
from lrm.evaluation.staging_results import StagingResults

POLICY = Policy(staging=StagingPolicy(required=False))
NDCG = "ndcg@10"
NAN = float("nan")


def row(task, metric, against, low, high, **extra):
    return Comparison(task, metric, against, (low + high) / 2, low, high, 0.01, 100, **extra)


POPULAR = [row("retrieval", NDCG, "popular", 0.1, 0.2), row("ranking", "auc", "popular", 0.1, 0.2)]
GUARDS = [
    row("retrieval", NDCG, "champion", -0.001, 0.01),
    row("retrieval", "recall@10", "champion", -0.001, 0.01),
    row("retrieval", "concentration@10", "champion", -0.01, 0.01),
    row("ranking", "log_loss", "champion", -0.01, 0.001),
    row("ranking", "ece", "champion", -0.01, 0.001),
]
BETTER = row("ranking", "auc", "champion", 0.001, 0.01)
WON = [BETTER, *GUARDS]
COVERAGE = {"challenger": 0.30, "champion": 0.32}
STAGING = StagingResults(
    n_users=20,
    n_requests=40,
    tolerance=1e-4,
    max_score_difference=1e-6,
    max_probability_difference=1e-7,
    n_skewed=0,
    skewed_signals=(),
    n_expired=7,
    latency_p50_ms=12.0,
    latency_p99_ms=30.0,
    champion_latency_p50_ms=10.0,
    champion_latency_p99_ms=25.0,
    bundle_bytes=4_000_000,
    champion_bundle_bytes=3_000_000,
    fault="",
)


def inputs(*champion_rows, n_users=100, auc=0.8, coverage=COVERAGE, facts=None, **extra):
    values = {
        model: {
            "ranking": {"auc": Interval(auc, NAN, NAN)},
            "retrieval": {"coverage@10": Interval(covered, NAN, NAN)},
        }
        for model, covered in coverage.items()
    }
    known = {
        "comparisons": [*POPULAR, *champion_rows],
        "values": values,
        "n_users": n_users if isinstance(n_users, dict) else {"retrieval": n_users, "ranking": n_users},
        "has_champion": bool(champion_rows),
        "k": 10,
        "facts": Facts(**facts or {}),
    }
    return GateInputs(**known | extra)


def rule_result(decision, rule):
    return next(one for one in decision.rule_results if one.rule == rule)


def test_better_beyond_doubt_with_every_guard_held_promotes():
    decision = decide(inputs(*WON), POLICY)
    assert decision.verdict == "promote"
    assert decision.reasons == [
        "Ranking AUC is better than the champion's by 0.0055 "
        "(95% interval: 0.0010 better to 0.0100 better; 100 users).",
        "Not checked in staging: the model has not answered through the online store and the server.",
    ]
    assert {one.outcome for one in decision.rule_results} == {"passed", "not asked"}


def test_the_gate_reads_nothing_else_and_says_the_same_again():
    assert decide(inputs(*WON), POLICY) == decide(inputs(*WON), POLICY)


@pytest.mark.parametrize(
    ("case", "verdict", "reason"),
    [
        (inputs(row("ranking", "auc", "champion", -0.001, 0.02), *GUARDS), "keep", "not better beyond doubt"),
        (inputs(row("ranking", "auc", "champion", -0.02, -0.01), *GUARDS), "keep", "than the champion's by 0.0150"),
        (inputs(row("ranking", "auc", "champion", 0.0, 0.0), *GUARDS), "keep", "not better beyond doubt"),
        (inputs(row("ranking", "auc", "champion", 0.0001, 0.0005), *GUARDS), "keep", "less than the 0.001 that a"),
        (inputs(*GUARDS), "inconclusive", "Ranking AUC could not be compared with the champion's"),
        (inputs(row("ranking", "auc", "champion", NAN, NAN), *GUARDS), "inconclusive", "Ranking AUC could not be"),
        (inputs(BETTER, *GUARDS[1:]), "inconclusive", "Retrieval NDCG@10 could not be compared with the champion's"),
        (inputs(*WON, facts={"is_identical": True}), "keep", "identical"),
        (inputs(*WON, facts={"is_backfill": True}), "keep", "backfill"),
        (inputs(*WON, faults=("The challenger is broken: 3 NaN.",)), "reject", "broken"),
        (inputs(*WON, n_users=49), "inconclusive", "retrieval has 49 test users, fewer than the 50"),
        (inputs(*WON, champion_faults=("The champion cannot be scored: a file is missing.",)), "inconclusive",
         "a file is missing"),
        (inputs(*WON, facts={"data_faults": ("the challenger was made from snapshot a.",)}), "inconclusive",
         "made from snapshot a"),
        (inputs(*WON, facts={"leaks": ("Signal 'x' has a timestamp after the cutoff.",)}), "reject", "Signal 'x'"),
        (inputs(*WON, facts={"suspicions": ("Signal 'x' may leak the outcome.",)}), "inconclusive", "Signal 'x'"),
        (inputs(*WON, coverage=COVERAGE | {"challenger": 0.2}), "keep", "62% (20.00% of the catalogue, 32.00% bef"),
        (inputs(*WON, coverage={"challenger": 0.3}), "inconclusive", "catalogue coverage could not be compared"),
        (inputs(*WON, auc=0.49), "reject", "Ranking AUC is 0.4900, and the policy asks for at least 0.5"),
        (inputs(*WON, auc=NAN), "inconclusive", "Ranking AUC could not be computed"),
        (inputs(), "promote", "no champion yet"),
        (inputs(comparisons=POPULAR[:1]), "inconclusive", "Ranking AUC could not be compared with that of the most"),
        (
            inputs(comparisons=[POPULAR[0], row("ranking", "auc", "popular", -0.1, 0.2)]),
            "keep",
            "Ranking AUC is better than that of the most popular items by 0.0500",
        ),
        (
            inputs(comparisons=[row("retrieval", NDCG, "popular", -0.2, -0.1), *WON], has_champion=True),
            "reject",
            "Worse than the most popular items: Retrieval NDCG@10 is worse than that of the most popular items by",
        ),
    ],
)  # fmt: skip
def test_truth_table(case, verdict, reason):
    decision = decide(case, POLICY)
    assert decision.verdict == verdict
    reasons = decision.reasons if verdict == "promote" else decision.reasons[:1]
    assert any(reason in told for told in reasons)


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        ({}, "promote", "Ranking AUC"),
        ({"n_skewed": 3, "skewed_signals": ("hour", "age")}, "reject", "in 3 answers; hour, age differ"),
        ({"max_score_difference": 0.2}, "reject", "disagree beyond 0.0001"),
        ({"max_score_difference": NAN}, "inconclusive", "not finite numbers"),
        ({"latency_p50_ms": 16.0}, "keep", "1.60 times (16, before 10)"),
        ({"latency_p50_ms": NAN}, "inconclusive", "latency against the champion could not be measured"),
        ({"latency_p99_ms": 501.0}, "keep", "501 ms; asked: at most 500 ms"),
        ({"bundle_bytes": 2e9, "champion_bundle_bytes": 1.5e9}, "reject", "2,000 MB; asked: at most 1,024 MB"),
        (
            {"bundle_bytes": 7_000_000},
            "keep",
            "Size against the champion: 2.33 times (7, before 3); asked: at most 2 times (MB)",
        ),
        (
            {"champion_latency_p50_ms": None, "champion_fault": "the server did not start"},
            "inconclusive",
            "latency against the champion could not be measured: the champion was not checked in staging (the server",
        ),
        ({"champion_bundle_bytes": None}, "inconclusive", "size against the champion could not be measured"),
        ({"n_requests": 0}, "promote", "Ranking AUC"),
    ],
)
def test_a_staging_check_stops_skew_slowness_and_size(found, verdict, reason):
    decision = decide(inputs(*WON, facts={"staging": STAGING._replace(**found)}), POLICY)
    assert decision.verdict == verdict
    assert reason in decision.reasons[0]


def test_without_a_champion_there_is_nothing_to_be_as_quick_as():
    alone = STAGING._replace(champion_latency_p50_ms=None, champion_bundle_bytes=None)
    decision = decide(inputs(facts={"staging": alone}), POLICY)
    assert decision.verdict == "promote"
    assert rule_result(decision, "Latency against the champion").outcome == "not asked"


def test_expired_values_of_a_staging_check_are_stated():
    decision = decide(inputs(*WON, facts={"staging": STAGING}), POLICY)
    assert "7 expired values became null" in rule_result(decision, "Online as offline").seen


def test_where_a_staging_check_is_required_as_it_is_by_default_none_is_inconclusive():
    decision = decide(inputs(*WON), Policy())
    assert decision.verdict == "inconclusive"
    assert decision.reasons[0].startswith("Inconclusive: Not checked in staging")


def test_a_model_that_cannot_be_served_is_rejected_also_where_no_staging_check_is_required():
    broken = STAGING._replace(n_requests=0, fault="the server did not start")
    decision = decide(inputs(*WON, facts={"staging": broken}), POLICY)
    assert decision.verdict == "reject"
    assert "The model cannot be served: the server did not start" in decision.reasons


@pytest.mark.parametrize(
    ("kept", "verdict", "reason"),
    [
        ({"age": 0.6}, "promote", "Ranking AUC"),
        ({"age": 0.4}, "keep", "Tokens keep 40% of the critical signal 'age'"),
        ({}, "inconclusive", "the critical signal 'age' was not measured"),
    ],
)
def test_tokens_must_keep_a_critical_signal(kept, verdict, reason):
    policy = replace(POLICY, guardrails=GuardrailPolicy(critical_signals=("age",), min_recovered=0.5))
    decision = decide(inputs(*WON, facts={"recovered": kept}), policy)
    assert decision.verdict == verdict
    assert reason in decision.reasons[0]


@pytest.mark.parametrize(
    "guard",
    [
        row("retrieval", NDCG, "champion", -0.006, 0.01),
        row("retrieval", "recall@10", "champion", -0.006, 0.01),
        row("retrieval", "concentration@10", "champion", -0.01, 0.06),
        row("ranking", "log_loss", "champion", -0.01, 0.006),
        row("ranking", "ece", "champion", -0.01, 0.006),
    ],
)
def test_a_guard_that_may_have_fallen_too_far_keeps_the_champion(guard):
    others = [one for one in GUARDS if one.metric != guard.metric]
    verdict, reasons, _ = decide(inputs(BETTER, guard, *others), POLICY)
    assert verdict == "keep"
    assert reasons[0].startswith("Guarded, and may have got worse by more than 0.0")
    assert reasons[1].startswith("Ranking AUC is better than the champion's by 0.0055")


@pytest.mark.parametrize(
    ("metric", "low", "high", "said"),
    [
        ("ece", 0.0077, 0.0277, "worse than the champion's by 0.0177 (95% interval: 0.0277 worse to 0.0077 worse; 100"),
        ("log_loss", -0.02, 0.01, "better than the champion's by 0.0050 (95% interval: 0.0100 worse to 0.0200 better;"),
        ("auc", -0.02, 0.01, "worse than the champion's by 0.0050 (95% interval: 0.0200 worse to 0.0100 better; 100"),
        ("concentration@10", 0.0, 0.0, "equal to the champion's (95% interval: no difference to no difference; 100"),
    ],
)
def test_a_difference_is_said_to_be_better_or_worse_whichever_way_the_metric_counts(metric, low, high, said):
    assert said in sentence(row("ranking", metric, "champion", low, high), POLICY)


def test_a_margin_shows_what_it_saw_in_the_same_words():
    worse = [one for one in GUARDS if one.metric != "ece"] + [row("ranking", "ece", "champion", 0.0077, 0.0277)]
    decision = decide(inputs(BETTER, *worse), POLICY)
    assert rule_result(decision, "Ranking calibration error against the champion").seen == (
        "0.0177 worse (0.0277 worse to 0.0077 worse)"
    )


def on_slice(name, p, *, n_users=100, low=-0.05, high=-0.02):
    place = {"slice": name, "p_unharmed": p}
    return Comparison("ranking", "auc", "champion", (low + high) / 2, low, high, 0.01, n_users, **place)


def test_a_slice_that_fell_beyond_doubt_keeps_the_champion_and_is_named():
    decision = decide(inputs(*WON, on_slice("new users", 0.001), on_slice("returning users", 0.9)), POLICY)
    assert decision.verdict == "keep"
    assert decision.reasons[0].startswith(
        "A slice got worse by more than 0.01: Ranking AUC on new users is worse than the champion's by 0.0350"
    )


def test_holm_asks_more_of_the_first_of_many_slices():
    many = [on_slice(f"slice {i}", 0.9) for i in range(19)]
    verdict = {
        p: decide(inputs(*WON, on_slice("odd", p), *many), POLICY).verdict for p in (0.0024, 0.0026)
    }  # 0.05 / 20 is the bar
    assert verdict == {0.0024: "keep", 0.0026: "promote"}
    alone = replace(POLICY, slices=SlicePolicy(correction="none"))
    assert decide(inputs(*WON, on_slice("odd", 0.0026), *many), alone).verdict == "keep"


def test_after_the_first_fallen_slice_holm_asks_less_of_the_next_and_bonferroni_does_not():
    rows = [on_slice("a", 0.01), on_slice("b", 0.02), on_slice("c", 0.9)]
    fallen = {
        correction: sum(
            one.rule.startswith("Slice ")
            for one in decide(
                inputs(*WON, *rows), replace(POLICY, slices=SlicePolicy(correction=correction))
            ).rule_results
        )
        for correction in ("holm", "bonferroni")
    }
    assert fallen == {"holm": 2, "bonferroni": 1}  # .02 is below .05 / 2, not below .05 / 3


def test_a_tiny_slice_is_not_judged_and_where_it_is_required_nothing_can_be_concluded():
    tiny = on_slice("new users", 0.0001, n_users=20)
    decision = decide(inputs(*WON, tiny), POLICY)
    assert decision.verdict == "promote"
    assert rule_result(decision, "Slices").seen == "0 judged, 1 with fewer than 50 users or no number"
    required = replace(POLICY, slices=SlicePolicy(required=("new users",)))
    decision = decide(inputs(*WON, tiny), required)
    assert decision.verdict == "inconclusive"
    assert "the slice 'new users', which the policy requires, is not there or has fewer than 50" in decision.reasons[0]


def test_retrieval_decides_where_there_is_no_ranking_task_and_the_policy_names_the_metric():
    rows = [row("retrieval", NDCG, "champion", 0.001, 0.01), *GUARDS[1:3]]
    alone = inputs(comparisons=[POPULAR[0], *rows], n_users={"retrieval": 100}, has_champion=True)
    assert alone.main_metrics(POLICY) == [("retrieval", NDCG)]
    assert decide(alone, POLICY).verdict == "promote"
    recall = DecisionPolicy(primary={"ranking": "auc", "retrieval": "recall"}, tasks=("retrieval", "ranking"))
    assert inputs().main_metrics(replace(POLICY, decision=recall)) == [
        ("retrieval", "recall@10"),
        ("ranking", "auc"),
    ]


def test_a_backfill_promotes_only_where_the_policy_allows_it():
    allowed = replace(POLICY, decision=DecisionPolicy(allow_backfill=True))
    decision = decide(inputs(*WON, facts={"is_backfill": True}), allowed)
    assert decision.verdict == "promote"
    assert "This is a backfill, which the policy allows to promote." in decision.reasons


def test_a_first_model_must_beat_every_baseline_that_the_policy_names():
    policy = replace(POLICY, first_model=FirstModelPolicy(baselines=("popular", "trees")))
    trees = row("ranking", "auc", "trees", -0.01, 0.01)
    assert decide(inputs(comparisons=[*POPULAR, trees]), policy).verdict == "keep"
    assert decide(inputs(comparisons=[*POPULAR, trees]), POLICY).verdict == "promote"


def test_a_later_look_decides_by_its_own_wider_interval_and_says_so():
    looks = Looks(n_earlier=3, new=0.0)
    wider = row("ranking", "auc", "champion", -0.001, 0.012)._replace(confidence=looks.confidence(0.95))
    decision = decide(inputs(*WON, at_look=(wider,), facts={"looks": looks}), POLICY)
    assert decision.verdict == "keep"
    assert "(99.58% interval: 0.0010 worse to 0.0120 better" in decision.reasons[0]
    assert rule_result(decision, "Looks at these test data").seen == (
        "3 other models were judged on some of them before, 0% of the requests are new: 99.58% intervals decide"
    )
    assert (
        rule_result(decide(inputs(*WON), POLICY), "Looks at these test data").seen == "the first: 95% intervals decide"
    )


def test_a_first_model_after_other_first_models_must_beat_the_baseline_at_its_look():
    wider = row("ranking", "auc", "popular", -0.01, 0.3)._replace(confidence=0.99)
    assert decide(inputs(at_look=(wider,), facts={"looks": Looks(2, 0.0)}), POLICY).verdict == "keep"
    assert decide(inputs(), POLICY).verdict == "promote"


def test_the_confidence_is_written_in_the_reasons():
    ninety = replace(POLICY, decision=DecisionPolicy(confidence=0.9), leakage=LeakagePolicy(max_signal_auc=1.0))
    assert "90% interval" in decide(inputs(*WON), ninety).reasons[0]


def test_every_rule_says_what_was_asked_and_what_was_seen_and_every_stop_has_a_reason():
    cases = [inputs(*WON), inputs(), inputs(*GUARDS), inputs(*WON, facts={"staging": STAGING})]
    for case in cases:
        for one in decide(case, POLICY).rule_results:
            assert one.rule
            assert one.asked
            assert one.seen
            assert one.reason or one.verdict == "promote"


def test_weights_that_a_person_rolled_back_are_kept_whatever_they_reach():
    told = "ann@desk rolled version 3 back at 2026-01-05T09:00: returns rose"
    decision = decide(inputs(*WON, facts={"rolled_back": told}), POLICY)
    assert decision.verdict == "keep"
    assert decision.reasons[0].startswith(f"These very weights were in service before: {told}. No run promotes")
    assert decide(inputs(*WON, facts={"rolled_back": ""}), POLICY).verdict == "promote"
