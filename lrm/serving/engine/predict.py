"""Predict a batch of requests: histories from the cache, signals from the online store, one pass of the decoder.

Shape suffixes: R requests, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import polars as pl
import torch

from lrm.features.sources import COLUMN_TYPES
from lrm.model.heads import Wanted
from lrm.model.kv_cache import Prefix, Suffix, decode_over
from lrm.model.states import States
from lrm.schema import CANDIDATE, ITEM_ID, QUERY, Signal, for_maker
from lrm.serving.engine.answer import Answer, AnswerItem, Flags
from lrm.serving.engine.chunks import CHUNK_CANDIDATES, MAX_SHARED_CANDIDATES
from lrm.serving.engine.features import EntityRow, FeatureColumns, get_features, is_known_user
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, PredictRequest
from lrm.serving.engine.session import (
    Session,
    UserState,
    catalogue_rows,
    default_time,
    get_user_states,
    user_keys,
    user_state_before,
)
from lrm.tokens.signals import SignalArrays, encode
from lrm.tokens.vocabulary import GAP_HOURS, query_signals


class PreparedRequest(NamedTuple):
    """A request with the user's state, its time, and its candidates as rows of the catalogue."""

    request: PredictRequest
    user: UserState
    time: datetime
    rows: np.ndarray
    """Catalogue row of each candidate that is in the catalogue."""
    candidates: list[EntityRow]
    """Candidates of a score request, in the order of `rows`; empty for a recommend request."""
    unknown: list[Any]
    """Candidates that are not in the catalogue."""


class Batch(NamedTuple):
    """Requests as the model reads them."""

    requests: list[PreparedRequest]
    queries: FeatureColumns
    candidates: FeatureColumns
    """Of all candidates to score, request by request."""
    encoded_queries: SignalArrays
    encoded_candidates: SignalArrays
    item_ids: np.ndarray
    """(C,) of those candidates."""
    offset: np.ndarray
    """(R + 1,) where each request's candidates begin."""


def predict(session: Session, requests: Sequence[PredictRequest]) -> list[Answer]:
    """Answer checked requests in one batch; each gets the answer that it would get alone."""
    users = get_user_states(session, [request.user_id for request in requests])
    batch = _collate(session, [_prepare(session, request, users[request.user_id]) for request in requests])
    items: dict[int, list[AnswerItem]] = {}
    logits = np.zeros(batch.offset[-1], dtype=np.float64)
    for pass_rows, chosen in _passes(batch.offset):
        asked = [batch.requests[r] for r in pass_rows]
        suffix = _suffix(session, batch, pass_rows, chosen)
        states, _ = decode_over(session.recommender, [one.user.prefix for one in asked], suffix, session.decode)
        logits[chosen] = states.candidate_logit_C.cpu().numpy()
        wanted = {r: _wanted(session, one) for r, one in enumerate(asked) if one.request.kind == RECOMMEND}
        rows = [one.user.prefix.row_T for one in asked]
        best = session.recommender.head.best(states, rows, wanted, session.catalogue)
        items |= {pass_rows[r]: _items(session, one.rows, "score", one.scores) for r, one in best.items()}
    for r, one in enumerate(batch.requests):
        if one.request.kind == SCORE:
            probabilities = 1.0 / (1.0 + np.exp(-logits[batch.offset[r] : batch.offset[r + 1]]))
            order = np.argsort(-probabilities, kind="stable")[: one.request.k]
            items[r] = _items(session, one.rows[order], "probability", probabilities[order])
    return [_answer(session, one, items[r], _flags(session, batch, r)) for r, one in enumerate(batch.requests)]


@torch.inference_mode()
def request_states(session: Session, requests: Sequence[PredictRequest]) -> tuple[States, list[np.ndarray]]:
    """Decode recommend requests; return the states and each history's catalogue rows."""
    prefixes, suffix = decoder_inputs(session, requests)
    states, _ = decode_over(session.recommender, prefixes, suffix, session.decode)
    return states, [prefix.row_T for prefix in prefixes]


def decoder_inputs(session: Session, requests: Sequence[PredictRequest]) -> tuple[list[Prefix], Suffix]:
    """Return what the decoder reads for requests that share one pass."""
    users = get_user_states(session, [request.user_id for request in requests])
    batch = _collate(session, [_prepare(session, request, users[request.user_id]) for request in requests])
    suffix = _suffix(session, batch, list(range(len(requests))), np.arange(batch.offset[-1]))
    return [one.user.prefix for one in batch.requests], suffix


def _prepare(session: Session, request: PredictRequest, user: UserState) -> PreparedRequest:
    time = request.time or default_time(session, user.last_event)
    if user.last_event is not None and time <= user.last_event:
        user = user_state_before(session, request.user_id, time)
    offered = request.candidates or ()
    rows = catalogue_rows(session, [candidate[ITEM_ID] for candidate in offered])
    keys = user_keys(session, request)
    known = [
        EntityRow({**keys, ITEM_ID: candidate[ITEM_ID]}, candidate, time)
        for candidate, row in zip(offered, rows.tolist(), strict=True)
        if row >= 0 and request.kind == SCORE
    ]
    unknown = [candidate[ITEM_ID] for candidate, row in zip(offered, rows.tolist(), strict=True) if row < 0]
    return PreparedRequest(request, user, time.astimezone(UTC), rows[rows >= 0], known, unknown)


def _collate(session: Session, requests: list[PreparedRequest]) -> Batch:
    rows = [EntityRow(user_keys(session, one.request), one.request.context, one.time) for one in requests]
    queries = get_features(session.features, QUERY, rows)
    candidates = get_features(session.features, CANDIDATE, [row for one in requests for row in one.candidates])
    signals = session.recommender.signals
    gaps = {GAP_HOURS.name: [_hours(one.user.last_event, one.time) for one in requests]}
    return Batch(
        requests,
        queries,
        candidates,
        _encoded(session, query_signals(signals), queries.columns | gaps),
        _encoded(session, for_maker(signals, CANDIDATE), candidates.columns),
        session.items.item_ids[np.concatenate([one.rows[: len(one.candidates)] for one in requests])],
        np.concatenate([[0], np.cumsum([len(one.candidates) for one in requests])]),
    )


def _hours(since: datetime | None, time: datetime) -> float | None:
    return None if since is None else (time - since).total_seconds() / 3600


def _encoded(session: Session, signals: Sequence[Signal], columns: dict[str, list[Any]]) -> SignalArrays:
    schema = {signal.name: COLUMN_TYPES[signal.kind] for signal in signals}
    return encode(pl.DataFrame(columns, schema=schema, strict=False), signals, session.recommender.vocabulary)


def _passes(offset: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the requests of each pass and the places of their candidates: small ones together, large ones in chunks."""
    counts = np.diff(offset)
    small = np.flatnonzero(counts <= MAX_SHARED_CANDIDATES).tolist()
    if small:
        yield small, np.concatenate([np.arange(offset[r], offset[r + 1]) for r in small])
    for r in np.flatnonzero(counts > MAX_SHARED_CANDIDATES).tolist():
        for first in range(offset[r], offset[r + 1], CHUNK_CANDIDATES):
            yield [r], np.arange(first, min(first + CHUNK_CANDIDATES, offset[r + 1]))


def _suffix(session: Session, batch: Batch, requests: list[int], chosen: np.ndarray) -> Suffix:
    """Return what the requests of one pass and their chosen candidates add to the kept histories."""
    first = batch.offset[requests]
    identity = session.recommender.vocabulary.identity(batch.item_ids[chosen])
    return Suffix(
        batch.encoded_queries.take(np.array(requests)),
        batch.encoded_candidates.take(chosen),
        torch.as_tensor(identity),
        np.searchsorted(chosen, batch.offset[np.array(requests) + 1]) - np.searchsorted(chosen, first),
        np.array([batch.requests[r].time.timestamp() for r in requests]),
    )


def _wanted(session: Session, one: PreparedRequest) -> Wanted:
    request = one.request
    without = catalogue_rows(session, request.exclude)
    if request.exclude_seen:
        without = np.concatenate([without, one.user.seen])
    k = len(session.items.item_ids) if request.k is None else request.k
    return Wanted(k, None if request.candidates is None else one.rows, np.unique(without[without >= 0]))


def _items(
    session: Session, rows: np.ndarray, what: Literal["score", "probability"], values: np.ndarray
) -> list[AnswerItem]:
    """Name the items for a client, in the order of `rows`."""
    items = session.items
    titles = [items.titles[row] if items.titles else None for row in rows.tolist()]
    named = zip(items.item_ids[rows].tolist(), values.tolist(), titles, strict=True)
    found = [{ITEM_ID: item, what: value} | ({"title": title} if title else {}) for item, value, title in named]
    return cast(list[AnswerItem], found)


def _flags(session: Session, batch: Batch, r: int) -> Flags:
    """Say what was not known of a request."""
    one, first, past = batch.requests[r], int(batch.offset[r]), int(batch.offset[r + 1])
    expired = set(batch.queries.expired[r]).union(*batch.candidates.expired[first:past])
    missing = {name for name, values in batch.queries.columns.items() if values[r] is None}
    if past > first:
        missing |= {name for name, values in batch.candidates.columns.items() if None in values[first:past]}
    return {
        "unknown_user": not one.user.is_user and not is_known_user(session.features, one.request.user_id),
        "empty_history": not len(one.user.prefix.row_T),
        "missing": sorted(missing - expired),
        "expired": sorted(expired),
        "store_down": session.features.circuit_breaker.is_open,
        "damaged": one.user.is_damaged or batch.queries.damaged[r] or any(batch.candidates.damaged[first:past]),
    }


def _answer(session: Session, one: PreparedRequest, items: list[AnswerItem], flags: Flags) -> Answer:
    release = session.release
    return {
        "user_id": one.request.user_id,
        "model": {"name": release.name, "version": release.version},
        "as_of": release.as_of.isoformat(),
        "time": one.time.isoformat(),
        "items": items,
        "unknown_items": one.unknown,
        "flags": flags,
    }
