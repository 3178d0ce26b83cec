"""The rule that lets a model into service, as a pure function of what was measured.

`promote`: better than the champion beyond doubt, and nothing guarded got worse. `keep`: not so. `reject`: the
challenger is broken, or nothing can be concluded from these data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lrm.config import EvaluationConfig
from lrm.evaluation.estimates import CHAMPION, POPULAR, RANKING, RETRIEVAL, Comparison
from lrm.evaluation.metrics import LOWER_IS_BETTER

PROMOTE, KEEP, REJECT = "promote", "keep", "reject"
OTHERS = {CHAMPION: "the champion's", POPULAR: "that of the most popular items"}
BIG_SLICE = 0.5
"""Share of a task's users from which a slice is guarded."""


class Evidence(NamedTuple):
    """All that the gate reads."""

    comparisons: list[Comparison]
    """The challenger against each other model, on all of a task and on slices."""
    n_users: Mapping[str, int]
    """Test users of each task that there is."""
    has_champion: bool
    faults: tuple[str, ...] = ()
    """What makes the challenger unfit to serve, one sentence each."""
    champion_faults: tuple[str, ...] = ()
    """What makes the champion unfit to compare with."""
    is_identical: bool = False
    """Challenger and champion have the same weights."""
    is_backfill: bool = False
    """The data end at an instant in the past that somebody asked for."""
    allow_backfill: bool = False


class Decision(NamedTuple):
    """The answer, and sentences that say why."""

    verdict: str
    reasons: list[str]


def primary_metric(tasks: Iterable[str], *, k: int) -> tuple[str, str]:
    """Task and metric that decide: area under the curve where there is a ranking task, else retrieval NDCG."""
    return (RANKING, "auc") if RANKING in tasks else (RETRIEVAL, f"ndcg@{k}")


def decide(evidence: Evidence, config: EvaluationConfig) -> Decision:
    """Judge the challenger."""
    broken = [*evidence.faults, *_inconclusive(evidence, config), *_worse_than_popular(evidence, config)]
    if broken:
        return Decision(REJECT, broken)
    if evidence.is_identical:
        return Decision(
            KEEP, ["The challenger's weights are identical to the champion's: there is nothing to promote."]
        )
    if _has_usable_champion(evidence):
        is_better, reasons = _against_champion(evidence, config)
    else:
        is_better, reasons = _without_champion(evidence, config)
    if is_better and evidence.is_backfill and not evidence.allow_backfill:
        reasons.append("This is a backfill of past data, which does not promote unless that is allowed explicitly.")
        is_better = False
    return Decision(PROMOTE if is_better else KEEP, reasons)


def _inconclusive(evidence: Evidence, config: EvaluationConfig) -> list[str]:
    few = [
        f"Inconclusive: {task} has {n_users} test users, fewer than the {config.min_users} that a comparison needs."
        for task, n_users in evidence.n_users.items()
        if n_users < config.min_users
    ]
    needed = [(task, metric, POPULAR) for task, metric in _main_metrics(evidence, config)]
    if _has_usable_champion(evidence):
        needed.append((*primary_metric(evidence.n_users, k=config.k), CHAMPION))
    return few + [
        f"Inconclusive: {_name(task, metric)} could not be compared with {OTHERS[against]}."
        for task, metric, against in needed
        if not _find(evidence, task, metric, against)
    ]


def _has_usable_champion(evidence: Evidence) -> bool:
    return evidence.has_champion and not evidence.champion_faults


def _worse_than_popular(evidence: Evidence, config: EvaluationConfig) -> list[str]:
    return [
        f"Worse than the most popular items: {_sentence(row, config)}"
        for task, metric in _main_metrics(evidence, config)
        for row in _find(evidence, task, metric, POPULAR)
        if _gain(row).high < 0
    ]


def _without_champion(evidence: Evidence, config: EvaluationConfig) -> tuple[bool, list[str]]:
    reasons = list(evidence.champion_faults) or ["There is no champion yet, so the most popular items are the bar."]
    rows = [row for task, metric in _main_metrics(evidence, config) for row in _find(evidence, task, metric, POPULAR)]
    is_better = all(_gain(row).low > 0 for row in rows)
    reasons += [_sentence(row, config) for row in rows]
    return is_better, reasons if is_better else [*reasons, "That is not better beyond doubt."]


def _against_champion(evidence: Evidence, config: EvaluationConfig) -> tuple[bool, list[str]]:
    (row,) = _find(evidence, *primary_metric(evidence.n_users, k=config.k), CHAMPION)
    reasons = [_sentence(row, config)]
    if not _gain(row).low > 0:  # also where the bound is NaN
        return False, [*reasons, "That is not better beyond doubt, so the champion stays."]
    fallen = [guard for guard in _guards(evidence, config) if not _gain(guard).low >= -config.max_guard_drop]
    if not fallen:
        return True, [*reasons, f"No guarded metric may have fallen by more than {config.max_guard_drop:g}."]
    reasons += [
        f"Guarded, and may have fallen by more than {config.max_guard_drop:g}: {_sentence(guard, config)}"
        for guard in fallen
    ]
    return False, reasons


def _guards(evidence: Evidence, config: EvaluationConfig) -> list[Comparison]:
    guarded = {RETRIEVAL: {f"ndcg@{config.k}", f"recall@{config.k}"}, RANKING: {"log_loss", "ece"}}
    primary = primary_metric(evidence.n_users, k=config.k)
    return [
        row
        for row in evidence.comparisons
        if row.against == CHAMPION
        and (
            _is_big(row, config) if row.slice else row.metric in guarded[row.task] and (row.task, row.metric) != primary
        )
    ]


def _is_big(row: Comparison, config: EvaluationConfig) -> bool:
    return row.share_of_users >= BIG_SLICE and row.n_users >= config.min_users


def _main_metrics(evidence: Evidence, config: EvaluationConfig) -> list[tuple[str, str]]:
    return [(task, "auc" if task == RANKING else f"ndcg@{config.k}") for task in evidence.n_users]


def _find(evidence: Evidence, task: str, metric: str, against: str) -> list[Comparison]:
    """The comparison on all of a task, if there is one."""
    key = (task, metric, against, "")
    return [row for row in evidence.comparisons if (row.task, row.metric, row.against, row.slice) == key][:1]


class _Gain(NamedTuple):
    value: float
    low: float
    high: float


def _gain(row: Comparison) -> _Gain:
    """The difference with "up" meaning "better"."""
    if row.metric in LOWER_IS_BETTER:
        return _Gain(-row.difference, -row.high, -row.low)
    return _Gain(row.difference, row.low, row.high)


def _sentence(row: Comparison, config: EvaluationConfig) -> str:
    place = f" on {row.slice}" if row.slice else ""
    side = "above" if row.difference >= 0 else "below"
    return (
        f"{_name(row.task, row.metric)}{place} is {abs(row.difference):.4f} {side} {OTHERS[row.against]} "
        f"({config.confidence:.0%} interval {row.low:+.4f} to {row.high:+.4f}, {row.n_users:,} users)."
    )


def _name(task: str, metric: str) -> str:
    words = {"ndcg": "NDCG", "auc": "AUC", "ece": "calibration error"}
    stem, at, k = metric.partition("@")
    return f"{task.capitalize()} {words.get(stem, stem.replace('_', ' '))}{at}{k}"
