"""Signals torn from their rows: what a model reads where a signal holds true values, but of something else.

The values of a signal that describes items (content) move from item to item, so that history, candidates and catalogue
still agree on each item. Those of any other signal move between the rows of each table that carries it. Either way
they stay within a stratum (`lrm.tokens.strata`), among rows of like history length and items of like popularity: what
is lost is then what the signal adds to these two, which the model knows without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.schema import BAG, CANDIDATE, DENSE, HISTORY, QUERY, SPARSE, Signal, for_maker
from lrm.tokens.corpus import Corpus
from lrm.tokens.signals import SignalArrays, of_kind
from lrm.tokens.strata import Strata, donors
from lrm.tokens.vocabulary import content_signals, history_signals, query_signals

FIELDS = {HISTORY: "history_E", QUERY: "query_R", CANDIDATE: "candidate_C"}
"""Where a corpus keeps what each maker reads."""


class Column(NamedTuple):
    """A table's signals as one maker reads them."""

    arrays: SignalArrays
    signals: tuple[Signal, ...]


def columns(corpus: Corpus, signals: Sequence[Signal]) -> dict[str, Column]:
    """What each maker of the prompt reads of a corpus."""
    return {
        HISTORY: Column(corpus.history_E, history_signals(signals)),
        QUERY: Column(corpus.query_R, query_signals(signals)),
        CANDIDATE: Column(corpus.candidate_C, for_maker(signals, CANDIDATE)),
    }


def shuffled(
    corpus: Corpus,
    signal: Signal,
    signals: Sequence[Signal],
    strata: Strata,
    *,
    candidate_item: Ints,
    rng: np.random.Generator,
) -> Corpus:
    """The corpus with one signal's values moved; everything else, item identities too, stays.

    Args:
        corpus: the tables, encoded.
        signal: whose values move.
        signals: all of the model's.
        strata: of the corpus.
        candidate_item: row of the catalogue of each candidate, in the corpus' order.
        rng: draws the rows that values come from.
    """
    held = {maker: column for maker, column in columns(corpus, signals).items() if maker in signal.makers}
    content = Column(corpus.content_V, content_signals(signals))
    changed: dict[str, Any] = {}
    if signal in content.signals:
        donor = donors(strata.item_V, rng)
        item_of = {HISTORY: corpus.event_row_E, CANDIDATE: candidate_item}
        changed["content_V"] = _with(content, signal, content, donor)
        for maker, column in held.items():
            changed[FIELDS[maker]] = _with(column, signal, content, donor[item_of[maker]])
    else:
        strata_of = {HISTORY: strata.event_E, QUERY: strata.request_R, CANDIDATE: strata.candidate_C}
        for maker, column in held.items():
            changed[FIELDS[maker]] = _with(column, signal, column, donors(strata_of[maker], rng))
    return replace(corpus, **changed)


def _with(into: Column, signal: Signal, source: Column, rows: Ints) -> SignalArrays:
    """The arrays of `into`, the signal's column being that of these rows of `source`."""
    arrays, of = into.arrays, source.arrays
    to, at = (of_kind(column.signals, signal.kind).index(signal) for column in (into, source))
    if signal.kind == DENSE:
        bucket = _assigned(arrays.bucket_NF, to, of.bucket_NF[rows, at])
        return arrays._replace(bucket_NF=bucket, value_NF=_assigned(arrays.value_NF, to, of.value_NF[rows, at]))
    if signal.kind == SPARSE:
        return arrays._replace(sparse_NS=_assigned(arrays.sparse_NS, to, of.sparse_NS[rows, at]))
    if signal.kind == BAG:
        return arrays._replace(bags=_put(arrays.bags, to, of.bags[at][rows]))
    return arrays._replace(embeddings=_put(arrays.embeddings, to, of.embeddings[at][rows]))


def _put(parts: tuple[np.ndarray, ...], at: int, part: np.ndarray) -> tuple[np.ndarray, ...]:
    return (*parts[:at], part, *parts[at + 1 :])


def _assigned(table: Ints | Floats, column: int, values: Ints | Floats) -> Ints | Floats:
    changed = table.copy()
    changed[:, column] = values
    return changed
