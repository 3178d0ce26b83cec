"""Make a data folder from logs of your own: here, those of a small bookshop.

    python examples/own-data/make_data.py data/bookshop

Replace `read_logs` by queries of your own; the other functions show what each table must hold.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

OPENING = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS = 60
INSTANT = pl.Datetime("us", "UTC")
AUTHORS = ("Austen", "Borges", "Calvino", "Dickinson", "Eco")


def read_logs() -> dict[str, pl.DataFrame]:
    """Sales, visits with the books shown, readers, books and their prices. Readers favour one author each."""
    draw = random.Random(0)
    books = [{"item_id": f"book-{n:02}", "author": AUTHORS[n % 5], "pages": 100.0 + 10 * n} for n in range(25)]
    readers = [{"user_id": f"reader-{n:02}", "town": draw.choice(("Lyon", "Turin"))} for n in range(80)]
    favourite = {reader["user_id"]: draw.choice(AUTHORS) for reader in readers}
    sales, shown = [], []
    for day in range(1, N_DAYS):
        for reader in readers:
            if draw.random() < 0.5:
                continue
            visit = OPENING + timedelta(days=day, hours=9)
            for book in draw.sample(books, 4):
                buys = draw.random() < (0.8 if book["author"] == favourite[reader["user_id"]] else 0.1)
                row = {"user_id": reader["user_id"], "item_id": book["item_id"]}
                shown.append(row | {"event_time": visit, "bought": buys})
                if buys:
                    sales.append(
                        row | {"event_time": visit + timedelta(minutes=30), "paid": round(draw.uniform(5, 30), 2)}
                    )
    prices = [
        {
            "item_id": book["item_id"],
            "event_time": OPENING + timedelta(days=day),
            "price": round(draw.uniform(5, 30), 2),
        }
        for book in books
        for day in range(0, N_DAYS, 7)
    ]
    logs = {"sales": sales, "shown": shown, "readers": readers, "books": books, "prices": prices}
    return {name: pl.DataFrame(rows) for name, rows in logs.items()}


def make_tables(logs: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The tables of a data folder, named as `feature_repo/views.py` expects them."""
    # A value counts from `event_time` on and is known from `created_time` on. What never changes starts first.
    always = {"event_time": pl.lit(OPENING), "created_time": pl.lit(OPENING)}
    visits = logs["shown"].select("user_id", "event_time").unique(maintain_order=True)
    return {
        # What happened. `paid` is known only afterwards, so views.py lets the history alone read it.
        "events": logs["sales"],
        # When something could be recommended, and what was known of the occasion.
        "requests": visits.with_columns(weekday=pl.col("event_time").dt.weekday().cast(pl.String)),
        # What was shown at those instants, and whether it was taken. Leave this table out if you have no such log.
        "candidates": logs["shown"].select("user_id", "item_id", "event_time", label=pl.col("bought").cast(pl.Int8)),
        "users": logs["readers"].with_columns(**always),
        "items": logs["books"].with_columns(**always),
        # Prices were entered an hour after they came into force: until then the old one is what a visitor saw.
        "prices": logs["prices"].with_columns(created_time=pl.col("event_time") + timedelta(hours=1)),
        "author_counts": count_by_author(logs),
    }


def count_by_author(logs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """For each book shown: how many books of its author this reader bought strictly before."""
    author = logs["books"].select("item_id", "author")
    bought = logs["sales"].join(author, on="item_id").select("user_id", "author", sold="event_time")
    shown = logs["shown"].join(author, on="item_id").select("user_id", "item_id", "author", "event_time")
    earlier = shown.join(bought, on=["user_id", "author"]).filter(pl.col("sold") < pl.col("event_time"))
    counts = earlier.group_by("user_id", "item_id", "event_time").agg(author_bought=pl.len().cast(pl.Float32))
    rows = shown.drop("author").join(counts, on=["user_id", "item_id", "event_time"], how="left")
    return rows.with_columns(pl.col("author_bought").fill_null(0), created_time=pl.col("event_time"))


def main(folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in make_tables(read_logs()).items():
        times = [column for column in ("event_time", "created_time") if column in table.columns]
        table.with_columns(pl.col(times).cast(INSTANT)).write_parquet(folder / f"{name}.parquet")
    dataset = {
        "name": "bookshop",
        "protocol": "temporal",
        "as_of": (OPENING + timedelta(days=N_DAYS)).isoformat(),
        "validation_days": 7,
        "test_days": 7,
        "horizon_seconds": 24 * 3600 - 1,  # a recommendation is right if the book is bought within the day
        "description": "A made-up bookshop.",
        "terms": "none",
        "source_sha256": {},
    }
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    shutil.copytree(Path(__file__).parent / "feature_repo", folder / "feature_repo", dirs_exist_ok=True)
    print(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Write the data folder of a made-up bookshop; docs/own-data.md says what is in it."
    )
    parser.add_argument("folder", type=Path, help="the folder to write, such as data/bookshop")
    asked = parser.parse_args()
    try:
        main(asked.folder)
    except OSError as error:
        sys.exit(f"error: {asked.folder} cannot be written ({error}); name another folder")
