"""From answers to numbers: every metric of every model with its draws, overall and on slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lrm.evaluation.metrics import (
    LOWER_IS_BETTER,
    Floats,
    hit_rate,
    log_loss,
    ndcg,
    probability,
    rank_within_groups,
    recall,
    reciprocal_rank,
)
from lrm.evaluation.ranking import Ranking, Ranks, Retrieval
from lrm.evaluation.slices import Slice
from lrm.evaluation.statistics import (
    Draws,
    Statistic,
    auc,
    calibration_error,
    interval,
    mean,
    minus,
    probability_worse,
)

RETRIEVAL, RANKING = "retrieval", "ranking"
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
    share_of_users: float = 1.0


def retrieval_statistics(draws: Draws, task: Retrieval, ranks: Ranks, *, k: int, masked: bool) -> Statistics:
    """Hit rate, recall and NDCG at k, and the mean reciprocal rank, each a mean over requests.

    Args:
        draws: (B, U) draws of the users.
        task: what was asked.
        ranks: the model's answer.
        k: length of the list that a user sees.
        masked: report each metric once more with items of the history left out.
    """
    n = task.request_ids.size
    values: dict[str, Floats] = {}
    for word, rank in (("", ranks.plain), ("_masked", ranks.masked)) if masked else (("", ranks.plain),):
        values[f"ndcg{word}@{k}"] = ndcg(rank, task.request, n_requests=n, k=k)
        values[f"recall{word}@{k}"] = recall(rank, task.request, n_requests=n, k=k)
        values[f"hit_rate{word}@{k}"] = hit_rate(rank, task.request, n_requests=n, k=k)
        values[f"mrr{word}"] = reciprocal_rank(rank, task.request, n_requests=n)
    return {metric: mean(draws, task.user, value) for metric, value in values.items()}


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
            model: mean(draws, retrieval.user, ndcg(answer.plain[rows], request, n_requests=n_requests, k=k))
            for model, answer in ranks.items()
        }
    if ranking is not None:
        rows = part.rows(ranking.request_ids[ranking.request], ranking.item)
        found[RANKING, "auc"] = {
            model: auc(draws, ranking.user[rows], answer[rows], ranking.label[rows]) for model, answer in logits.items()
        }
    return found


def compare(
    statistics: Mapping[str, Statistics], *, task: str, confidence: float, slice_name: str = "", n_users: int = 0
) -> list[Comparison]:
    """The challenger against each other model, on the metrics both have.

    Args:
        statistics: {model: {metric: statistic}} of one task, the challenger's among them.
        task: the task's name.
        confidence: of the intervals.
        slice_name: empty for all of the task.
        n_users: users of the whole task, for a slice's share of them; 0 for all of the task.
    """
    found = []
    own = statistics[CHALLENGER]
    for against, others in statistics.items():
        for metric in own if against != CHALLENGER else ():
            if metric not in others or not others[metric].n_users:
                continue
            difference = minus(own[metric], others[metric])
            value, low, high = interval(difference, confidence=confidence)
            worse = probability_worse(difference, lower_is_better=metric in LOWER_IS_BETTER)
            users = difference.n_users
            share = users / n_users if n_users else 1.0
            found.append(Comparison(task, metric, against, value, low, high, worse, users, slice_name, share))
    return found


def as_json(statistic: Statistic, *, confidence: float) -> dict[str, Any]:
    """Value, bounds and users of a statistic; None for what could not be computed."""
    known = {name: number(value) for name, value in interval(statistic, confidence=confidence)._asdict().items()}
    return known | {"n_users": statistic.n_users}


def number(value: float) -> float | None:
    """A float that JSON can hold, to six places: None for NaN and infinity."""
    return round(float(value), 6) if np.isfinite(value) else None
