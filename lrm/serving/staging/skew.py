"""Training-serving skew: a server's answers against the offline scores, and the signals that explain a difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.errors import ServingError
from lrm.features.declarations import Declarations
from lrm.features.tables import Tables
from lrm.model.heads import Best, Wanted
from lrm.model.recommender import Recommender
from lrm.model.scoring import Scorer
from lrm.schema import ITEM_ID
from lrm.serving.release import ITEMS, Release
from lrm.serving.staging.replay import K, Probe, Reply, offline_tables
from lrm.serving.staging.skew_report import Difference, differing_signals, expired, immortal, n_ever_known, read_online
from lrm.tokens.vocabulary import rows_of

TOLERANCE = 1e-4
"""Largest difference allowed between a served and an offline score, in parts of the score where that is above 1."""
SCORE, PROBABILITY, SIGNAL = "score", "probability", "signal"


class Skew(NamedTuple):
    """One value that is not the same online and offline; None where it is missing."""

    user_id: int | str
    item_id: int | str | None
    what: str
    """`score`, `probability`, or `signal`: a signal differs and no score does."""
    online: Any
    offline: Any
    signals: list[str]
    """The signals of that request that differ; `history` where the events themselves do."""


class Outcome(NamedTuple):
    """What the comparison found."""

    score_difference: float
    """Largest, over the recommended items of all probes that both sides have; as `TOLERANCE` measures it."""
    probability_difference: float
    """Largest, over the ranked candidates of all probes."""
    n_skewed: int
    """Scores and probabilities beyond the tolerance, and users of whom signals alone differ."""
    skew: list[Skew]
    """The worst score and the worst probability of each user, the worst of all first; then signals alone."""
    expired: dict[str, int]
    """Values past their time-to-live, which are null online, by signal; those that have none are left out."""
    n_ever_known: int
    """Values that are known online, or were until they expired."""


class _Gap(NamedTuple):
    """A served value beside its offline one."""

    row: int
    item_id: Any
    what: str
    online: float | None
    offline: float | None

    @property
    def size(self) -> float:
        if self.online is None or self.offline is None:
            return math.inf
        size = abs(self.online - self.offline) / max(1.0, abs(self.offline))
        return size if math.isfinite(size) else math.inf


def measure(
    release: Release,
    declared: Declarations,
    probes: Sequence[Probe],
    replies: Sequence[Reply],
    recommender: Recommender,
    examples: Tables,
) -> Outcome:
    """Hold a server's answers against the offline scores of the same requests.

    Args:
        release: what the server serves.
        declared: the declarations that the model was trained on.
        probes: the requests.
        replies: the answer to each.
        recommender: the release's model.
        examples: where the histories come from.
    """
    items = pl.read_parquet(release.folder / ITEMS, glob=False)
    tables = offline_tables(probes, examples, items, declared, release)
    ever = offline_tables(probes, examples, items, immortal(declared), release)
    events_read = recommender.config.events_read
    asks = read_online(release, recommender.signals, probes, events_read=events_read)
    differing = differing_signals(asks, tables, recommender.signals, events_read=events_read)
    gaps = _gaps(probes, replies, Scorer(recommender, tables))
    skew = _worst(probes, gaps, differing)
    n_signals = sum(one.what == SIGNAL for one in skew)
    return Outcome(
        score_difference=_largest(gaps, SCORE),
        probability_difference=_largest(gaps, PROBABILITY),
        n_skewed=sum(gap.size > TOLERANCE for gap in gaps) + n_signals,
        skew=skew,
        expired=expired(asks, tables, ever, recommender.signals),
        n_ever_known=n_ever_known(ever, recommender.signals),
    )


def require_none(outcome: Outcome) -> None:
    """Refuse a release that answers differently.

    Raises:
        ServingError: a value differs by more than `TOLERANCE`.
    """
    if outcome.skew:
        raise ServingError(
            f"training-serving skew: {_items(outcome.skew[0])}; {outcome.n_skewed:,} values in all are more than "
            f"{TOLERANCE} apart; the release was not put in service"
        )


def _items(skew: Skew) -> str:
    """The user stands in staging.json and not here: this comes into logs."""
    of = "a user" if skew.item_id is None else f"a user, item {skew.item_id!r}"
    values = [
        "missing" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
        for value in (skew.online, skew.offline)
    ]
    because = f"; signals that differ: {', '.join(skew.signals)}" if skew.signals else ""
    return f"{of}: {skew.what} {values[0]} online and {values[1]} offline{because}"


def _gaps(probes: Sequence[Probe], replies: Sequence[Reply], scorer: Scorer) -> list[_Gap]:
    """Every served value, and every offline value that was not served."""
    gaps = []
    for row, (probe, reply, expected) in enumerate(zip(probes, replies, _offline(scorer, replies), strict=True)):
        gaps += _served(row, SCORE, reply.scores, expected)
        kth = sorted(expected.values(), reverse=True)[min(K, len(expected)) - 1]
        due = kth + TOLERANCE * max(1.0, abs(kth))
        gaps += _left_out(row, SCORE, reply.scores, {item: one for item, one in expected.items() if one > due})
        if probe.candidates:
            logits = scorer.candidate_logits(np.array([row])).astype(np.float64)
            named = [candidate[ITEM_ID] for candidate in probe.candidates]
            expected = dict(zip(named, (1 / (1 + np.exp(-logits))).tolist(), strict=True))
            gaps += _served(row, PROBABILITY, reply.probabilities, expected)
            gaps += _left_out(row, PROBABILITY, reply.probabilities, expected)
    return gaps


def _offline(scorer: Scorer, replies: Sequence[Reply]) -> list[dict[Any, float]]:
    """For each request, the offline scores of its K best items, and of all served items of the catalogue."""
    item_ids, requests = scorer.item_ids, np.arange(len(replies))

    def by_item(best: Best) -> dict[Any, float]:
        return dict(zip(item_ids[best.rows].tolist(), best.scores.tolist(), strict=True))

    found = [by_item(best) for best in scorer.best_items(requests, [Wanted(K)] * len(replies))]
    for request, reply in enumerate(replies):
        others = [item for item in reply.scores if item not in found[request]]
        rows = rows_of(np.array(others, dtype=item_ids.dtype), item_ids)
        if (rows >= 0).any():
            wanted = Wanted(len(rows), only=rows[rows >= 0])
            found[request] |= by_item(scorer.best_items(requests[request : request + 1], [wanted])[0])
    return found


def _largest(gaps: Sequence[_Gap], what: str) -> float:
    return max((gap.size for gap in gaps if gap.what == what and math.isfinite(gap.size)), default=0.0)


def _served(row: int, what: str, served: Mapping[Any, float], expected: Mapping[Any, float]) -> list[_Gap]:
    return [_Gap(row, item, what, value, expected.get(item)) for item, value in served.items()]


def _left_out(row: int, what: str, served: Mapping[Any, float], expected: Mapping[Any, float]) -> list[_Gap]:
    return [_Gap(row, item, what, None, value) for item, value in expected.items() if item not in served]


def _worst(probes: Sequence[Probe], gaps: Sequence[_Gap], differing: Sequence[Difference]) -> list[Skew]:
    worst: dict[tuple[int, str], _Gap] = {}
    for gap in gaps:
        held = worst.get((gap.row, gap.what))
        if gap.size > TOLERANCE and (held is None or gap.size > held.size):
            worst[gap.row, gap.what] = gap
    found = []
    for gap in sorted(worst.values(), key=lambda gap: -gap.size):
        item = gap.item_id if gap.what == PROBABILITY else None
        names = _names(one for one in differing if one.row == gap.row and one.item_id in (None, item))
        found.append(Skew(probes[gap.row].user_id, gap.item_id, gap.what, gap.online, gap.offline, names))
    scored = {gap.row for gap in worst.values()}
    for row in dict.fromkeys(one.row for one in differing if one.row not in scored):
        own = [one for one in differing if one.row == row]
        found.append(Skew(probes[row].user_id, own[0].item_id, SIGNAL, own[0].online, own[0].offline, _names(own)))
    return found


def _names(differences: Any) -> list[str]:
    return list(dict.fromkeys(one.signal for one in differences))
