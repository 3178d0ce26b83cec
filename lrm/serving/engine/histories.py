"""What is known of users' histories online: packed events of the release, and new events since.

Histories lie packed in one SQLite file: one row per user, its blob a checksum and an Arrow stream of the user's latest
events, oldest first, with every history signal. One more event than the model reads is kept, because the oldest event
read is also described by the time since the one before it. New events are pushed through the feature store's push
source, packed in the same way, all of a user's together: one value a user is what an online store keeps. They outlive
the release: the one that follows reads the same store. A value that was damaged is that user's missing value, until the
next push.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from lrm.errors import DamagedError
from lrm.features.feast_repo import Kept, Online
from lrm.features.push import Pushed, push_fresh, read_fresh
from lrm.schema import EVENT_TIME, HISTORY, ITEM_ID, USER_ID, Signal, for_maker
from lrm.serving.engine.circuit_breaker import CircuitBreaker
from lrm.serving.engine.damaged_values import as_declared, packed, read_each, unpacked
from lrm.serving.engine.scoring import no_history
from lrm.serving.release import HISTORIES, Release

Key = int | str
_PLACE = "_place"
_SAME = [ITEM_ID, EVENT_TIME]
"""What makes two events of a user one."""


class Histories(NamedTuple):
    """An open release's packed histories, and the online store that takes new events."""

    packed: sqlite3.Connection
    online: Online
    nothing: pl.DataFrame
    """The history of a user who has none."""
    max_events: int
    """Events of a user that a score can depend on."""
    circuit_breaker: CircuitBreaker
    """Of the online store."""

    @property
    def n_kept(self) -> int:
        """Latest events of a user that are packed, that are kept of the new ones, and that the model is shown."""
        return self.max_events + 1


class RecentEvents(NamedTuple):
    """A user's new events, as the online store keeps them."""

    packed: bytes | None
    seconds: float
    """Instant of the last push; 0 where there was none. It differs after every push."""
    is_damaged: bool = False
    """Whether there is a value, and it cannot be read."""


class History(NamedTuple):
    """A user's history."""

    events: pl.DataFrame
    """Oldest first: `item_id`, `event_time` and the history signals. At most the `n_kept` latest of the release and the
    `n_kept` latest new ones; the model is shown the latest of both."""
    is_user: bool
    """Whether the user has any event, packed or new."""
    fresh: RecentEvents
    """What of it is new."""
    is_damaged: bool = False
    """Whether a part of it was damaged, and is left out."""


def write_histories(path: Path, events: pl.DataFrame, signals: Sequence[Signal], *, max_history: int) -> int:
    """Pack the latest events of every user, and return the number of users.

    Args:
        path: the file to write; it must not exist.
        events: as `events.parquet` of the examples, in its order.
        signals: the declared signals.
        max_history: events that the model reads at most.
    """
    latest = events.group_by(USER_ID, maintain_order=True).tail(max_history + 1)
    kept = latest.select(USER_ID, ITEM_ID, EVENT_TIME, *(signal.name for signal in for_maker(signals, HISTORY)))
    users = kept.partition_by(USER_ID, include_key=True, maintain_order=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE history (user_id PRIMARY KEY, events BLOB NOT NULL) WITHOUT ROWID")
        rows = ((user[USER_ID][0], packed(user.drop(USER_ID))) for user in users)
        connection.executemany("INSERT INTO history VALUES (?, ?)", rows)
    connection.close()
    return len(users)


def open_histories(
    release: Release,
    online: Online,
    signals: Sequence[Signal],
    *,
    item_type: pl.DataType,
    max_events: int,
    circuit_breaker: CircuitBreaker | None = None,
) -> Histories:
    """Open a release's histories beside its open online store, whose outages `outage` knows, or they alone."""
    address = f"{(release.folder / HISTORIES).absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False)
    return Histories(
        connection, online, no_history(signals, item_type), max_events, circuit_breaker or CircuitBreaker()
    )


def some_users(histories: Histories, n: int) -> list[Key]:
    """A few users who have a history."""
    return [row[0] for row in histories.packed.execute("SELECT user_id FROM history LIMIT ?", (n,))]


def spread_users(histories: Histories, n: int) -> list[Key]:
    """At most `n` users who have a history, spread evenly over all of them."""
    users = [row[0] for row in histories.packed.execute("SELECT user_id FROM history ORDER BY user_id")]
    return users[:: max(1, -(-len(users) // n))]


def recent_events(histories: Histories, user_ids: Sequence[Key]) -> list[RecentEvents]:
    """Each user's new events, as the online store keeps them now.

    Raises:
        StoreError: it does not answer.
    """

    def read(some: Sequence[Key]) -> list[Kept]:
        return read_fresh(histories.online, some)

    kept = histories.circuit_breaker.asking(lambda: read_each(read, user_ids, Kept((None,), 0.0)))
    # Whoever pushed wrote an instant and a value: an instant alone is what is left of both.
    return [RecentEvents(one.values[0], max(one.seconds, 0.0), one.is_damaged or _is_half(one)) for one in kept]


def _is_half(kept: Kept) -> bool:
    return kept.seconds > 0 and kept.values[0] is None


def history_of(histories: Histories, user_id: Key, fresh: RecentEvents, *, before: datetime | None = None) -> History:
    """All that is kept of a user's history, packed and new together, in time order.

    Args:
        histories: of an open release.
        user_id: whose history.
        fresh: the user's new events.
        before: UTC instant; where given, only earlier events are told. New ones that were displaced by later ones are
            not among them.
    """
    events, is_user, is_damaged = histories.nothing, fresh.packed is not None or fresh.is_damaged, False
    try:
        row = histories.packed.execute("SELECT events FROM history WHERE user_id = ?", (user_id,)).fetchone()
        is_user = is_user or row is not None
        events = histories.nothing if row is None else unpacked(row[0]).select(histories.nothing.columns)
    except (sqlite3.DatabaseError, DamagedError):
        is_user, is_damaged = True, True
    new = _whole(histories, fresh)
    if new is not None and not new.is_empty():
        new = as_declared(new, histories.nothing.schema).join(events, on=_SAME, how="anti", maintain_order="left")
        events = pl.concat([events, new]).sort(EVENT_TIME, maintain_order=True)
    earlier = events if before is None else events.filter(pl.col(EVENT_TIME) < before)
    return History(earlier, is_user, fresh, is_damaged or new is None)


def add_events(histories: Histories, before: Mapping[Key, History], sent: pl.DataFrame) -> list[bool]:
    """Push new events of some users, all in one write; an event sent twice counts once.

    Where as many new events of a user are kept as may be, one that is not later than the oldest of them counts as
    known: it may have been displaced, and would be again.

    Args:
        histories: of an open release.
        before: what is known of each of these users now.
        sent: `user_id` and the columns of a history, and maybe more, in the order in which they came.

    Returns:
        Whether each of them was not known.

    Raises:
        StoreError: the online store does not answer.
    """
    pushed: list[Pushed] = []
    places: set[int] = set()
    of_users = sent.with_row_index(_PLACE).partition_by(USER_ID, as_dict=True, include_key=False)
    for (user_id,), mine in of_users.items():
        known = before[user_id]
        held = _whole(histories, known.fresh)
        held = histories.nothing if held is None else held
        new = mine.unique(_SAME, keep="first", maintain_order=True)
        new = new.join(known.events, on=_SAME, how="anti", maintain_order="left")
        if held.height >= histories.n_kept:
            new = new.filter(pl.col(EVENT_TIME) > held[EVENT_TIME][0])
        if not new.is_empty():
            new_ones = new.drop(_PLACE)
            shared = {name: kind for name, kind in new_ones.schema.items() if name in held.columns}
            held = held.with_columns(as_declared(held, shared).get_columns())
            together = pl.concat([held, new_ones], how="diagonal")
            together = together.sort(EVENT_TIME, maintain_order=True).tail(histories.n_kept)
            pushed.append(Pushed(user_id, packed(together), _instant(known.fresh, together)))
            places.update(new[_PLACE])
    if pushed:
        histories.circuit_breaker.asking(lambda: push_fresh(histories.online, pushed))
    return [place in places for place in range(sent.height)]


def _instant(before: RecentEvents, events: pl.DataFrame) -> datetime:
    """Of a push: not before its last event, and later by the second than the push before."""
    earliest = datetime.fromtimestamp(before.seconds, UTC) + timedelta(seconds=1)
    last: datetime = events[EVENT_TIME][-1]
    return max(earliest, last, datetime.now(UTC)) if before.is_damaged else max(earliest, last)


def _whole(histories: Histories, fresh: RecentEvents) -> pl.DataFrame | None:
    """New events with all that is kept of them: another release may read what this one does not. None: damaged."""
    if fresh.packed is None:
        return None if fresh.is_damaged else histories.nothing
    try:
        found = unpacked(fresh.packed)
    except DamagedError:
        return None
    named = as_declared(found, {name: histories.nothing.schema[name] for name in _SAME})
    return found.with_columns(named.get_columns()).drop_nulls(_SAME)
