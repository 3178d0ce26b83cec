"""How the verdict came about: every rule of the gate, what it asked and what it saw."""

from __future__ import annotations

from lrm.reporting import plots, wording
from lrm.reporting.run_files import Json, RunFiles

ICONS = {"passed": "succeeded", "failed": "failed", "cannot tell": "interrupted", "not asked": "skipped"}
TONES = {"passed": "good", "failed": "bad", "cannot tell": "warn"}
STOPS_FIRST = ("failed", "cannot tell", "passed", "not asked")
HARDEST_FIRST = ("reject", "inconclusive", "keep", "promote")


def verdict(files: RunFiles) -> Json:
    """The rules, the deciding one first, with how many had each outcome and the policy's hash."""
    rules = files.evaluation.get("rules", [])
    if not rules:
        return {}
    outcomes = [rule["outcome"] for rule in rules]
    policy = files.evaluation.get("policy", {})
    return {
        "counts": [(name, ICONS[name], outcomes.count(name)) for name in ICONS if name in outcomes],
        "rows": [_row(rule) for rule in in_order(files.evaluation)],
        "policy": policy.get("sha256", "")[:12],
        "files": [name for name, _ in policy.get("files", [])],
    }


def in_order(evaluation: Json) -> list[Json]:
    """The rules, hardest verdict first; of those with the same verdict, the rule about the deciding metric first."""
    primary = evaluation.get("primary", {})
    metric = wording.metric_name(primary.get("metric", "")).replace(" @", "@")
    deciding = f"{primary.get('task', '').capitalize()} {metric} against "
    return sorted(
        evaluation["rules"],
        key=lambda rule: (
            HARDEST_FIRST.index(rule["verdict"]),
            not rule["rule"].startswith(deciding),
            STOPS_FIRST.index(rule["outcome"]),
        ),
    )


def _row(rule: Json) -> Json:
    return {
        "rule": rule["rule"],
        "asked": rule["asked"],
        "seen": rule["seen"],
        "outcome": rule["outcome"],
        "icon": ICONS[rule["outcome"]],
        "tone": TONES.get(rule["outcome"], "plain"),
        "leads_to": rule["verdict"] if rule["verdict"] != "promote" else "",
        "chart": _chart(rule),
    }


def _chart(rule: Json) -> str:
    value, low, high, bar = (rule.get(name) for name in ("value", "low", "high", "bar"))
    if not wording.is_number(value):
        return ""
    reach = max(abs(end) for end in (value, low, high, bar) if wording.is_number(end))
    return plots.difference(value, low, high, reach, TONES.get(rule["outcome"], "plain"), bar=bar)
