"""The rules about answers: enough of them, of models that can be compared; better than the bar, no worse elsewhere."""

from __future__ import annotations

import math

from lrm.evaluation.estimates import CHALLENGER, CHAMPION, Comparison
from lrm.evaluation.gate.gate_inputs import (
    KEEP,
    REJECT,
    GateInputs,
    RuleResult,
    failed,
    not_asked,
    passed,
    unclear,
)
from lrm.evaluation.metrics.bootstrap import Interval
from lrm.evaluation.metrics.metrics import is_lower_better
from lrm.evaluation.policy import BASELINES, BONFERRONI, HOLM, RANKING, Policy

OTHERS = {
    CHAMPION: "the champion's",
    "popular": "that of the most popular items",
    "own_history": "that of the user's own history",
    "ease_markov": "that of EASE + Markov",
    "trees": "that of the boosted trees",
}


def soundness(inputs: GateInputs, _policy: Policy) -> list[RuleResult]:
    """Both models answered with finite numbers, and their data are those that they are judged on."""
    found = [failed("Challenger works", "finite scores", fault, fault, verdict=REJECT) for fault in inputs.faults]
    found = found or [passed("Challenger works", "finite scores", "all scores are finite")]
    asked = "a bundle that can be loaded and scored"
    if not inputs.has_champion:
        found.append(not_asked("Champion works", asked, "there is no champion yet", "There is no champion yet."))
    elif inputs.champion_faults:
        found += [unclear("Champion works", asked, fault, fault) for fault in inputs.champion_faults]
    else:
        found.append(passed("Champion works", asked, "loaded and scored in this step"))
    asked = "models made from data that fit the test data"
    faults = [unclear("Data agree", asked, fault, fault) for fault in inputs.facts.data_faults]
    return found + (faults or [passed("Data agree", asked, "yes")])


def leakage(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """No model saw the outcome."""
    asked = "no signal from after the cutoff, no target in the history"
    leaks = [failed("Nothing leaks", asked, leak, leak, verdict=REJECT) for leak in inputs.facts.leaks]
    found = leaks or [passed("Nothing leaks", asked, "none found")]
    asked = f"no single signal with an AUC of {policy.leakage.max_signal_auc:g} or more"
    odd = [unclear("No signal is too good", asked, said, said) for said in inputs.facts.suspicions]
    return found + (odd or [passed("No signal is too good", asked, "none found")])


def enough_users(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """A comparison needs users: those of a rare outcome, where there is one, however many had nothing but the other."""
    found, least = [], policy.decision.min_users
    for task, n_users in inputs.n_users.items():
        rule, asked, seen = f"Enough {task} users", f"at least {least:,}", f"{n_users:,}"
        counted = "test users with the rarer outcome" if task == RANKING else "test users"
        few = f"{task} has {n_users:,} {counted}, fewer than the {least:,} that a comparison needs."
        found.append(passed(rule, asked, seen) if n_users >= least else unclear(rule, asked, seen, few))
    return found


def looks(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """How sure this look must be, for all looks at the same test data to promote as rarely falsely as stated."""
    seen, stated = inputs.facts.looks, policy.decision.confidence
    rule, asked = "Looks at these test data", f"false promotions of all looks together: {_percent(1 - stated)} at most"
    if not seen.n_earlier:
        return [passed(rule, asked, f"the first: {_percent(stated)} intervals decide")]
    models = "another model was" if seen.n_earlier == 1 else f"{seen.n_earlier} other models were"
    told = (
        f"{models} judged on some of them before, {seen.new:.0%} of the requests are new: "
        f"{_percent(seen.confidence(stated))} intervals decide"
    )
    return [passed(rule, asked, told)]


def floors(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """Absolute bars, for a first model and for every other."""
    found = []
    for task, metrics in policy.first_model.floors.items():
        for stem, floor in metrics.items() if task in inputs.n_users and not inputs.faults else ():
            metric = inputs.metric(stem)
            value = inputs.value(CHALLENGER, task, metric)
            rule, bad = name(task, metric), "most" if is_lower_better(metric) else "least"
            asked, seen = f"at {bad} {floor:g}", f"{value:.4f}"
            if math.isnan(value):
                found.append(unclear(rule, asked, "not a number", f"{rule} could not be computed."))
            elif value > floor if is_lower_better(metric) else value < floor:
                reason = f"{rule} is {seen}, and the policy asks for at {bad} {floor:g}."
                found.append(failed(rule, asked, seen, reason, verdict=REJECT))
            else:
                found.append(passed(rule, asked, seen))
    return found


def baselines(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """No model may be worse than the simple baselines; a first model must be better."""
    return [
        _against_baseline(inputs, policy, baseline, task, metric)
        for baseline in policy.first_model.baselines
        for task, metric in inputs.main_metrics(policy)
        if task in BASELINES[baseline] and not inputs.faults
    ]


def _against_baseline(inputs: GateInputs, policy: Policy, baseline: str, task: str, metric: str) -> RuleResult:
    row = inputs.against(baseline, task, metric) if inputs.has_champion else inputs.decides(baseline, task, metric)
    rule = f"{name(task, metric)} against {OTHERS[baseline].removeprefix('that of ')}"
    asked = "not worse beyond doubt" if inputs.has_champion else "better beyond doubt"
    if row is None or not _is_known(row):
        return unclear(
            rule, asked, "not a number", f"{name(task, metric)} could not be compared with {OTHERS[baseline]}."
        )
    better, said = gain(row), sentence(row, policy)
    if better.high < 0:
        found = failed(rule, asked, _seen(row), f"Worse than {rule.partition(' against ')[2]}: {said}", verdict=REJECT)
    elif inputs.has_champion or better.low > 0:
        found = passed(rule, asked, _seen(row), "" if inputs.has_champion else said)
    else:
        found = failed(rule, asked, _seen(row), f"{said} That is not better beyond doubt.", verdict=KEEP)
    return found._replace(estimate=_difference(row), bar=0.0)


def gains(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """The metric that decides: better than the champion's beyond doubt, and by enough to be worth a move."""
    if not inputs.has_usable_champion() or inputs.faults:
        return []
    task, metric = inputs.main_metrics(policy)[0]
    row, least = inputs.decides(CHAMPION, task, metric), policy.decision.min_gain
    rule, asked = f"{name(task, metric)} against the champion", f"better beyond doubt, by {least:g} or more"
    if row is None or not _is_known(row):
        reason = f"{name(task, metric)} could not be compared with the champion's."
        return [unclear(rule, asked, "not a number", reason)]
    better, said = gain(row), sentence(row, policy)
    if inputs.facts.is_identical:
        reason = "The challenger's weights are identical to the champion's: there is nothing to promote."
        found = failed(rule, asked, "identical weights", reason, verdict=KEEP)
    elif better.low > 0 and better.value >= least:
        found = passed(rule, asked, _seen(row), said)
    elif better.low > 0:
        reason = f"{said} That is less than the {least:g} that a move is worth, so the champion stays."
        found = failed(rule, asked, _seen(row), reason, verdict=KEEP)
    else:
        reason = f"{said} That is not better beyond doubt, so the champion stays."
        found = failed(rule, asked, _seen(row), reason, verdict=KEEP)
    return [found._replace(estimate=_difference(row), bar=0.0)]


def margins(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """Non-inferiority everywhere else: the bad end of the interval lies within the margin.

    All must hold, so that more of them make a promotion only rarer and need no correction.
    """
    if not inputs.has_usable_champion() or inputs.faults:
        return []
    deciding, found = inputs.main_metrics(policy)[0], []
    for task in inputs.n_users:
        for stem, margin in policy.margins.get(task, {}).items():
            metric = inputs.metric(stem)
            if (task, metric) != deciding:
                found.append(_within_margin(inputs, policy, task, metric, margin))
    return found


def _within_margin(inputs: GateInputs, policy: Policy, task: str, metric: str, margin: float) -> RuleResult:
    row = inputs.against(CHAMPION, task, metric)
    rule, asked = f"{name(task, metric)} against the champion", f"not worse by more than {margin:g}"
    if row is None or not _is_known(row):
        reason = f"{name(task, metric)} could not be compared with the champion's."
        return unclear(rule, asked, "not a number", reason)
    bar = margin if is_lower_better(metric) else -margin
    if gain(row).low >= -margin:
        return passed(rule, asked, _seen(row))._replace(estimate=_difference(row), bar=bar)
    fell = "got worse" if gain(row).high < -margin else "may have got worse"
    reason = f"Guarded, and {fell} by more than {margin:g}: {sentence(row, policy)}"
    return failed(rule, asked, _seen(row), reason, verdict=KEEP)._replace(estimate=_difference(row), bar=bar)


def slices(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """No slice fell beyond doubt; the doubt is that of all slices together."""
    if not inputs.has_usable_champion() or inputs.faults:
        return []
    rows = [row for row in inputs.comparisons if row.slice and row.against == CHAMPION]
    big = [row for row in rows if row.n_users >= policy.slices.min_users and _is_known(row)]
    asked = f"none worse by more than {policy.slices.margin:g} beyond doubt ({policy.slices.correction} correction)"
    found = [
        unclear("Slices", f"{wanted!r} is judged", "too few users, or not there", _missing(wanted, policy))
        for wanted in policy.slices.required
        if wanted not in {row.slice for row in big}
    ]
    harmed = _harmed(big, policy)
    for row in harmed:
        reason = f"A slice got worse by more than {policy.slices.margin:g}: {sentence(row, policy)}"
        one = failed(f"Slice {row.slice}: {name(row.task, row.metric)}", asked, _seen(row), reason, verdict=KEEP)
        bar = policy.slices.margin if is_lower_better(row.metric) else -policy.slices.margin
        found.append(one._replace(estimate=_difference(row), bar=bar))
    seen = f"{len(big)} judged, {len(rows) - len(big)} with fewer than {policy.slices.min_users} users or no number"
    if not harmed:
        found.append(passed("Slices", asked, seen) if big else not_asked("Slices", asked, seen))
    return found


def _missing(wanted: str, policy: Policy) -> str:
    least = policy.slices.min_users
    return f"the slice {wanted!r}, which the policy requires, is not there or has fewer than {least:,} test users."


def _harmed(rows: list[Comparison], policy: Policy) -> list[Comparison]:
    """The slices that are worse beyond doubt: the chance of any false alarm is 1 - confidence (Holm 1979)."""
    level, correction = 1 - policy.decision.confidence, policy.slices.correction
    ordered = sorted(rows, key=lambda row: row.p_unharmed)
    found: list[Comparison] = []
    for rank, row in enumerate(ordered):
        n_tests = {HOLM: len(rows) - rank, BONFERRONI: len(rows)}.get(correction, 1)
        if row.p_unharmed * n_tests > level:
            break
        found.append(row)
    return found


def gain(row: Comparison) -> Interval:
    """The difference with "up" meaning "better"."""
    if is_lower_better(row.metric):
        return Interval(-row.difference, -row.high, -row.low)
    return _difference(row)


def sentence(row: Comparison, policy: Policy) -> str:
    """A comparison in words, which say better or worse whichever way the metric counts."""
    place = f" on {row.slice}" if row.slice else ""
    side = "better than" if gain(row).value > 0 else "worse than" if gain(row).value < 0 else "equal to"
    by = f" by {abs(row.difference):.4f}" if row.difference else ""
    return (
        f"{name(row.task, row.metric)}{place} is {side} {OTHERS[row.against]}{by} "
        f"({_percent(row.confidence or policy.decision.confidence)} interval: {_span(row)}; {row.n_users:,} users)."
    )


def _span(row: Comparison) -> str:
    """From the bad end of the interval to the good one."""
    worst, best = _judged(gain(row).low), _judged(gain(row).high)
    return f"{worst} to {best}"


def _judged(value: float) -> str:
    """A gain in words."""
    return f"{abs(value):.4f} {'better' if value > 0 else 'worse'}" if value else "no difference"


def _percent(share: float) -> str:
    """A share with the digits that it needs: 95%, 99.87%."""
    return f"{100 * share:.4g}%"


def name(task: str, metric: str) -> str:
    """A metric as a reader knows it: `Retrieval NDCG@10`."""
    words = {"ndcg": "NDCG", "auc": "AUC", "mrr": "MRR", "ece": "calibration error"}
    stem, at, k = metric.partition("@")
    return f"{task.capitalize()} {words.get(stem, stem.replace('_', ' '))}{at}{k}"


def _seen(row: Comparison) -> str:
    return f"{_judged(gain(row).value)} ({_span(row)})"


def _difference(row: Comparison) -> Interval:
    return Interval(row.difference, row.low, row.high)


def _is_known(row: Comparison) -> bool:
    return all(map(math.isfinite, (row.difference, row.low, row.high)))
