"""Answers to a batch of questions: histories from memory, signals from the store, one pass of the decoder.

Shape suffixes: R requests, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from lrm.features.sources import COLUMN_TYPES
from lrm.model.heads import Wanted
from lrm.model.kv_cache import Prefix, Suffix, decode_over
from lrm.model.states import States
from lrm.schema import CANDIDATE, ITEM_ID, QUERY, Signal, for_maker
from lrm.serving.engine.chunks import AT_ONCE, TOGETHER
from lrm.serving.engine.features import Described, Row, describe, is_known_user
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Question
from lrm.serving.engine.session import (
    Remembered,
    Service,
    as_then,
    catalogue_rows,
    default_time,
    recall,
    user_keys,
)
from lrm.tokens.signals import SignalArrays, encode
from lrm.tokens.vocabulary import GAP_HOURS, query_signals


class Asked(NamedTuple):
    """A question and what is known of it."""

    question: Question
    user: Remembered
    time: datetime
    rows: np.ndarray
    """Catalogue row of each candidate that is in the catalogue."""
    candidates: list[Row]
    """What a score request wants scored."""
    unknown: list[Any]
    """Candidates that are not in the catalogue."""


class Batch(NamedTuple):
    """Questions as the model reads them."""

    asked: list[Asked]
    queries: Described
    offered: Described
    """Of all candidates to be scored, request by request."""
    encoded_queries: SignalArrays
    encoded_candidates: SignalArrays
    item_ids: np.ndarray
    """(C,) of those candidates."""
    offset: np.ndarray
    """(R + 1,) where each request's candidates begin."""


def answer(service: Service, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Answer questions that have no problem, each as if it were asked alone; `schemas.Answer` has the keys."""
    users = recall(service, [question.user_id for question in questions])
    batch = _batch(service, [_asked(service, question, users[question.user_id]) for question in questions])
    items: dict[int, list[dict[str, Any]]] = {}
    logits = np.zeros(batch.offset[-1], dtype=np.float64)
    for requests, chosen in _passes(batch.offset):
        asked = [batch.asked[r] for r in requests]
        suffix = _suffix(service, batch, requests, chosen)
        states, _ = decode_over(service.recommender, [one.user.prefix for one in asked], suffix, service.decode)
        logits[chosen] = states.candidate_logit_C.cpu().numpy()
        wanted = {r: _wanted(service, one) for r, one in enumerate(asked) if one.question.kind == RECOMMEND}
        rows = [one.user.prefix.row_T for one in asked]
        best = service.recommender.head.best(states, rows, wanted, service.catalogue)
        items |= {requests[r]: _described(service, one.rows, "score", one.scores) for r, one in best.items()}
    for r, one in enumerate(batch.asked):
        if one.question.kind == SCORE:
            probabilities = 1.0 / (1.0 + np.exp(-logits[batch.offset[r] : batch.offset[r + 1]]))
            order = np.argsort(-probabilities, kind="stable")[: one.question.k]
            items[r] = _described(service, one.rows[order], "probability", probabilities[order])
    return [_response(service, one, items[r], _flags(service, batch, r)) for r, one in enumerate(batch.asked)]


@torch.inference_mode()
def request_states(service: Service, questions: Sequence[Question]) -> tuple[States, list[np.ndarray]]:
    """What the model makes of questions for recommendations: the states, and the catalogue rows of each history."""
    prefixes, suffix = one_pass(service, questions)
    states, _ = decode_over(service.recommender, prefixes, suffix, service.decode)
    return states, [prefix.row_T for prefix in prefixes]


def one_pass(service: Service, questions: Sequence[Question]) -> tuple[list[Prefix], Suffix]:
    """What the model is given for questions that are decoded together."""
    users = recall(service, [question.user_id for question in questions])
    batch = _batch(service, [_asked(service, question, users[question.user_id]) for question in questions])
    suffix = _suffix(service, batch, list(range(len(questions))), np.arange(batch.offset[-1]))
    return [one.user.prefix for one in batch.asked], suffix


def _asked(service: Service, question: Question, user: Remembered) -> Asked:
    time = question.time or default_time(service, user.last_event)
    if user.last_event is not None and time <= user.last_event:
        user = as_then(service, question.user_id, time)
    offered = question.candidates or ()
    rows = catalogue_rows(service, [candidate[ITEM_ID] for candidate in offered])
    keys = user_keys(service, question)
    known = [
        Row({**keys, ITEM_ID: candidate[ITEM_ID]}, candidate, time)
        for candidate, row in zip(offered, rows.tolist(), strict=True)
        if row >= 0 and question.kind == SCORE
    ]
    unknown = [candidate[ITEM_ID] for candidate, row in zip(offered, rows.tolist(), strict=True) if row < 0]
    return Asked(question, user, time.astimezone(UTC), rows[rows >= 0], known, unknown)


def _batch(service: Service, asked: list[Asked]) -> Batch:
    rows = [Row(user_keys(service, one.question), one.question.context, one.time) for one in asked]
    queries = describe(service.features, QUERY, rows)
    offered = describe(service.features, CANDIDATE, [row for one in asked for row in one.candidates])
    signals = service.recommender.signals
    gaps = {GAP_HOURS.name: [_hours(one.user.last_event, one.time) for one in asked]}
    return Batch(
        asked,
        queries,
        offered,
        _encoded(service, query_signals(signals), queries.columns | gaps),
        _encoded(service, for_maker(signals, CANDIDATE), offered.columns),
        service.items.item_ids[np.concatenate([one.rows[: len(one.candidates)] for one in asked])],
        np.concatenate([[0], np.cumsum([len(one.candidates) for one in asked])]),
    )


def _hours(since: datetime | None, time: datetime) -> float | None:
    return None if since is None else (time - since).total_seconds() / 3600


def _encoded(service: Service, signals: Sequence[Signal], columns: dict[str, list[Any]]) -> SignalArrays:
    schema = {signal.name: COLUMN_TYPES[signal.kind] for signal in signals}
    return encode(pl.DataFrame(columns, schema=schema, strict=False), signals, service.recommender.vocabulary)


def _passes(offset: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """The requests of each pass and the places of their candidates: small ones together, large ones in parts."""
    counts = np.diff(offset)
    small = np.flatnonzero(counts <= TOGETHER).tolist()
    if small:
        yield small, np.concatenate([np.arange(offset[r], offset[r + 1]) for r in small])
    for r in np.flatnonzero(counts > TOGETHER).tolist():
        for first in range(offset[r], offset[r + 1], AT_ONCE):
            yield [r], np.arange(first, min(first + AT_ONCE, offset[r + 1]))


def _suffix(service: Service, batch: Batch, requests: list[int], chosen: np.ndarray) -> Suffix:
    """What the requests of one pass and their chosen candidates bring."""
    first = batch.offset[requests]
    identity = service.recommender.vocabulary.identity(batch.item_ids[chosen])
    return Suffix(
        batch.encoded_queries.take(np.array(requests)),
        batch.encoded_candidates.take(chosen),
        torch.as_tensor(identity),
        np.searchsorted(chosen, batch.offset[np.array(requests) + 1]) - np.searchsorted(chosen, first),
        np.array([batch.asked[r].time.timestamp() for r in requests]),
    )


def _wanted(service: Service, one: Asked) -> Wanted:
    question = one.question
    without = catalogue_rows(service, question.exclude)
    if question.exclude_seen:
        without = np.concatenate([without, one.user.seen])
    k = len(service.items.item_ids) if question.k is None else question.k
    return Wanted(k, None if question.candidates is None else one.rows, np.unique(without[without >= 0]))


def _described(service: Service, rows: np.ndarray, what: str, values: np.ndarray) -> list[dict[str, Any]]:
    """Items as a client reads them, in the order of `rows`."""
    items = service.items
    titles = [items.titles[row] if items.titles else None for row in rows.tolist()]
    named = zip(items.item_ids[rows].tolist(), values.tolist(), titles, strict=True)
    return [{ITEM_ID: item, what: value} | ({"title": title} if title else {}) for item, value, title in named]


def _flags(service: Service, batch: Batch, r: int) -> dict[str, Any]:
    """What was not known of a request."""
    one, first, past = batch.asked[r], int(batch.offset[r]), int(batch.offset[r + 1])
    expired = set(batch.queries.expired[r]).union(*batch.offered.expired[first:past])
    missing = {name for name, values in batch.queries.columns.items() if values[r] is None}
    if past > first:
        missing |= {name for name, values in batch.offered.columns.items() if None in values[first:past]}
    return {
        "unknown_user": not one.user.is_user and not is_known_user(service.features, one.question.user_id),
        "empty_history": not len(one.user.prefix.row_T),
        "missing": sorted(missing - expired),
        "expired": sorted(expired),
        "store_down": service.features.outage.is_now,
        "damaged": one.user.is_damaged or batch.queries.damaged[r] or any(batch.offered.damaged[first:past]),
    }


def _response(service: Service, one: Asked, items: list[dict[str, Any]], flags: dict[str, Any]) -> dict[str, Any]:
    release = service.release
    return {
        "user_id": one.question.user_id,
        "model": {"name": release.name, "version": release.version},
        "as_of": release.as_of.isoformat(),
        "time": one.time.isoformat(),
        "items": items,
        "unknown_items": one.unknown,
        "flags": flags,
    }
