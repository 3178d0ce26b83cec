"""Where the data is cut, and what a request's retrieval targets are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import polars as pl

from lrm.errors import DataError
from lrm.features.sql import query
from lrm.schema import EVENT_TIME, ITEM_ID, REQUEST_ID, SPLIT, SPLITS, TEST, TRAIN, USER_ID, VALIDATION


class Cutoffs(NamedTuple):
    """The instants that divide a temporal split: training rows lie before the first, test rows from the second on."""

    validation_from: datetime
    test_from: datetime


def cutoffs(as_of: datetime, *, validation_days: float, test_days: float) -> Cutoffs:
    """Count the windows back from the instant at which the data ends."""
    test_from = as_of - timedelta(days=test_days)
    return Cutoffs(test_from - timedelta(days=validation_days), test_from)


def parse_instant(text: str, what: str) -> datetime:
    """Read an ISO instant; without a zone it means UTC.

    Raises:
        DataError: the text is no instant.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{what} must be an ISO instant such as 2024-05-01T00:00:00Z, got {text!r}") from error
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def with_split(table: pl.DataFrame, at: Cutoffs) -> pl.DataFrame:
    """Add `split`: train, validation or test, by `event_time`."""
    return table.with_columns(
        pl.when(pl.col(EVENT_TIME) >= at.test_from)
        .then(pl.lit(TEST))
        .when(pl.col(EVENT_TIME) >= at.validation_from)
        .then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN))
        .alias(SPLIT)
    )


def apart(requests: pl.DataFrame, events: pl.DataFrame, at: Cutoffs | None, *, horizon_seconds: float) -> pl.DataFrame:
    """The requests whose [t, t + horizon] stays clear of later windows, whose events would be their outcome.

    Args:
        requests: of any window.
        events: of all windows.
        at: where the windows lie; None where requests and events bring their own `split`.
        horizon_seconds: how far an outcome reaches.
    """
    if at is not None:
        opens = pl.col(EVENT_TIME)
        ends = opens + timedelta(seconds=horizon_seconds)
        return requests.filter(~pl.any_horizontal((opens < cut) & (ends >= cut) for cut in at))
    place = pl.col(SPLIT).cast(pl.String).replace_strict(SPLITS, range(len(SPLITS)), default=None)
    asked = requests.with_row_index("row").select("row", USER_ID, EVENT_TIME, asked_in=place)
    happened = events.select(USER_ID, EVENT_TIME, happened_in=place)
    crossing = _outcomes(
        asked.filter(pl.col("asked_in") < len(SPLITS) - 1),
        happened.filter(pl.col("happened_in") > 0),
        columns="row",
        where="happened_in > asked_in",
        horizon_seconds=horizon_seconds,
    )
    return requests.filter(~pl.int_range(pl.len()).is_in(crossing["row"].implode()))


def first_held_out(events: pl.DataFrame, until: datetime) -> datetime:
    """The instant of the first event that is not for training, of all users; `until` where all are."""
    first = events.filter(pl.col(SPLIT) != TRAIN)[EVENT_TIME].min()
    return first if isinstance(first, datetime) else until


def require_windows(requests: pl.DataFrame) -> None:
    """Refuse a split in which a window holds no request.

    Raises:
        DataError: there is no train, validation or test request, or a `split` is not one of these words.
    """
    counts = dict(requests.group_by(SPLIT).len().iter_rows())
    strange = sorted(str(split) for split in counts if split not in SPLITS)
    if strange:
        raise DataError(f"requests.parquet: split {strange[0]!r} is not one of {', '.join(SPLITS)}; mend the column")
    for split in SPLITS:
        if not counts.get(split):
            seen = ", ".join(f"{counts.get(name, 0)} {name}" for name in SPLITS)
            raise DataError(
                f"no request falls into the {split} window ({seen}); widen validation_days or test_days or shorten "
                "horizon_seconds in dataset.json, or take another as_of"
            )


def targets(requests: pl.DataFrame, events: pl.DataFrame, *, horizon_seconds: float) -> pl.DataFrame:
    """The distinct items of the user's events in [t, t + horizon], for each request at t.

    Returns:
        `request_id`, `item_id`, ordered by both.
    """
    found = _outcomes(
        requests.select(REQUEST_ID, USER_ID, EVENT_TIME),
        events.select(USER_ID, ITEM_ID, EVENT_TIME),
        columns=f"{REQUEST_ID}, {ITEM_ID}",
        horizon_seconds=horizon_seconds,
    )
    return found.cast({REQUEST_ID: pl.Int64, ITEM_ID: events.schema[ITEM_ID]})


def _outcomes(
    requests: pl.DataFrame, events: pl.DataFrame, *, columns: str, where: str = "TRUE", horizon_seconds: float
) -> pl.DataFrame:
    """The distinct `columns`, in order, of requests with each event of their user in [t, t + horizon]."""
    instant = pl.col(EVENT_TIME).to_physical()
    return query(
        f"""SELECT DISTINCT {columns} FROM asked JOIN happened USING ({USER_ID})
        WHERE happens BETWEEN opens AND opens + {int(horizon_seconds * 1_000_000)} AND {where}
        ORDER BY {columns}""",
        asked=requests.select(pl.exclude(EVENT_TIME), instant.alias("opens")),
        happened=events.select(pl.exclude(EVENT_TIME), instant.alias("happens")),
    )
