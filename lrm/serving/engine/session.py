"""A loaded release, and its answers to questions; no web framework, no event loop."""

from __future__ import annotations

import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.content_digest import BUNDLE as BUNDLE_FACTS
from lrm.errors import ServingError, StoreError
from lrm.model.artifact import load as load_recommender
from lrm.model.decoder import Decode
from lrm.model.heads import Indexed
from lrm.model.kv_cache import Prefix, prefill
from lrm.model.recommender import Recommender
from lrm.schema import CANDIDATE, EVENT_TIME, EVENTS, HISTORY, ITEM_ID, QUERY, USER_ID
from lrm.serving.engine.features import Features, Key, brought, open_features
from lrm.serving.engine.histories import Fresh, Histories, Known, fresh_events, history_of, open_histories
from lrm.serving.engine.lru import Lru
from lrm.serving.engine.request_checks import Event, Fields, Question
from lrm.serving.engine.scoring import Ask, Items, ask_tables, encode_items, no_candidates, require_own_signals
from lrm.serving.index_file import index_facts, open_index_of
from lrm.serving.release import BUNDLE, ITEMS, Release
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.vocabulary import rows_of

REPLAYED_AFTER = timedelta(days=1)
PREFIX_BYTES = 256 * 2**20
"""Bound of the decoded histories held."""
REMEMBERED_BYTES = 1850
"""By which a process grows for a user of whom nothing is known, as measured: mostly empty tensors."""
CURRENT_S = 5.0
"""Seconds for which a decoded history is used without asking the store for newer events. Events pushed through this
server count at once; those that came through another one, after this time at most."""
MOMENT = timedelta(microseconds=1)
NOTHING_NEW = Fresh(None, 0.0)
UNREAD = float("nan")
"""In place of the instant of a user's last push where the history was damaged: it is decoded anew at the next look."""


class Remembered(NamedTuple):
    """What is held of a user between requests."""

    prefix: Prefix
    seen: np.ndarray
    """Catalogue rows of all events that are kept."""
    last_event: datetime | None
    is_user: bool
    pushed: float
    """Instant of the user's last push, in the store's seconds."""
    checked: float
    """When the store was last asked, in monotonic seconds."""
    is_damaged: bool = False
    """Whether a part of the history was damaged, and is left out."""


class Service(NamedTuple):
    """Everything needed to answer."""

    release: Release
    recommender: Recommender
    items: Items
    catalogue: Any
    """The items as the model's head finds them: by an index where the release has one, else exactly."""
    features: Features
    histories: Histories
    fields: Fields
    lineage: Mapping[str, Any]
    is_replayed: bool
    """Whether the data was already old when the service opened. A live server stays one, whatever it comes to serve:
    its clock never jumps back."""
    remembered: Lru[Key, Remembered]
    counts: dict[str, int]
    """How often a decoded history was at hand (`hit`) and was not (`miss`)."""
    decode: Decode | None = None
    """What decodes over kept histories in the decoder's place, where `lrm.serving.engine.decoding` found it quicker."""
    decoder_facts: Mapping[str, Any] | None = None
    """What `/v1/model` says of it; None: torch decodes, nothing was measured."""

    @property
    def search_effort(self) -> int | None:
        """Lists of an index that a request for few items looks through; None where no index is in use."""
        head = self.recommender.head
        return head.effort(self.catalogue) if isinstance(head, Indexed) else None

    @property
    def index_facts(self) -> dict[str, Any] | None:
        """What `/v1/model` says of the index in use; None where there is none."""
        return index_facts(self.search_effort, self.release)


def open_service(
    release: Release,
    *,
    prefix_bytes: int = PREFIX_BYTES,
    effort: int | None = None,
    events: Path | None = None,
    is_live: bool = False,
) -> Service:
    """Load the model, encode the catalogue and fill its index, open the stores.

    Args:
        release: what to serve.
        prefix_bytes: bound of the decoded histories held.
        effort: lists of the index searched for a request; None: as the release was measured; 0: the exact product.
        events: where new events are kept; None: in `events` beside the release, for all releases there.
        is_live: whether it takes over from one whose clock is the present.

    Raises:
        DataError: the model cannot be loaded.
        ServingError: the release was made before events could be pushed, its index cannot be used, new events cannot be
            kept there, or the model is a control that no single request can be answered by.
    """
    recommender = load_recommender(release.folder / BUNDLE)
    require_own_signals(recommender)
    facts = json.loads((release.folder / BUNDLE / BUNDLE_FACTS).read_text())
    items = encode_items(recommender, pl.read_parquet(release.folder / ITEMS, glob=False))
    catalogue = open_index_of(release, recommender.head, items.catalogue.prepared, effort=effort)
    features = open_features(release, recommender.signals, events=events or release.folder.resolve().parent / EVENTS)
    max_events = recommender.config.events_read
    histories = open_histories(
        release,
        features.online,
        recommender.signals,
        item_type=features.item_type,
        max_events=max_events,
        outage=features.outage,
    )
    fields = Fields(
        release.key_types,
        brought(features, QUERY),
        brought(features, CANDIDATE),
        release.as_of,
        brought(features, HISTORY),
    )
    lineage = {"content_sha256": facts["content_sha256"]} | facts["lineage"]
    is_replayed = not is_live and datetime.now(UTC) - release.as_of > REPLAYED_AFTER
    held: Lru[Key, Remembered] = Lru(prefix_bytes, _size)
    counts = {"hit": 0, "miss": 0}
    opened = (release, recommender, items, catalogue, features, histories)
    return Service(*opened, fields, lineage, is_replayed, held, counts)


def default_time(service: Service, last_event: datetime | None) -> datetime:
    """The instant of a request that names none: now, or, where the data is replayed, when it ends.

    Old data is a replayed world: asked "now", every signal would have expired. Its clock is moved by new events alone.
    """
    as_of = service.release.as_of
    present = as_of if service.is_replayed else max(datetime.now(UTC), as_of)
    return present if last_event is None else max(present, last_event + MOMENT)


def recall(service: Service, user_ids: Sequence[Key]) -> dict[Key, Remembered]:
    """Every user's decoded history, decoded now where it is not at hand or has new events.

    While the online store does not answer: as it is at hand, or without new events.
    """
    now = clock.monotonic()
    found: dict[Key, Remembered] = {}
    stale: dict[Key, Remembered | None] = {}
    for user_id in dict.fromkeys(user_ids):
        held = service.remembered.get(user_id)
        if held is not None and now - held.checked <= CURRENT_S:
            found[user_id] = held
        else:
            stale[user_id] = held
    service.counts["hit"] += len(found)
    changed: dict[Key, Fresh] = {}
    for user_id, fresh in zip(stale, _fresh_now(service, list(stale)), strict=True):
        held = stale[user_id]
        if held is not None and (fresh is None or held.pushed == fresh.seconds):
            found[user_id] = held._replace(checked=now)
            service.remembered.put(user_id, found[user_id])
            service.counts["hit"] += 1
        else:
            changed[user_id] = fresh or NOTHING_NEW
    service.counts["miss"] += len(changed)
    for user_id, one in zip(changed, _decoded(service, changed, now), strict=True):
        found[user_id] = one
        service.remembered.put(user_id, one)
    return found


def as_then(service: Service, user_id: Key, before: datetime) -> Remembered:
    """The user's history as a request before some of the known events sees it; not held.

    It lacks new events before that instant which so many later ones followed that they are not kept any more.
    """
    (fresh,) = _fresh_now(service, [user_id])
    (one,) = _decoded(service, {user_id: fresh or NOTHING_NEW}, 0.0, before=before)
    return one


def _fresh_now(service: Service, user_ids: Sequence[Key]) -> Sequence[Fresh | None]:
    """Each user's new events; None for all while the online store does not answer."""
    try:
        return fresh_events(service.histories, user_ids) if user_ids else ()
    except StoreError:
        return [None] * len(user_ids)


def forget(service: Service, user_id: Key) -> None:
    """Drop what is held of a user: there are new events."""
    service.remembered.drop(user_id)


def catalogue_rows(service: Service, item_ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Row of the catalogue of each item, -1 where it is not there."""
    held = service.items.item_ids
    return rows_of(np.array(item_ids, dtype=held.dtype) if len(item_ids) else held[:0], held)


def unknown_items(service: Service, item_ids: Sequence[Key]) -> list[Key]:
    """Those that are not in the catalogue, each once."""
    named = list(dict.fromkeys(item_ids))
    rows = catalogue_rows(service, named).tolist()
    return [item for item, row in zip(named, rows, strict=True) if row < 0]


def ask_of(service: Service, user_id: Key, time: datetime, signals: Mapping[str, Any]) -> Ask:
    """A request as offline scoring takes it, without candidates.

    Raises:
        ServingError: the user has no history.
    """
    (fresh,) = fresh_events(service.histories, [user_id])
    known = history_of(service.histories, user_id, fresh, before=time)
    if not known.is_user:
        raise ServingError("a user who was asked for has no history in this release; name one who has")
    nothing = no_candidates(service.recommender.signals, service.features.item_type)
    return Ask(time, signals, known.events.tail(service.histories.n_kept), nothing)


def _decoded(
    service: Service, changed: Mapping[Key, Fresh], now: float, *, before: datetime | None = None
) -> list[Remembered]:
    """Decode the histories of some users."""
    if not changed:
        return []
    histories = service.histories
    known = [history_of(histories, user_id, fresh, before=before) for user_id, fresh in changed.items()]
    recommender, item_type = service.recommender, service.features.item_type
    nothing = no_candidates(recommender.signals, item_type)
    asks = [Ask(service.release.as_of, {}, one.events.tail(histories.n_kept), nothing) for one in known]
    tables = ask_tables(asks, recommender.signals, item_type)
    corpus = encode_corpus(tables, recommender.signals, recommender.vocabulary)
    event_rows = catalogue_rows(service, tables.events[ITEM_ID].to_numpy())
    prefixes = prefill(recommender, replace(corpus, event_row_E=event_rows))
    return [
        Remembered(
            prefix,
            _seen(service, one),
            last_time(one.events),
            one.is_user,
            UNREAD if one.is_damaged else one.fresh.seconds,
            now,
            one.is_damaged,
        )
        for prefix, one in zip(prefixes, known, strict=True)
    ]


def _seen(service: Service, known: Known) -> np.ndarray:
    rows = catalogue_rows(service, known.events[ITEM_ID].to_numpy())
    return np.unique(rows[rows >= 0])


def last_time(events: pl.DataFrame) -> datetime | None:
    """Of the last event."""
    return None if events.is_empty() else events[EVENT_TIME][-1]


def _size(held: Remembered) -> int:
    return held.prefix.n_bytes + held.seen.nbytes + REMEMBERED_BYTES


def nobody(service: Service) -> Key:
    """The key of a user of whom nothing is known."""
    return 0 if service.release.key_types[USER_ID] == "int64" else ""


def user_keys(service: Service, asked: Question | Event) -> dict[str, Key]:
    """The join keys of a question or an event: the user's, and those that it brought."""
    given = asked.context if isinstance(asked, Question) else asked.signals
    return {USER_ID: asked.user_id} | {key: given[key] for key in service.fields.brought_keys if key in given}
