"""Linear probes: how much of a signal can be read back from vectors that were never trained to say it.

Every probe is linear and standardises its inputs by the rows that it is fitted on. A number or a vector is read by
ridge regression and scored by R2: the share of its variance explained. A category or a bag is read by logistic
regression and scored by the share of its entropy explained, bits retained over bits there are. Both are 1 for
everything, 0 for no more than the fitting rows' mean, and below 0 for worse than that.

Axes: N rows, X inputs, Y outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lrm.evaluation.metrics.metrics import Floats
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.signals import SignalArrays, of_kind
from lrm.tokens.vocabulary import MISSING

MAX_CATEGORIES = 32
"""Categories that a probe tells apart: the most frequent of the fitting rows, all others being one more."""
RIDGE = 1e-2
"""Penalty on the squared weights of standardised inputs, relative to the mean loss of a row."""
STEPS = 30


class Rows(NamedTuple):
    """Two sets of rows: `fit` to fit a probe on, `score` to score it on."""

    fit: Floats
    score: Floats


def encoded(arrays: SignalArrays, signals: tuple[Signal, ...], signal: Signal) -> Floats:
    """A signal as plain numbers, (N, Y): what stands in the arrays, missing where it is missing.

    A number is its standard score, NaN where missing; a category its index; a bag its indices; a vector itself.
    """
    at = of_kind(signals, signal.kind).index(signal)
    if signal.kind == DENSE:
        values = np.where(arrays.bucket_NF[:, at] == MISSING, np.nan, arrays.value_NF[:, at])
        return values[:, None].astype(np.float32)
    if signal.kind == SPARSE:
        return arrays.sparse_NS[:, at, None].astype(np.float32)
    return (arrays.bags if signal.kind == BAG else arrays.embeddings)[at].astype(np.float32)


def raw(rows: Rows, kind: str) -> Rows:
    """The signal's own encoding as inputs of a probe: a number and whether it is missing, or one place a category."""
    if kind in (DENSE, EMBEDDING):
        return Rows(_with_flag(rows.fit), _with_flag(rows.score))
    return members(rows, kind)


def members(rows: Rows, kind: str) -> Rows:
    """Which of the most frequent categories each row holds, (N, Y) of 0 and 1; of a bag only real members count.

    Where no bag of the fitting rows has a member, Y is 0.
    """
    known = rows.fit[rows.fit != MISSING] if kind == BAG else rows.fit
    category, count = np.unique(known, return_counts=True)
    top = category[np.argsort(-count, kind="stable")[:MAX_CATEGORIES]]
    found = Rows(*((part[:, :, None] == top).any(1).astype(np.float32) for part in rows))
    if kind == BAG:
        return found
    return Rows(*(np.hstack([part, 1 - part.sum(1, keepdims=True)]) for part in found))


def recovered(inputs: Rows, signal: Rows, kind: str) -> float:
    """The share of a signal that a probe reads from its inputs; NaN where the scored rows do not vary.

    Args:
        inputs: (N, X) each.
        signal: (N, Y) each, as `encoded` gives it.
        kind: of the signal.
    """
    if kind in (SPARSE, BAG):
        if not (len(signal.fit) and len(signal.score)):
            return float("nan")
        return bits_retained(inputs, members(signal, kind), is_bag=kind == BAG)
    known = [np.isfinite(part).all(1) for part in signal]
    inputs, signal = (Rows(*(part[rows] for part, rows in zip(both, known, strict=True))) for both in (inputs, signal))
    return variance_explained(inputs, signal)


def variance_explained(inputs: Rows, outputs: Rows) -> float:
    """R2 of a ridge regression over all outputs together; NaN where the scored outputs do not vary."""
    if min(len(outputs.fit), len(outputs.score)) < 2:
        return float("nan")
    centre = outputs.fit.mean(0)
    spread = float(((outputs.score - outputs.score.mean(0)) ** 2).sum())
    if spread < 1e-9:
        return float("nan")
    predicted = centre + linear(inputs, outputs.fit - centre)
    return 1 - float(((outputs.score - predicted) ** 2).sum()) / spread


def linear(inputs: Rows, wanted: Floats) -> Floats:
    """What a ridge regression, fitted to `wanted` on the fitting rows, predicts of the scored rows."""
    fit, score = _standardised(inputs)
    gram = fit.T @ fit + RIDGE * len(fit) * np.eye(fit.shape[1])
    predicted: Floats = score @ np.linalg.solve(gram, fit.T @ wanted.astype(np.float64))
    return predicted


def bits_retained(inputs: Rows, outputs: Rows, *, is_bag: bool) -> float:
    """Share of the outputs' entropy that a logistic regression explains: one choice a row, or yes or no each of a bag.

    The entropy is what the frequencies of the fitting rows cost on the scored rows; NaN where those do not vary.
    """
    if (outputs.score == outputs.score[0]).all():
        return float("nan")
    fit, score = (torch.as_tensor(part) for part in _standardised(inputs))
    target, truth = (torch.as_tensor(part.astype(np.float64)) for part in outputs)
    share = ((target.sum(0) + 0.5) / (len(target) + 0.5 * target.shape[1])).clamp(max=1 - 0.5 / (len(target) + 1))
    prior = share.logit() if is_bag else share.log()
    entropy = float(_cross_entropy(prior.expand(len(truth), -1), truth, is_bag=is_bag))
    weight = torch.zeros(fit.shape[1], target.shape[1], dtype=torch.float64, requires_grad=True)
    bias = prior.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = _cross_entropy(fit @ weight + bias, target, is_bag=is_bag) + RIDGE / 2 * (weight**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        left = float(_cross_entropy(score @ weight + bias, truth, is_bag=is_bag))
    return 1 - left / entropy


def _with_flag(values: Floats) -> Floats:
    is_missing = np.isnan(values).any(1, keepdims=True)
    return np.hstack([np.nan_to_num(values), is_missing.astype(np.float32)])


def _cross_entropy(logits: torch.Tensor, truth: torch.Tensor, *, is_bag: bool) -> torch.Tensor:
    """Nats a row."""
    if is_bag:
        parts = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return parts.sum(1).mean()
    return -(truth * logits.log_softmax(1)).sum(1).mean()


def _standardised(inputs: Rows) -> tuple[Floats, Floats]:
    centre, deviation = inputs.fit.mean(0, dtype=np.float64), inputs.fit.std(0, dtype=np.float64)
    fit, score = ((part - centre) / np.where(deviation > 1e-6, deviation, 1.0) for part in inputs)
    return fit, score.clip(-10, 10)
