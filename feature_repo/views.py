"""Every signal, one line each: its name, its Feast type, and in its tags what the rest of the project must know.

To add a signal, add its column to the data and its line here. The tags come from `lrm.schema`: the kind, the makers
that read it (query, history, candidate), the entity it describes, and whether it is known only after the action.
"""

from datetime import timedelta

import sources
from entities import item, store, user
from feast import FeatureView, Field
from feast.types import Float32, String

from lrm.schema import dense, sparse

FORTNIGHT = timedelta(days=13, hours=23)
"""Counters are written anew every second week; those of the time before are stale by then."""
WEEK = timedelta(days=6, hours=23)
"""A promotion plan is for one week; a product that the next one leaves out is not promoted."""

events = FeatureView(
    name="events",
    source=sources.events,
    entities=[user, item],
    tags={"role": "events"},
    online=False,
    schema=[
        Field(name="quantity", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
        Field(name="sales_value", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
        Field(name="retail_discount", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
        Field(name="coupon_discount", dtype=Float32, tags=dense("history", "pair", known="after", minimum=0)),
    ],
)

requests = FeatureView(
    name="requests",
    source=sources.requests,
    entities=[user],
    tags={"role": "requests"},
    online=False,
    schema=[
        Field(name="week_of_year", dtype=Float32, tags=dense("query", "request", minimum=1, maximum=54)),
        Field(name="usual_store", dtype=String, tags=sparse("query", "request")),
    ],
)

user_profile = FeatureView(
    name="user_profile",
    source=sources.users,
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="age", dtype=String, tags=sparse("query", "user")),
        Field(name="income", dtype=String, tags=sparse("query", "user")),
        Field(name="home_ownership", dtype=String, tags=sparse("query", "user")),
        Field(name="marital_status", dtype=String, tags=sparse("query", "user", categories=("Married", "Unmarried"))),
        Field(name="household_size", dtype=String, tags=sparse("query", "user")),
        Field(name="household_comp", dtype=String, tags=sparse("query", "user")),
        Field(name="kids_count", dtype=String, tags=sparse("query", "user", categories=("0", "1", "2", "3+"))),
    ],
)

user_activity = FeatureView(
    name="user_activity",
    source=sources.user_activity,
    entities=[user],
    ttl=FORTNIGHT,
    schema=[
        Field(name="trips_4w", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="trips_12w", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="days_since_trip", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="basket_value", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="basket_lines", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="discount_share", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=1)),
        Field(name="visit_products", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="visit_products_2", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="visit_products_8", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="last_products", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="last_spend", dtype=Float32, tags=dense("query", "user", minimum=0)),
        Field(name="products_12w", dtype=Float32, tags=dense("query", "user", minimum=1)),
        Field(name="bought_once_share", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=1)),
        Field(name="user_repurchase_rate", dtype=Float32, tags=dense("query", "user", minimum=0, maximum=1)),
        Field(name="expected_repurchases", dtype=Float32, tags=dense("query", "user", minimum=0)),
    ],
)

item_content = FeatureView(
    name="item_content",
    source=sources.items,
    entities=[item],
    ttl=timedelta(0),
    schema=[
        Field(name="department", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="brand", dtype=String, tags=sparse("history,candidate", "item", categories=("National", "Private"))),
        Field(name="product_category", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="product_type", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="package_size", dtype=String, tags=sparse("history,candidate", "item")),
        Field(name="manufacturer", dtype=String, tags=sparse("history,candidate", "item")),
    ],
)

item_activity = FeatureView(
    name="item_activity",
    source=sources.item_activity,
    entities=[item],
    ttl=FORTNIGHT,
    schema=[
        Field(name="buyers_1w", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="buyers_4w", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="buyers_12w", dtype=Float32, tags=dense("candidate", "item", minimum=1)),
        Field(name="unit_price", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="price_ratio", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="item_repurchase_rate", dtype=Float32, tags=dense("candidate", "item", minimum=0, maximum=1)),
        Field(name="item_repurchase_rate_recent", dtype=Float32, tags=dense("candidate", "item", minimum=0, maximum=1)),
        Field(name="type_repurchase_rate", dtype=Float32, tags=dense("candidate", "item", minimum=0, maximum=1)),
    ],
)

user_item = FeatureView(
    name="user_item",
    source=sources.pairs,
    entities=[user, item],
    ttl=FORTNIGHT,
    schema=[
        Field(name="weeks_bought", dtype=Float32, tags=dense("candidate", "pair", minimum=1)),
        Field(name="purchase_rate", dtype=Float32, tags=dense("candidate", "pair", minimum=0, maximum=1)),
        Field(name="habit_2", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="habit_5", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="habit_12", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="habit_32w", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="baskets_12w", dtype=Float32, tags=dense("candidate", "pair", minimum=1)),
        Field(name="visits_since", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="days_since", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="weeks_known", dtype=Float32, tags=dense("candidate", "pair", minimum=1)),
        Field(name="gap_deviation", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="due", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="due_repurchase_rate", dtype=Float32, tags=dense("candidate", "pair", minimum=0, maximum=1)),
        Field(name="mean_quantity", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="pair_discount_share", dtype=Float32, tags=dense("candidate", "pair")),
        Field(name="mailed_share", dtype=Float32, tags=dense("candidate", "pair", minimum=0, maximum=1)),
        Field(name="type_habit_8", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="type_habit_30", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="type_due", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="type_days_since", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="type_candidates", dtype=Float32, tags=dense("candidate", "pair", minimum=1)),
        Field(name="category_habit_8", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
        Field(name="line_habit_8", dtype=Float32, tags=dense("candidate", "pair", minimum=0)),
    ],
)

mailings = FeatureView(
    name="mailings",
    source=sources.mailings,
    entities=[item],
    ttl=WEEK,
    schema=[
        Field(name="stores_mailed", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="stores_displayed", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
        Field(name="mailing_lift", dtype=Float32, tags=dense("candidate", "item", minimum=0)),
    ],
)

promotions = FeatureView(
    name="promotions",
    source=sources.promotions,
    entities=[item, store],
    ttl=WEEK,
    schema=[
        Field(name="display", dtype=String, tags=sparse("candidate", "item")),
        Field(name="mailer", dtype=String, tags=sparse("candidate", "item")),
    ],
)
