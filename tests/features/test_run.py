import json
import os
import subprocess
import sys
from datetime import timedelta

import polars as pl
import pytest

from lrm.errors import DataError, SchemaError
from lrm.features.run import retrieve_features
from lrm.features.tables import read, read_declared, read_manifest
from tests.data_worlds import INSTANT, START
from tests.features.conftest import change, change_dataset, change_views

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_the_folder_holds_the_tables_of_the_contract(examples):
    tables = read(examples)
    content = ["title", "colour", "tags", "vector"]
    assert tables.events.columns == ["event_id", "user_id", "item_id", "event_time", "split", "spent", *content]
    assert tables.requests.columns == ["request_id", "user_id", "event_time", "split", "hour", "age", "country"]
    keys = ["candidate_id", "request_id", "item_id", "label"]
    assert tables.candidates.columns == [*keys, *content, "price", "affinity"]
    assert tables.items.columns == ["item_id", *content]
    assert tables.candidates.schema["label"] == pl.Float32
    assert tables.candidates.schema["vector"] == pl.List(pl.Float32)
    declared = ["spent", "hour", "age", "country", *content, "price", "affinity"]
    assert [signal.name for signal in read_declared(examples)] == declared


def test_no_row_is_lost_and_ids_number_the_rows_in_order(untouched, examples):
    tables = read(examples)
    for name, key in (("events", "event_id"), ("requests", "request_id"), ("candidates", "candidate_id")):
        table = getattr(tables, name)
        assert table.height == pl.scan_parquet(untouched / f"{name}.parquet").select(pl.len()).collect().item()
        assert table[key].to_list() == list(range(table.height))
    assert tables.events.select("user_id", "event_time").equals(
        tables.events.select("user_id", "event_time").sort(pl.all())
    )


def test_a_candidate_keeps_its_label_and_its_own_pair_signal(untouched, examples):
    tables = read(examples)
    found = tables.candidates.join(tables.requests, on="request_id").select(
        "user_id", "item_id", "event_time", "label", "affinity"
    )
    brought = pl.read_parquet(untouched / "candidates.parquet").join(
        pl.read_parquet(untouched / "pairs.parquet"), on=["user_id", "item_id", "event_time"]
    )
    expected = brought.select("user_id", "item_id", "event_time", pl.col("label", "affinity").cast(pl.Float32))
    order = ["user_id", "event_time", "item_id"]
    assert found.sort(order).equals(expected.sort(order))


def test_the_next_purchase_of_the_day_is_the_target(examples):
    tables = read(examples)
    bought = tables.events.with_columns(day=pl.col("event_time").dt.truncate("1d")).select("user_id", "day", "item_id")
    expected = tables.requests.join(bought, left_on=["user_id", "event_time"], right_on=["user_id", "day"])
    assert tables.targets.rows() == expected.select("request_id", "item_id").sort("request_id").rows()


def test_the_manifest_tells_where_the_examples_come_from(untouched, examples):
    manifest = read_manifest(examples)
    assert manifest["as_of"] == "2024-02-10T00:00:00+00:00"
    assert manifest["test_from"] == "2024-02-05T00:00:00+00:00"
    assert manifest["validation_from"] == "2024-01-31T00:00:00+00:00"
    assert manifest["data"]["name"] == "tiny-world"
    assert len(manifest["data"]["sha256"]) == len(manifest["service_version"]) == len(manifest["snapshot_id"]) == 64
    assert manifest["rows"] == {"events": 800, "requests": 400, "candidates": 1600, "targets": 400, "items": 40}
    assert read(examples).requests.group_by("split").len().sort("split").rows() == [
        ("test", 100),
        ("train", 200),
        ("validation", 100),
    ]


def test_the_same_data_gives_the_same_snapshot_and_other_data_another(untouched, data, examples, retrieve):
    assert read_manifest(retrieve(data))["snapshot_id"] == read_manifest(examples)["snapshot_id"]
    change(data, "users", lambda users: users.with_columns(age=pl.lit(30.0)))
    assert read_manifest(retrieve(data))["snapshot_id"] != read_manifest(examples)["snapshot_id"]


def test_feasts_own_engine_gives_the_same_snapshot(untouched, examples, retrieve):
    theirs = read_manifest(retrieve(untouched, engine="feast"))
    assert theirs["snapshot_id"] == read_manifest(examples)["snapshot_id"]
    assert (theirs["engine"], read_manifest(examples)["engine"]) == ("feast", "duckdb")


def test_a_poisoned_row_just_after_its_instant_never_reaches_an_example(data, examples, retrieve):
    soon, last = timedelta(microseconds=1), START + timedelta(days=39)
    for table, signal in (("item_activity", "price"), ("pairs", "affinity"), ("users", "age")):
        keys = pl.read_parquet(data / f"{table}.parquet").select(pl.col("^(user|item)_id$")).unique()
        after = pl.lit(last + soon).cast(INSTANT)
        future = keys.with_columns(pl.lit(1e9).alias(signal), event_time=after, created_time=after)
        written_late = future.with_columns(event_time=pl.lit(last - soon).cast(INSTANT))
        poison = (future, written_late)
        change(data, table, lambda held, poison=poison: pl.concat([held, *poison], how="diagonal"))
    poisoned, clean = read(retrieve(data)), read(examples)
    assert clean.requests["event_time"].max() == last
    for name in ("requests", "candidates", "targets", "items"):
        assert getattr(poisoned, name).equals(getattr(clean, name))


def test_one_column_and_one_line_make_a_signal_flow(data, retrieve):
    change(data, "users", lambda users: users.with_columns(shoe_size=pl.col("user_id").cast(pl.Float32) % 10 + 35))
    line = '        Field(name="shoe_size", dtype=Float32, tags=dense("query", "user")),\n'
    last = '        Field(name="country", dtype=String, tags=sparse("query", "user")),\n'
    change_views(data, last, last + line)
    examples = retrieve(data)
    assert read(examples).requests.filter(user_id=3)["shoe_size"].unique().to_list() == [38.0]
    assert "shoe_size" in {signal.name for signal in read_declared(examples)}


def test_a_view_that_the_service_does_not_name_is_told(data, tmp_path):
    change_views(data, "item_activity, user_item]", "item_activity]")
    assert retrieve_features(data, data / "feature_repo", tmp_path / "examples")["views_left_out"] == "user_item"
    assert "affinity" not in {signal.name for signal in read_declared(tmp_path / "examples")}


def test_an_earlier_as_of_ends_the_world_there(untouched, examples, retrieve):
    earlier = retrieve(untouched, as_of="2024-02-08T12:00:00Z")
    manifest, now, then = read_manifest(earlier), read(examples), read(earlier)
    ends = START + timedelta(days=38, hours=12)
    assert manifest["test_from"] == "2024-02-03T12:00:00+00:00"
    assert then.events["event_time"].max() < ends
    # the request of 8 February ends its day after as_of: its outcome is unknown then
    assert then.requests["event_time"].max() == START + timedelta(days=37)
    # those of 29 January and 3 February straddle the cuts, which lie at noon
    days = {START + timedelta(days=day) for day in range(20, 38)} - {START + timedelta(days=day) for day in (28, 33)}
    assert set(then.requests["event_time"]) == days
    assert manifest["cut"] == {"events": 40, "requests": 20, "unfinished_requests": 20, "crossing_requests": 40}
    asked = then.requests.select("user_id", "event_time")
    kept = now.requests.join(asked, on=["user_id", "event_time"], maintain_order="left")["request_id"]
    expected = now.candidates.filter(pl.col("request_id").is_in(kept.implode()))
    assert then.candidates.drop("candidate_id", "request_id").equals(expected.drop("candidate_id", "request_id"))


@pytest.mark.parametrize(("cut_day", "earlier"), [(30, "train"), (35, "validation")])
def test_an_event_of_the_next_window_is_no_outcome_of_an_earlier_request(data, retrieve, cut_day, earlier):
    cut = START + timedelta(days=cut_day)
    assert retrieved_cut(retrieve(data))["crossing_requests"] == 0  # each request's day ends a second before the next
    poison = pl.DataFrame({"user_id": [1], "item_id": [999], "event_time": [cut], "spent": [1.0]})
    change(data, "events", lambda events: pl.concat([events, poison.cast(dict(events.schema))]))
    change_dataset(data, horizon_seconds=86_400)
    examples = retrieve(data)
    tables = read(examples)
    assert retrieved_cut(examples)["crossing_requests"] == 40  # of 20 users, the day before each of the two cuts
    assert tables.requests.filter(split=earlier)["event_time"].max() == cut - timedelta(days=2)
    assert tables.candidates["request_id"].is_in(tables.requests["request_id"].implode()).all()
    reached = tables.targets.filter(item_id=999).join(tables.requests, on="request_id")
    assert reached.filter(pl.col("event_time") < cut).is_empty()


def test_a_horizon_of_zero_crosses_no_cut(data, retrieve):
    change_dataset(data, horizon_seconds=0)
    assert retrieved_cut(retrieve(data))["crossing_requests"] == 0


def retrieved_cut(examples):
    return read_manifest(examples)["cut"]


def test_values_of_the_catalogue_are_those_known_when_the_validation_window_opens(data, retrieve):
    change(data, "items", lambda items: pl.concat([items, recoloured(items, 30), recoloured(items, 31)]))
    assert read(retrieve(data)).items["colour"].unique().to_list() == ["day 30"]
    assert read(retrieve(data, as_of="2024-02-09")).items["colour"].unique().to_list() != ["day 30"]


def recoloured(items, day):
    """All items described anew; the validation window opens at day 30."""
    at = pl.lit(START + timedelta(days=day)).cast(items.schema["event_time"])
    return items.with_columns(event_time=at, created_time=at, colour=pl.lit(f"day {day}"))


def test_an_item_that_is_described_but_never_bought_is_in_the_catalogue(data, retrieve):
    change(
        data, "items", lambda items: pl.concat([items, items.head(1).with_columns(item_id=pl.lit(999, dtype=pl.Int64))])
    )
    assert read(retrieve(data)).items["item_id"].max() == 999


def test_keys_may_be_strings(data, retrieve):
    for table in ("events", "requests", "candidates", "users", "items", "item_activity", "pairs"):
        change(data, table, lambda rows: rows.with_columns(pl.col("^(user|item)_id$").cast(pl.String)))
    tables = read(retrieve(data))
    assert tables.items.schema["item_id"] == tables.targets.schema["item_id"] == pl.String
    assert tables.candidates["affinity"].null_count() < 0.1 * tables.candidates.height


def test_nan_and_infinity_pass_for_validation_to_judge(data, retrieve):
    change(data, "users", lambda users: users.with_columns(age=pl.lit(float("inf"))))
    change(data, "requests", lambda requests: requests.with_columns(hour=pl.lit(float("nan"))))
    requests = read(retrieve(data)).requests
    assert requests["age"].is_infinite().all()
    assert requests["hour"].is_nan().all()


@pytest.mark.parametrize("as_of", ["2024-03-01", "2025-01-01T00:00:00Z"])
def test_an_as_of_after_the_end_of_the_data_is_refused(untouched, retrieve, as_of):
    with pytest.raises(DataError, match=r"lies after the end of the data, 2024-02-10"):
        retrieve(untouched, as_of=as_of)


def test_an_unknown_engine_is_refused(untouched, retrieve):
    with pytest.raises(SchemaError, match=r"engine must be 'duckdb' or 'feast', got 'spark'"):
        retrieve(untouched, engine="spark")


def test_a_failed_retrieval_leaves_no_manifest_of_an_earlier_one(data, tmp_path):
    examples = tmp_path / "examples"
    retrieve_features(data, data / "feature_repo", examples)
    (data / "events.parquet").unlink()
    with pytest.raises(DataError, match=r"events.parquet is missing"):
        retrieve_features(data, data / "feature_repo", examples)
    assert not (examples / "manifest.json").exists()
    assert json.loads((examples / "record.json").read_text())["state"] == "failed"


def test_importing_the_room_does_not_import_feast_or_duckdb():
    code = "import sys, lrm.features.run; print({'feast', 'duckdb', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "set()"
