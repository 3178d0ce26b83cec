"""Rows that are alike but for their signals: after as long a history, of items as popular.

Signals that are exchanged within a stratum say nothing of the row that they come to stand beside, but what history
length and popularity say. The variant `shuffled` and the feature report both draw from here.

Axes: N rows of a table; V items, E events, R requests, C candidates of a corpus.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrm.tokens.corpus import Corpus
from lrm.tokens.vocabulary import Vocabulary

N_PARTS, MIN_ROWS = 5, 50
"""Each measure cuts the rows into this many equal parts, fewer where a stratum would hold fewer rows on average."""


class Strata(NamedTuple):
    """The stratum of each row of each table."""

    item_V: np.ndarray
    event_E: np.ndarray
    request_R: np.ndarray
    candidate_C: np.ndarray


def strata(corpus: Corpus, vocabulary: Vocabulary) -> Strata:
    """Rows of like history length and items of like popularity, those of training apart from those of later.

    Popularity is events in training; items too rare for an identity of their own are all as rare.
    """
    is_own = vocabulary.item_counts >= vocabulary.min_item_count
    popularity = np.concatenate([[0], vocabulary.item_counts[is_own]])  # by row of the identity table
    n_events = np.diff(corpus.user_offset_U)
    n_candidates = np.diff(corpus.candidate_offset_R)
    return Strata(
        stratum(popularity[corpus.item_identity_V]),
        stratum(
            np.repeat(n_events, n_events),
            popularity[corpus.event_identity_E],
            apart=corpus.event_is_train_E.astype(int),
        ),
        stratum(corpus.visible_R, apart=corpus.split_R),
        stratum(
            np.repeat(corpus.visible_R, n_candidates),
            popularity[corpus.candidate_identity_C],
            apart=np.repeat(corpus.split_R, n_candidates),
        ),
    )


def stratum(*measures: np.ndarray, apart: np.ndarray | None = None) -> np.ndarray:
    """The stratum of each row, from quantiles of each measure over the rows (N,). Equal values never fall apart.

    Args:
        measures: (N,) each.
        apart: (N,) rows that differ in it are of different strata, and are cut by quantiles of their own.
    """
    n_rows = len(measures[0])
    code, n_codes = np.zeros(n_rows, dtype=np.int64), 0
    for part in np.unique(apart) if apart is not None else [None]:
        rows = np.flatnonzero(apart == part) if apart is not None else np.arange(n_rows)
        code[rows] = n_codes + _quantiles([measure[rows] for measure in measures])
        n_codes = int(code.max(initial=-1)) + 1
    return code


def _quantiles(measures: list[np.ndarray]) -> np.ndarray:
    n_rows = len(measures[0])
    n_parts = int(np.clip((n_rows / MIN_ROWS) ** (1 / len(measures)), 1, N_PARTS))
    code = np.zeros(n_rows, dtype=np.int64)
    for measure in measures if n_rows else ():
        edges = np.quantile(measure, np.arange(1, n_parts) / n_parts)
        code = code * n_parts + np.searchsorted(edges, measure, side="left")
    return code


def donors(strata_of_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row the row of its stratum that it takes its value from: a permutation (N,)."""
    mixed = np.lexsort((rng.random(len(strata_of_rows)), strata_of_rows))
    donor = np.empty_like(mixed)
    donor[np.argsort(strata_of_rows, kind="stable")] = mixed
    return donor
