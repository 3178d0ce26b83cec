"""New events: described as history events are, and pushed into the online store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import polars as pl

from lrm.schema import EVENT_TIME, HISTORY, ITEM_ID
from lrm.serving.features import Row, describe
from lrm.serving.histories import add_events
from lrm.serving.question import Event
from lrm.serving.service import Service, default_time, forget, recall, user_keys


def take_events(service: Service, events: Sequence[Event]) -> dict[str, int]:
    """Push events into the online store; the next answers to their users know them.

    Returns:
        `accepted`: all of them; `new`: those that were not known before.
    """
    new = 0
    for user_id in dict.fromkeys(event.user_id for event in events):
        mine = [event for event in events if event.user_id == user_id]
        present = default_time(service, recall(service, [user_id])[user_id].last_event)
        rows = [
            Row({**user_keys(service, event), ITEM_ID: event.item_id}, event.signals, event.time or present)
            for event in mine
        ]
        columns = describe(service.features, HISTORY, rows).columns
        facts = {
            ITEM_ID: [event.item_id for event in mine],
            EVENT_TIME: [row.time.astimezone(UTC) for row in rows],
        } | columns
        frame = pl.DataFrame(facts, schema=service.histories.nothing.schema, strict=False)
        new += add_events(service.histories, user_id, frame)
        forget(service, user_id)
    return {"accepted": len(events), "new": new}
