"""The feature report: what each signal brings to the model, what it costs, and which could be dropped.

The *value* of a signal is the share of the model's lift that is lost when it is shuffled, the mean over the tasks: of
the area under the curve above one half, and of the retrieval NDCG. A loss that is not clear counts as none. Over its
`cost_share` (see `costs`) that is its value per cost: 1 for a signal that brings as large a part of the lift as
of the cost.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from lrm.config import EvaluationConfig
from lrm.evaluation.estimates import Statistics, as_json, number
from lrm.evaluation.held_out import HeldOut
from lrm.evaluation.metrics.bootstrap import Statistic, interval
from lrm.evaluation.policy import RANKING, RETRIEVAL, Policy
from lrm.evaluation.signals.costs import costs
from lrm.evaluation.signals.permutation_importance import Trial, importance, set_up
from lrm.evaluation.signals.target_leakage import suspicion, warning
from lrm.evaluation.signals.token_probes import TokenProbe, probe_tokens
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.progress import progress
from lrm.schema import Signal

KEEP, DROP, UNCLEAR, SUSPICIOUS = "keep", "could be dropped", "unclear", "suspicious"
PROBE_REQUESTS, PROBE_ROWS = 2000, 2000
"""Of the retention probes, on each side."""
NEGLIGIBLE = 1e-4
"""A worth below this is none, however sure: a tenth of the smallest difference that anybody would act on."""
LEAST_CEILING = 0.01
"""What a probe must read from a signal itself before it can be said which share of that the tokens keep."""


def feature_report(
    held_out: HeldOut,
    recommender: Recommender,
    scorer: Scorer,
    config: EvaluationConfig,
    policy: Policy,
    *,
    alone: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    """Weigh every declared signal; name those that could be dropped, and those that look like the outcome.

    Args:
        held_out: what the model was asked.
        recommender: the model.
        scorer: the model over the held-out tables.
        config: sizes.
        policy: intervals, tolerated drops, and the bars of leaks.
        alone: `target_leakage.single_signals` of the model.
        seed: of samples, shuffles and draws.

    Returns:
        The content of `feature_report.json`, as docs/artifacts.md, section 5, describes it.
    """
    started = time.perf_counter()
    signals = recommender.signals
    trial = set_up(held_out, recommender, config, n_resamples=policy.decision.n_resamples, seed=seed)
    importances = {
        signal.name: importance(trial, [signal]) for signal in progress(signals, what="feature report", unit="signal")
    }
    spent = costs(recommender, trial.scorer.corpus, trial.asked)
    kept = probe_tokens(
        recommender, scorer.corpus, n_requests=PROBE_REQUESTS, n_rows=PROBE_ROWS, seed=seed, only_prompt=True
    )
    chance = clear_up_to(
        [_that_matters(found, config.k).values() for found in importances.values()], policy.decision.confidence
    )
    rows = []
    for signal in signals:
        found, share = importances[signal.name], spent[signal.name].cost_share
        area = alone.get(signal.name, float("nan"))
        verdict, reason = judge(signal, found, base=trial.base, alone=area, k=config.k, policy=policy, chance=chance)
        value = share_of_lift(found, trial.base, k=config.k) if verdict in (KEEP, SUSPICIOUS) else 0.0
        rows.append(
            {"signal": signal.name, "kind": signal.kind, "makers": list(signal.makers)}
            | {"verdict": verdict, "reason": reason, "value": number(value)}
            | {"value_per_cost": number(value / share) if share else None}
            | {"importance": _json(found, policy), "alone_auc": number(area), "linear_probes": _recovered(kept, signal)}
            | {what: number(amount) for what, amount in spent[signal.name]._asdict().items()}
        )
    rows.sort(key=_rank, reverse=True)
    by_name = {signal.name: signal for signal in signals}
    droppable = [row["signal"] for row in rows if row["verdict"] == DROP]
    spare, lost = spare_together(trial, [by_name[name] for name in reversed(droppable)], policy)
    return {
        "metrics": [(task, metric) for task, metric in that_matter(config.k) if task in trial.base],
        "confidence": policy.decision.confidence,
        "n_requests": trial.held_out.tables.requests.height,
        "n_users": trial.draws.bag.size,
        "base": _json(trial.base, policy),
        "signals": rows,
        "droppable": droppable,
        "together": {"signals": [signal.name for signal in spare], "importance": _json(lost, policy)},
        "warnings": [warning(str(row["signal"]), str(row["reason"])) for row in rows if row["verdict"] == SUSPICIOUS],
        "seconds": round(time.perf_counter() - started, 2),
    }


def recovered(report: Mapping[str, Any]) -> dict[str, float]:
    """The share of a signal that its tokens keep, over what a probe can read from the signal itself.

    Of several makers the best counts: the decoder reads all of their tokens. Signals without a number are left out, and
    those of which a probe can read next to nothing from the signal itself: a share of nothing says nothing.
    """
    found: dict[str, float] = {}
    for row in report["signals"]:
        shares = [
            kept["prompt"] / kept["ceiling"]
            for kept in row["linear_probes"].values()
            if kept["prompt"] is not None and kept["ceiling"] is not None and kept["ceiling"] >= LEAST_CEILING
        ]
        if shares:
            found[row["signal"]] = max(shares)
    return found


def judge(
    signal: Signal,
    found: Mapping[str, Statistics],
    *,
    base: Mapping[str, Statistics],
    alone: float,
    k: int,
    policy: Policy,
    chance: float,
) -> tuple[str, str]:
    """The verdict on a signal, and why.

    It is kept where a metric that matters (area under the curve and log loss of ranking, NDCG of retrieval) is clearly
    worse without it (see `is_clear`). Otherwise it could be dropped, where no interval reaches beyond the metric's
    margin in the policy, and is unclear where one does.

    Args:
        signal: which.
        found: its worth.
        base: the model's metrics with every signal in its place.
        alone: the area under the curve of the signal by itself, or NaN.
        k: length of the list that a user sees.
        policy: the intervals' confidence, the margins by which a metric may fall, and the bars of leaks.
        chance: up to which the clearest worth of a signal is clear (see `clear_up_to`).
    """
    ndcg = f"ndcg@{k}"
    whole = base[RETRIEVAL][ndcg].value if RETRIEVAL in found else 0.0
    carried = found[RETRIEVAL][ndcg].value / whole if whole > 0 else float("nan")
    if why := suspicion(signal, alone=alone, carried=carried, bars=policy.leakage):
        return SUSPICIOUS, why
    matters = _that_matters(found, k)
    confidence = policy.decision.confidence
    measured = {key: interval(each, confidence=confidence) for key, each in matters.items()}
    known = {key: each for key, each in measured.items() if np.isfinite(each.low)}
    said = {key: f"{_name(*key)} {value:+.4f} ({low:+.4f} to {high:+.4f})" for key, (value, low, high) in known.items()}
    needed = [said[key] for key in known if is_clear(matters[key], chance / len(matters))]
    if needed:
        return KEEP, f"worse without it: {'; '.join(needed)}"
    if not known:
        return KEEP, "what it is worth could not be measured on these data"
    if any(each.high > _margin(policy, *key) for key, each in known.items()):
        return UNCLEAR, f"too few test requests to tell: {'; '.join(said.values())}"
    return DROP, f"no worse without it by more than the policy's margins: {'; '.join(said.values())}"


def _margin(policy: Policy, task: str, metric: str) -> float:
    """By how much a metric may fall; one without a margin of its own has the task's smallest."""
    margins = policy.margins.get(task, {})
    return margins.get(metric.partition("@")[0], min(margins.values(), default=0.0))


def clear_up_to(importances: Iterable[Collection[Statistic]], confidence: float) -> float:
    """The chance up to which the clearest worth of a signal is clear (Benjamini and Hochberg, 1995).

    Among many signals a few worthless ones would else seem to be worth something. Of the signals that are worth
    something beyond doubt, the worthless are held to half of 1 - confidence, on average; the other half is that of
    harm, which is not looked for.

    Args:
        importances: of each signal, by each deciding metric; the chance of the clearest counts as often as there are.
        confidence: of an interval.
    """
    level = (1 - confidence) / 2
    chances = sorted(min(map(_chance, each), default=1.0) * len(each) for each in importances)
    n_clear = max((n for n, chance in enumerate(chances, start=1) if chance <= level * n / len(chances)), default=1)
    return level * n_clear / max(1, len(chances))


def is_clear(importance: Statistic, chance: float) -> bool:
    """Whether a worth would be as far above zero by chance no more often than this."""
    return _chance(importance) <= chance


def _chance(importance: Statistic) -> float:
    """How often a worth would be as far above zero by chance; 1 where it is negligible or cannot be known.

    So far out the draws are few, hence their deviation is taken and the normal distribution.
    """
    known = importance.draws[np.isfinite(importance.draws)]
    if not importance.value >= NEGLIGIBLE or not known.size:
        return 1.0
    deviation = float(known.std())
    return 1 - NormalDist().cdf(importance.value / deviation) if deviation > 0 else 0.0


def share_of_lift(found: Mapping[str, Statistics], base: Mapping[str, Statistics], *, k: int) -> float:
    """The share of what the model gains over chance that is lost: the mean over the tasks, and never below 0."""
    main = {RANKING: ("auc", 0.5), RETRIEVAL: (f"ndcg@{k}", 0.0)}
    shares = []
    for task, (metric, chance) in main.items():
        lift = base[task][metric].value - chance if task in base else 0.0
        if lift > 0:
            shares.append(found[task][metric].value / lift if task in found else 0.0)
    return max(0.0, sum(shares) / len(shares)) if shares else 0.0


def spare_together(
    trial: Trial, signals: Sequence[Signal], policy: Policy
) -> tuple[Sequence[Signal], dict[str, Statistics]]:
    """As many of these signals, from the first on, as can be shuffled at once with nothing clearly worse; their worth.

    Signals that say the same can each be spared, but not all of them: one can, as each was found to be alone. The
    number is found by bisection, as though each further signal could only cost more.
    """
    n_spare, n_too_many, chance = min(1, len(signals)), len(signals) + 1, clear_up_to([], policy.decision.confidence)
    n, found = len(signals), dict[str, Statistics]()
    while n_too_many - n_spare > 1:
        lost = importance(trial, signals[:n])
        if any(is_clear(each, chance) for each in _that_matters(lost, trial.k).values()):
            n_too_many = n
        else:
            n_spare, found = n, lost
        n = (n_spare + n_too_many) // 2
    return signals[:n_spare], found or (importance(trial, signals[:n_spare]) if n_spare else {})


def that_matter(k: int) -> list[tuple[str, str]]:
    """Tasks and metrics that a verdict rests on, the main one first."""
    return [(RANKING, "auc"), (RANKING, "log_loss"), (RETRIEVAL, f"ndcg@{k}")]


def _that_matters(found: Mapping[str, Statistics], k: int) -> dict[tuple[str, str], Statistic]:
    """What a verdict rests on, by task and metric."""
    return {(task, metric): found[task][metric] for task, metric in that_matter(k) if task in found}


def _name(task: str, metric: str) -> str:
    return f"{task} {metric.replace('_', ' ')}"


def _recovered(kept: list[TokenProbe], signal: Signal) -> dict[str, dict[str, float | None]]:
    return {
        each.maker: {"prompt": number(each.prompt), "ceiling": number(each.ceiling)}
        for each in kept
        if each.signal == signal
    }


def _json(statistics: Mapping[str, Statistics], policy: Policy) -> dict[str, Any]:
    return {
        task: {metric: as_json(each, confidence=policy.decision.confidence) for metric, each in metrics.items()}
        for task, metrics in statistics.items()
    }


def _rank(row: Mapping[str, Any]) -> tuple[float, bool, float]:
    """What rows are sorted by: value per cost, of equals the droppable last, and the dearest last of all."""
    value = row["value_per_cost"]
    return (-np.inf if value is None else float(value)), row["verdict"] != DROP, -float(row["cost_share"])
