"""Signals that know too much: the outcome itself, copied or computed from it, in the clothes of a signal.

Two rules, each with a bar that honest signals do not reach.

*Alone.* A ridge regression on one signal's own encoding, fitted on candidates of the training window and scored on
later ones of other users, orders outcomes with an area under the curve of at least `ALONE_AUC`. Whole models of clicks,
ratings and repurchases reach .70 to .85 on public data; one column that does far better than that has seen the outcome.

*Carrying all.* Shuffling one signal of the user or the request takes more than `CARRIED` of the retrieval NDCG. Such a
signal says who asks and when; what is wanted next is what the history tells. One that carries most of the answer names
the item that was taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lrm.evaluation.metrics import Ints, auc
from lrm.evaluation.probes import Rows, encoded, linear, raw
from lrm.evaluation.retention import Side
from lrm.evaluation.shuffling import columns
from lrm.schema import CANDIDATE, QUERY, Signal
from lrm.tokens.corpus import Corpus

ALONE_AUC = 0.95
CARRIED = 0.5


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


def suspicion(signal: Signal, *, alone: float, carried: float) -> str:
    """Why a signal looks like the outcome, as half a sentence; empty where it does not.

    Args:
        signal: which.
        alone: its area under the curve by itself, or NaN.
        carried: the share of the retrieval NDCG that is lost without it, or NaN.
    """
    if alone >= ALONE_AUC:
        return f"alone it orders outcomes with an area under the curve of {alone:.3f} ({ALONE_AUC:g} is the bar)"
    if set(signal.makers) == {QUERY} and carried > CARRIED:
        return f"{carried:.0%} of the retrieval NDCG rests on it ({CARRIED:.0%} is the bar)"
    return ""
