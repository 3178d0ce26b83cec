"""The probe before a release goes into service: the same requests, answered online and computed offline.

The two sides share the model and nothing else. Online: the release's own process, the online store, the packed
histories, and JSON over HTTP. Offline: the data folder, the point-in-time join at the release's `as_of`, and the full
histories of the examples.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.errors import ServingError
from lrm.features.declarations import Declarations
from lrm.features.join import point_in_time
from lrm.features.sources import INSTANT_TYPE, read_view
from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
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
from lrm.serving.features import KEY_TYPES
from lrm.serving.publish import last_requests, request_keys
from lrm.serving.recommend import columns
from lrm.serving.release import Release

TOLERANCE = 1e-4
"""Largest difference allowed between a served and an offline score, in parts of the score where that is above 1."""
K = 100
"""Items compared of each recommendation."""
MAX_CANDIDATES = 50
TIMEOUT_S = 30


class Probe(NamedTuple):
    """One user's request, as a client would send it at the release's `as_of`."""

    user_id: int | str
    context: dict[str, Any]
    candidates: list[dict[str, Any]]


class Outcome(NamedTuple):
    """What the probe found."""

    seconds: list[float]
    """Of each request, as the client saw it."""
    score_difference: float
    """Largest, over the recommended items of all probes; as `TOLERANCE` measures it."""
    probability_difference: float
    """Largest, over the ranked candidates of all probes."""


def choose_probes(tables: Tables, data: Path, declared: Declarations, release: Release, *, n: int) -> list[Probe]:
    """Requests of `n` users, spread from the most recently active to the least; candidates as each was last offered.

    A user who was never offered any is asked to rank the items of the own history.
    """
    last = last_requests(data, declared, as_of=release.as_of)
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
    brought: dict[str, Any] = {name: KEY_TYPES[kind] for name, kind in release.key_types.items()}
    brought |= {signal.name: types[signal.name] for signal in declared.of_role(REQUESTS)}
    del brought[ITEM_ID]
    rows = [
        {REQUEST_ID: row, USER_ID: probe.user_id, EVENT_TIME: release.as_of, SPLIT: TEST} | probe.context
        for row, probe in enumerate(probes)
    ]
    asked = pl.DataFrame(rows, schema=keys | brought, strict=False)
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


def compare(
    address: str, probes: Sequence[Probe], recommender: Recommender, tables: Tables, release: Release
) -> Outcome:
    """Send every probe to a server, and hold its answers against the offline scores.

    Raises:
        ServingError: a request failed, an item or a candidate is missing, or a score differs by more than `TOLERANCE`.
    """
    scorer = Scorer(recommender, tables)
    item_ids = scorer.item_ids.tolist()
    seconds, scores_off, probabilities_off = [], 0.0, 0.0
    for row, (probe, offline) in enumerate(zip(probes, scorer.item_scores(np.arange(len(probes))), strict=True)):
        body = {"user_id": probe.user_id, "time": release.as_of.isoformat(), "context": probe.context}
        answer, spent = post(f"{address}/v1/recommend", body | {"k": K})
        seconds.append(spent)
        expected = dict(zip(item_ids, offline.tolist(), strict=True))
        served = {item[ITEM_ID]: item["score"] for item in answer["items"]}
        kth = sorted(expected.values(), reverse=True)[min(K, len(expected)) - 1]
        margin = TOLERANCE * max(1.0, abs(kth))
        missed = [item for item, score in expected.items() if score > kth + margin and item not in served]
        if missed:
            raise ServingError(f"user {probe.user_id!r}: item {missed[0]!r} is among the best offline, and not online")
        scores_off = max(scores_off, _difference(probe, served, expected, "score"))
        if probe.candidates:
            ask = body | {"candidates": probe.candidates, "k": MAX_CANDIDATES}
            ranked, spent = post(f"{address}/v1/rank", ask)
            seconds.append(spent)
            logits = scorer.candidate_logits(np.array([row])).astype(np.float64)
            named = [candidate[ITEM_ID] for candidate in probe.candidates]
            expected = dict(zip(named, (1 / (1 + np.exp(-logits))).tolist(), strict=True))
            served = {item[ITEM_ID]: item["probability"] for item in ranked["items"]}
            if served.keys() != expected.keys():
                raise ServingError(f"user {probe.user_id!r}: {len(expected)} candidates sent, {len(served)} came back")
            probabilities_off = max(probabilities_off, _difference(probe, served, expected, "probability"))
    return Outcome(seconds, scores_off, probabilities_off)


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


def _difference(probe: Probe, served: dict[Any, float], expected: dict[Any, float], what: str) -> float:
    """The largest difference between what was served and what was expected, as `TOLERANCE` measures it."""
    differences = {item: abs(value - expected[item]) / max(1.0, abs(expected[item])) for item, value in served.items()}
    worst = max(differences, key=lambda item: differences[item])
    if not differences[worst] <= TOLERANCE:
        raise ServingError(
            f"training-serving skew: user {probe.user_id!r}, item {worst!r}: {what} {served[worst]:.6f} online and "
            f"{expected[worst]:.6f} offline, more than {TOLERANCE} apart; the release was not put in service"
        )
    return differences[worst]


def _known(rows: pl.DataFrame, declared: Declarations, maker: str) -> pl.DataFrame:
    """The rows with every joined signal of one maker, as known at their instant."""
    found = [rows]
    for view in declared.joined:
        read = view._replace(signals=for_maker(view.signals, maker))
        if read.signals:
            source = read_view(read).join(rows.select(view.keys).unique(), on=view.keys, how="semi")
            found.append(point_in_time(rows, EVENT_TIME, read, source))
    return pl.concat(found, how="horizontal")
