"""Intervals by a paired bootstrap over users.

A user is the unit that is drawn again: all of a user's requests and rows come along. Every model and metric sees the
same draws, so that the difference of two estimates is a paired one. What a draw needs of a user is a sum or two, hence
one matrix product gives all draws of a metric.

Axes: B draws, U users, N rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrm.evaluation.metrics import Floats, Ints, calibration_bin, concordance

Draws = NDArray[np.float32]


class Statistic(NamedTuple):
    """A value and what it would have been for each draw of the users."""

    value: float
    draws: Floats
    n_users: int


class Interval(NamedTuple):
    """A value with the bounds of its percentile interval."""

    value: float
    low: float
    high: float


def draw_users(n_users: int, n_bootstrap: int, rng: np.random.Generator) -> Draws:
    """How often each draw holds each user: (B, U), each row summing to U."""
    draws = np.empty((n_bootstrap, n_users), dtype=np.float32)
    for row in draws:
        row[:] = np.bincount(rng.integers(0, max(n_users, 1), n_users), minlength=n_users)
    return draws


def mean(draws: Draws, user: Ints, values: Floats) -> Statistic:
    """The mean of `values` (N,) over the rows of users `user` (N,); rows that are NaN do not take part."""
    held = np.isfinite(values)
    if not held.any():
        return _nothing(draws)
    values, user = values[held], user[held]
    total = np.bincount(user, values, draws.shape[1]).astype(np.float32)
    count = np.bincount(user, minlength=draws.shape[1]).astype(np.float32)
    return Statistic(float(values.mean()), _ratio(draws @ total, draws @ count), int(np.count_nonzero(count)))


def auc(draws: Draws, user: Ints, scores: Floats, labels: Floats) -> Statistic:
    """Area under the ROC curve of rows (N,), over all pairs of a positive and a negative row, across users.

    The draws are linear in the users' influences: how much the area moves when a user counts once more. That is
    DeLong's variance with users as clusters (Obuchowski 1997), which needs no second sort for each draw.
    """
    positive = labels > 0
    right = concordance(scores, labels)
    if not np.isfinite(right).all() or not right.size:
        return _nothing(draws)
    value = float(right[positive].mean())
    share = np.where(positive, 1 / positive.sum(), 1 / (~positive).sum())
    influence = np.bincount(user, (right - value) * share, draws.shape[1]).astype(np.float32)
    return Statistic(value, value + (draws - 1) @ influence, int(np.unique(user).size))


def calibration_error(draws: Draws, user: Ints, probabilities: Floats, labels: Floats) -> Statistic:
    """Expected calibration error over bins fixed on all rows (N,).

    An error that is an absolute value grows by resampling noise alone, so the interval sits a little high; differences
    of two models share that and stay fair.
    """
    if not labels.size:
        return _nothing(draws)
    bins = calibration_bin(probabilities)
    gaps = [
        np.bincount(user[rows], (probabilities - labels)[rows], draws.shape[1])
        for rows in (bins == index for index in np.unique(bins))
    ]
    per_user = np.stack(gaps, axis=1)
    count = np.bincount(user, minlength=draws.shape[1])
    value = float(np.abs(per_user.sum(axis=0)).sum() / labels.size)
    drawn = np.abs(draws @ per_user.astype(np.float32)).sum(axis=1)
    return Statistic(value, _ratio(drawn, draws @ count.astype(np.float32)), int(np.unique(user).size))


def minus(left: Statistic, right: Statistic) -> Statistic:
    """The paired difference of two statistics that were estimated with the same draws."""
    return Statistic(left.value - right.value, left.draws - right.draws, min(left.n_users, right.n_users))


def interval(statistic: Statistic, *, confidence: float) -> Interval:
    """The value with its percentile interval; bounds are NaN when no draw could be computed."""
    known = statistic.draws[np.isfinite(statistic.draws)]
    if not known.size:
        return Interval(statistic.value, float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(statistic.value, float(low), float(high))


def probability_worse(difference: Statistic, *, lower_is_better: bool) -> float:
    """One-sided: the share of draws in which the left model is not better, counted so that it is never quite zero."""
    gain = -difference.draws if lower_is_better else difference.draws
    known = gain[np.isfinite(gain)]
    return float((1 + np.count_nonzero(known <= 0)) / (1 + known.size))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    empty = denominator <= 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1, denominator))


def _nothing(draws: Draws) -> Statistic:
    return Statistic(float("nan"), np.full(draws.shape[0], np.nan), 0)
