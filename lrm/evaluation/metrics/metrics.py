"""Metrics of rankings and of probabilities, in numpy.

Every rank is counted from 1 with ties broken against the model: the rank of an item is the number of items that score
at least as much. A constant score therefore ranks everything last, never first.

Axes: T targets, R requests, N scored rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

LOWER_IS_BETTER = frozenset({"log_loss", "ece", "concentration"})


class Bins(NamedTuple):
    """A calibration curve: one entry a bin, in order of probability."""

    predicted: Floats
    observed: Floats
    n_rows: Ints


def is_lower_better(metric: str) -> bool:
    """Whether a smaller value of this metric is the better one."""
    return metric.partition("@")[0] in LOWER_IS_BETTER


def rank_against_ties(scores: Floats, targets: Ints) -> Ints:
    """Rank of each target among all items of one request.

    Args:
        scores: (V,) one score an item, higher is better.
        targets: (T,) positions in `scores`.

    Returns:
        (T,) ranks from 1 to V.
    """
    ranks: Ints = np.count_nonzero(scores[None, :] >= scores[targets][:, None], axis=1)
    return ranks


def rank_within_groups(scores: Floats, groups: Ints) -> Ints:
    """Rank of each row among the rows of its group, ties against every tied row.

    Args:
        scores: (N,) higher is better.
        groups: (N,) group of each row, such as its request.

    Returns:
        (N,) ranks from 1 to the size of the group.
    """
    if not scores.size:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((-scores, groups))
    group, score = groups[order], scores[order]
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_tie = new_group | np.r_[True, score[1:] != score[:-1]]
    start = np.flatnonzero(new_group)[np.cumsum(new_group) - 1]
    ties = np.flatnonzero(new_tie)
    end = np.r_[ties[1:], scores.size][np.cumsum(new_tie) - 1]
    ranks = np.empty(scores.size, dtype=np.int64)
    ranks[order] = end - start
    return ranks


def hit_rate(ranks: Ints, request: Ints, *, n_requests: int, k: int) -> Floats:
    """1 where a request has a target in its top k, else 0; NaN without targets. Ranks (T,), requests (T,) -> (R,)."""
    hits = np.bincount(request, ranks <= k, n_requests)
    return _where_targets((hits > 0).astype(np.float64), request, n_requests)


def recall(ranks: Ints, request: Ints, *, n_requests: int, k: int) -> Floats:
    """Targets in the top k over the most that fit there, min(k, targets); NaN without targets. (T,) -> (R,)."""
    hits, n_targets = np.bincount(request, ranks <= k, n_requests), np.bincount(request, minlength=n_requests)
    return _where_targets(hits / np.clip(n_targets, 1, k), request, n_requests)


def ndcg(ranks: Ints, request: Ints, *, n_requests: int, k: int) -> Floats:
    """Discounted gain 1/log2(rank + 1) of the targets in the top k, over that of an ideal order of min(k, targets).

    With one target the ideal is 1. NaN for a request without targets. Ranks (T,), requests (T,) -> (R,).
    """
    gain = np.bincount(request, np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0), n_requests)
    ideal = np.cumsum(1 / np.log2(np.arange(2.0, k + 2)))
    n_targets = np.bincount(request, minlength=n_requests)
    return _where_targets(gain / ideal[np.clip(n_targets, 1, k) - 1], request, n_requests)


def reciprocal_rank(ranks: Ints, request: Ints, *, n_requests: int) -> Floats:
    """1/rank of the best target of a request; NaN without targets. Ranks (T,), requests (T,) -> (R,)."""
    best = np.full(n_requests, np.iinfo(np.int64).max)
    np.minimum.at(best, request, ranks)
    return _where_targets(1.0 / best, request, n_requests)


def _where_targets(values: Floats, request: Ints, n_requests: int) -> Floats:
    return np.where(np.bincount(request, minlength=n_requests) > 0, values, np.nan)


def concordance(scores: Floats, labels: Floats) -> Floats:
    """Share of the other class that each row is ordered rightly against, a tie counting one half.

    For a positive: negatives that score less; for a negative: positives that score more. The mean over the positives,
    and over the negatives, is the area under the ROC curve. NaN where a class is empty. (N,), (N,) -> (N,).
    """
    positive = labels > 0
    _, level = np.unique(scores, return_inverse=True)
    at_level = [np.bincount(level[rows], minlength=int(level.max(initial=0)) + 1) for rows in (~positive, positive)]
    n_negative, n_positive = int((~positive).sum()), int(positive.sum())
    if not n_negative or not n_positive:
        return np.full(scores.shape, np.nan)
    below = (np.cumsum(at_level[0]) - at_level[0] / 2) / n_negative
    above = 1 - (np.cumsum(at_level[1]) - at_level[1] / 2) / n_positive
    return np.where(positive, below[level], above[level])


def auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve, ties counting one half; NaN when a class is empty."""
    positive = labels > 0
    return float(concordance(scores, labels)[positive].mean()) if positive.any() else float("nan")


def log_loss(logits: Floats, labels: Floats) -> Floats:
    """Negative log likelihood of each row in nats, from logits so that no probability is clipped. (N,) -> (N,)."""
    wide = logits.astype(np.float64)
    return np.logaddexp(0.0, wide) - wide * labels


def probability(logits: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


def calibration_bin(probabilities: Floats, *, n_bins: int = 15) -> Ints:
    """Bin of each row, bins holding about equally many rows; equal probabilities share a bin. (N,) -> (N,)."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, probabilities, side="left")


def calibration(probabilities: Floats, labels: Floats, *, n_bins: int = 15) -> Bins:
    """Mean probability and share of positives of each non-empty bin of `calibration_bin`."""
    if not probabilities.size:
        return Bins(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    bins = calibration_bin(probabilities, n_bins=n_bins)
    count = np.bincount(bins)
    held = count > 0
    predicted, observed = (np.bincount(bins, values)[held] / count[held] for values in (probabilities, labels))
    return Bins(predicted, observed, count[held])


def expected_calibration_error(bins: Bins) -> float:
    """Mean distance between predicted and observed over the bins, weighted by their rows; NaN without rows."""
    if not bins.n_rows.size:
        return float("nan")
    return float(np.average(np.abs(bins.predicted - bins.observed), weights=bins.n_rows))
