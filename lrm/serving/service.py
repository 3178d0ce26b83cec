"""A loaded release, and its answers to questions; no web framework, no event loop."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.model.artifact import load as load_recommender
from lrm.model.recommender import Recommender
from lrm.schema import CANDIDATE, ITEM_ID, QUERY
from lrm.serving.features import Features, brought, gather, open_features
from lrm.serving.question import RANK, RECOMMEND, Fields, Question
from lrm.serving.recommend import Ask, Items, encode_items, rank, retrieve, top_items
from lrm.serving.release import BUNDLE, ITEMS, Release
from lrm.tokens.vocabulary import rows_of

REPLAYED_AFTER = timedelta(days=1)


class Service(NamedTuple):
    """Everything needed to answer."""

    release: Release
    recommender: Recommender
    items: Items
    features: Features
    fields: Fields
    is_replayed: bool
    """Whether the data was already old when the service opened. Decided once: a live server never jumps back."""


def open_service(release: Release) -> Service:
    """Load the model, encode the catalogue, open the stores, and answer once so that the first caller does not wait."""
    recommender = load_recommender(release.folder / BUNDLE)
    items = encode_items(recommender, pl.read_parquet(release.folder / ITEMS))
    features = open_features(release, recommender.signals)
    fields = Fields(release.key_types, brought(features, QUERY), brought(features, CANDIDATE), release.as_of)
    is_replayed = datetime.now(UTC) - release.as_of > REPLAYED_AFTER
    service = Service(release, recommender, items, features, fields, is_replayed)
    nobody = 0 if release.key_types["user_id"] == "int64" else ""
    some = tuple({ITEM_ID: item} for item in items.item_ids[:2].tolist())
    for kind in (RECOMMEND, RANK):
        answer(service, [Question(kind, nobody, release.as_of, {}, some)])
    return service


def default_time(service: Service) -> datetime:
    """The instant of a request that names none: now, or the release's `as_of` where its data is replayed.

    Old data is a replayed world: asked "now", every signal would have expired.
    """
    as_of = service.release.as_of
    return as_of if service.is_replayed else max(datetime.now(UTC), as_of)


def answer(service: Service, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Answer questions that have no problem, each as if it were asked alone.

    Returns:
        For each: `user_id`, `model`, `as_of`, `time`, `cold` (nothing of the user's history is known), `items`, and
        `unknown_items` (candidates that are not in the catalogue).
    """
    known = [_known_candidates(service, question) for question in questions]
    asks = [
        gather(
            service.features,
            user_id=question.user_id,
            time=question.time,
            context=question.context,
            candidates=candidates if question.kind == RANK else (),
        )
        for question, (candidates, _) in zip(questions, known, strict=True)
    ]
    items: dict[int, list[dict[str, Any]]] = {}
    retrieving = [row for row, question in enumerate(questions) if question.kind == RECOMMEND]
    if retrieving:
        scores = retrieve(service.recommender, service.items, [asks[row] for row in retrieving])
        for row, one in zip(retrieving, scores, strict=True):
            items[row] = _best(service, questions[row], asks[row], one)
    ranking = [row for row, question in enumerate(questions) if question.kind == RANK]
    if ranking:
        ranked = rank(service.recommender, service.items, [asks[row] for row in ranking])
        for row, probabilities in zip(ranking, ranked, strict=True):
            items[row] = _ranked(service, asks[row], probabilities, k=questions[row].k)
    return [
        _response(service, question, ask, items[row], unknown)
        for row, (question, ask, (_, unknown)) in enumerate(zip(questions, asks, known, strict=True))
    ]


def _known_candidates(service: Service, question: Question) -> tuple[list[dict[str, Any]], list[Any]]:
    """The candidates that are in the catalogue, and the ids of those that are not."""
    candidates = [dict(candidate) for candidate in question.candidates or ()]
    rows = _rows(service.items, [candidate[ITEM_ID] for candidate in candidates])
    known = [candidate for candidate, row in zip(candidates, rows, strict=True) if row >= 0]
    return known, [candidate[ITEM_ID] for candidate, row in zip(candidates, rows, strict=True) if row < 0]


def _best(service: Service, question: Question, ask: Ask, scores: np.ndarray) -> list[dict[str, Any]]:
    allowed = np.full(len(scores), question.candidates is None)
    if question.candidates is not None:
        named = _rows(service.items, [candidate[ITEM_ID] for candidate in question.candidates])
        allowed[named[named >= 0]] = True
    if question.exclude_seen:
        seen = _rows(service.items, ask.history[ITEM_ID].to_list())
        allowed[seen[seen >= 0]] = False
    rows = top_items(scores, k=question.k, allowed=allowed)
    return _described(service.items, rows, "score", scores[rows])


def _ranked(service: Service, ask: Ask, probabilities: np.ndarray, *, k: int) -> list[dict[str, Any]]:
    rows = _rows(service.items, ask.candidates[ITEM_ID].to_list())
    order = top_items(probabilities, k=k)
    return _described(service.items, rows[order], "probability", probabilities[order])


def _described(items: Items, rows: np.ndarray, what: str, values: np.ndarray) -> list[dict[str, Any]]:
    """Items as a client reads them, in the order of `rows`."""
    titles = [items.titles[row] if items.titles else None for row in rows.tolist()]
    named = zip(items.item_ids[rows].tolist(), values.tolist(), titles, strict=True)
    return [{ITEM_ID: item, what: value} | ({"title": title} if title else {}) for item, value, title in named]


def _response(
    service: Service, question: Question, ask: Ask, items: list[dict[str, Any]], unknown: list[Any]
) -> dict[str, Any]:
    release = service.release
    return {
        "user_id": question.user_id,
        "model": {"name": release.name, "version": release.version},
        "as_of": release.as_of.isoformat(),
        "time": question.time.isoformat(),
        "cold": ask.history.is_empty(),
        "items": items,
        "unknown_items": unknown,
    }


def _rows(items: Items, item_ids: list[Any]) -> np.ndarray:
    """Row of the catalogue of each item, -1 where it is not there."""
    wanted = np.array(item_ids, dtype=items.item_ids.dtype) if item_ids else items.item_ids[:0]
    return rows_of(wanted, items.item_ids)
