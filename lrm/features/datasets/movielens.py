"""The MovieLens file formats, and the `rating` ranking task on ratings that carry instants (see `TASK`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import DataError
from lrm.features.datasets.neighbours import neighbour_signals
from lrm.features.sql import query

TERMS = (
    "MovieLens, GroupLens Research: research use, no redistribution; cite F. M. Harper and J. A. Konstan, "
    "The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015."
)
TASK = (
    "Rows are taken in the order of (time, user, item): the first 80 % train, the next 10 % validate, the last 10 % "
    "test. The cuts are the instants of the rows at 80 % and 90 %; rows that share such an instant fall on its later "
    "side. A request is a distinct (user, instant); its candidates are the movies rated then; the label is rating >= "
    "4. Counters at an instant use rows strictly before it."
)
FEATURE_REPO = "examples/ml-100k/feature_repo"
SINCE = datetime(1990, 1, 1)
"""Before any rating: when a profile or a movie's content counts as known."""
INSTANT = pl.Datetime("us", "UTC")


class Ratings(NamedTuple):
    """One MovieLens release in one form, whichever files it came from."""

    ratings: pl.DataFrame
    """user_id, item_id, rating, seconds (unix time)."""
    users: pl.DataFrame
    """user_id, age, gender, occupation, zip_region (first digit of the zip code)."""
    items: pl.DataFrame
    """item_id, title, year, genres."""


def separated(content: bytes, separator: str, columns: tuple[str, ...], *, encoding: str = "utf-8") -> pl.DataFrame:
    """Rows of text split at a separator of any length, as strings.

    Raises:
        DataError: a row has another number of fields.
    """
    rows = [line.split(separator) for line in content.decode(encoding).splitlines() if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(
                f"line {number} has {len(row)} fields, expected {len(columns)} ({', '.join(columns)}): "
                f"{separator.join(row)!r}; take the file as it was published"
            )
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def users_table(users: pl.DataFrame) -> pl.DataFrame:
    """The profile signals of string columns user_id, age, gender, occupation, zip_code."""
    return users.select(
        pl.col("user_id").cast(pl.Int64),
        pl.col("age").cast(pl.Float32),
        "gender",
        "occupation",
        pl.col("zip_code").str.slice(0, 1).alias("zip_region"),
    )


def items_table(items: pl.DataFrame) -> pl.DataFrame:
    """The content signals of string columns item_id, title (with its year in brackets) and a list column genres."""
    year = pl.col("title").str.extract(r"\((\d{4})[^)]*\)\s*$", 1)
    return items.select(
        pl.col("item_id").cast(pl.Int64),
        pl.col("title").str.replace(r"\s*\(\d{4}[^)]*\)\s*$", ""),
        year.cast(pl.Float32).alias("year"),
        "genres",
    )


def read_dat(files: dict[str, bytes]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Users and items of `users.dat` and `movies.dat`, the format of MovieLens 1M."""
    users = separated(files["users.dat"], "::", ("user_id", "gender", "age", "occupation", "zip_code"))
    movies = separated(files["movies.dat"], "::", ("item_id", "title", "genres"), encoding="latin-1")
    return users_table(users), items_table(movies.with_columns(pl.col("genres").str.split("|")))


def with_times(table: pl.DataFrame, since: datetime = SINCE) -> pl.DataFrame:
    """Add `event_time` and `created_time`, both the instant from which a fact that never changes counts as known."""
    at = pl.lit(since).dt.replace_time_zone("UTC").cast(INSTANT)
    return table.with_columns(event_time=at, created_time=at)


_SURPRISE = """
WITH overall AS (
    SELECT seconds, sum(sum(rating)) OVER past / sum(count(*)) OVER past AS mean
    FROM ratings GROUP BY seconds WINDOW past AS (ORDER BY seconds)
), movie AS (
    SELECT item_id, seconds, sum(count(*)) OVER past AS n, sum(sum(rating)) OVER past AS stars
    FROM ratings GROUP BY item_id, seconds WINDOW past AS (PARTITION BY item_id ORDER BY seconds)
), usual AS (
    SELECT ratings.*, (coalesce(stars, 0) + 5 * coalesce(mean, 3)) / (coalesce(n, 0) + 5) AS usual_rating
    FROM ratings ASOF LEFT JOIN overall ON ratings.seconds > overall.seconds
    ASOF LEFT JOIN movie ON ratings.item_id = movie.item_id AND ratings.seconds > movie.seconds
), person AS (
    SELECT user_id, seconds, sum(sum(rating - usual_rating)) OVER past / (sum(count(*)) OVER past + 3) AS leaning
    FROM usual GROUP BY user_id, seconds WINDOW past AS (PARTITION BY user_id ORDER BY seconds)
)
SELECT usual.*, rating - usual_rating AS surprise, usual_rating + coalesce(leaning, 0) AS expected_rating,
    rating - usual_rating - coalesce(leaning, 0) AS residual
FROM usual ASOF LEFT JOIN person ON usual.user_id = person.user_id AND usual.seconds > person.seconds
ORDER BY seconds, user_id, item_id
"""

# `passed` holds what is known after each instant; an instant reads the last one strictly before it.
_EARLIER = """
WITH recent AS (
    SELECT *, sum({beyond}) OVER latest / (count(*) OVER latest + 2) AS lately
    FROM ratings WINDOW latest AS (PARTITION BY {key} ORDER BY seconds, {other} ROWS 7 PRECEDING)
), passed AS (
    SELECT {key}, seconds, sum(count(*)) OVER past AS n, sum(sum(rating)) OVER past AS stars,
        sum(count(*) FILTER (rating >= 4)) OVER past AS likes, sum(sum({beyond})) OVER past AS beyond,
        arg_max(lately, {other}) AS lately
    FROM recent GROUP BY {key}, seconds WINDOW past AS (PARTITION BY {key} ORDER BY seconds)
), asked AS (
    SELECT {key}, seconds FROM ratings UNION SELECT {key}, {ends} FROM ratings
)
SELECT asked.{key}, asked.seconds, coalesce(n, 0) AS {what}_ratings, stars / n AS {what}_mean_rating,
    (coalesce(likes, 0) + 1) / (coalesce(n, 0) + 2) AS {what}_like_rate,
    (asked.seconds - passed.seconds) / 86400 AS {what}_idle_days,
    coalesce(beyond, 0) / (coalesce(n, 0) + 3) AS {what}_{beyond}, coalesce(lately, 0) AS {what}_recent_{beyond}
FROM asked ASOF LEFT JOIN passed ON asked.{key} = passed.{key} AND asked.seconds > passed.seconds ORDER BY 2, 1
"""

_GENRE_AFFINITY = """
WITH tagged AS (
    SELECT ratings.*, unnest(genres) AS genre FROM ratings JOIN items USING (item_id)
), passed AS (
    SELECT user_id, genre, seconds, sum(count(*)) OVER past AS n, sum(sum(rating)) OVER past AS stars,
        sum(count(*) FILTER (rating >= 4)) OVER past AS likes, sum(sum(residual)) OVER past AS residual
    FROM tagged GROUP BY user_id, genre, seconds WINDOW past AS (PARTITION BY user_id, genre ORDER BY seconds)
)
SELECT tagged.user_id, item_id, tagged.seconds, any_value(expected_rating) AS expected_rating,
    coalesce(sum(n), 0) AS genre_ratings, sum(stars) / sum(n) AS genre_mean_rating,
    (coalesce(sum(likes), 0) + 1) / (coalesce(sum(n), 0) + 2) AS genre_like_rate,
    coalesce(sum(passed.residual), 0) / (coalesce(sum(n), 0) + 3) AS genre_residual
FROM tagged ASOF LEFT JOIN passed
    ON tagged.user_id = passed.user_id AND tagged.genre = passed.genre AND tagged.seconds > passed.seconds
GROUP BY tagged.user_id, item_id, tagged.seconds ORDER BY 3, 1, 2
"""


def build_rating_task(source: Ratings, folder: Path) -> dict[str, Any]:
    """Write the data folder of the `rating` task; return what belongs into dataset.json.

    Raises:
        DataError: there are too few ratings to cut, or one names an unknown user or movie.
    """
    rows = source.ratings.sort("seconds", "user_id", "item_id")
    _check(rows, source)
    rows = query(_SURPRISE, ratings=rows)
    pairs = query(_GENRE_AFFINITY, ratings=rows, items=source.items)
    ends = int(rows["seconds"][-1]) + 1
    timed = rows.with_columns(event_time=_instant())
    tables = {
        "events": timed.select("user_id", "item_id", "event_time", pl.col("rating").cast(pl.Float32)),
        "requests": timed.select("user_id", "event_time").unique(maintain_order=True),
        "candidates": timed.select("user_id", "item_id", "event_time", label=(pl.col("rating") >= 4).cast(pl.Int8)),
        "users": with_times(source.users),
        "items": with_times(source.items),
        "user_activity": _timed(query(_earlier("user", beyond="surprise", ends=ends), ratings=rows)),
        "item_activity": _timed(query(_earlier("item", beyond="residual", ends=ends), ratings=rows)),
        "pairs": _timed(
            pairs.join(neighbour_signals(rows), on=["user_id", "item_id", "seconds"], maintain_order="left")
        ),
    }
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    validation, test = (int(rows["seconds"][int(rows.height * share)]) for share in (0.8, 0.9))
    days = timedelta(days=1).total_seconds()
    return {
        "protocol": "temporal",
        "as_of": datetime.fromtimestamp(ends, UTC).isoformat(),
        "validation_days": (test - validation) / days,
        "test_days": (ends - test) / days,
        "horizon_seconds": 0,
        "description": TASK,
        "terms": TERMS,
        "feature_repo": FEATURE_REPO,
    }


def _check(rows: pl.DataFrame, source: Ratings) -> None:
    if rows.height < 10:
        raise DataError(
            f"{rows.height} ratings are too few to cut into train, validation and test; at least 10 are needed"
        )
    for key, known in (("user_id", source.users), ("item_id", source.items)):
        strange = rows.join(known, on=key, how="anti")
        if not strange.is_empty():
            raise DataError(
                f"{strange.height} ratings name a {key} that has no row of its own, for instance {strange[key][0]}; "
                "take all files from one release"
            )


def _earlier(what: str, *, beyond: str, ends: int) -> str:
    other = {"user": "item", "item": "user"}[what]
    return _EARLIER.format(key=f"{what}_id", other=f"{other}_id", what=what, beyond=beyond, ends=ends)


def _timed(found: pl.DataFrame) -> pl.DataFrame:
    """Signals that hold from their second on."""
    signals = [name for name in found.columns if name not in ("user_id", "item_id", "seconds")]
    return found.with_columns(pl.col(signals).cast(pl.Float32), event_time=_instant(), created_time=_instant()).drop(
        "seconds"
    )


def _instant() -> pl.Expr:
    return pl.from_epoch("seconds", time_unit="s").dt.replace_time_zone("UTC").cast(INSTANT)
