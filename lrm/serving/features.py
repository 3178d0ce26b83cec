"""What is known of a request online: the user's history and the signals of user, items and pairs.

Histories lie packed in one SQLite file: one row per user, its blob an Arrow stream of the user's latest events, oldest
first, with every history signal. One more event than the model reads is kept, because the oldest event read is also
described by the time since the one before it. Signals come from the feature store's online store through
`lrm.features.store`, which makes a value that has outlived its time-to-live null, as it is offline.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.features import store
from lrm.schema import CANDIDATE, EVENT_TIME, HISTORY, ITEM_ID, QUERY, USER_ID, Signal, for_maker
from lrm.serving.recommend import Ask, columns, no_candidates, no_history
from lrm.serving.release import FEATURE_REPO, HISTORIES, ONLINE, Release

Key = int | str
KEY_TYPES: dict[str, Any] = {"int64": pl.Int64, "string": pl.String}


class Features(NamedTuple):
    """An open release's histories and online store."""

    histories: sqlite3.Connection
    online: store.Online
    signals: tuple[Signal, ...]
    key_types: Mapping[str, str]

    @property
    def item_type(self) -> pl.DataType:
        """The type of `item_id`."""
        kind: pl.DataType = KEY_TYPES[self.key_types[ITEM_ID]]
        return kind


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
        rows = ((user[USER_ID][0], _packed(user.drop(USER_ID))) for user in users)
        connection.executemany("INSERT INTO history VALUES (?, ?)", rows)
    connection.close()
    return len(users)


def open_features(release: Release, signals: tuple[Signal, ...]) -> Features:
    """Open a release's histories and online store; imports the feature store, which takes seconds."""
    address = f"{(release.folder / HISTORIES).absolute().as_uri()}?mode=ro&immutable=1"
    histories = sqlite3.connect(address, uri=True, check_same_thread=False)
    online = store.open_online(
        release.folder / FEATURE_REPO, release.folder, state=(release.folder / ONLINE).absolute()
    )
    return Features(histories, online, signals, release.key_types)


def close_features(features: Features) -> None:
    """Close the histories."""
    features.histories.close()


def gather(
    features: Features,
    *,
    user_id: Key,
    time: datetime,
    context: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
) -> Ask:
    """Everything known of a request at its instant; an unknown user has no history and no signals.

    Args:
        features: an open release.
        user_id: whose request.
        time: UTC instant.
        context: request signals and join keys, as the request brought them.
        candidates: `item_id` and what else the request brought of each.
    """
    keys = {USER_ID: user_id} | {key: value for key, value in context.items() if key in features.key_types}
    query = _online(features, [keys], QUERY, time)
    signals = dict(context) | (query.row(0, named=True) if query.width else {})
    rows = [keys | {ITEM_ID: candidate[ITEM_ID]} for candidate in candidates]
    schema = columns(brought(features, CANDIDATE), CANDIDATE, item_id=features.item_type)
    given = pl.DataFrame([dict(candidate) for candidate in candidates], schema=schema, strict=False)
    joined = _online(features, rows, CANDIDATE, time)
    named = no_candidates(features.signals, features.item_type)
    offered = pl.concat([named, pl.concat([given, joined], how="horizontal")], how="diagonal").select(named.columns)
    return Ask(time, signals, history_of(features, user_id, before=time), offered)


def history_of(features: Features, user_id: Key, *, before: datetime) -> pl.DataFrame:
    """The user's latest events strictly before an instant, oldest first; empty for an unknown user."""
    found = features.histories.execute("SELECT events FROM history WHERE user_id = ?", (user_id,)).fetchone()
    if found is None:
        return no_history(features.signals, features.item_type)
    return pl.read_ipc_stream(io.BytesIO(found[0])).filter(pl.col(EVENT_TIME) < before)


def brought(features: Features, maker: str) -> tuple[Signal, ...]:
    """The signals that no view is joined for: a request brings them itself."""
    joined = {view.name for view in features.online.views}
    return tuple(signal for signal in for_maker(features.signals, maker) if signal.view not in joined)


def _online(features: Features, rows: Sequence[Mapping[str, Key]], maker: str, time: datetime) -> pl.DataFrame:
    """The joined signals of one maker, a row for each of `rows`; views whose keys were not given are left out."""
    held = set(rows[0]) if rows else set()
    wanted = {signal.name for signal in for_maker(features.signals, maker)}
    views = tuple(
        view
        for view in features.online.views
        if set(view.keys) <= held and wanted & {signal.name for signal in view.signals}
    )
    if not views:
        return pl.DataFrame()
    values = store.read_online(features.online._replace(views=views), rows, time)
    return values.select(name for name in values.columns if name in wanted)


def _packed(events: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    events.write_ipc_stream(buffer, compression="zstd")
    return buffer.getvalue()
