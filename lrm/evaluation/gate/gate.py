"""The gate: evidence and a policy in, a verdict with reasons out, and nothing else read or changed.

`promote`: every rule holds. `keep`: the challenger did not show that it is better, or something guarded got worse.
`inconclusive`: these data or this champion cannot tell, so the champion stays too. `reject`: the challenger is not fit
to serve. docs/promotion.md lists the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lrm.evaluation.gate import accuracy_rules, guardrails, plausibility
from lrm.evaluation.gate.gate_inputs import INCONCLUSIVE, KEEP, PROMOTE, REJECT, Evidence, Finding
from lrm.evaluation.policy import Policy

Rule = Callable[[Evidence, Policy], list[Finding]]

RULES: tuple[Rule, ...] = (
    accuracy_rules.soundness,
    accuracy_rules.honesty,
    accuracy_rules.enough_users,
    accuracy_rules.looks,
    accuracy_rules.gains,
    accuracy_rules.baselines,
    accuracy_rules.floors,
    accuracy_rules.margins,
    accuracy_rules.slices,
    plausibility.plausibility,
    guardrails.coverage,
    guardrails.retention,
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
    findings: list[Finding]


def decide(evidence: Evidence, policy: Policy) -> Decision:
    """Judge the challenger."""
    findings = [finding for rule in RULES for finding in rule(evidence, policy)]
    by_weight = sorted(findings, key=lambda finding: SEVERITY.index(finding.verdict))
    return Decision(by_weight[0].verdict, [finding.reason for finding in by_weight if finding.reason], findings)
