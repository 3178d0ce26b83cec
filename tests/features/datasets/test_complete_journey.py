"""The recipe of Complete Journey on a shop of three households, counted by hand."""

import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import polars.selectors as cs
import pytest

from lrm.features.datasets.complete_journey import write_tables

MILK, BREAD, TEA = 11, 12, 13
ANN, BOB, CAT = 1, 2, 3
BOUGHT = {
    # household: {product: weeks}; everyone buys milk in week 52, so that all are active then
    ANN: {MILK: (2, 5, 19, 20, 40, 44, 46, 52), BREAD: (45, 52)},
    BOB: {MILK: (46, 52), TEA: (41,)},
    CAT: {MILK: (50, 51, 52)},
}


def only(*users):
    return lambda households: households.filter(households.is_in(users))


def noon_of_week(week):
    """Tuesday noon in the week that begins on Monday, New York time."""
    return datetime(2017, 1, 3, 17) + timedelta(weeks=week - 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    lines = [
        {
            "household_id": household,
            "store_id": 900 if household == ANN and week < 45 else 901,
            "basket_id": 1000 * household + week,
            "product_id": product,
            "quantity": 2,
            "sales_value": 3.0,
            "retail_disc": 1.0,
            "coupon_disc": 0.25,
            "coupon_match_disc": 0.25,
            "week": week,
            "transaction_timestamp": noon_of_week(week),
        }
        for household, basket in BOUGHT.items()
        for product, weeks in basket.items()
        for week in weeks
    ]
    pl.DataFrame(lines, schema_overrides={"transaction_timestamp": pl.Datetime("us")}).write_parquet(
        source / "transactions.parquet"
    )
    products = {"product_id": [MILK, BREAD, TEA], "manufacturer_id": [1, 2, 2], "department": ["GROCERY"] * 3}
    products |= {"brand": ["National"] * 3, "product_category": ["DRINK", "BREAD", "DRINK"]}
    products |= {"product_type": ["MILK", None, "TEA"], "package_size": [None, "1 LB", None]}
    pl.DataFrame(products).write_parquet(source / "products.parquet")
    pl.DataFrame({"household_id": [BOB, CAT], "age": ["65+", "19-24"]}).write_parquet(source / "demographics.parquet")
    promoted = {"product_id": [MILK, MILK, BREAD], "store_id": [901, 901, 999], "week": [52, 50, 52]}
    promoted |= {"display_location": ["3", "5", "0"], "mailer_location": ["A", "0", "D"]}
    pl.DataFrame(promoted).write_parquet(source / "promotions.parquet")
    return source


@pytest.fixture(scope="module")
def tables(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_tables(source, folder, trained=only(ANN, BOB), tested=only(ANN, BOB))
    return {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}


def begins(week):
    """Midnight in New York: 5:00 UTC in winter, 4:00 in summer."""
    return datetime(2017, 1, 2, 4 if 12 <= week <= 45 else 5, tzinfo=UTC) + timedelta(weeks=week - 2)


def of_week(table, week):
    return table.filter(pl.col("event_time") == begins(week)).drop("event_time")


def test_each_chosen_household_asks_at_the_start_of_each_even_week_in_which_it_shops(tables):
    asked = tables["requests"].select("user_id", "event_time").rows()
    assert asked == [(ANN, begins(week)) for week in (20, 40, 44)] + [
        *((user, begins(46)) for user in (ANN, BOB)),
        *((user, begins(52)) for user in (ANN, BOB)),
    ]
    assert set(tables["events"]["user_id"]) == {ANN, BOB}


def test_candidates_are_the_products_of_the_twelve_weeks_before_and_labels_say_what_is_bought_again(tables):
    assert of_week(tables["candidates"], 20).rows() == [(ANN, MILK, 1)]  # week 19
    assert of_week(tables["candidates"], 40).rows() == []  # the last milk was in week 20
    assert of_week(tables["candidates"], 44).rows() == [(ANN, MILK, 1)]
    assert of_week(tables["candidates"], 46).rows() == [(ANN, MILK, 1), (ANN, BREAD, 0), (BOB, TEA, 0)]
    assert of_week(tables["candidates"], 52).rows() == [
        *((ANN, MILK, 1), (ANN, BREAD, 1)),
        *((BOB, MILK, 1), (BOB, TEA, 0)),
    ]


def test_pair_counters_use_earlier_weeks_only(tables):
    milk = of_week(tables["pairs"], 46).row(0, named=True)
    assert (milk["user_id"], milk["item_id"]) == (ANN, MILK)
    # Ann visits in weeks 2, 5, 19, 20, 40, 44, 45, seven visits before week 46, and buys milk on all but the last
    assert (milk["weeks_bought"], milk["baskets_12w"], milk["weeks_known"]) == (6, 2, 44)
    assert milk["purchase_rate"] == pytest.approx(6 / 7)
    assert milk["habit_2"] == pytest.approx(sum(0.5 ** (visits / 2) for visits in (1, 2, 3, 4, 5, 6)))
    assert milk["habit_32w"] == pytest.approx(sum(0.5 ** ((46 - week) / 32) for week in (2, 5, 19, 20, 40, 44)))
    assert milk["due"] == pytest.approx(2 / 8.4)  # the mean of the gaps 3, 14, 1, 20, 4
    assert milk["gap_deviation"] == pytest.approx((sum((gap - 8.4) ** 2 for gap in (3, 14, 1, 20, 4)) / 5) ** 0.5)
    assert milk["visits_since"] == 1
    # from Tuesday noon of week 44, in summer time, to Monday midnight of week 46, in winter time
    assert milk["days_since"] == pytest.approx(12.5)
    assert (milk["mean_quantity"], milk["mailed_share"]) == (2, 0)
    assert milk["pair_discount_share"] == pytest.approx((1 + 0.25) / (3 + 1 + 0.25))


def test_the_chance_of_a_repurchase_is_that_of_the_type_so_long_after_so_many_purchases(tables, tmp_path, source):
    assert of_week(tables["pairs"], 46)["due_repurchase_rate"].to_list() == [None, None, None]
    write_tables(source, tmp_path, trained=only(CAT), tested=only(CAT))
    milk = of_week(pl.read_parquet(tmp_path / "pairs.parquet"), 52).row(0, named=True)
    # one week after the second of two: Ann in week 20, one week after the third of three, bought again; so did all
    assert milk["due_repurchase_rate"] == (1 + 20 * 1) / (1 + 20)


def test_habits_of_a_type_count_every_product_of_it(tables):
    milk, bread = of_week(tables["pairs"], 46).rows(named=True)[:2]
    assert milk["type_habit_8"] == pytest.approx(sum(0.5 ** (visits / 8) for visits in (1, 2, 3, 4, 5, 6)))
    assert (milk["type_candidates"], milk["type_days_since"]) == (1, pytest.approx(12.5))
    # one visit ago, once in one visit since
    assert (bread["type_habit_30"], bread["type_due"]) == (1, 0)
    tea = of_week(tables["pairs"], 46).row(2, named=True)
    # tea and milk are drinks: Bob has bought tea, on his one visit
    assert (tea["category_habit_8"], tea["line_habit_8"]) == (1, 1)


def test_a_product_bought_once_has_no_rhythm_and_one_without_a_type_counts_by_its_category(tables):
    bread = of_week(tables["pairs"], 46).row(1, named=True)
    assert bread["due"] is None
    assert (bread["type_habit_8"], bread["category_habit_8"]) == (1, 1)


def test_item_statistics_are_over_all_households(tables):
    milk = of_week(tables["item_activity"], 52).filter(item_id=MILK).row(0, named=True)
    # weeks 40 to 51: Ann 40, 44, 46, Bob 46, Cat 50, 51
    assert (milk["buyers_1w"], milk["buyers_4w"], milk["buyers_12w"]) == (1, 2, 6)
    assert (milk["unit_price"], milk["price_ratio"]) == (1.5, 1)
    # known before week 52: Ann was asked in weeks 20, 44, 46 and bought each time; nobody else was
    assert milk["item_repurchase_rate"] == milk["type_repurchase_rate"] == pytest.approx((3 + 1) / (3 + 8))
    faded = sum(0.5 ** (weeks / 8) for weeks in (32, 8, 6))
    assert milk["item_repurchase_rate_recent"] == pytest.approx((faded + 0.5) / (faded + 4))


def test_user_statistics_are_the_households_own(tables):
    ann = of_week(tables["user_activity"], 52).filter(user_id=ANN).row(0, named=True)
    # weeks 40 to 51: trips in 40, 44, 45, 46; one product each
    assert (ann["trips_4w"], ann["trips_12w"], ann["days_since_trip"]) == (0, 4, pytest.approx(40.5))
    assert (ann["basket_value"], ann["basket_lines"], ann["last_spend"]) == (3, 1, 3)
    assert [ann[f"visit_products{of}"] for of in ("", "_2", "_8")] == [1, 1, 1]
    assert ann["last_products"] == 1
    assert ann["discount_share"] == pytest.approx(1 / 4)
    # milk and bread; bread was bought once
    assert (ann["products_12w"], ann["bought_once_share"]) == (2, 0.5)
    # asked in weeks 20, 44 and 46: milk again three times, bread not
    assert ann["user_repurchase_rate"] == pytest.approx((3 + 1) / (4 + 8))


def test_the_usual_shop_is_that_of_most_baskets_in_twelve_weeks(tables):
    shops = {row["event_time"]: row["store_id"] for row in tables["requests"].filter(user_id=ANN).iter_rows(named=True)}
    assert shops == {begins(20): 900, begins(40): None, begins(44): 900, begins(46): 900, begins(52): 900}


def test_promotions_are_those_of_the_week_in_shops_that_can_be_asked_for(tables):
    promoted = tables["promotions"].select("item_id", "store_id", "event_time", "display", "mailer").rows()
    assert promoted == [(MILK, 901, begins(50), "5", "0"), (MILK, 901, begins(52), "3", "A")]


def test_mailings_count_shops_and_compare_sales_with_other_weeks(tables):
    plan = of_week(tables["mailings"], 52).rows(named=True)
    assert [(row["item_id"], row["stores_mailed"], row["stores_displayed"]) for row in plan] == [
        *((MILK, 1, 1), (BREAD, 1, 0), (TEA, 0, 0)),
    ]
    milk = of_week(tables["mailings"], 54).row(0, named=True)
    # not mailed in week 54. 53 weeks with 13 buyers, 52 of them not mailed, with all but the 3 buyers of week 52
    usual = 13 / 53
    assert milk["mailing_lift"] == pytest.approx((13 - 3 + usual) / (52 + 1) / usual)


def test_households_that_are_not_tested_ask_in_training_only(tables, tmp_path, source):
    write_tables(source, tmp_path, trained=only(ANN, BOB), tested=only(BOB))
    asked = pl.read_parquet(tmp_path / "requests.parquet").select("user_id", "event_time").rows()
    assert asked == [*((ANN, begins(week)) for week in (20, 40)), (BOB, begins(46)), (BOB, begins(52))]


def test_the_end_of_the_data_has_fresh_values_for_the_server(tables):
    assert of_week(tables["pairs"], 54).select("user_id", "item_id").rows() == [(ANN, MILK), (ANN, BREAD), (BOB, MILK)]
    assert of_week(tables["user_activity"], 54)["user_id"].to_list() == [ANN, BOB]
    assert of_week(tables["item_activity"], 54)["item_id"].to_list() == [MILK, BREAD]


def test_no_event_of_a_week_lies_before_its_first_instant(tables):
    events = tables["events"].filter(user_id=ANN)
    assert set(events["event_time"].dt.hour()) == {17}
    assert tables["events"].schema["event_time"] == pl.Datetime("us", "UTC")


def test_the_profile_covers_the_chosen_households_that_have_one(tables):
    assert tables["users"].select("user_id", "age").rows() == [(BOB, "65+")]
    assert tables["items"]["item_id"].to_list() == [MILK, BREAD, TEA]


def test_a_product_given_away_has_no_price_ratio_and_no_table_holds_a_value_that_is_no_number(source, tmp_path):
    free = tmp_path / "source"
    shutil.copytree(source, free)
    lines = pl.read_parquet(free / "transactions.parquet")
    price = pl.when(pl.col("product_id") == TEA).then(0.0).otherwise("sales_value")
    lines.with_columns(sales_value=price).write_parquet(free / "transactions.parquet")
    folder = tmp_path / "tables"
    folder.mkdir()
    write_tables(free, folder, trained=only(ANN, BOB), tested=only(ANN, BOB))
    tables = {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}
    tea = tables["item_activity"].filter(pl.col("item_id") == TEA)
    assert tea.height > 0
    assert tea["price_ratio"].null_count() == tea.height
    for name, table in tables.items():
        odd = [column.name for column in table.select(cs.float()) if column.is_nan().any()]
        assert odd == [], name
