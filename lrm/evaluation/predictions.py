"""What every model is asked, and its answers: targets among the whole catalogue, logits of the candidates.

Axes: R test requests, T their targets, N their candidate rows, V items of the catalogue, E events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lrm.errors import DataError
from lrm.evaluation.metrics.metrics import Floats, Ints, rank_against_ties
from lrm.features.tables import Tables
from lrm.model.heads import Best, Wanted
from lrm.model.scoring import Scorer, top
from lrm.progress import progress
from lrm.schema import EVENT_TIME, ITEM_ID, LABEL, REQUEST_ID, SPLIT, TEST, USER_ID

CHUNK = 256
"""Requests scored at once."""
LISTED = 50
"""Best items that are asked of a model that cannot score the whole catalogue; others count as not generated."""


class Retriever(Protocol):
    """A model that scores the catalogue."""

    @property
    def item_ids(self) -> NDArray[np.generic]:
        """(V,) the catalogue in the order of the columns of `item_scores`."""

    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) scores, higher is better."""


class Ranker(Protocol):
    """A model that scores candidates."""

    def candidate_logits(self, request_ids: Ints, /) -> Floats:
        """(N,) logits of the candidate rows of these requests, in the order of the table of candidates."""


class Histories(NamedTuple):
    """The events that each request of the table may see: rows `start` to `stop` of the table of events."""

    start: Ints
    stop: Ints
    item: Ints
    """(E,) catalogue row of each event's item."""

    def items(self, request_id: int) -> Ints:
        """Catalogue rows of the visible events of one request, in time order."""
        return self.item[self.start[request_id] : self.stop[request_id]]


class Retrieval(NamedTuple):
    """The retrieval task: the targets of a sample of test requests."""

    request_ids: Ints
    """(R,) ascending."""
    user: Ints
    """(R,) index of the request's user."""
    request: Ints
    """(T,) index into `request_ids`, ascending."""
    item: Ints
    """(T,) catalogue row of the target."""


class Ranking(NamedTuple):
    """The ranking task: every candidate row of the test requests."""

    request_ids: Ints
    """(R,) requests that have candidates, ascending."""
    request: Ints
    """(N,) index into `request_ids`."""
    user: Ints
    """(N,) index of the row's user."""
    item: Ints
    """(N,) catalogue row."""
    label: Floats
    """(N,) 0 or 1."""


class Ranks(NamedTuple):
    """Ranks of the targets (T,), from 1; `masked` leaves items out that the history already holds.

    A target that a model did not generate ranks last.

    `top` (R, L) holds the catalogue rows of each request's best L items, in no order.

    A target that the history holds is masked as well and ranks last. `n_not_finite` counts the scores that were NaN or
    infinite; such ranks mean nothing.
    """

    plain: Ints
    masked: Ints
    top: Ints
    n_not_finite: int


def item_rows(tables: Tables, item_ids: pl.Series) -> Ints:
    """Rows of `tables.items` that hold these items.

    Raises:
        DataError: an item is not in the catalogue.
    """
    catalogue = tables.items.select(ITEM_ID).with_row_index("row")
    rows = item_ids.to_frame(ITEM_ID).join(catalogue, on=ITEM_ID, how="left", maintain_order="left")["row"]
    if rows.null_count():
        raise DataError(
            f"items.parquet lacks item {item_ids.filter(rows.is_null())[0]!r} and {rows.null_count() - 1} other rows' "
            "items, though events, targets or candidates hold them; write the examples anew"
        )
    return rows.to_numpy().astype(np.int64)


def user_rows(tables: Tables) -> Ints:
    """Index of each request's user among the users of the table of requests, by request."""
    return tables.requests[USER_ID].rank("dense").to_numpy().astype(np.int64) - 1


def histories(tables: Tables) -> Histories:
    """The events strictly before each request."""
    events = tables.events.select(USER_ID, EVENT_TIME).with_row_index("row")
    seen = (
        tables.requests.select(USER_ID, EVENT_TIME, REQUEST_ID)
        .sort(USER_ID, EVENT_TIME)
        .join_asof(events, on=EVENT_TIME, by=USER_ID, allow_exact_matches=False, check_sortedness=False)
        .join(events.group_by(USER_ID).agg(start=pl.col("row").min()), on=USER_ID, how="left")
        .sort(REQUEST_ID)
    )
    start = seen["start"].fill_null(0).to_numpy().astype(np.int64)
    last = seen["row"].cast(pl.Int64).fill_null(-1).to_numpy()
    return Histories(start, np.where(last < 0, start, last + 1), item_rows(tables, tables.events[ITEM_ID]))


def retrieval_task(
    tables: Tables, *, max_requests: int, rng: np.random.Generator, split: str = TEST
) -> Retrieval | None:
    """The targets of at most `max_requests` requests of a split, drawn at random; None when none has a target."""
    asking = tables.requests.filter(pl.col(SPLIT) == split)[REQUEST_ID]
    request_ids: Ints = asking.filter(asking.is_in(tables.targets[REQUEST_ID].implode())).to_numpy(writable=True)
    if not request_ids.size:
        return None
    if request_ids.size > max_requests:
        request_ids = np.sort(rng.choice(request_ids, max_requests, replace=False))
    asked = tables.targets.filter(pl.col(REQUEST_ID).is_in(pl.Series(request_ids).implode()))
    return Retrieval(
        request_ids,
        user_rows(tables)[request_ids],
        np.searchsorted(request_ids, asked[REQUEST_ID].to_numpy()),
        item_rows(tables, asked[ITEM_ID]),
    )


def ranking_task(tables: Tables, *, split: str = TEST) -> Ranking | None:
    """Every candidate row of the requests of a split; None when there is none."""
    requests = tables.requests.filter(pl.col(SPLIT) == split)[REQUEST_ID]
    rows = tables.candidates.filter(pl.col(REQUEST_ID).is_in(requests.implode()))
    if not rows.height:
        return None
    request_id = rows[REQUEST_ID].to_numpy()
    request_ids, request = np.unique(request_id, return_inverse=True)
    return Ranking(
        request_ids,
        request,
        user_rows(tables)[request_id],
        item_rows(tables, rows[ITEM_ID]),
        rows[LABEL].to_numpy().astype(np.float64),
    )


def rank_targets(
    retriever: Retriever | Scorer,
    task: Retrieval,
    seen: Histories,
    *,
    tables: Tables,
    name: str,
    n_top: int = 0,
    is_shown: bool = True,
) -> Ranks:
    """Rank each target among the whole catalogue, showing how far along that is unless `is_shown` is false.

    With `n_top`, so many best items of each request are kept, or the whole catalogue where it is smaller. A model that
    cannot score the whole catalogue is asked for its `LISTED` best items.

    Raises:
        DataError: the retriever's catalogue is not that of the examples, so that ranks could not be compared.
    """
    column = _columns(retriever, tables, name)
    plain, masked = np.zeros(task.item.size, dtype=np.int64), np.zeros(task.item.size, dtype=np.int64)
    n_top = min(n_top, column.size)
    top = np.zeros((task.request_ids.size, n_top), dtype=np.int64)
    row_of_column = np.argsort(column)
    bounds = np.searchsorted(task.request, np.arange(task.request_ids.size + 1))
    n_not_finite = 0
    chunks = range(0, task.request_ids.size, CHUNK)
    for first in progress(chunks, what=f"rank targets, {name}", unit="chunk") if is_shown else chunks:
        request_ids = task.request_ids[first : first + CHUNK]
        known = [column[np.unique(seen.items(request_id))] for request_id in request_ids]
        targets = [column[task.item[bounds[index] : bounds[index + 1]]] for index in range(first, first + len(known))]
        if isinstance(retriever, Scorer) and not retriever.scores_all:
            predictions = _by_lists(retriever, request_ids, targets, known, n_top=n_top)
        else:
            predictions = _by_scores(retriever, request_ids, targets, known, n_top=n_top)
        for index, one in enumerate(predictions, start=first):
            rows = slice(bounds[index], bounds[index + 1])
            plain[rows], masked[rows], top[index] = one.plain, one.masked, row_of_column[one.top]
            n_not_finite += one.n_not_finite
    return Ranks(plain, masked, top, n_not_finite)


def best_items(retriever: Retriever | Scorer, request_ids: Ints, *, k: int) -> list[Best]:
    """The k best items of each request, as columns of its scores."""
    if isinstance(retriever, Scorer):
        return retriever.best_items(request_ids, [Wanted(k)] * len(request_ids))
    return [top(scores, Wanted(k)) for scores in retriever.item_scores(request_ids)]


def _by_scores(
    retriever: Retriever, request_ids: Ints, targets: Sequence[Ints], known: Sequence[Ints], *, n_top: int
) -> Iterator[Ranks]:
    """The ranks of each request's targets by the scores of all items; items are columns."""
    for scores, own, held in zip(retriever.item_scores(request_ids), targets, known, strict=True):
        plain = rank_against_ties(scores, own)
        hidden = np.count_nonzero(scores[held][None, :] >= scores[own][:, None], axis=1)
        masked = np.where(np.isin(own, held), scores.size, plain - hidden)
        top = np.argpartition(-scores, n_top - 1)[:n_top] if n_top else own[:0]
        yield Ranks(plain, masked, top, scores.size - int(np.count_nonzero(np.isfinite(scores))))


def _by_lists(
    scorer: Scorer, request_ids: Ints, targets: Sequence[Ints], known: Sequence[Ints], *, n_top: int
) -> Iterator[Ranks]:
    """The ranks of each request's targets in the list of its best items; items are columns."""
    depth, n_items = max(LISTED, n_top), len(scorer.item_ids)
    lists = scorer.best_items(request_ids, [Wanted(depth)] * len(request_ids))
    again = np.array([np.isin(best.rows, held).any() for best, held in zip(lists, known, strict=True)], dtype=bool)
    wanted = [Wanted(depth, without=held) for held, is_asked in zip(known, again, strict=True) if is_asked]
    others = iter(scorer.best_items(request_ids[again], wanted))
    for best, own, is_asked in zip(lists, targets, again, strict=True):
        without = next(others) if is_asked else best
        n_not_finite = best.scores.size - int(np.count_nonzero(np.isfinite(best.scores)))
        plain, masked = (_rank_in(one, own, last=n_items) for one in (best, without))
        yield Ranks(plain, masked, np.resize(best.rows, n_top), n_not_finite)


def _rank_in(best: Best, targets: Ints, *, last: int) -> Ints:
    """The rank of each target in a list, equal scores counting against it; `last` for one that is not there."""
    ranks = np.full(targets.size, last, dtype=np.int64)
    for place, target in enumerate(targets):
        score = best.scores[best.rows == target]
        if score.size:
            ranks[place] = np.count_nonzero(best.scores >= score[0])
    return ranks


def _columns(retriever: Retriever | Scorer, tables: Tables, name: str) -> Ints:
    """Column of `item_scores` that holds each row of `tables.items`."""
    ids = pl.DataFrame({ITEM_ID: retriever.item_ids}, schema={ITEM_ID: tables.items.schema[ITEM_ID]})
    numbered = ids.with_row_index("column")
    column = tables.items.select(ITEM_ID).join(numbered, on=ITEM_ID, how="left", maintain_order="left")["column"]
    if column.null_count() or ids.height != tables.items.height:
        raise DataError(
            f"{name} scores {ids.height} items and lacks {column.null_count()} of the {tables.items.height} in "
            "items.parquet; ranks can only be compared over one catalogue, so score every item of the examples"
        )
    return column.to_numpy().astype(np.int64)
