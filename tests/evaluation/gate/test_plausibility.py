"""A gain or an area that is too good to be true is not promoted, and what carries it is named."""

from dataclasses import replace

import pytest

from lrm.evaluation.gate.gate import decide
from lrm.evaluation.gate.gate_inputs import Facts
from lrm.evaluation.gate.plausibility import carrier
from lrm.evaluation.policy import LeakagePolicy, Policy
from lrm.evaluation.signals.target_leakage import suspicions
from tests.evaluation.gate.test_gate import BETTER, GUARDS, POLICY, WON, inputs, row, rule_result
from tests.evaluation.planted import COPY, HONEST, LEAKY, report_of, train, write_planted

LEAK = "The ranking rests most on signal 'outcome_copy': without it the AUC falls by 0.210, and alone it reaches 0.923."


def ledger(**importances):
    return {
        "signals": [
            {"signal": name, "importance": {"ranking": {"auc": {"value": at}}}} for name, at in importances.items()
        ]
    }


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (inputs(row("ranking", "auc", "champion", 0.16, 0.17), *GUARDS, facts={"carrier": LEAK}), "a gain of 0.1650"),
        (inputs(*WON, auc=0.965, facts={"carrier": LEAK}), "an AUC of 0.9650 is more than outcomes can be known"),
        (inputs(auc=0.965, facts={"carrier": LEAK}), "an AUC of 0.9650 is more than outcomes can be known"),
        (inputs(BETTER, row("retrieval", "ndcg@10", "champion", 0.1, 0.3), *GUARDS[1:]), "a gain of 0.2000 in Retr"),
    ],
)
def test_what_is_too_good_is_inconclusive_and_the_signal_that_carries_it_is_named(case, said):
    decision = decide(case, POLICY)
    assert decision.verdict == "inconclusive"
    assert said in decision.reasons[0]
    assert (case.facts.carrier or "Which signal carries it was not measured.") in decision.reasons[0]
    assert "a person may approve" in decision.reasons[0]


def test_a_real_gain_is_plausible():
    decision = decide(inputs(*WON), POLICY)
    assert decision.verdict == "promote"
    assert rule_result(decision, "Gain is plausible: Ranking AUC").seen == "+0.0055"


def test_a_policy_without_a_bar_for_what_decides_cannot_tell():
    silent = replace(POLICY, leakage=LeakagePolicy(max_gain={"retrieval": {"ndcg": 0.1}}))
    decision = decide(inputs(*WON), silent)
    assert decision.verdict == "inconclusive"
    assert "leakage.max_gain says nothing of ranking auc" in decision.reasons[0]


def test_a_first_model_is_promoted_with_a_word_on_a_signal_that_carries_much():
    decision = decide(inputs(facts={"carrier": LEAK, "is_carried": True}), POLICY)
    assert decision.verdict == "promote"
    assert any(reason.startswith(LEAK) for reason in decision.reasons)
    assert not any(LEAK in reason for reason in decide(inputs(facts={"carrier": LEAK}), POLICY).reasons)


def test_the_signal_that_carries_most_is_that_whose_loss_costs_most():
    bars = LeakagePolicy()
    assert carrier(ledger(age=0.01, outcome_copy=0.21), {"outcome_copy": 0.923}, bars) == (LEAK, True)
    assert carrier(ledger(age=0.01), {}, bars)[1] is False
    assert "'age' orders outcomes best, with an AUC of 0.610" in carrier(None, {"age": 0.61, "hour": 0.5}, bars)[0]
    assert carrier(None, {"age": float("nan")}, bars) == ("", False)
    assert Facts().carrier == ""


def test_a_copy_of_the_outcome_with_noise_that_no_signal_rule_finds_is_named_by_its_worth(tmp_path):
    recommender = train(write_planted(tmp_path / "leaky", LEAKY, n_wrong=0.08), tmp_path)
    found = report_of(tmp_path / "leaky", recommender)
    alone = {each["signal"]: each["alone_auc"] for each in found["signals"]}
    assert 0.85 < alone[COPY.name] < 0.95
    assert suspicions(recommender.signals, alone, Policy().leakage) == []
    told, is_carried = carrier(found, alone, LeakagePolicy())
    assert told.startswith("The ranking rests most on signal 'outcome_copy'")
    assert is_carried
    assert {one.name for one in HONEST} < set(alone)
