"""Data folders that a run must refuse, each with what its message says; and what is left out with a count."""

import json
from datetime import timedelta

import polars as pl
import pytest

from lrm.errors import DataError, SchemaError
from lrm.features.tables import read, read_manifest
from tests.data_worlds import START
from tests.features.conftest import change, change_dataset, change_views

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("table", ["events", "requests", "users", "pairs"])
def test_a_missing_table_is_named(data, retrieve, table):
    (data / f"{table}.parquet").unlink()
    with pytest.raises(DataError, match=rf"{table}.parquet is missing; docs/artifacts.md"):
        retrieve(data)


def test_a_folder_without_dataset_json_is_no_data_folder(data, retrieve):
    (data / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"dataset.json is missing; prepare built-in data with"):
        retrieve(data)


def test_a_file_that_is_no_parquet_is_named(data, retrieve):
    (data / "users.parquet").write_text("user_id,age\n1,30\n")
    with pytest.raises(DataError, match=r"users.parquet cannot be read as Parquet"):
        retrieve(data)


@pytest.mark.parametrize("key", ["name", "protocol", "as_of", "validation_days", "test_days", "horizon_seconds"])
def test_a_missing_key_of_dataset_json_is_named(data, retrieve, key):
    change_dataset(data, **{key: None})
    with pytest.raises(DataError, match=rf"the key '{key}' is missing, it has"):
        retrieve(data)


def test_a_dataset_json_that_is_no_json_is_refused(data, retrieve):
    (data / "dataset.json").write_text("{name: world}")
    with pytest.raises(DataError, match=r"dataset.json is no JSON \(.*line 1 column 2"):
        retrieve(data)
    (data / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r"dataset.json must hold a JSON object, got list"):
        retrieve(data)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test_days": "7"}, "test_days must be a number, zero or more, got '7'"),
        ({"validation_days": -1}, "validation_days must be a number, zero or more, got -1"),
        ({"horizon_seconds": True}, "horizon_seconds must be a number, zero or more, got True"),
        ({"horizon_seconds": float("nan")}, "horizon_seconds must be a number, zero or more, got nan"),
        ({"as_of": 20240210}, "as_of must be a text, got 20240210"),
        ({"name": "../shop"}, r"name must consist of letters, digits, .* got '\.\./shop'"),
    ],
)
def test_a_value_of_dataset_json_that_makes_no_sense_is_named(data, retrieve, values, message):
    change_dataset(data, **values)
    with pytest.raises(DataError, match=message):
        retrieve(data)


def test_an_unknown_protocol_is_refused(data, retrieve):
    change_dataset(data, protocol="random")
    with pytest.raises(DataError, match=r"protocol must be 'temporal' or 'leave-one-out', got 'random'"):
        retrieve(data)


def test_an_as_of_that_is_no_instant_is_refused(data, retrieve):
    change_dataset(data, as_of="the end")
    with pytest.raises(DataError, match=r"as_of in dataset.json must be an ISO instant .* got 'the end'"):
        retrieve(data)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("events", "item_id"),
        ("events", "spent"),
        ("requests", "event_time"),
        ("pairs", "affinity"),
        ("items", "created_time"),
    ],
)
def test_a_missing_column_is_named(data, retrieve, table, column):
    change(data, table, lambda rows: rows.drop(column))
    with pytest.raises(
        SchemaError, match=rf"{table}.parquet: column '{column}' is missing, it has .*Field out of views"
    ):
        retrieve(data)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        (pl.col("event_time").dt.replace_time_zone(None), r"must be UTC, got no zone"),
        (pl.col("event_time").dt.convert_time_zone("Europe/Paris"), r"must be UTC, got Europe/Paris"),
        (pl.col("event_time").cast(pl.Datetime("ns", "UTC")), r"must have microseconds, got ns"),
        (pl.col("event_time").dt.to_string(), r"must be a UTC timestamp\[us\], got String"),
        (pl.col("event_time").dt.date(), r"must be a UTC timestamp\[us\], got Date"),
    ],
)
@pytest.mark.parametrize("table", ["events", "users"])
def test_times_that_are_not_microseconds_in_utc_are_refused(data, retrieve, table, kind, seen):
    change(data, table, lambda rows: rows.with_columns(event_time=kind))
    with pytest.raises(SchemaError, match=rf"{table}.parquet: 'event_time' {seen}"):
        retrieve(data)


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("users", "age", pl.lit("old"), r"'age' is declared dense, its column holds String"),
        ("users", "country", pl.lit(0.5), r"'country' is declared sparse, its column holds Float64"),
        ("items", "tags", pl.lit("red"), r"'tags' is declared bag, its column holds String"),
        ("items", "vector", pl.lit(1.0), r"'vector' is declared embedding, its column holds Float64"),
        ("events", "item_id", pl.lit(0.5), r"key 'item_id' must be int64 or string, got Float64"),
        ("requests", "user_id", pl.col("user_id").cast(pl.String), r"'user_id' is Int64 in events.parquet and String"),
        (
            "candidates",
            "item_id",
            pl.col("item_id").cast(pl.String),
            r"'item_id' is Int64 in events.parquet and String",
        ),
    ],
)
def test_a_column_of_the_wrong_type_is_named(data, retrieve, table, column, value, message):
    change(data, table, lambda rows: rows.with_columns(value.alias(column)))
    with pytest.raises(SchemaError, match=message):
        retrieve(data)


def test_a_column_of_nulls_has_no_wrong_type(data, retrieve):
    change(data, "users", lambda users: users.with_columns(age=pl.lit(None)))
    assert read(retrieve(data)).requests["age"].null_count() == 400


@pytest.mark.parametrize(
    ("table", "column"),
    [("events", "user_id"), ("events", "event_time"), ("requests", "event_time"), ("users", "created_time")],
)
def test_null_keys_and_instants_are_refused(data, retrieve, table, column):
    change(data, table, lambda rows: rows.with_columns(pl.when(pl.int_range(pl.len()) > 2).then(column)))
    with pytest.raises(DataError, match=rf"{table}.parquet: 3 of \d+ values of '{column}' are null"):
        retrieve(data)


def test_two_requests_of_a_user_at_one_instant_are_refused(data, retrieve):
    change(data, "requests", lambda requests: pl.concat([requests, requests.head(1)]))
    with pytest.raises(DataError, match=r"2 rows share user_id and event_time, for instance user 1 at 2024-01-21"):
        retrieve(data)


def test_a_candidate_without_its_request_is_refused(data, retrieve):
    change(data, "requests", lambda requests: requests.slice(1))
    with pytest.raises(
        DataError, match=r"candidates.parquet: 4 of 1600 rows belong to no request, for instance user 1"
    ):
        retrieve(data)


def test_a_candidate_that_is_there_twice_is_refused(data, retrieve):
    change(data, "candidates", lambda rows: pl.concat([rows, rows.head(1)]))
    with pytest.raises(
        DataError, match=r"candidates.parquet: 2 of 1601 rows share user_id, event_time and item_id, .* keep one"
    ):
        retrieve(data)


@pytest.mark.parametrize("label", [2, None])
def test_a_label_is_zero_or_one(data, retrieve, label):
    change(data, "candidates", lambda rows: rows.with_columns(label=pl.lit(label, dtype=pl.Int8)))
    with pytest.raises(DataError, match=r"label must be 0 or 1, got \[2.0\]|1600 of 1600 values of 'label' are null"):
        retrieve(data)


def test_a_label_in_words_is_refused(data, retrieve):
    change(data, "candidates", lambda rows: rows.with_columns(label=pl.lit("yes")))
    with pytest.raises(SchemaError, match=r"candidates.parquet: 'label' must be a number, got String; convert it"):
        retrieve(data)


def test_an_id_beyond_what_is_kept_is_refused(data, retrieve):
    change(data, "items", lambda rows: rows.with_columns(item_id=pl.lit(2**63, dtype=pl.UInt64)))
    with pytest.raises(DataError, match=r"items.parquet: a value cannot be kept \(.*item_id.*\); convert the column"):
        retrieve(data)


def test_a_key_of_another_type_in_a_joined_table_is_named(data, retrieve):
    change(data, "items", lambda rows: rows.cast({"item_id": pl.String}))
    with pytest.raises(
        SchemaError, match=r"key 'item_id' is Int64 in events.parquet and String in items.parquet; write it in one type"
    ):
        retrieve(data)


def test_no_event_before_as_of_is_refused(data, retrieve):
    change(data, "events", lambda events: events.clear())
    with pytest.raises(DataError, match=r"events.parquet holds no event before 2024-02-10.*\(0 in all\)"):
        retrieve(data)


@pytest.mark.parametrize(
    ("split", "days"),
    [("validation", {"validation_days": 0}), ("test", {"test_days": 0}), ("train", {"test_days": 30})],
)
def test_a_window_without_requests_is_refused(data, retrieve, split, days):
    change_dataset(data, **days)
    with pytest.raises(DataError, match=rf"no request falls into the {split} window"):
        retrieve(data)


def test_events_and_requests_after_the_end_are_left_out_and_counted(data, retrieve):
    change_dataset(data, as_of=(START + timedelta(days=39)).isoformat())
    examples = retrieve(data)
    assert read_manifest(examples)["cut"] == {
        "events": 20,
        "requests": 20,
        "unfinished_requests": 0,
        "crossing_requests": 0,
    }
    assert read(examples).events["event_time"].max() < START + timedelta(days=39)


def test_a_request_whose_horizon_ends_at_as_of_is_unfinished_as_the_event_of_that_instant_is_left_out(data, retrieve):
    change(data, "events", lambda events: events.with_columns(pl.col("event_time").dt.truncate("1d")))
    change_dataset(data, horizon_seconds=86_400)
    day = START + timedelta(days=38)
    examples = retrieve(data, as_of=day.isoformat())
    assert read_manifest(examples)["cut"]["unfinished_requests"] == 20  # of the day before, one of each user
    assert read(examples).requests["event_time"].max() == day - timedelta(days=2)


def test_data_without_candidates_has_no_ranking_task(data, retrieve):
    (data / "candidates.parquet").unlink()
    candidates = read(retrieve(data)).candidates
    assert candidates.is_empty()
    assert candidates.columns[-2:] == ["price", "affinity"]


def test_a_view_of_candidates_needs_its_table(data, retrieve):
    change_views(data, '{"role": "requests"}', '{"role": "candidates"}')
    change_views(data, 'dense("query", "request"', 'dense("candidate", "request"')
    (data / "candidates.parquet").unlink()
    with pytest.raises(DataError, match=r"candidates.parquet is missing, yet a view has the role 'candidates'"):
        retrieve(data)


def test_columns_that_nobody_declared_are_ignored(data, examples, retrieve):
    change(data, "users", lambda users: users.with_columns(secret=pl.lit("x")))
    assert read(retrieve(data)).requests.equals(read(examples).requests)


def test_one_user_is_enough(data, retrieve):
    for table in ("events", "requests", "candidates"):
        change(data, table, lambda rows: rows.filter(user_id=1))
    assert read_manifest(retrieve(data))["rows"] == {
        "events": 40,
        "requests": 20,
        "candidates": 80,
        "targets": 20,
        "items": 40,
    }


def test_leave_one_out_takes_the_split_that_the_data_brings(data, retrieve):
    place = pl.int_range(pl.len()).over("user_id")
    named = (
        pl.when(place == 0).then(pl.lit("test")).when(place == 1).then(pl.lit("validation")).otherwise(pl.lit("train"))
    )
    for table in ("events", "requests"):
        change(data, table, lambda rows: rows.with_columns(split=named))
    change_dataset(data, protocol="leave-one-out")
    examples = retrieve(data)
    manifest = read_manifest(examples)
    assert (manifest["validation_from"], manifest["test_from"]) == (None, None)
    assert read(examples).requests.filter(pl.col("split") == "test").height == 20
    change(data, "requests", lambda rows: rows.drop("split"))
    with pytest.raises(SchemaError, match=r"requests.parquet: column 'split' is missing"):
        retrieve(data)


def hold_out_the_last(data):
    """Leave-one-out: each user's last event is the test target, the one before it the validation target."""
    from_end = pl.col("event_time").rank("ordinal", descending=True).over("user_id")
    named = (pl.when(from_end == 1).then(pl.lit("test")).when(from_end == 2).then(pl.lit("validation"))).otherwise(
        pl.lit("train")
    )
    for table in ("events", "requests"):
        change(data, table, lambda rows: rows.with_columns(split=named))
    change_dataset(data, protocol="leave-one-out")


def test_leave_one_out_asks_no_request_whose_outcome_holds_an_event_of_a_later_split(data, retrieve):
    for table in ("events", "requests", "candidates"):
        change(data, table, lambda rows: rows.filter(~pl.col("event_time").dt.date().is_between(*days(36, 38))))
    hold_out_the_last(data)
    change_dataset(data, horizon_seconds=3 * 86_400 - 1)
    examples = retrieve(data)
    tables = read(examples)
    # the validation event is of day 35, noon: of 20 users, the requests of day 33 and day 34 reach it
    assert read_manifest(examples)["cut"]["crossing_requests"] == 40
    assert tables.requests.filter(split="train")["event_time"].max() == START + timedelta(days=32)
    assert tables.requests.filter(split="validation")["event_time"].unique().to_list() == [START + timedelta(days=35)]


def days(first, last):
    return (START + timedelta(days=first)).date(), (START + timedelta(days=last)).date()


def test_an_event_of_a_later_split_at_the_very_instant_of_a_request_is_no_outcome_of_it(data, retrieve):
    hold_out_the_last(data)
    change_dataset(data, horizon_seconds=0)
    assert read_manifest(retrieve(data))["cut"]["crossing_requests"] == 0
    noon = pl.col("event_time") + timedelta(hours=12)
    change(data, "requests", lambda rows: rows.with_columns(event_time=noon))
    change(data, "candidates", lambda rows: rows.with_columns(event_time=noon))
    assert read_manifest(retrieve(data))["cut"]["crossing_requests"] == 0  # each asks as its own event happens
    tied = pl.when(split="validation").then(pl.col("event_time") - timedelta(days=1)).otherwise("event_time")
    change(data, "events", lambda rows: rows.with_columns(event_time=tied))
    tables = read(retrieve(data))
    assert tables.requests.filter(split="train")["event_time"].max() == START + timedelta(days=36, hours=12)


def test_a_promotion_joins_by_the_shop_of_the_request(data, retrieve):
    shops = pl.read_parquet(data / "requests.parquet").with_columns(shop_id=pl.col("user_id") % 2)
    shops.write_parquet(data / "requests.parquet")
    instants = shops.select("event_time").unique()
    offers = instants.join(pl.DataFrame({"item_id": range(100, 140)}), how="cross").with_columns(
        shop_id=pl.lit(1), created_time=pl.col("event_time"), offered=pl.lit("yes")
    )
    offers.write_parquet(data / "offers.parquet")
    change_views(
        data,
        "recommendation = FeatureService(",
        'shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.INT64)\n'
        'offers = FeatureView(name="offers", source=signals("offers"), entities=[item, shop], ttl=timedelta(days=1),\n'
        '    schema=[Field(name="offered", dtype=String, tags=sparse("candidate", "item"))])\n'
        "recommendation = FeatureService(",
    )
    change_views(data, "user_item],", "user_item, offers],")
    tables = read(retrieve(data))
    joined = tables.candidates.join(tables.requests, on="request_id")
    assert joined.group_by(pl.col("user_id") % 2).agg(pl.col("offered").drop_nulls().len()).sort("user_id").rows() == [
        (0, 0),
        (1, 800),
    ]


def test_a_requests_table_without_a_views_key_is_named(data, retrieve):
    change_views(data, 'join_keys=["user_id"]', 'join_keys=["household_id"]')
    with pytest.raises(SchemaError, match=r"column 'household_id' is missing"):
        retrieve(data)


def test_the_dataset_file_stays_as_the_user_wrote_it(data, retrieve):
    before = json.loads((data / "dataset.json").read_text())
    manifest = read_manifest(retrieve(data))
    assert {key: manifest["data"][key] for key in before} == before
