"""New events: described as history events are, and pushed into the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

import polars as pl

from lrm.errors import StoreError
from lrm.features.sources import COLUMN_TYPES, INSTANT_TYPE
from lrm.schema import EVENT_TIME, HISTORY, ITEM_ID, USER_ID, for_maker
from lrm.serving.features import KEY_TYPES, Key, Row, describe
from lrm.serving.histories import add_events, fresh_events, history_of
from lrm.serving.question import Event
from lrm.serving.service import Service, default_time, forget, last_time, user_keys


def take_events(service: Service, pushes: Sequence[Sequence[Event]]) -> list[int]:
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
    fresh = fresh_events(service.histories, users)
    known = {user: history_of(service.histories, user, one) for user, one in zip(users, fresh, strict=True)}
    times = _times(service, pushes, {user: last_time(one.events) for user, one in known.items()})
    described = _described(service, pushes, times)
    if service.features.outage.is_now:  # what a history holds of an event stays as it is written now
        raise StoreError("the online store stopped to answer while events were described")
    is_new = iter(add_events(service.histories, known, described))
    for user_id in users:
        forget(service, user_id)
    return [sum(islice(is_new, len(push))) for push in pushes]


def _times(service: Service, pushes: Sequence[Sequence[Event]], last: dict[Key, datetime | None]) -> list[datetime]:
    """When each event was: those of a push that do not say, all at one instant, after what came before them."""
    times: list[datetime] = []
    for push in pushes:
        before = last[push[0].user_id]
        present = default_time(service, before)
        mine = [(event.time or present).astimezone(UTC) for event in push]
        last[push[0].user_id] = max(mine if before is None else [before, *mine])
        times += mine
    return times


def _described(service: Service, pushes: Sequence[Sequence[Event]], times: Sequence[datetime]) -> pl.DataFrame:
    """Every event with its user and all that is declared of it: the next release may read what this one does not."""
    events = [event for push in pushes for event in push]
    rows = [
        Row({**user_keys(service, event), ITEM_ID: event.item_id}, event.signals, time)
        for event, time in zip(events, times, strict=True)
    ]
    facts = {
        USER_ID: [event.user_id for event in events],
        ITEM_ID: [event.item_id for event in events],
        EVENT_TIME: times,
    } | describe(service.features, HISTORY, rows, with_unread=True).columns
    keys = {USER_ID: KEY_TYPES[service.release.key_types[USER_ID]], ITEM_ID: service.features.item_type}
    declared = for_maker(service.features.online.signals, HISTORY)
    schema = keys | {EVENT_TIME: INSTANT_TYPE} | {signal.name: COLUMN_TYPES[signal.kind] for signal in declared}
    return pl.DataFrame(facts, schema=schema, strict=False)
