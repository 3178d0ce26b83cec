"""The same requests, put to a server and laid out for offline scoring.

The two sides share the model and nothing else. Online: the release's own process, the online store, the packed
histories, and JSON over HTTP. Offline: the data folder, the point-in-time join at the release's `as_of`, and the full
histories of the examples. `skew.py` holds the one against the other.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import ServingError
from lrm.features.declarations import Declarations
from lrm.features.join import point_in_time
from lrm.features.sources import INSTANT_TYPE, read_view
from lrm.features.tables import Tables
from lrm.schema import (
    CANDIDATE,
    CANDIDATE_ID,
    CANDIDATES,
    EVENT_TIME,
    ITEM_ID,
    LABEL,
    QUERY,
    REQUEST_ID,
    REQUESTS,
    SPLIT,
    TEST,
    USER_ID,
    for_maker,
)
from lrm.serving.engine.features import KEY_TYPES
from lrm.serving.engine.scoring import columns
from lrm.serving.release import Release
from lrm.serving.releases.builder import last_requests, request_keys

K = 100
"""Items compared of each recommendation."""
MAX_CANDIDATES = 50
TIMEOUT_S = 30


class Probe(NamedTuple):
    """One user's request, as a client would send it at the release's `as_of`."""

    user_id: int | str
    context: dict[str, Any]
    candidates: list[dict[str, Any]]


class Reply(NamedTuple):
    """What a server answered to one probe."""

    scores: dict[Any, float]
    """Of the K best items."""
    probabilities: dict[Any, float]
    """Of the candidates; empty where the probe has none."""
    seconds: list[float]
    """Of each request, as the client saw it."""


def choose_probes(tables: Tables, data: Path, declared: Declarations, *, as_of: datetime, n: int) -> list[Probe]:
    """Requests of `n` users, spread from the most recently active to the least; candidates as each was last offered.

    A user who was never offered any is asked to rank the items of the own history.
    """
    last = last_requests(data, declared, as_of=as_of)
    users = last.sort(EVENT_TIME, USER_ID, descending=True).gather_every(max(1, last.height // n)).head(n)
    own = [ITEM_ID, *(signal.name for signal in declared.of_role(CANDIDATES))]
    asked = tables.requests.select(REQUEST_ID, USER_ID, EVENT_TIME)
    offered = tables.candidates.join(asked, on=REQUEST_ID).join(users.select(USER_ID), on=USER_ID, how="semi")
    newest = offered.filter(pl.col(EVENT_TIME) == pl.col(EVENT_TIME).max().over(USER_ID))
    fields = [*request_keys(declared), *(signal.name for signal in declared.of_role(REQUESTS))]
    probes = []
    for row in users.iter_rows(named=True):
        candidates = newest.filter(pl.col(USER_ID) == row[USER_ID]).select(own).unique(ITEM_ID, maintain_order=True)
        if candidates.is_empty():
            bought = tables.events.filter(pl.col(USER_ID) == row[USER_ID]).select(ITEM_ID)
            candidates = bought.unique(maintain_order=True)
        context = {name: row[name] for name in fields if row[name] is not None}
        probes.append(Probe(row[USER_ID], context, candidates.head(MAX_CANDIDATES).to_dicts()))
    return probes


def offline_tables(
    probes: Sequence[Probe], examples: Tables, items: pl.DataFrame, declared: Declarations, release: Release
) -> Tables:
    """The probes' requests as offline retrieval sees them at `as_of`: request r is probe r."""
    signals, types = declared.signals, examples.requests.schema
    keys: dict[str, Any] = {REQUEST_ID: pl.Int64, USER_ID: types[USER_ID], EVENT_TIME: INSTANT_TYPE, SPLIT: pl.String}
    request_provided: dict[str, Any] = {name: KEY_TYPES[kind] for name, kind in release.key_types.items()}
    request_provided |= {signal.name: types[signal.name] for signal in declared.of_role(REQUESTS)}
    del request_provided[ITEM_ID]
    rows = [
        {REQUEST_ID: row, USER_ID: probe.user_id, EVENT_TIME: release.as_of, SPLIT: TEST} | probe.context
        for row, probe in enumerate(probes)
    ]
    asked = pl.DataFrame(rows, schema=keys | request_provided, strict=False)
    offered = [
        {REQUEST_ID: row, LABEL: 0.0} | candidate for row, probe in enumerate(probes) for candidate in probe.candidates
    ]
    schema: dict[str, Any] = {REQUEST_ID: pl.Int64, ITEM_ID: examples.items.schema[ITEM_ID], LABEL: pl.Float32}
    schema |= {signal.name: examples.candidates.schema[signal.name] for signal in declared.of_role(CANDIDATES)}
    named = pl.DataFrame(offered, schema=schema, strict=False).with_row_index(CANDIDATE_ID)
    place = named.join(
        asked.select(REQUEST_ID, EVENT_TIME, USER_ID, *request_keys(declared)),
        on=REQUEST_ID,
        how="left",
        maintain_order="left",
    )
    return Tables(
        events=examples.events.filter(pl.col(USER_ID).is_in(asked[USER_ID].to_list())),
        requests=_known(asked, declared, QUERY).select(*columns(signals, QUERY, **keys)),
        candidates=_known(place, declared, CANDIDATE).select(
            CANDIDATE_ID, *columns(signals, CANDIDATE, **dict.fromkeys((REQUEST_ID, ITEM_ID, LABEL)))
        ),
        targets=examples.targets.clear(),
        items=items,
    )


def ask(address: str, probe: Probe, as_of: datetime) -> Reply:
    """Send one user's requests to a server.

    Raises:
        ServingError: a request was not answered.
    """
    body = {"user_id": probe.user_id, "time": as_of.isoformat(), "context": probe.context}
    answer, spent = post(f"{address}/v1/recommend", body | {"k": K})
    scores = {item[ITEM_ID]: item["score"] for item in answer["items"]}
    if not probe.candidates:
        return Reply(scores, {}, [spent])
    ranked, more = post(f"{address}/v1/score", body | {"candidates": probe.candidates, "k": MAX_CANDIDATES})
    return Reply(scores, {item[ITEM_ID]: item["probability"] for item in ranked["items"]}, [spent, more])


def post(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Send JSON; return the JSON answer and the seconds it took.

    Raises:
        ServingError: no answer, or not a good one.
    """
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise ServingError(f"{url} answered {error.code}: {error.read().decode()[:500]}") from error
    except OSError as error:
        raise ServingError(f"{url} does not answer: {error}; see the server's log") from error
    return answer, time.perf_counter() - start


def _known(rows: pl.DataFrame, declared: Declarations, maker: str) -> pl.DataFrame:
    """The rows with every joined signal of one maker, as known at their instant."""
    found = [rows]
    for view in declared.joined:
        read = view._replace(signals=for_maker(view.signals, maker))
        if read.signals:
            source = read_view(read).join(rows.select(view.keys).unique(), on=view.keys, how="semi")
            found.append(point_in_time(rows, EVENT_TIME, read, source))
    return pl.concat(found, how="horizontal")
