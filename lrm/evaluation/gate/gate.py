"""The gate: inputs and a policy in, a verdict with reasons out, and nothing else read or changed.

`promote`: every rule holds. `keep`: the challenger did not show that it is better, or something guarded got worse.
`inconclusive`: these data or this champion cannot tell, so the champion stays too. `reject`: the challenger is not fit
to serve. docs/promotion.md lists the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrm.evaluation.gate import accuracy_rules, guardrails, plausibility
from lrm.evaluation.gate.gate_inputs import INCONCLUSIVE, KEEP, PROMOTE, REJECT, GateInputs, RuleResult
from lrm.evaluation.policy import Policy

Rule = Callable[[GateInputs, Policy], list[RuleResult]]

RULES: tuple[Rule, ...] = (
    accuracy_rules.soundness,
    accuracy_rules.leakage,
    accuracy_rules.enough_users,
    accuracy_rules.looks,
    accuracy_rules.gains,
    accuracy_rules.baselines,
    accuracy_rules.floors,
    accuracy_rules.margins,
    accuracy_rules.slices,
    plausibility.plausibility,
    guardrails.coverage,
    guardrails.critical_signals,
    guardrails.staging,
    guardrails.backfill,
    guardrails.rolled_back,
)
SEVERITY = (REJECT, INCONCLUSIVE, KEEP, PROMOTE)
"""Of several findings the first of these decides."""


class Decision(NamedTuple):
    """The answer, sentences that say why, and what every rule saw."""

    verdict: str
    reasons: list[str]
    rule_results: list[RuleResult]


def decide(inputs: GateInputs, policy: Policy) -> Decision:
    """Judge the challenger."""
    rule_results = [rule_result for rule in RULES for rule_result in rule(inputs, policy)]
    by_weight = sorted(rule_results, key=lambda rule_result: SEVERITY.index(rule_result.verdict))
    return Decision(
        by_weight[0].verdict, [rule_result.reason for rule_result in by_weight if rule_result.reason], rule_results
    )
