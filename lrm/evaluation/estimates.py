"""From answers to numbers: every metric of every model with its draws, overall and on slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lrm.evaluation.metrics.bootstrap import (
    Draws,
    Statistic,
    auc,
    calibration_error,
    fixed,
    interval,
    mean,
    minus,
    probability_unharmed,
    probability_worse,
)
from lrm.evaluation.metrics.calibration import difference as calibration_difference
from lrm.evaluation.metrics.metrics import (
    Floats,
    hit_rate,
    is_lower_better,
    log_loss,
    ndcg,
    probability,
    rank_within_groups,
    recall,
    reciprocal_rank,
)
from lrm.evaluation.policy import RANKING, RETRIEVAL
from lrm.evaluation.predictions import Ranking, Ranks, Retrieval
from lrm.evaluation.slices import Mask, Slice

CHALLENGER, CHAMPION, POPULAR = "challenger", "champion", "popular"

Statistics = dict[str, Statistic]


class Comparison(NamedTuple):
    """The challenger minus another model on one metric; on all of the task when `slice` is empty."""

    task: str
    metric: str
    against: str
    difference: float
    low: float
    high: float
    p_worse: float
    n_users: int
    slice: str = ""
    p_unharmed: float = 1.0
    """On a slice: the chance of a draw in which the challenger is worse by the policy's margin at most."""
    confidence: float = 0.0
    """Of the interval where it is not the policy's; 0 where it is."""


def retrieval_statistics(
    draws: Draws, task: Retrieval, ranks: Ranks, *, k: int, masked: bool, head: Mask | None = None
) -> Statistics:
    """Hit rate, recall and NDCG at k, and the mean reciprocal rank, each a mean over requests.

    With `head`, also what the lists are made of: `concentration`, the share of their places that head items take, and
    `coverage`, the share of the catalogue that stands in some list.

    Args:
        draws: (B, U) draws of the users.
        task: what was asked.
        ranks: the model's answer.
        k: length of the list that a user sees.
        masked: report each metric once more with items of the history left out.
        head: (V,) the items that hold half of the training events.
    """
    n = task.request_ids.size
    values: dict[str, Floats] = {}
    for word, rank in (("", ranks.plain), ("_masked", ranks.masked)) if masked else (("", ranks.plain),):
        values[f"ndcg{word}@{k}"] = ndcg(rank, task.request, n_requests=n, k=k)
        values[f"recall{word}@{k}"] = recall(rank, task.request, n_requests=n, k=k)
        values[f"hit_rate{word}@{k}"] = hit_rate(rank, task.request, n_requests=n, k=k)
        values[f"mrr{word}"] = reciprocal_rank(rank, task.request, n_requests=n)
    lists: Statistics = {}
    if head is not None:
        values[f"concentration@{k}"] = head[ranks.top].mean(axis=1)
        covered = np.unique(ranks.top).size / head.size
        lists[f"coverage@{k}"] = fixed(draws, covered, n_users=int(np.unique(task.user).size))
    return {metric: mean(draws, task.user, value) for metric, value in values.items()} | lists


def ranking_statistics(draws: Draws, task: Ranking, logits: Floats, *, k: int) -> Statistics:
    """Area under the ROC curve, log loss, calibration error, and NDCG@k within requests that have a positive."""
    chance = probability(logits)
    return {
        "auc": auc(draws, task.user, logits, task.label),
        "log_loss": mean(draws, task.user, log_loss(logits, task.label)),
        "ece": calibration_error(draws, task.user, chance, task.label),
        f"ndcg@{k}": _ndcg_within_requests(draws, task, logits, k=k),
    }


def _ndcg_within_requests(draws: Draws, task: Ranking, logits: Floats, *, k: int) -> Statistic:
    positive = task.label > 0
    ranks = rank_within_groups(logits, task.request)[positive]
    n_requests = task.request_ids.size
    user = np.zeros(n_requests, dtype=np.int64)
    user[task.request] = task.user
    return mean(draws, user, ndcg(ranks, task.request[positive], n_requests=n_requests, k=k))


def slice_statistics(
    draws: Draws,
    part: Slice,
    *,
    retrieval: Retrieval | None,
    ranking: Ranking | None,
    ranks: Mapping[str, Ranks],
    logits: Mapping[str, Floats],
    k: int,
) -> dict[tuple[str, str], Statistics]:
    """The main metric of each task on one slice: {(task, metric): {model: statistic}}."""
    found: dict[tuple[str, str], Statistics] = {}
    if retrieval is not None:
        rows = part.rows(retrieval.request_ids[retrieval.request], retrieval.item)
        request, n_requests = retrieval.request[rows], retrieval.request_ids.size
        found[RETRIEVAL, f"ndcg@{k}"] = {
            model: mean(draws, retrieval.user, ndcg(prediction.plain[rows], request, n_requests=n_requests, k=k))
            for model, prediction in ranks.items()
        }
    if ranking is not None:
        rows = part.rows(ranking.request_ids[ranking.request], ranking.item)
        found[RANKING, "auc"] = {
            model: auc(draws, ranking.user[rows], prediction[rows], ranking.label[rows])
            for model, prediction in logits.items()
        }
    return found


def compare(
    statistics: Mapping[str, Statistics], *, task: str, confidence: float, slice_name: str = "", margin: float = 0.0
) -> list[Comparison]:
    """The challenger against each other model, on the metrics both have.

    Args:
        statistics: {model: {metric: statistic}} of one task, the challenger's among them.
        task: the task's name.
        confidence: of the intervals.
        slice_name: empty for all of the task.
        margin: by how much the challenger may be worse on a slice.
    """
    found = []
    own = statistics[CHALLENGER]
    for against, others in statistics.items():
        for metric in own if against != CHALLENGER else ():
            if metric not in others or not others[metric].n_users:
                continue
            difference, lower = minus(own[metric], others[metric]), is_lower_better(metric)
            found.append(
                Comparison(
                    task,
                    metric,
                    against,
                    *interval(difference, confidence=confidence),
                    p_worse=probability_worse(difference, lower_is_better=lower),
                    n_users=difference.n_users,
                    slice=slice_name,
                    p_unharmed=probability_unharmed(difference, lower_is_better=lower, margin=margin),
                )
            )
    return found


def calibration_compared(
    row: Comparison, draws: Draws, task: Ranking, logits: Mapping[str, Floats], *, confidence: float
) -> Comparison:
    """A comparison of calibration errors with an interval that noise does not pull to zero."""
    own, other = (probability(logits[model]) for model in (CHALLENGER, row.against))
    found, bound = calibration_difference(draws, task.user, own, other, task.label, confidence=confidence)
    return row._replace(low=found.low, high=found.high, p_worse=probability_worse(bound, lower_is_better=True))


def as_json(statistic: Statistic, *, confidence: float) -> dict[str, Any]:
    """Value, bounds and users of a statistic; None for what could not be computed."""
    known = {name: number(value) for name, value in interval(statistic, confidence=confidence)._asdict().items()}
    return known | {"n_users": statistic.n_users}


def number(value: float) -> float | None:
    """A float that JSON can hold, to six places: None for NaN and infinity."""
    return round(float(value), 6) if np.isfinite(value) else None
