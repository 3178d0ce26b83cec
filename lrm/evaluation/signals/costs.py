"""What each signal costs, for a mean request.

*Prompt tokens*: the tokens that a maker places in a prompt (history: one row an event; query: one; candidate: one row a
candidate), divided by the signals that share them. A budget is fixed, so dropping one signal frees no token by itself;
it is what the others would gain. *Online bytes*: the values read to answer the request, at 4 bytes a number, text as
UTF-8, nothing for a null. The *share* of a signal is the mean of its share in all tokens and of its share in all bytes,
so that the shares of all signals sum to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.schema import BAG, CANDIDATE, DENSE, EMBEDDING, HISTORY, QUERY, Signal
from lrm.tokens.corpus import Corpus

NUMBER_BYTES = 4


class Cost(NamedTuple):
    """What one signal costs."""

    prompt_tokens: float
    online_bytes: float
    null_rate: float
    """Share of nulls, of the table where it is largest."""
    cost_share: float


def costs(recommender: Recommender, corpus: Corpus, tables: Tables) -> dict[str, Cost]:
    """What each declared signal costs a mean request of these tables.

    Args:
        recommender: the model.
        corpus: the same requests, encoded.
        tables: requests to answer, with their candidates and their users' events.
    """
    max_history = recommender.prompt_shape().max_history
    held = {HISTORY: tables.events, QUERY: tables.requests, CANDIDATE: tables.candidates}
    rows = {
        HISTORY: float(np.minimum(corpus.visible_R, max_history).mean()),
        QUERY: 1.0,
        CANDIDATE: tables.candidates.height / tables.requests.height,
    }
    shared = {maker: rows[maker] * each for maker, each in _tokens_per_signal(recommender).items()}
    signals = recommender.signals
    tokens = {signal.name: sum(shared[maker] for maker in signal.makers) for signal in signals}
    stored = {
        signal.name: sum(rows[maker] * value_bytes(held[maker][signal.name], signal) for maker in signal.makers)
        for signal in signals
    }
    nulls = {signal.name: max(_null_rate(held[maker][signal.name]) for maker in signal.makers) for signal in signals}
    share = {name: (_part(tokens, name) + _part(stored, name)) / 2 for name in tokens}
    return {name: Cost(tokens[name], stored[name], nulls[name], share[name]) for name in tokens}


def value_bytes(column: pl.Series, signal: Signal) -> float:
    """Mean size of a value, nulls being nothing."""
    if not len(column):
        return 0.0
    if signal.kind in (DENSE, EMBEDDING):
        return NUMBER_BYTES * (signal.dim or 1) * (1 - _null_rate(column))
    words = column.list.explode(keep_nulls=False, empty_as_null=False) if signal.kind == BAG else column
    return float(words.cast(pl.String).str.len_bytes().sum()) / len(column)


def _tokens_per_signal(recommender: Recommender) -> dict[str, float]:
    """{maker: tokens of one of its rows, over the signals that share them}."""
    factory = recommender.factory
    makers = {HISTORY: factory.history, QUERY: factory.query, CANDIDATE: factory.candidate}
    return {name: maker.n_tokens / max(1, len(maker.signals)) if maker else 0.0 for name, maker in makers.items()}


def _null_rate(column: pl.Series) -> float:
    return column.null_count() / max(1, len(column))


def _part(amounts: dict[str, float], name: str) -> float:
    total = sum(amounts.values())
    return amounts[name] / total if total else 0.0
