"""The signal ledger: what each signal is worth to the model, what it costs, and which could be dropped.

The *value* of a signal is the share of the model's lift that is lost when it is shuffled, the mean over the tasks: of
the area under the curve above one half, and of the retrieval NDCG. A loss that is not clear counts as none. Over its
`cost_share` (see `signal_costs`) that is its value per cost: 1 for a signal that brings as large a part of the lift as
of the cost.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from lrm.config import EvaluationConfig
from lrm.evaluation.estimates import RANKING, RETRIEVAL, Statistics, as_json, number
from lrm.evaluation.exam import Exam
from lrm.evaluation.leakage import alone_auc, suspicion
from lrm.evaluation.retention import Retention, retention, two_sides
from lrm.evaluation.signal_costs import costs
from lrm.evaluation.statistics import Statistic, interval
from lrm.evaluation.worth import Trial, set_up, worth
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.progress import progress
from lrm.schema import Signal
from lrm.tokens.corpus import Corpus

KEEP, DROP, UNCLEAR, SUSPICIOUS = "keep", "could be dropped", "unclear", "suspicious"
PROBE_REQUESTS, PROBE_ROWS = 2000, 2000
"""Of the retention probes, on each side."""
LEAK_REQUESTS, LEAK_ROWS = 2000, 8000
"""Of the search for leaks, on each side."""
NEGLIGIBLE = 1e-4
"""A worth below this is none, however sure: a tenth of the smallest difference that anybody would act on."""


def signal_ledger(
    exam: Exam, recommender: Recommender, scorer: Scorer, config: EvaluationConfig, *, seed: int
) -> dict[str, Any]:
    """Weigh every declared signal; name those that could be dropped, and those that look like the outcome.

    Args:
        exam: what the model was asked.
        recommender: the model.
        scorer: the model over the exam's tables.
        config: sizes and intervals.
        seed: of samples, shuffles and draws.

    Returns:
        The content of `signal_ledger.json`, as docs/artifacts.md, section 5, describes it.
    """
    started = time.perf_counter()
    signals = recommender.signals
    trial = set_up(exam, recommender, config, seed=seed)
    worths = {signal.name: worth(trial, [signal]) for signal in progress(signals, what="signal ledger", unit="signal")}
    spent = costs(recommender, trial.scorer.corpus, trial.exam.tables)
    alone = _alone(recommender, scorer.corpus, seed=seed)
    kept = retention(
        recommender, scorer.corpus, n_requests=PROBE_REQUESTS, n_rows=PROBE_ROWS, seed=seed, only_prompt=True
    )
    rows = []
    for signal in signals:
        found, share = worths[signal.name], spent[signal.name].cost_share
        area = alone.get(signal.name, float("nan"))
        verdict, reason = judge(signal, found, base=trial.base, alone=area, config=config, n_signals=len(signals))
        value = share_of_lift(found, trial.base, config) if verdict in (KEEP, SUSPICIOUS) else 0.0
        rows.append(
            {"signal": signal.name, "kind": signal.kind, "makers": list(signal.makers)}
            | {"verdict": verdict, "reason": reason, "value": number(value)}
            | {"value_per_cost": number(value / share) if share else None}
            | {"worth": _json(found, config), "alone_auc": number(area), "retention": _retention(kept, signal)}
            | {what: number(amount) for what, amount in spent[signal.name]._asdict().items()}
        )
    rows.sort(key=_rank, reverse=True)
    by_name = {signal.name: signal for signal in signals}
    droppable = [row["signal"] for row in rows if row["verdict"] == DROP]
    spare, lost = spare_together(trial, [by_name[name] for name in reversed(droppable)], config)
    return {
        "matters": [(task, metric) for task, metric in that_matter(config) if task in trial.base],
        "confidence": config.confidence,
        "n_requests": trial.exam.tables.requests.height,
        "n_users": trial.draws.shape[1],
        "base": _json(trial.base, config),
        "signals": rows,
        "droppable": droppable,
        "together": {"signals": [signal.name for signal in spare], "worth": _json(lost, config)},
        "warnings": [_warning(row) for row in rows if row["verdict"] == SUSPICIOUS],
        "seconds": round(time.perf_counter() - started, 2),
    }


def judge(
    signal: Signal,
    found: Mapping[str, Statistics],
    *,
    base: Mapping[str, Statistics],
    alone: float,
    config: EvaluationConfig,
    n_signals: int,
) -> tuple[str, str]:
    """The verdict on a signal, and why.

    It is kept where a metric that matters (area under the curve and log loss of ranking, NDCG of retrieval) is clearly
    worse without it (see `is_clear`). Otherwise it could be dropped, where no interval reaches beyond the drop that the
    gate tolerates, and is unclear where one does.

    Args:
        signal: which.
        found: its worth.
        base: the model's metrics with every signal in its place.
        alone: the area under the curve of the signal by itself, or NaN.
        config: `k`, the intervals' confidence, and the tolerated drop.
        n_signals: signals that are judged.
    """
    ndcg = f"ndcg@{config.k}"
    whole = base[RETRIEVAL][ndcg].value if RETRIEVAL in found else 0.0
    carried = found[RETRIEVAL][ndcg].value / whole if whole > 0 else float("nan")
    if why := suspicion(signal, alone=alone, carried=carried):
        return SUSPICIOUS, why
    matters = {_name(task, metric): found[task][metric] for task, metric in that_matter(config) if task in found}
    measured = {name: interval(each, confidence=config.confidence) for name, each in matters.items()}
    known = {name: each for name, each in measured.items() if np.isfinite(each.low)}
    said = {name: f"{name} {value:+.4f} ({low:+.4f} to {high:+.4f})" for name, (value, low, high) in known.items()}
    needed = [said[name] for name in known if is_clear(matters[name], config, n_signals=n_signals)]
    if needed:
        return KEEP, f"worse without it: {'; '.join(needed)}"
    if not known:
        return KEEP, "what it is worth could not be measured on these data"
    if max(each.high for each in known.values()) > config.max_guard_drop:
        return UNCLEAR, f"too few test requests to tell: {'; '.join(said.values())}"
    return DROP, f"no worse without it by more than {config.max_guard_drop:g}: {'; '.join(said.values())}"


def is_clear(worth: Statistic, config: EvaluationConfig, *, n_signals: int) -> bool:
    """Whether a worth is above zero beyond doubt, and not negligible.

    The confidence is that of all signals together (Bonferroni): among fifty, one or two worthless ones would else seem
    to be worth something. So far out the draws are few, hence their deviation is taken and the normal distribution.
    """
    reach = NormalDist().inv_cdf(1 - (1 - config.confidence) / 2 / n_signals)
    return bool(worth.value > reach * worth.draws.std()) and worth.value >= NEGLIGIBLE


def share_of_lift(found: Mapping[str, Statistics], base: Mapping[str, Statistics], config: EvaluationConfig) -> float:
    """The share of what the model gains over chance that is lost: the mean over the tasks, and never below 0."""
    main = {RANKING: ("auc", 0.5), RETRIEVAL: (f"ndcg@{config.k}", 0.0)}
    shares = []
    for task, (metric, chance) in main.items():
        lift = base[task][metric].value - chance if task in base else 0.0
        if lift > 0:
            shares.append(found[task][metric].value / lift if task in found else 0.0)
    return max(0.0, sum(shares) / len(shares)) if shares else 0.0


def spare_together(
    trial: Trial, signals: Sequence[Signal], config: EvaluationConfig
) -> tuple[Sequence[Signal], dict[str, Statistics]]:
    """As many of these signals, from the first on, as can be shuffled at once with nothing clearly worse; their worth.

    Signals that say the same can each be spared, but not all of them. The number is found by bisection, as though each
    further signal could only cost more.
    """
    n_spare, n_too_many = 0, len(signals) + 1
    n, found = len(signals), dict[str, Statistics]()
    while n_too_many - n_spare > 1:
        lost = worth(trial, signals[:n])
        if any(
            is_clear(lost[task][metric], config, n_signals=1) for task, metric in that_matter(config) if task in lost
        ):
            n_too_many = n
        else:
            n_spare, found = n, lost
        n = (n_spare + n_too_many) // 2
    return signals[:n_spare], found


def that_matter(config: EvaluationConfig) -> list[tuple[str, str]]:
    """Tasks and metrics that a verdict rests on, first the one that decides promotion (`gate.primary_metric`)."""
    return [(RANKING, "auc"), (RANKING, "log_loss"), (RETRIEVAL, f"ndcg@{config.k}")]


def _name(task: str, metric: str) -> str:
    return f"{task} {metric.replace('_', ' ')}"


def _alone(recommender: Recommender, corpus: Corpus, *, seed: int) -> dict[str, float]:
    sides = two_sides(
        corpus,
        max_history=recommender.config.model.max_history,
        n_requests=LEAK_REQUESTS,
        n_rows=LEAK_ROWS,
        rng=np.random.default_rng(seed),
    )
    return alone_auc(corpus, recommender.signals, sides)


def _retention(kept: list[Retention], signal: Signal) -> dict[str, dict[str, float | None]]:
    return {
        each.maker: {"prompt": number(each.prompt), "ceiling": number(each.ceiling)}
        for each in kept
        if each.signal == signal
    }


def _json(statistics: Mapping[str, Statistics], config: EvaluationConfig) -> dict[str, Any]:
    return {
        task: {metric: as_json(each, confidence=config.confidence) for metric, each in metrics.items()}
        for task, metrics in statistics.items()
    }


def _rank(row: Mapping[str, Any]) -> tuple[float, bool, float]:
    """What rows are sorted by: value per cost, of equals the droppable last, and the dearest last of all."""
    value = row["value_per_cost"]
    return (-np.inf if value is None else float(value)), row["verdict"] != DROP, -float(row["cost_share"])


def _warning(row: Mapping[str, Any]) -> str:
    return (
        f"Signal {row['signal']!r} may leak the outcome: {row['reason']}. Find out when its value is written; what is "
        "known only after the outcome must not be read at the request."
    )
