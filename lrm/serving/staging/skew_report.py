"""Which signals of a request are not the same online and offline, and which have expired.

Online values are read by the server's own code, offline ones come from the point-in-time join. Both are the same source
value in the same type, so they must be equal, without any tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import polars as pl

from lrm.features.declarations import Declarations
from lrm.features.open_store import closing_store
from lrm.features.tables import Tables
from lrm.schema import CANDIDATE, EVENT_TIME, HISTORY, ITEM_ID, QUERY, REQUEST_ID, USER_ID, Signal, for_maker
from lrm.serving.engine.features import EntityRow, Features, get_features, open_features
from lrm.serving.engine.histories import Histories, RecentEvents, history_of, open_histories
from lrm.serving.engine.scoring import ScoringRequest, columns, no_candidates
from lrm.serving.release import Release
from lrm.serving.staging.replay import Probe

EVENTS_THEMSELVES = "history"


class Difference(NamedTuple):
    """One signal of one request that differs."""

    row: int
    """Of the probe."""
    item_id: Any
    """The candidate that it describes; None where it describes the request."""
    signal: str
    online: Any
    offline: Any


def read_online(
    release: Release, signals: tuple[Signal, ...], probes: Sequence[Probe], *, events_read: int
) -> list[ScoringRequest]:
    """What the server's code knows of each probe.

    Args:
        release: the release to open.
        signals: those that the model reads.
        probes: the requests.
        events_read: latest events of a user that a score can depend on.
    """
    features = open_features(release, signals)
    item_type = features.item_type
    histories = open_histories(release, features.online, signals, item_type=item_type, max_events=events_read)
    with closing(histories.packed), closing_store(features.online.store):
        return [_known_of(probe, release, features, histories) for probe in probes]


def _known_of(probe: Probe, release: Release, features: Features, histories: Histories) -> ScoringRequest:
    keys = {USER_ID: probe.user_id} | {key: probe.context[key] for key in release.key_types if key in probe.context}
    query = get_features(features, QUERY, [EntityRow(keys, probe.context, release.as_of)])
    named = [candidate[ITEM_ID] for candidate in probe.candidates]
    rows = [
        EntityRow({**keys, ITEM_ID: item}, candidate, release.as_of)
        for item, candidate in zip(named, probe.candidates, strict=True)
    ]
    offered = {ITEM_ID: named} | get_features(features, CANDIDATE, rows).columns
    return ScoringRequest(
        release.as_of,
        {name: values[0] for name, values in query.columns.items()},
        history_of(histories, probe.user_id, RecentEvents(None, 0.0)).events,
        pl.DataFrame(offered, schema=no_candidates(features.signals, features.item_type).schema, strict=False),
    )


def differing_signals(
    asks: Sequence[ScoringRequest], tables: Tables, signals: Sequence[Signal], *, events_read: int
) -> list[Difference]:
    """Every signal of a request, its history and its candidates that differs.

    Args:
        asks: what is known of each probe online.
        tables: the same probes offline, from `replay.offline_tables`.
        signals: those that the model reads.
        events_read: latest events of a user that a score can depend on.
    """
    queries, candidates = online_signals(asks, signals)
    unknown_user_id = pl.Series(ITEM_ID, [None] * len(asks))
    found = _unequal(queries, tables.requests, tables.requests[REQUEST_ID], unknown_user_id)
    found += _unequal(candidates, tables.candidates, tables.candidates[REQUEST_ID], tables.candidates[ITEM_ID])
    for row, (ask, user) in enumerate(zip(asks, tables.requests[USER_ID], strict=True)):
        events = tables.events.filter(pl.col(USER_ID) == user).tail(events_read + 1)
        found += [Difference(row, None, name, None, None) for name in _history(ask.history, events, signals)]
    return found


def expired(asks: Sequence[ScoringRequest], tables: Tables, ever: Tables, signals: Sequence[Signal]) -> dict[str, int]:
    """How many values are null online because they have outlived their time-to-live, by signal.

    Args:
        asks: what is known of each probe online.
        tables: the same probes offline.
        ever: the same once more, as if no value ever expired (`immortal`).
        signals: those that the model reads.
    """
    queries, candidates = online_signals(asks, signals)
    counts: dict[str, int] = {}
    for online, offline, once in (
        (queries, tables.requests, ever.requests),
        (candidates, tables.candidates, ever.candidates),
    ):
        for name in online.columns:
            is_expired = online[name].is_null() & offline[name].is_null() & once[name].is_not_null()
            if is_expired.any():
                counts[name] = counts.get(name, 0) + int(is_expired.sum())
    return counts


def n_ever_known(ever: Tables, signals: Sequence[Signal]) -> int:
    """How many values of requests and candidates are not null, or were not until they expired.

    Args:
        ever: the probes offline, as if no value ever expired (`immortal`).
        signals: those that the model reads.
    """
    tables = {QUERY: ever.requests, CANDIDATE: ever.candidates}
    return sum(table[one.name].count() for maker, table in tables.items() for one in for_maker(signals, maker))


def immortal(declared: Declarations) -> Declarations:
    """The same declarations, without any time-to-live."""
    return declared._replace(views=tuple(view._replace(ttl=None) for view in declared.views))


def online_signals(asks: Sequence[ScoringRequest], signals: Sequence[Signal]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The query signals of all asks, and the candidate signals of all of their candidates, in their order."""
    names = [signal.name for signal in for_maker(signals, QUERY)]
    rows = [{name: ask.signals.get(name) for name in names} for ask in asks]
    queries = pl.DataFrame(rows, schema=columns(signals, QUERY), strict=False)
    own = [signal.name for signal in for_maker(signals, CANDIDATE)]
    item_type = asks[0].candidates.schema[ITEM_ID]
    offered = pl.concat([no_candidates(signals, item_type), *(ask.candidates for ask in asks)])
    return queries, offered.select(own)


def _unequal(online: pl.DataFrame, offline: pl.DataFrame, rows: pl.Series, item_ids: pl.Series) -> list[Difference]:
    found = []
    for name in online.columns:
        for place in online[name].ne_missing(offline[name]).arg_true():
            values = online[name][place], offline[name][place]
            found.append(Difference(rows[place], item_ids[place], name, *map(_plain, values)))
    return found


def _history(online: pl.DataFrame, offline: pl.DataFrame, signals: Sequence[Signal]) -> list[str]:
    keys = [ITEM_ID, EVENT_TIME]
    if not online.select(keys).equals(offline.select(keys)):
        return [EVENTS_THEMSELVES]
    names = [signal.name for signal in for_maker(signals, HISTORY)]
    return [name for name in names if online[name].ne_missing(offline[name]).any()]


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else value
