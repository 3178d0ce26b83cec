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
from lrm.serving.engine.features import Features, Key, open_features, request_provided
from lrm.serving.engine.histories import Histories, History, RecentEvents, history_of, open_histories, recent_events
from lrm.serving.engine.lru import Lru
from lrm.serving.engine.request_checks import Event, Fields, PredictRequest
from lrm.serving.engine.scoring import (
    Items,
    ScoringRequest,
    encode_items,
    no_candidates,
    request_tables,
    require_own_signals,
)
from lrm.serving.index_file import index_facts, open_index_of
from lrm.serving.release import BUNDLE, ITEMS, Release
from lrm.tokens.corpus import encode_corpus
from lrm.tokens.vocabulary import rows_of

REPLAY_AFTER = timedelta(days=1)
KV_CACHE_BYTES = 256 * 2**20
"""Bound of the decoded histories held."""
USER_STATE_BYTES = 1850
"""By which a process grows for a user of whom nothing is known, as measured: mostly empty tensors."""
FRESH_FOR_S = 5.0
"""Seconds for which a decoded history is used without asking the store for newer events. Events pushed through this
server count at once; those that came through another one, after this time at most."""
MOMENT = timedelta(microseconds=1)
NOTHING_NEW = RecentEvents(None, 0.0)
UNREAD = float("nan")
"""In place of the instant of a user's last push where the history was damaged: it is decoded anew at the next look."""


class UserState(NamedTuple):
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


class Session(NamedTuple):
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
    is_replay: bool
    """Whether the data was already old when the service opened. A live server stays one, whatever it comes to serve:
    its clock never jumps back."""
    user_states: Lru[Key, UserState]
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


def open_session(
    release: Release,
    *,
    kv_cache_bytes: int = KV_CACHE_BYTES,
    effort: int | None = None,
    events: Path | None = None,
    is_live: bool = False,
) -> Session:
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
        circuit_breaker=features.circuit_breaker,
    )
    fields = Fields(
        release.key_types,
        request_provided(features, QUERY),
        request_provided(features, CANDIDATE),
        release.as_of,
        request_provided(features, HISTORY),
    )
    lineage = {"content_sha256": facts["content_sha256"]} | facts["lineage"]
    is_replay = not is_live and datetime.now(UTC) - release.as_of > REPLAY_AFTER
    held: Lru[Key, UserState] = Lru(kv_cache_bytes, _size)
    counts = {"hit": 0, "miss": 0}
    opened = (release, recommender, items, catalogue, features, histories)
    return Session(*opened, fields, lineage, is_replay, held, counts)


def default_time(session: Session, last_event: datetime | None) -> datetime:
    """The instant of a request that names none: now, or, where the data is replayed, when it ends.

    Old data is a replayed world: asked "now", every signal would have expired. Its clock is moved by new events alone.
    """
    as_of = session.release.as_of
    present = as_of if session.is_replay else max(datetime.now(UTC), as_of)
    return present if last_event is None else max(present, last_event + MOMENT)


def get_user_states(session: Session, user_ids: Sequence[Key]) -> dict[Key, UserState]:
    """Every user's decoded history, decoded now where it is not at hand or has new events.

    While the online store does not answer: as it is at hand, or without new events.
    """
    now = clock.monotonic()
    found: dict[Key, UserState] = {}
    stale: dict[Key, UserState | None] = {}
    for user_id in dict.fromkeys(user_ids):
        held = session.user_states.get(user_id)
        if held is not None and now - held.checked <= FRESH_FOR_S:
            found[user_id] = held
        else:
            stale[user_id] = held
    session.counts["hit"] += len(found)
    changed: dict[Key, RecentEvents] = {}
    for user_id, fresh in zip(stale, _fresh_now(session, list(stale)), strict=True):
        held = stale[user_id]
        if held is not None and (fresh is None or held.pushed == fresh.seconds):
            found[user_id] = held._replace(checked=now)
            session.user_states.put(user_id, found[user_id])
            session.counts["hit"] += 1
        else:
            changed[user_id] = fresh or NOTHING_NEW
    session.counts["miss"] += len(changed)
    for user_id, one in zip(changed, _decoded(session, changed, now), strict=True):
        found[user_id] = one
        session.user_states.put(user_id, one)
    return found


def user_state_before(session: Session, user_id: Key, before: datetime) -> UserState:
    """The user's history as a request before some of the known events sees it; not held.

    It lacks new events before that instant which so many later ones followed that they are not kept any more.
    """
    (fresh,) = _fresh_now(session, [user_id])
    (one,) = _decoded(session, {user_id: fresh or NOTHING_NEW}, 0.0, before=before)
    return one


def _fresh_now(session: Session, user_ids: Sequence[Key]) -> Sequence[RecentEvents | None]:
    """Each user's new events; None for all while the online store does not answer."""
    try:
        return recent_events(session.histories, user_ids) if user_ids else ()
    except StoreError:
        return [None] * len(user_ids)


def evict_user_state(session: Session, user_id: Key) -> None:
    """Drop what is held of a user: there are new events."""
    session.user_states.drop(user_id)


def catalogue_rows(session: Session, item_ids: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Row of the catalogue of each item, -1 where it is not there."""
    held = session.items.item_ids
    return rows_of(np.array(item_ids, dtype=held.dtype) if len(item_ids) else held[:0], held)


def unknown_items(session: Session, item_ids: Sequence[Key]) -> list[Key]:
    """Those that are not in the catalogue, each once."""
    named = list(dict.fromkeys(item_ids))
    rows = catalogue_rows(session, named).tolist()
    return [item for item, row in zip(named, rows, strict=True) if row < 0]


def scoring_request_of(session: Session, user_id: Key, time: datetime, signals: Mapping[str, Any]) -> ScoringRequest:
    """A request as offline scoring takes it, without candidates.

    Raises:
        ServingError: the user has no history.
    """
    (fresh,) = recent_events(session.histories, [user_id])
    known = history_of(session.histories, user_id, fresh, before=time)
    if not known.is_user:
        raise ServingError("a user who was asked for has no history in this release; name one who has")
    nothing = no_candidates(session.recommender.signals, session.features.item_type)
    return ScoringRequest(time, signals, known.events.tail(session.histories.n_kept), nothing)


def _decoded(
    session: Session, changed: Mapping[Key, RecentEvents], now: float, *, before: datetime | None = None
) -> list[UserState]:
    """Decode the histories of some users."""
    if not changed:
        return []
    histories = session.histories
    known = [history_of(histories, user_id, fresh, before=before) for user_id, fresh in changed.items()]
    recommender, item_type = session.recommender, session.features.item_type
    nothing = no_candidates(recommender.signals, item_type)
    asks = [ScoringRequest(session.release.as_of, {}, one.events.tail(histories.n_kept), nothing) for one in known]
    tables = request_tables(asks, recommender.signals, item_type)
    corpus = encode_corpus(tables, recommender.signals, recommender.vocabulary)
    event_rows = catalogue_rows(session, tables.events[ITEM_ID].to_numpy())
    prefixes = prefill(recommender, replace(corpus, event_row_E=event_rows))
    return [
        UserState(
            prefix,
            _seen(session, one),
            last_time(one.events),
            one.is_user,
            UNREAD if one.is_damaged else one.fresh.seconds,
            now,
            one.is_damaged,
        )
        for prefix, one in zip(prefixes, known, strict=True)
    ]


def _seen(session: Session, known: History) -> np.ndarray:
    rows = catalogue_rows(session, known.events[ITEM_ID].to_numpy())
    return np.unique(rows[rows >= 0])


def last_time(events: pl.DataFrame) -> datetime | None:
    """Of the last event."""
    return None if events.is_empty() else events[EVENT_TIME][-1]


def _size(held: UserState) -> int:
    return held.prefix.n_bytes + held.seen.nbytes + USER_STATE_BYTES


def unknown_user_id(session: Session) -> Key:
    """The key of a user of whom nothing is known."""
    return 0 if session.release.key_types[USER_ID] == "int64" else ""


def user_keys(session: Session, asked: PredictRequest | Event) -> dict[str, Key]:
    """The join keys of a question or an event: the user's, and those that it brought."""
    given = asked.context if isinstance(asked, PredictRequest) else asked.signals
    return {USER_ID: asked.user_id} | {key: given[key] for key in session.fields.request_keys if key in given}
