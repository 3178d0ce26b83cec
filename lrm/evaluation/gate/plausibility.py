"""The rule about numbers that are too good: a leak with some noise shows in no single signal, but in what it brings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lrm.evaluation.estimates import CHALLENGER, CHAMPION
from lrm.evaluation.gate.accuracy_rules import gain, name
from lrm.evaluation.gate.gate_inputs import GateInputs, RuleResult, not_asked, passed, unclear
from lrm.evaluation.policy import RANKING, LeakagePolicy, Policy

WHAT_NEXT = "Find out when its value is written; where it is known at the request, a person may approve the version."


def plausibility(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """An area or a gain that no honest model reaches is a leak until a person says otherwise."""
    if inputs.faults:
        return []
    found = [_area(inputs, policy.leakage)] if RANKING in inputs.n_users else []
    if not inputs.has_champion:
        caution = f"{inputs.facts.carrier} {WHAT_NEXT}" if inputs.facts.is_carried else ""
        return [*found, not_asked("Gain is plausible", "a gain as real ones are", "no champion to gain over", caution)]
    for task, metric in inputs.main_metrics(policy) if inputs.has_usable_champion() else ():
        found.append(_gain(inputs, policy, task, metric))
    return found


def _area(inputs: GateInputs, bars: LeakagePolicy) -> RuleResult:
    value, bar = inputs.value(CHALLENGER, RANKING, "auc"), bars.max_signal_auc
    rule, asked = "The model is not too good", f"an AUC below {bar:g}"
    if math.isnan(value):
        return unclear(rule, asked, "not a number", f"{name(RANKING, 'auc')} could not be computed.")
    if value < bar:
        return passed(rule, asked, f"{value:.4f}")
    reason = f"an AUC of {value:.4f} is more than outcomes can be known ({bar:g} is the bar): it looks like a leak."
    return unclear(rule, asked, f"{value:.4f}", f"{reason} {_carrier(inputs)}")


def _gain(inputs: GateInputs, policy: Policy, task: str, metric: str) -> RuleResult:
    most = policy.leakage.max_gain.get(task, {}).get(metric.partition("@")[0])
    rule = f"Gain is plausible: {name(task, metric)}"
    row = inputs.against(CHAMPION, task, metric)
    if most is None:
        return unclear(rule, "a gain as real ones are", "no bar", f"leakage.max_gain says nothing of {task} {metric}.")
    asked = f"a gain of {most:g} at most"
    if row is None or not math.isfinite(row.difference):
        return unclear(rule, asked, "not a number", f"{name(task, metric)} could not be compared with the champion's.")
    value = gain(row).value
    if value <= most:
        return passed(rule, asked, f"{value:+.4f}")
    reason = (
        f"a gain of {value:.4f} in {name(task, metric)} is more than real ones are ({most:g}): it looks like a leak."
    )
    return unclear(rule, asked, f"{value:+.4f}", f"{reason} {_carrier(inputs)}")


def _carrier(inputs: GateInputs) -> str:
    return f"{inputs.facts.carrier or 'Which signal carries it was not measured.'} {WHAT_NEXT}"


def carrier(report: Mapping[str, Any] | None, alone: Mapping[str, float], bars: LeakagePolicy) -> tuple[str, bool]:
    """What a ranking rests on most, as a sentence, and whether it loses more without that than a gain may be.

    Args:
        report: the feature report, whose worths tell it; None where none was made.
        alone: how well each signal orders outcomes by itself, which tells it then.
        bars: the policy's.
    """
    importances = {
        row["signal"]: row["importance"][RANKING]["auc"]["value"] or 0.0
        for row in (report["signals"] if report is not None else ())
        if RANKING in row["importance"]
    }
    most = max(importances, key=lambda signal: importances[signal], default="")
    if most and importances[most] > 0:
        by_itself = f", and alone it reaches {alone[most]:.3f}" if math.isfinite(alone.get(most, math.nan)) else ""
        drop = f"without it the AUC falls by {importances[most]:.3f}{by_itself}"
        is_carried = importances[most] > bars.max_gain.get(RANKING, {}).get("auc", math.inf)
        return f"The ranking rests most on signal {most!r}: {drop}.", is_carried
    known = {signal: area for signal, area in alone.items() if math.isfinite(area)}
    if not known:
        return "", False
    best = max(known, key=lambda signal: known[signal])
    return f"Of single signals, {best!r} orders outcomes best, with an AUC of {known[best]:.3f}.", False
