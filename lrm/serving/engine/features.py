"""What is known of a request online: the signals of user, items and pairs.

They come from the feature store's online store through `lrm.features.store`, all requests of a batch in one read, and
are believed for a minute: what others write to the store is seen after that. A value that has outlived its
time-to-live at the request's instant is null, as it is offline. While the store does not answer, what was read last is
used, however long ago that was, and the rest is null.
"""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import ServingError, StoreError
from lrm.features import store
from lrm.features.declarations import View
from lrm.features.feast_repo import NOT_KEPT, Kept, Online
from lrm.schema import ITEM_ID, MAKERS, USER_ID, Signal, for_maker
from lrm.serving.engine.circuit_breaker import CircuitBreaker
from lrm.serving.engine.damaged_values import fitting, read_each
from lrm.serving.engine.lru import Lru
from lrm.serving.release import FEATURE_REPO, ONLINE, Release

Key = int | str
KEY_TYPES: dict[str, Any] = {"int64": pl.Int64, "string": pl.String}
CACHE_TTL_S = 60.0
"""Seconds for which a value read from the online store is used again."""
CACHE_BYTES = 128 * 2**20
"""Bound of the values held, by their estimated size."""
CACHE_ENTRY_BYTES = 540
"""By which a process grows for what is held of one key, beside its values: its places in memory, as measured."""
_PADDING = 8
"""Bytes that the allocator adds to a number or a text."""


class Features(NamedTuple):
    """An open release's online store, and the values read from it last."""

    online: Online
    signals: tuple[Signal, ...]
    """Those of the model."""
    key_types: Mapping[str, str]
    held: Lru[tuple[Any, ...], tuple[Kept, float]]
    """By view and keys: what was read, and when."""
    views: Mapping[str, tuple[View, ...]]
    """The views that each maker reads, with all their signals."""
    circuit_breaker: CircuitBreaker
    """Of the online store."""

    @property
    def item_type(self) -> pl.DataType:
        """The type of `item_id`."""
        kind: pl.DataType = KEY_TYPES[self.key_types[ITEM_ID]]
        return kind


class EntityRow(NamedTuple):
    """Something to be described: a request, one of its candidates, or an event."""

    keys: Mapping[str, Key]
    given: Mapping[str, Any]
    """Signals that came with it."""
    time: datetime


class FeatureColumns(NamedTuple):
    """The signals of rows."""

    columns: dict[str, list[Any]]
    """A list for each signal of the maker, null where nothing is known."""
    expired: list[tuple[str, ...]]
    """For each row, the signals whose value had outlived its time-to-live."""
    damaged: list[bool]
    """For each row, whether a value was there and could not be read; it is null."""


def open_features(release: Release, signals: tuple[Signal, ...], *, events: Path | None = None) -> Features:
    """Open a release's online store; imports the feature store, which takes seconds.

    Args:
        release: whose store.
        signals: of its model.
        events: where new events are kept, for this release and those that follow; None: a local store takes none.

    Raises:
        ServingError: that folder cannot be written.
    """
    state = (release.folder / ONLINE).absolute()
    try:
        online = store.open_online(release.folder / FEATURE_REPO, release.folder, state=state, events=events)
    except OSError as error:
        raise ServingError(
            f"new events are kept in {events}, which cannot be written ({error}); name another folder with --events"
        ) from error
    views = {maker: tuple(view for view in online.views if for_maker(_known(view, signals), maker)) for maker in MAKERS}
    return Features(online, signals, release.key_types, Lru(CACHE_BYTES, _size), views, CircuitBreaker())


def get_features(
    features: Features, maker: str, rows: Sequence[EntityRow], *, with_unread: bool = False
) -> FeatureColumns:
    """Every signal that one maker reads, for each row: as the store has it, else as it was given.

    A view whose keys a row does not have says nothing of it. `with_unread`: also what is declared and the model does
    not read.
    """
    signals, views = features.signals, features.views[maker]
    if with_unread:
        signals = features.online.signals
        views = tuple(view for view in features.online.views if for_maker(view.signals, maker))
    names = [signal.name for signal in for_maker(signals, maker)]
    columns: dict[str, list[Any]] = {name: [row.given.get(name) for row in rows] for name in names}
    expired: list[tuple[str, ...]] = [()] * len(rows)
    damaged = [False] * len(rows)
    for view in views:
        read = [signal.name if signal.name in columns else None for signal in view.signals]
        served = [(place, columns[name]) for place, name in enumerate(read) if name is not None]
        oldest: dict[datetime, float] = {}  # the rows of a request share its instant
        for at, kept in _kept(features, view, rows):
            damaged[at] = damaged[at] or kept.is_damaged
            instant = rows[at].time
            if instant not in oldest:
                oldest[instant] = store.lives_since(view, instant)
            if kept.seconds >= oldest[instant]:
                for place, column in served:
                    column[at] = kept.values[place]
            else:
                pairs = zip(read, kept.values, strict=True)
                expired[at] += tuple(name for name, value in pairs if name is not None and value is not None)
    return FeatureColumns(columns, expired, damaged)


def is_known_user(features: Features, user_id: Key) -> bool:
    """Whether the online store has any value by the user's key alone; of what was read last."""
    views = [view for maker in MAKERS for view in features.views[maker] if view.keys == (USER_ID,)]
    held = [features.held.get((view.name, user_id)) for view in views]
    return any(value is not None for one in held if one is not None for value in one[0].values)


def request_provided(features: Features, maker: str) -> tuple[Signal, ...]:
    """The declared signals that no view is joined for: a request brings them itself.

    The model reads what it was trained on of them, and another one may read the rest.
    """
    joined = {view.name for view in features.online.views}
    return tuple(signal for signal in for_maker(features.online.signals, maker) if signal.view not in joined)


def _kept(features: Features, view: View, rows: Sequence[EntityRow]) -> list[tuple[int, Kept]]:
    """What the store keeps for each row that has the view's keys; read anew where that was not done lately.

    While the store does not answer: what was read last, or nothing.
    """
    needed = set(view.keys)
    wanted = [
        (at, (view.name, *[row.keys[key] for key in view.keys]))
        for at, row in enumerate(rows)
        if row.keys.keys() >= needed
    ]
    now = clock.monotonic()
    found: dict[tuple[Any, ...], Kept] = {}
    lacking: dict[tuple[Any, ...], Kept] = {}
    nothing = Kept((None,) * len(view.signals), NOT_KEPT)
    for _, key in wanted:
        held = features.held.get(key)
        if held is None or now - held[1] > CACHE_TTL_S:
            lacking[key] = nothing if held is None else held[0]
        else:
            found[key] = held[0]
    if lacking:

        def read_some(keys: Sequence[tuple[Any, ...]]) -> list[Kept]:
            return store.read_kept(features.online, view, [dict(zip(view.keys, key[1:], strict=True)) for key in keys])

        try:
            read = features.circuit_breaker.asking(lambda: read_each(read_some, list(lacking), nothing))
        except StoreError:
            found |= lacking
        else:
            for key, kept in zip(lacking, [fitting(kept, view.signals) for kept in read], strict=True):
                found[key] = kept
                features.held.put(key, (kept, now))
    return [(at, found[key]) for at, key in wanted]


def _known(view: View, signals: Sequence[Signal]) -> list[Signal]:
    """The view's signals that the model knows."""
    names = {signal.name for signal in signals}
    return [signal for signal in view.signals if signal.name in names]


def _size(held: tuple[Kept, float]) -> int:
    """About the bytes that a process grows by for what is held: its places in memory, measured, and its values."""
    return CACHE_ENTRY_BYTES + sum(map(_bytes, held[0].values))


def _bytes(value: Any) -> int:
    own = sys.getsizeof(value) + _PADDING
    if not isinstance(value, list):
        return own
    if value and isinstance(value[0], float):  # an embedding may be long, and its numbers are all of one size
        return own + len(value) * (sys.getsizeof(value[0]) + _PADDING)
    return own + sum(map(_bytes, value))
