"""Signals torn from their rows: what a model reads where a signal holds true values, but of something else.

The values of a signal that describes items (content) move from item to item, so that history, candidates and catalogue
still agree on each item. Those of any other signal move between the rows of each table that carries it. Either way
they stay among rows of like history length and items of like popularity: what is lost is then what the signal adds to
these two, which the model knows without it.

Axes: N rows of a table; V items, E events, R requests, C candidates of a corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lrm.evaluation.metrics import Floats, Ints
from lrm.evaluation.ranking import item_rows
from lrm.features.tables import Tables
from lrm.schema import BAG, CANDIDATE, DENSE, HISTORY, ITEM_ID, QUERY, SPARSE, Signal, for_maker
from lrm.tokens.corpus import Corpus
from lrm.tokens.signals import SignalArrays, of_kind
from lrm.tokens.vocabulary import Vocabulary, content_signals, history_signals, query_signals, rows_of

N_PARTS, MIN_ROWS = 5, 50
"""Each measure cuts the rows into this many equal parts, fewer where a stratum would hold fewer rows on average."""


FIELDS = {HISTORY: "history_E", QUERY: "query_R", CANDIDATE: "candidate_C"}
"""Where a corpus keeps what each maker reads."""


class Column(NamedTuple):
    """A table's signals as one maker reads them."""

    arrays: SignalArrays
    signals: tuple[Signal, ...]


class Strata(NamedTuple):
    """The stratum of each row of each table, and which item a candidate is."""

    item: Ints
    event: Ints
    request: Ints
    candidate: Ints
    candidate_item: Ints
    """(C,) row of the catalogue, in the corpus' order of candidates."""


def columns(corpus: Corpus, signals: Sequence[Signal]) -> dict[str, Column]:
    """What each maker of the prompt reads of a corpus."""
    return {
        HISTORY: Column(corpus.history_E, history_signals(signals)),
        QUERY: Column(corpus.query_R, query_signals(signals)),
        CANDIDATE: Column(corpus.candidate_C, for_maker(signals, CANDIDATE)),
    }


def strata(tables: Tables, corpus: Corpus, vocabulary: Vocabulary) -> Strata:
    """Rows of like history length and items of like popularity, popularity being events in training."""
    known = rows_of(corpus.item_ids, vocabulary.item_ids)
    popularity = np.where(known < 0, 0, vocabulary.item_counts[known])
    n_events = np.diff(corpus.user_offset_U)
    candidate_item = item_rows(tables, tables.candidates[ITEM_ID])[corpus.candidate_order_C]
    candidate_length = np.repeat(corpus.visible_R, np.diff(corpus.candidate_offset_R))
    return Strata(
        item=stratum(popularity),
        event=stratum(np.repeat(n_events, n_events), popularity[corpus.event_row_E]),
        request=stratum(corpus.visible_R),
        candidate=stratum(candidate_length, popularity[candidate_item]),
        candidate_item=candidate_item,
    )


def stratum(*measures: Ints) -> Ints:
    """The stratum of each row, from quantiles of each measure (N,). Equal values never fall apart."""
    n_rows = len(measures[0])
    n_parts = int(np.clip((n_rows / MIN_ROWS) ** (1 / len(measures)), 1, N_PARTS))
    code = np.zeros(n_rows, dtype=np.int64)
    for measure in measures if n_rows else ():
        edges = np.quantile(measure, np.arange(1, n_parts) / n_parts)
        code = code * n_parts + np.searchsorted(edges, measure, side="left")
    return code


def donors(strata_of_rows: Ints, rng: np.random.Generator) -> Ints:
    """For each row the row of its stratum that it takes its value from: a permutation (N,)."""
    mixed = np.lexsort((rng.random(len(strata_of_rows)), strata_of_rows))
    donor = np.empty_like(mixed)
    donor[np.argsort(strata_of_rows, kind="stable")] = mixed
    return donor


def shuffled(
    corpus: Corpus, signal: Signal, signals: Sequence[Signal], strata: Strata, *, rng: np.random.Generator
) -> Corpus:
    """The corpus with one signal's values moved; everything else, item identities too, stays."""
    held = {maker: column for maker, column in columns(corpus, signals).items() if maker in signal.makers}
    content = Column(corpus.content_V, content_signals(signals))
    changed: dict[str, Any] = {}
    if signal in content.signals:
        donor = donors(strata.item, rng)
        item_of = {HISTORY: corpus.event_row_E, CANDIDATE: strata.candidate_item}
        changed["content_V"] = _with(content, signal, content, donor)
        for maker, column in held.items():
            changed[FIELDS[maker]] = _with(column, signal, content, donor[item_of[maker]])
    else:
        strata_of = {HISTORY: strata.event, QUERY: strata.request, CANDIDATE: strata.candidate}
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
