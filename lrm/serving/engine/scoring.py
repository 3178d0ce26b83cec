"""From what is known of a request to scores: pure, and the same path as offline evaluation.

Whatever asks (the server, the registry's Python function, a probe) writes what it knows as an `Ask`; asks become the
same tables that training reads, and the same `Scorer` scores them.

Shape suffixes: V items of the catalogue, R requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.errors import ServingError
from lrm.features.sources import COLUMN_TYPES, INSTANT_TYPE
from lrm.features.tables import Tables
from lrm.model.heads import Best, Wanted
from lrm.model.recommender import Recommender
from lrm.model.scoring import Catalogue, Scorer
from lrm.schema import (
    CANDIDATE,
    CANDIDATE_ID,
    EVENT_ID,
    EVENT_TIME,
    HISTORY,
    ITEM_ID,
    LABEL,
    QUERY,
    REQUEST_ID,
    SPLIT,
    TEST,
    USER_ID,
    Signal,
    for_maker,
)
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.makers import changes_corpus
from lrm.tokens.vocabulary import content_signals

TITLES = ("title", "name", "product_type")
"""Item signals that can name an item to a person, the best first."""


class ScoringRequest(NamedTuple):
    """One request, with everything known of it."""

    time: datetime
    """UTC instant; events at or after it are not seen."""
    signals: Mapping[str, Any]
    """Query signals by name; those left out are missing."""
    history: pl.DataFrame
    """The user's events, oldest first: `item_id`, `event_time` and the history signals."""
    candidates: pl.DataFrame
    """The items to rank: `item_id` and the candidate signals; may be empty."""


class Items(NamedTuple):
    """Every item that can be recommended, and what to call it."""

    catalogue: Catalogue
    titles: list[str | None] | None
    """(V,) a name for each item, where the data has one."""

    @property
    def item_ids(self) -> np.ndarray:
        """(V,)"""
        return self.catalogue.item_ids


def columns(signals: Iterable[Signal], maker: str, **keys: Any) -> dict[str, Any]:
    """The schema of a table: its keys, then every signal that the maker reads."""
    return keys | {signal.name: COLUMN_TYPES[signal.kind] for signal in for_maker(signals, maker)}


def encode_items(recommender: Recommender, items: pl.DataFrame) -> Items:
    """Encode the catalogue.

    Args:
        recommender: the model.
        items: as `items.parquet` of the examples.
    """
    signals, item_type = recommender.signals, items.schema[ITEM_ID]
    tables = request_tables([], signals, item_type)._replace(items=items)
    corpus = encode_corpus(tables, signals, recommender.vocabulary)
    naming = [name for name in TITLES if items.schema.get(name) == pl.String]
    titles = items[naming[0]].to_list() if naming else None
    return Items(Catalogue(corpus.item_ids, recommender.head.prepare(recommender.factory, corpus)), titles)


def require_own_signals(recommender: Recommender) -> None:
    """Refuse a control that no single request can be answered by.

    Raises:
        ServingError: it reads the signals of other rows.
    """
    tokens = recommender.config.tokens
    if changes_corpus(tokens):
        raise ServingError(
            f"a model of the variant `{tokens.variant}` reads the signals of other rows than its own: it is a control, "
            "compared offline and not served; train another preset"
        )


def no_history(signals: Iterable[Signal], item_type: pl.DataType) -> pl.DataFrame:
    """The history of a user who has none."""
    return pl.DataFrame(schema=columns(signals, HISTORY, item_id=item_type, event_time=INSTANT_TYPE))


def no_candidates(signals: Iterable[Signal], item_type: pl.DataType) -> pl.DataFrame:
    """The candidates of a request that names none."""
    return pl.DataFrame(schema=columns(signals, CANDIDATE, item_id=item_type))


def request_tables(asks: Sequence[ScoringRequest], signals: Sequence[Signal], item_type: pl.DataType) -> Tables:
    """The asks as tables: ask r is request r of user r. There are no items in them: a catalogue is encoded once."""
    events = [_numbered(ask.history, USER_ID, row) for row, ask in enumerate(asks)]
    candidates = [_numbered(ask.candidates, REQUEST_ID, row) for row, ask in enumerate(asks)]
    queries = for_maker(signals, QUERY)
    requests = {
        REQUEST_ID: range(len(asks)),
        USER_ID: range(len(asks)),
        EVENT_TIME: [ask.time.astimezone(UTC) for ask in asks],
        SPLIT: [TEST] * len(asks),
    } | {signal.name: [ask.signals.get(signal.name) for ask in asks] for signal in queries}
    keys = {REQUEST_ID: pl.Int64, USER_ID: pl.Int64, EVENT_TIME: INSTANT_TYPE, SPLIT: pl.String}
    return Tables(
        events=pl.concat([_numbered(no_history(signals, item_type), USER_ID, 0), *events])
        .with_row_index(EVENT_ID)
        .with_columns(pl.lit(TEST).alias(SPLIT)),
        requests=pl.DataFrame(requests, schema=columns(signals, QUERY, **keys), strict=False),
        candidates=pl.concat([_numbered(no_candidates(signals, item_type), REQUEST_ID, 0), *candidates])
        .with_row_index(CANDIDATE_ID)
        .with_columns(pl.lit(0.0, dtype=pl.Float32).alias(LABEL)),
        targets=pl.DataFrame(schema={REQUEST_ID: pl.Int64, ITEM_ID: item_type}),
        items=pl.DataFrame(schema=columns(content_signals(signals), HISTORY, item_id=item_type)),
    )


def best_items(
    recommender: Recommender, items: Items, asks: Sequence[ScoringRequest], wanted: Sequence[Wanted]
) -> list[Best]:
    """The best items of the catalogue for each ask, as offline evaluation finds them."""
    tables = request_tables(asks, recommender.signals, _item_type(items))
    scorer = Scorer(recommender, tables, catalogue=items.catalogue)
    return scorer.best_items(np.arange(len(asks)), wanted)


def rank(recommender: Recommender, items: Items, asks: Sequence[ScoringRequest]) -> list[np.ndarray]:
    """For each ask, the probability of each of its candidates, in their order."""
    tables = request_tables(asks, recommender.signals, _item_type(items))
    scorer = Scorer(recommender, tables, catalogue=items.catalogue)
    logits = scorer.candidate_logits(np.arange(len(asks))).astype(np.float64)
    probabilities = 1.0 / (1.0 + np.exp(-logits))
    ends = np.cumsum([ask.candidates.height for ask in asks])
    return np.split(probabilities, ends[:-1])


def _item_type(items: Items) -> pl.DataType:
    return pl.Series(items.item_ids).dtype


def _numbered(frame: pl.DataFrame, key: str, row: int) -> pl.DataFrame:
    return frame.with_columns(pl.lit(row, dtype=pl.Int64).alias(key))
