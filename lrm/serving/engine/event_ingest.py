"""New events: described as history events are, and pushed into the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import polars as pl

from lrm.errors import StoreError
from lrm.features.sources import COLUMN_TYPES, INSTANT_TYPE
from lrm.schema import EVENT_TIME, HISTORY, ITEM_ID, USER_ID, for_maker
from lrm.serving.engine.features import KEY_TYPES, EntityRow, Key, get_features
from lrm.serving.engine.histories import add_events, history_of, recent_events
from lrm.serving.engine.request_checks import Event
from lrm.serving.engine.session import Session, default_time, evict_user_state, last_time, user_keys

Content = tuple[Any, ...]
SENT_AGAIN_WITHIN = timedelta(seconds=60)
"""An event without a time that says what another of so long ago said is that one, sent again by a caller who got no
answer. One who means both gives their times."""


def take_events(session: Session, pushes: Sequence[Sequence[Event]]) -> list[int]:
    """Push events into the online store, in one write; the next answers to their users know them.

    Args:
        service: an open release.
        pushes: each the events of one user that came together.

    Returns:
        For each push, how many of its events were not known before.

    Raises:
        StoreError: the online store does not answer; whether it took them is not known.
    """
    users = list(dict.fromkeys(push[0].user_id for push in pushes))
    fresh = recent_events(session.histories, users)
    known = {user: history_of(session.histories, user, one) for user, one in zip(users, fresh, strict=True)}
    times = _times(session, pushes, {user: one.events for user, one in known.items()})
    described = _event_table(session, pushes, times)
    if session.features.circuit_breaker.is_open:  # what a history holds of an event stays as it is written now
        raise StoreError("the online store stopped to answer while events were described")
    is_new = iter(add_events(session.histories, known, described))
    for user_id in users:
        evict_user_state(session, user_id)
    return [sum(islice(is_new, len(push))) for push in pushes]


def _times(session: Session, pushes: Sequence[Sequence[Event]], known: dict[Key, pl.DataFrame]) -> list[datetime]:
    """When each event was: those of a push that do not say, all at one instant, after what came before them.

    One that does not say, and says what an event of the last minute said, is that event sent again: it was then.
    """
    times: list[datetime] = []
    last = {user: last_time(events) for user, events in known.items()}
    lately: dict[Key, dict[Content, datetime]] = {}
    for push in pushes:
        user = push[0].user_id
        before = last[user]
        present = default_time(session, before)
        if user not in lately:
            lately[user] = _lately(session, known[user].filter(pl.col(EVENT_TIME) >= present - SENT_AGAIN_WITHIN))
        mine = []
        for event, content in zip(push, _contents(session, push), strict=True):
            again = lately[user].get(content) if event.time is None else None
            is_again = again is not None and present - again <= SENT_AGAIN_WITHIN
            mine.append((again if again is not None and is_again else event.time or present).astimezone(UTC))
            lately[user][content] = mine[-1]
        last[user] = max(mine if before is None else [before, *mine])
        times += mine
    return times


def _contents(session: Session, events: Sequence[Event]) -> list[Content]:
    """What each event says, in the types in which it is kept."""
    signals = session.fields.event
    schema = {ITEM_ID: session.features.item_type} | {one.name: COLUMN_TYPES[one.kind] for one in signals}
    said: dict[str, list[Any]] = {one.name: [event.signals.get(one.name) for event in events] for one in signals}
    said[ITEM_ID] = [event.item_id for event in events]
    return _rows(session, pl.DataFrame(said, schema=schema, strict=False))


def _lately(session: Session, events: pl.DataFrame) -> dict[Content, datetime]:
    """What events said, and when each was last."""
    return dict(zip(_rows(session, events), events[EVENT_TIME].to_list(), strict=True))


def _rows(session: Session, events: pl.DataFrame) -> list[Content]:
    """The item of each, and those signals that an event brings itself and a history keeps."""
    kept = set(session.histories.nothing.columns)
    names = [one.name for one in session.fields.event if one.name in kept]
    rows = events.select(ITEM_ID, *names).rows()
    return [tuple(tuple(one) if isinstance(one, list) else one for one in row) for row in rows]


def _event_table(session: Session, pushes: Sequence[Sequence[Event]], times: Sequence[datetime]) -> pl.DataFrame:
    """Every event with its user and all that is declared of it: the next release may read what this one does not."""
    events = [event for push in pushes for event in push]
    rows = [
        EntityRow({**user_keys(session, event), ITEM_ID: event.item_id}, event.signals, time)
        for event, time in zip(events, times, strict=True)
    ]
    facts = {
        USER_ID: [event.user_id for event in events],
        ITEM_ID: [event.item_id for event in events],
        EVENT_TIME: times,
    } | get_features(session.features, HISTORY, rows, with_unread=True).columns
    keys = {USER_ID: KEY_TYPES[session.release.key_types[USER_ID]], ITEM_ID: session.features.item_type}
    declared = for_maker(session.features.online.signals, HISTORY)
    schema = keys | {EVENT_TIME: INSTANT_TYPE} | {signal.name: COLUMN_TYPES[signal.kind] for signal in declared}
    return pl.DataFrame(facts, schema=schema, strict=False)
