"""The SQL that makes the tables of Complete Journey, for DuckDB.

It reads `lines` (the purchase lines), `sample` (households, and whether they are tested), `weeks` (every second week
`w` and the instant `begins`), and the published `products`, `demographics` and `promotions`. Every statistic for week w
reads weeks before w only, apart from promotions, which are the retailer's own plan.

A *visit* is a week in which a household shops, numbered from its first. A *habit* counts purchases, each worth half
after so many visits: a household that shops rarely forgets no faster than one that shops often. A *kind* is a product
type, or the category of a product without one; a *line* is a kind of one manufacturer.
"""

from __future__ import annotations

START = "TIMESTAMPTZ '2017-01-01 00:00:00+00'"
"""Before any purchase: when a profile or a product's content counts as known."""

# `bought`: one row for each week in which a household bought a product. The latest purchase before a week decides
# whether the product is a candidate then, and the next one whether it is bought again, so each candidate comes from
# one row.
COMMON = """
CREATE TABLE visits AS
SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY week) AS visit FROM (
    SELECT user_id, week, count(DISTINCT basket_id) AS n_trips, count(DISTINCT item_id) AS n_products,
        count(*) AS n_lines, sum(sales_value) AS spend, sum(retail_disc) AS discount,
        max(transaction_timestamp) AS last_time
    FROM lines GROUP BY ALL
);

CREATE TABLE clock AS
SELECT user_id, w, max(visit) AS past_visits FROM visits JOIN weeks ON week < w GROUP BY ALL;

CREATE TABLE kinds AS
SELECT product_id AS item_id, coalesce(product_type, product_category) AS kind, product_category AS category,
    kind || ' ' || manufacturer_id AS line
FROM products;

CREATE TABLE mailed AS
SELECT product_id AS item_id, week, count(*) FILTER (mailer_location <> '0') AS stores_mailed,
    count(*) FILTER (display_location <> '0') AS stores_displayed
FROM promotions SEMI JOIN lines ON item_id = product_id GROUP BY ALL;

CREATE TABLE bought AS
SELECT purchase.*, visit, coalesce(stores_mailed, 0) > 0 AS was_mailed,
    purchase.week - lag(purchase.week) OVER pair AS gap, lead(purchase.week) OVER pair AS next,
    row_number() OVER pair AS times
FROM (
    SELECT user_id, item_id, week, sum(quantity) AS quantity, sum(sales_value) AS value,
        sum(retail_disc + coupon_disc) AS discount, count(DISTINCT basket_id) AS n_baskets,
        max(transaction_timestamp) AS last_time
    FROM lines GROUP BY ALL
) AS purchase JOIN visits USING (user_id, week) LEFT JOIN mailed USING (item_id, week)
WINDOW pair AS (PARTITION BY user_id, item_id ORDER BY purchase.week);

CREATE TABLE recent AS
SELECT user_id, item_id, w, w - week AS since, least(floor(log2(times)), 3) AS often,
    (next IS NOT DISTINCT FROM w)::TINYINT AS label
FROM bought JOIN weeks ON w > week AND w <= least(coalesce(next, w), week + 12);

CREATE TABLE asked AS
SELECT user_id, w FROM visits JOIN sample USING (user_id) JOIN weeks ON w = week
WHERE w BETWEEN {first} AND {last} AND (is_tested OR w < {held_out});

CREATE TABLE known AS FROM recent SEMI JOIN visits ON visits.user_id = recent.user_id AND week = w;

CREATE TABLE candidate AS SELECT recent.* FROM recent JOIN asked USING (user_id, w);

CREATE TABLE pair AS
FROM candidate UNION ALL SELECT recent.* FROM recent JOIN sample USING (user_id) WHERE w = {end};

CREATE TABLE stores AS
SELECT user_id, w, arg_max(store_id, (n_baskets, -store_id)) AS store_id FROM (
    SELECT user_id, w, store_id, count(DISTINCT basket_id) AS n_baskets
    FROM lines JOIN weeks ON week BETWEEN w - 12 AND w - 1 JOIN sample USING (user_id) GROUP BY ALL
) GROUP BY ALL;
"""

# Repurchases known before week w: of a household, a product, a type, and a type so long after so many purchases.
RATES = """
CREATE TABLE user_rate AS
SELECT user_id, weeks.w, (sum(label) + 1) / (count(*) + 8) AS rate
FROM known JOIN weeks ON known.w < weeks.w GROUP BY ALL;

CREATE TABLE item_rate AS
SELECT item_id, weeks.w, (sum(again) + 1) / (sum(seen) + 8) AS rate,
    (sum(again * 0.5 ^ ((weeks.w - seen.w) / 8)) + 0.5) / (sum(seen * 0.5 ^ ((weeks.w - seen.w) / 8)) + 4)
        AS recent_rate
FROM (SELECT item_id, w, sum(label) AS again, count(*) AS seen FROM known GROUP BY ALL) AS seen
JOIN weeks ON seen.w < weeks.w GROUP BY ALL;

CREATE TABLE survival AS
SELECT kind, since, often, weeks.w, sum(again) AS again, sum(seen) AS seen FROM (
    SELECT kind, since, often, w, sum(label) AS again, count(*) AS seen
    FROM known JOIN kinds USING (item_id) GROUP BY ALL
) AS seen JOIN weeks ON seen.w < weeks.w GROUP BY ALL;

CREATE TABLE kind_rate AS
SELECT kind, w, (sum(again) + 1) / (sum(seen) + 8) AS rate FROM survival GROUP BY ALL;

CREATE TABLE due_rate AS
SELECT kind, since, often, w, (again + 20 * overall) / (seen + 20) AS rate FROM survival
JOIN (SELECT since, often, w, sum(again) / sum(seen) AS overall FROM survival GROUP BY ALL) USING (since, often, w);
"""

TABLES = {
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
WITH shelf AS (
    SELECT user_id, w, count(*) AS n_products, avg((often = 0)::TINYINT) AS once FROM recent GROUP BY ALL
), hope AS (
    SELECT user_id, w, sum(rate) AS n FROM recent JOIN kinds USING (item_id) JOIN due_rate USING (kind, since, often, w)
    GROUP BY ALL
)
SELECT user_id, begins AS event_time, begins AS created_time,
    coalesce(sum(n_trips) FILTER (week >= w - 4), 0) AS trips_4w, sum(n_trips) FILTER (week >= w - 12) AS trips_12w,
    epoch(begins - max(visits.last_time)) / 86400 AS days_since_trip,
    sum(spend) FILTER (week >= w - 12) / trips_12w AS basket_value,
    sum(n_lines) FILTER (week >= w - 12) / trips_12w AS basket_lines,
    sum(discount) FILTER (week >= w - 12) / nullif(sum(spend + discount) FILTER (week >= w - 12), 0) AS discount_share,
    median(visits.n_products) FILTER (week >= w - 26) AS visit_products,
    sum(visits.n_products * 0.5 ^ ((past_visits - visit) / 2)) / sum(0.5 ^ ((past_visits - visit) / 2))
        AS visit_products_2,
    sum(visits.n_products * 0.5 ^ ((past_visits - visit) / 8)) / sum(0.5 ^ ((past_visits - visit) / 8))
        AS visit_products_8,
    arg_max(visits.n_products, week) AS last_products, arg_max(spend, week) AS last_spend,
    any_value(shelf.n_products) AS products_12w, any_value(once) AS bought_once_share,
    any_value(rate) AS user_repurchase_rate, any_value(n) AS expected_repurchases
FROM visits JOIN sample USING (user_id) JOIN weeks ON week < w
JOIN clock USING (user_id, w) JOIN shelf USING (user_id, w)
LEFT JOIN user_rate USING (user_id, w) LEFT JOIN hope USING (user_id, w)
WHERE w >= {first} GROUP BY user_id, w, begins ORDER BY event_time, user_id
""",
    "item_activity": """
WITH sold AS (
    SELECT item_id, week, count(*) AS n_buyers, sum(quantity) AS quantity, sum(value) AS value FROM bought GROUP BY ALL
)
SELECT item_id, begins AS event_time, begins AS created_time,
    coalesce(sum(n_buyers) FILTER (week >= w - 1), 0) AS buyers_1w,
    coalesce(sum(n_buyers) FILTER (week >= w - 4), 0) AS buyers_4w, sum(n_buyers) AS buyers_12w,
    sum(value) / nullif(sum(quantity), 0) AS unit_price,
    arg_max(value / nullif(quantity, 0), week) / nullif(unit_price, 0) AS price_ratio,
    any_value(item_rate.rate) AS item_repurchase_rate, any_value(recent_rate) AS item_repurchase_rate_recent,
    any_value(kind_rate.rate) AS type_repurchase_rate
FROM sold JOIN weeks ON week BETWEEN w - 12 AND w - 1 SEMI JOIN pair USING (item_id, w)
LEFT JOIN item_rate USING (item_id, w) LEFT JOIN kinds USING (item_id) LEFT JOIN kind_rate USING (kind, w)
GROUP BY item_id, w, begins ORDER BY event_time, item_id
""",
    "mailings": """
WITH plan AS (
    SELECT item_id, week AS w, coalesce(stores_mailed, 0) AS stores_mailed,
        coalesce(stores_displayed, 0) AS stores_displayed
    FROM (SELECT DISTINCT item_id, w AS week FROM pair) LEFT JOIN mailed USING (item_id, week)
), before AS (
    SELECT item_id, w, sum(n_buyers) AS buyers, sum(n_buyers) FILTER (was_mailed) AS mailed_buyers FROM plan
    JOIN (SELECT item_id, week, was_mailed, count(*) AS n_buyers FROM bought GROUP BY ALL) USING (item_id)
    WHERE week < w GROUP BY ALL
), mailed_before AS (
    SELECT item_id, w, count(*) AS n_weeks
    FROM plan JOIN mailed USING (item_id) WHERE week < w AND mailed.stores_mailed > 0 GROUP BY ALL
), counted AS (
    SELECT plan.*, buyers, buyers / (w - 1) AS usual, coalesce(mailed_buyers, 0) AS mailed_buyers,
        coalesce(n_weeks, 0) AS mailed_weeks
    FROM plan JOIN before USING (item_id, w) LEFT JOIN mailed_before USING (item_id, w)
)
SELECT item_id, begins AS event_time, begins AS created_time, stores_mailed, stores_displayed,
    CASE WHEN stores_mailed > 0 THEN (mailed_buyers + usual) / (mailed_weeks + 1)
        ELSE (buyers - mailed_buyers + usual) / (w - 1 - mailed_weeks + 1) END / usual AS mailing_lift
FROM counted JOIN weeks USING (w) ORDER BY event_time, item_id
""",
    "pairs": """
WITH counted AS (
    SELECT pair.user_id, pair.item_id, w, count(*) AS weeks_bought,
        count(*) / (any_value(past_visits) - min(visit) + 1) AS purchase_rate,
        sum(0.5 ^ ((past_visits - visit) / 2)) AS habit_2, sum(0.5 ^ ((past_visits - visit) / 5)) AS habit_5,
        sum(0.5 ^ ((past_visits - visit) / 12)) AS habit_12, sum(0.5 ^ ((w - week) / 32)) AS habit_32w,
        sum(n_baskets) FILTER (week >= w - 12) AS baskets_12w, w - min(week) AS weeks_known,
        any_value(past_visits) - max(visit) AS visits_since, stddev_pop(gap) AS gap_deviation,
        epoch(any_value(begins) - max(bought.last_time)) / 86400 AS days_since,
        (w - max(week)) / avg(gap) AS due, sum(quantity) / count(*) AS mean_quantity,
        sum(discount) / nullif(sum(value + discount), 0) AS pair_discount_share,
        avg(was_mailed::TINYINT) AS mailed_share
    FROM pair JOIN bought USING (user_id, item_id) JOIN clock USING (user_id, w) JOIN weeks USING (w)
    WHERE week < w GROUP BY pair.user_id, pair.item_id, w
), {group_habits}
SELECT user_id, item_id, begins AS event_time, begins AS created_time, counted.* EXCLUDE (user_id, item_id, w),
    type_habit.habit_8 AS type_habit_8, type_habit.habit_30 AS type_habit_30, type_habit.due AS type_due,
    type_habit.days_since AS type_days_since, type_habit.n_candidates AS type_candidates,
    category_habit.habit_8 AS category_habit_8, line_habit.habit_8 AS line_habit_8, rate AS due_repurchase_rate
FROM counted JOIN weeks USING (w) JOIN pair USING (user_id, item_id, w) LEFT JOIN kinds USING (item_id)
LEFT JOIN type_habit USING (user_id, kind, w) LEFT JOIN category_habit USING (user_id, category, w)
LEFT JOIN line_habit USING (user_id, line, w) LEFT JOIN due_rate USING (kind, since, often, w)
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

_GROUP_HABIT = """{group}_habit AS (
    SELECT user_id, {key}, w, n_candidates, sum(0.5 ^ ((past_visits - visit) / 8)) AS habit_8,
        sum(0.5 ^ ((past_visits - visit) / 30)) AS habit_30,
        (past_visits - max(visit)) * count(*) / (past_visits - min(visit) + 1) AS due,
        epoch(begins - max(last_time)) / 86400 AS days_since
    FROM (SELECT user_id, {key}, w, count(*) AS n_candidates FROM pair JOIN kinds USING (item_id) GROUP BY ALL)
    JOIN (
        SELECT user_id, {key}, week, visit, max(last_time) AS last_time
        FROM bought JOIN kinds USING (item_id) GROUP BY ALL
    ) USING (user_id, {key}) JOIN (SELECT user_id, w, past_visits FROM clock) USING (user_id, w) JOIN weeks USING (w)
    WHERE week < w GROUP BY user_id, {key}, w, n_candidates, past_visits, begins
)"""


def group_habits() -> str:
    """How often a household buys of a candidate's type, of its category, and of its type from its manufacturer."""
    groups = {"type": "kind", "category": "category", "line": "line"}
    return ", ".join(_GROUP_HABIT.format(group=group, key=key) for group, key in groups.items())
