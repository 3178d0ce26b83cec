"""An examples folder as flat arrays: encoded once, gathered from in every batch.

Shape suffixes: U users, E events, R requests, C candidates, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from lrm.config import TokensConfig
from lrm.features.tables import Tables
from lrm.schema import (
    CANDIDATE,
    EVENT_TIME,
    ITEM_ID,
    LABEL,
    REQUEST_ID,
    SPLIT,
    SPLITS,
    TRAIN,
    USER_ID,
    Signal,
    for_maker,
)
from lrm.tokens.signals import SignalArrays, encode
from lrm.tokens.vocabulary import GAP_HOURS, Vocabulary, content_signals, fit, history_signals, query_signals, rows_of


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Events in user and time order, with requests, candidates and targets pointing into them.

    A request sees the events `[user_start_R, user_start_R + visible_R)`. Candidates and targets of request r lie in
    `[offset[r], offset[r + 1])` of their arrays.
    """

    item_ids: np.ndarray
    """(V,) the catalogue: all items of the tables, trained or not."""
    item_identity_V: np.ndarray
    content_V: SignalArrays
    event_row_E: np.ndarray
    """Row of the catalogue."""
    event_identity_E: np.ndarray
    event_is_train_E: np.ndarray
    event_time_E: np.ndarray
    """Float64 seconds since 1970."""
    history_E: SignalArrays
    user_offset_U: np.ndarray
    """(U + 1,)"""
    split_R: np.ndarray
    """0 train, 1 validation, 2 test."""
    user_R: np.ndarray
    user_start_R: np.ndarray
    visible_R: np.ndarray
    request_time_R: np.ndarray
    """Float64 seconds since 1970."""
    query_R: SignalArrays
    candidate_offset_R: np.ndarray
    """(R + 1,)"""
    candidate_order_C: np.ndarray
    """Row of the candidates table at each place of the arrays below."""
    candidate_identity_C: np.ndarray
    label_C: np.ndarray
    candidate_C: SignalArrays
    target_offset_R: np.ndarray
    """(R + 1,)"""
    target_row_T: np.ndarray
    """Row of the catalogue."""

    @property
    def n_requests(self) -> int:
        """R."""
        return len(self.visible_R)


def fit_vocabulary(tables: Tables, signals: Sequence[Signal], config: TokensConfig) -> Vocabulary:
    """Fit on the training split, the derived signal included."""
    return fit(with_gaps(tables), (*signals, GAP_HOURS), config)


def encode_corpus(tables: Tables, signals: Sequence[Signal], vocabulary: Vocabulary) -> Corpus:
    """Encode all five tables with a fitted vocabulary."""
    tables = with_gaps(tables)
    item_ids = tables.items[ITEM_ID].to_numpy()
    users = pl.concat([tables.events[USER_ID], tables.requests[USER_ID]]).unique().sort().to_numpy()
    event_user = rows_of(tables.events[USER_ID].to_numpy(), users)
    user_offset_U = np.searchsorted(event_user, np.arange(len(users) + 1))
    request_user = rows_of(tables.requests[USER_ID].to_numpy(), users)
    candidate_order = np.argsort(tables.candidates[REQUEST_ID].to_numpy(), kind="stable")
    candidates = tables.candidates[candidate_order]
    targets = tables.targets.sort(REQUEST_ID, maintain_order=True)
    requests = np.arange(tables.requests.height + 1)
    event_items, candidate_items = tables.events[ITEM_ID].to_numpy(), candidates[ITEM_ID].to_numpy()
    label = candidates[LABEL] if LABEL in candidates.columns else pl.Series([], dtype=pl.Float32)
    return Corpus(
        item_ids=item_ids,
        item_identity_V=vocabulary.identity(item_ids),
        content_V=encode(tables.items, content_signals(signals), vocabulary),
        event_row_E=rows_of(event_items, item_ids),
        event_identity_E=vocabulary.identity(event_items),
        event_is_train_E=(tables.events[SPLIT] == TRAIN).to_numpy(),
        event_time_E=_seconds(tables.events[EVENT_TIME]),
        history_E=encode(tables.events, history_signals(signals), vocabulary),
        user_offset_U=user_offset_U,
        split_R=tables.requests[SPLIT].replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int8).to_numpy(),
        user_R=request_user,
        user_start_R=user_offset_U[request_user],
        visible_R=visible_counts(tables),
        request_time_R=_seconds(tables.requests[EVENT_TIME]),
        query_R=encode(tables.requests, query_signals(signals), vocabulary),
        candidate_offset_R=np.searchsorted(candidates[REQUEST_ID].to_numpy(), requests),
        candidate_order_C=candidate_order,
        candidate_identity_C=vocabulary.identity(candidate_items),
        label_C=label.to_numpy().astype(np.float32),
        candidate_C=encode(candidates, for_maker(signals, CANDIDATE), vocabulary),
        target_offset_R=np.searchsorted(targets[REQUEST_ID].to_numpy(), requests),
        target_row_T=rows_of(targets[ITEM_ID].to_numpy(), item_ids),
    )


def _seconds(instant: pl.Series) -> np.ndarray:
    return instant.dt.epoch("us").to_numpy() / 1e6


def visible_counts(tables: Tables) -> np.ndarray:
    """(R,) int64: how many of the user's events happened strictly before each request."""
    seen = tables.events.select(USER_ID, EVENT_TIME, at=pl.int_range(1, pl.len() + 1).over(USER_ID))
    last = tables.requests.select(REQUEST_ID, USER_ID, EVENT_TIME).sort(EVENT_TIME)
    joined = last.join_asof(
        seen.sort(EVENT_TIME, maintain_order=True),
        on=EVENT_TIME,
        by=USER_ID,
        allow_exact_matches=False,
        check_sortedness=False,
    )
    return joined.sort(REQUEST_ID)["at"].fill_null(0).to_numpy().astype(np.int64)


def with_gaps(tables: Tables) -> Tables:
    """The tables with the derived signal `gap_hours` on events and requests."""

    def hours(gap: pl.Expr) -> pl.Expr:
        return (gap.dt.total_microseconds() / 3.6e9).cast(pl.Float32).alias(GAP_HOURS.name)

    events = tables.events.with_columns(hours(pl.col(EVENT_TIME) - pl.col(EVENT_TIME).shift(1).over(USER_ID)))
    last = tables.events.select(USER_ID, EVENT_TIME, _seen=EVENT_TIME).sort(EVENT_TIME)
    requests = (
        tables.requests.sort(EVENT_TIME)
        .join_asof(last, on=EVENT_TIME, by=USER_ID, allow_exact_matches=False, check_sortedness=False)
        .with_columns(hours(pl.col(EVENT_TIME) - pl.col("_seen")))
        .drop("_seen")
        .sort(REQUEST_ID)
    )
    return tables._replace(events=events, requests=requests)
