"""Signals that know too much: the outcome itself, copied or computed from it, in the clothes of a signal.

Two rules, each with a bar in the policy (`leakage`) that honest signals do not reach.

*Alone.* A ridge regression on one signal's own encoding, fitted on candidates of the training window and scored on
later ones of other users, orders outcomes with an area under the curve of at least `max_signal_auc`. Whole models of
clicks, ratings and repurchases reach .70 to .85 on public data; one column that does far better has seen the outcome.
What an item's content says is held against retrieval too: fitted on targets of half of the test users, it must tell
those of the other half from what the same users chose last in training.

*Carrying all.* Shuffling one signal of the user or the request takes more than `max_carried` of the retrieval NDCG. A
signal says who asks and when; what is wanted next is what the history tells. One that carries most of the answer names
the item that was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lrm.evaluation.metrics.metrics import Ints, auc
from lrm.evaluation.policy import LeakagePolicy
from lrm.evaluation.signals.linear_probe import Rows, encoded, linear, raw
from lrm.evaluation.signals.permutations import columns
from lrm.evaluation.signals.token_probes import Side, two_sides
from lrm.model.recommender import Recommender
from lrm.schema import CANDIDATE, QUERY, SPLITS, TEST, Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.segments import places
from lrm.tokens.vocabulary import content_signals

LEAK_REQUESTS, LEAK_ROWS = 2000, 8000
"""Of the search for leaks, on each side."""
LEAST_TARGETS = 50
"""Targets on each side, of items that training knew, under which an item's content is not held against retrieval."""


def single_signals(recommender: Recommender, corpus: Corpus, *, seed: int) -> dict[str, float]:
    """The `alone_auc` of a model's signals on a sample of the tables that it is judged on."""
    sides = two_sides(
        corpus,
        max_history=recommender.config.model.max_history,
        n_requests=LEAK_REQUESTS,
        n_rows=LEAK_ROWS,
        rng=np.random.default_rng(seed),
    )
    alone = alone_auc(corpus, recommender.signals, sides)
    for name, area in content_auc(corpus, recommender.signals, rng=np.random.default_rng(seed)).items():
        alone[name] = float(np.fmax(area, alone.get(name, area)))
    return alone


def content_auc(corpus: Corpus, signals: Sequence[Signal], *, rng: np.random.Generator) -> dict[str, float]:
    """How well each signal of an item's content tells test targets from other items; empty with too few targets.

    The others are what the same user chose last in training, as many, so that neither what is always in demand nor what
    is new stands out. Targets that training never saw, and users whom it never saw, are left out.
    """
    trained = np.flatnonzero(corpus.event_is_train_E)
    up_to = np.searchsorted(trained, corpus.user_offset_U)
    n_targets = np.diff(corpus.target_offset_R)
    is_asked = np.repeat(corpus.split_R == SPLITS.index(TEST), n_targets)
    is_asked &= np.isin(corpus.target_row_T, corpus.event_row_E[trained])
    user, target = np.repeat(corpus.user_R, n_targets)[is_asked], corpus.target_row_T[is_asked]
    order = np.argsort(user, kind="stable")
    user, target = user[order], target[order]
    last = up_to[user + 1] - 1 - places(np.bincount(user))
    held = last >= up_to[user]
    user, target, before = user[held], target[held], corpus.event_row_E[trained[last[held]]]
    is_fit = np.isin(user, rng.permutation(np.unique(user))[::2])
    if min(is_fit.sum(), (~is_fit).sum()) < LEAST_TARGETS:
        return {}
    items = [np.concatenate([target[rows], before[rows]]) for rows in (is_fit, ~is_fit)]
    fit, score = (np.repeat([1.0, 0.0], len(rows) // 2) for rows in items)
    content, found = content_signals(signals), {}
    for signal in content:
        values = encoded(corpus.content_V, content, signal)
        inputs = raw(Rows(values[items[0]], values[items[1]]), signal.kind)
        found[signal.name] = auc(linear(inputs, (fit - fit.mean())[:, None])[:, 0], score)
    return found


def alone_auc(corpus: Corpus, signals: Sequence[Signal], sides: Sequence[Side]) -> dict[str, float]:
    """How well each signal known at the request orders outcomes by itself; NaN where outcomes are all alike.

    Args:
        corpus: the tables, encoded.
        signals: the model's.
        sides: what to fit on, and what to score on.
    """
    request_of = np.repeat(np.arange(corpus.n_requests), np.diff(corpus.candidate_offset_R))
    candidates = [side.rows[CANDIDATE] for side in sides]
    fit, score = (corpus.label_C[rows] for rows in candidates)
    found: dict[str, float] = {}
    for maker, column in columns(corpus, signals).items():
        if maker not in (QUERY, CANDIDATE) or not (len(fit) and len(score)):
            continue
        rows: list[Ints] = [request_of[each] for each in candidates] if maker == QUERY else candidates
        for signal in column.signals:
            if signal in signals:
                values = encoded(column.arrays, column.signals, signal)
                inputs = raw(Rows(values[rows[0]], values[rows[1]]), signal.kind)
                area = auc(linear(inputs, (fit - fit.mean())[:, None])[:, 0], score)
                found[signal.name] = max(area, found.get(signal.name, area))
    return found


def suspicion(signal: Signal, *, alone: float, carried: float, bars: LeakagePolicy) -> str:
    """Why a signal looks like the outcome, as half a sentence; empty where it does not.

    Args:
        signal: which.
        alone: its area under the curve by itself, or NaN.
        carried: the share of the retrieval NDCG that is lost without it, or NaN.
        bars: the policy's.
    """
    if alone >= bars.max_signal_auc:
        bar = bars.max_signal_auc
        return f"alone it orders outcomes with an area under the curve of {alone:.3f} ({bar:g} is the bar)"
    if set(signal.makers) == {QUERY} and carried > bars.max_carried:
        return f"{carried:.0%} of the retrieval NDCG rests on it ({bars.max_carried:.0%} is the bar)"
    return ""


def suspicions(signals: Sequence[Signal], alone: Mapping[str, float], bars: LeakagePolicy) -> list[str]:
    """A warning for each signal that by itself orders outcomes too well."""
    nan = float("nan")
    found = {one.name: suspicion(one, alone=alone.get(one.name, nan), carried=nan, bars=bars) for one in signals}
    return [warning(name, reason) for name, reason in found.items() if reason]


def warning(signal: str, reason: str) -> str:
    """What to do about a signal that looks like the outcome."""
    return (
        f"Signal {signal!r} may leak the outcome: {reason}. Find out when its value is written; what is known only "
        "after the outcome must not be read at the request."
    )
