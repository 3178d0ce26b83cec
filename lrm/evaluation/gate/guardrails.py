"""The rules about everything but accuracy: what lists are made of, what serving costs, what tokens keep."""

from __future__ import annotations

import math

from lrm.evaluation.estimates import CHALLENGER, CHAMPION
from lrm.evaluation.gate.gate_inputs import KEEP, REJECT, GateInputs, RuleResult, failed, not_asked, passed, unclear
from lrm.evaluation.policy import RETRIEVAL, Policy
from lrm.evaluation.staging_results import StagingResults

MEGABYTE = 1e6


def coverage(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """The lists of all users together still show enough of the catalogue."""
    if RETRIEVAL not in inputs.n_users or not inputs.has_usable_champion() or inputs.faults:
        return []
    metric = inputs.metric("coverage")
    own, other = (inputs.value(model, RETRIEVAL, metric) for model in (CHALLENGER, CHAMPION))
    ratio = own / other if other else math.nan
    rule, asked = "Catalogue coverage", f"at least {policy.guardrails.min_coverage_ratio:.0%} of the champion's"
    if math.isnan(ratio):
        return [unclear(rule, asked, "not a number", "catalogue coverage could not be compared with the champion's.")]
    seen = f"{ratio:.0%} ({own:.2%} of the catalogue, {other:.2%} before)"
    if ratio >= policy.guardrails.min_coverage_ratio:
        return [passed(rule, asked, seen)]
    return [failed(rule, asked, seen, f"Lists show less of the catalogue: {seen}; asked: {asked}.", verdict=KEEP)]


def staging(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """The model on the real server answers as it does offline, quickly enough, from a bundle that is not too large."""
    found = inputs.facts.staging
    asked = "answers on the real server as offline"
    if found is not None and found.fault:
        return [
            failed("Staging check", asked, "no answer", f"The model cannot be served: {found.fault}", verdict=REJECT)
        ]
    if found is None or not found.n_requests:
        reason = "Not checked in staging: the model has not answered through the online store and the server."
        if policy.staging.required:
            return [unclear("Staging check", asked, "not checked in staging", reason)]
        return [not_asked("Staging check", asked, "not checked in staging", reason)]
    bars = policy.guardrails
    n_megabytes = found.bundle_bytes / MEGABYTE
    latency, size = (_of_champion(inputs, one) for one in (found.champion_latency_p50_ms, found.champion_bundle_bytes))
    champion_mb = None if size is None else size / MEGABYTE
    why = found.champion_fault
    return [
        _skew(found),
        _ratio("Latency", found.latency_p50_ms, latency, bars.max_latency_ratio, "median, ms", why),
        _at_most("Latency, slowest of 100", found.latency_p99_ms, bars.max_latency_p99_ms, "ms", verdict=KEEP),
        _ratio("Size", n_megabytes, champion_mb, bars.max_bundle_ratio, "MB", why),
        _at_most("Size of the bundle", n_megabytes, bars.max_bundle_mb, "MB", verdict=REJECT),
    ]


def _of_champion(inputs: GateInputs, measured: float | None) -> float | None:
    """A number of the champion's: None where there is no champion, NaN where there is one that was not measured."""
    return math.nan if measured is None and inputs.has_champion else measured


def _skew(found: StagingResults) -> RuleResult:
    rule, asked = "Online as offline", f"scores within {found.tolerance:g}"
    largest = max(found.max_score_difference, found.max_probability_difference)
    seen = f"largest difference {largest:.2g}, {found.n_requests:,} requests of {found.n_users:,} users"
    if found.n_expired:
        seen += f"; {found.n_expired:,} expired values became null"
    if not (math.isfinite(found.max_score_difference) and math.isfinite(found.max_probability_difference)):
        return unclear(rule, asked, "not a number", "the staging check's differences are not finite numbers.")
    if found.n_skewed or largest > found.tolerance:
        names = ", ".join(found.skewed_signals) or "no signal: the scores alone"
        reason = (
            f"Online and offline disagree beyond {found.tolerance:g} in {found.n_skewed:,} answers; {names} differ."
        )
        return failed(rule, asked, f"{seen}; differing: {names}", reason, verdict=REJECT)
    return passed(rule, asked, seen)


def _ratio(rule: str, own: float, other: float | None, most: float, unit: str, why: str) -> RuleResult:
    rule, asked = f"{rule} against the champion", f"at most {most:g} times ({unit})"
    if other is None:
        return not_asked(rule, asked, f"{own:,.4g}; there is no champion")
    ratio = own / other if other else math.nan
    if not math.isfinite(ratio):
        reason = f"{rule[0].lower()}{rule[1:]} could not be measured"
        said = f"{reason}: the champion was not checked in staging ({why})." if why else f"{reason}."
        return unclear(rule, asked, "not measured", said)
    seen = f"{ratio:.2f} times ({own:,.4g}, before {other:,.4g})"
    if ratio <= most:
        return passed(rule, asked, seen)
    return failed(rule, asked, seen, f"{rule}: {seen}; asked: {asked}.", verdict=KEEP)


def _at_most(rule: str, own: float, most: float, unit: str, *, verdict: str) -> RuleResult:
    asked, seen = f"at most {most:,g} {unit}", f"{own:,.4g} {unit}"
    if not math.isfinite(own):
        return unclear(rule, asked, "not a number", f"{rule[0].lower()}{rule[1:]} could not be measured.")
    if own <= most:
        return passed(rule, asked, seen)
    return failed(rule, asked, seen, f"{rule}: {seen}; asked: {asked}.", verdict=verdict)


def critical_signals(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """The tokens keep what the critical signals say."""
    found, least = [], policy.guardrails.min_recovered
    for signal in policy.guardrails.critical_signals:
        kept = inputs.facts.recovered.get(signal, math.nan)
        rule, asked, seen = f"Tokens keep {signal}", f"at least {least:.0%} of what can be read", f"{kept:.0%}"
        if math.isnan(kept):
            reason = f"what tokens keep of the critical signal {signal!r} was not measured."
            found.append(unclear(rule, asked, "not measured", reason))
        elif kept < least:
            reason = f"Tokens keep {seen} of the critical signal {signal!r}; asked: {asked}."
            found.append(failed(rule, asked, seen, reason, verdict=KEEP))
        else:
            found.append(passed(rule, asked, seen))
    return found


def backfill(inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    """A run on past data does not change what is in service."""
    rule, asked = "Not a backfill", "the newest data, or leave to backfill"
    if not inputs.facts.is_backfill:
        return [passed(rule, asked, "the newest data")]
    if policy.decision.allow_backfill:
        return [passed(rule, asked, "past data, with leave", "This is a backfill, which the policy allows to promote.")]
    if inputs.facts.allow_backfill:
        reason = "This is a backfill, which whoever started the run allows to promote."
        return [passed(rule, asked, "past data, with leave", reason)]
    reason = (
        "This is a backfill of past data, which promotes only where the policy (allow_backfill) or whoever starts the "
        "run (--allow-backfill) says so."
    )
    return [failed(rule, asked, "past data", reason, verdict=KEEP)]


def rolled_back(inputs: GateInputs, _policy: Policy) -> list[RuleResult]:
    """What a person took out of service comes back by a person's decision alone."""
    rule, asked, told = "Not rolled back", "weights that nobody took out of service", inputs.facts.rolled_back
    if told is None:
        return [not_asked(rule, asked, "no champion was looked for")]
    if not told:
        return [passed(rule, asked, "never rolled back")]
    reason = (
        f"These very weights were in service before: {told}. No run promotes them again; a person may, with "
        "`python pipeline.py approve`."
    )
    return [failed(rule, asked, told, reason, verdict=KEEP)]
