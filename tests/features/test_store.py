import os
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from lrm.errors import SchemaError, ServingError
from lrm.features import feast_repo, store
from lrm.features.join import point_in_time
from lrm.features.sources import read_view
from tests.data_worlds import INSTANT, START
from tests.features.conftest import change, change_views

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def declared(data):
    return feast_repo.declarations(data / "feature_repo", data)


def test_views_say_what_was_written_in_the_feature_repo(untouched):
    found = declared(untouched)
    views = {view.name: view for view in found.views}
    assert found.service == "recommendation"
    assert [view.role for view in found.views] == ["events", "requests", None, None, None, None]
    assert views["user_item"].keys == ("user_id", "item_id")
    assert views["item_activity"].ttl == timedelta(days=2)
    assert views["item_content"].ttl is None
    assert views["item_activity"].path == untouched.resolve() / "item_activity.parquet"
    vector = views["item_content"].signals[-1]
    assert (vector.kind, vector.makers, vector.entity, vector.dim) == ("embedding", ("history", "candidate"), "item", 4)


def test_the_service_version_moves_with_the_definitions_and_not_with_the_place_of_the_data(untouched, data):
    before = declared(untouched).service_version
    assert declared(data).service_version == before
    change_views(data, "ttl=timedelta(days=2)", "ttl=timedelta(days=3)")
    assert declared(data).service_version != before


def test_reading_a_repo_leaves_no_module_and_no_variable_behind(untouched, monkeypatch):
    monkeypatch.setenv("LRM_DATA_DIR", "elsewhere")
    monkeypatch.setitem(sys.modules, "views", pytest)
    declared(untouched)
    assert sys.modules["views"] is pytest
    assert str(untouched / "feature_repo") not in sys.path
    assert os.environ["LRM_DATA_DIR"] == "elsewhere"


RULES = {
    "two services": (
        "recommendation = FeatureService(",
        'other = FeatureService(name="other", features=[events])\nrecommendation = FeatureService(',
        r"exactly one FeatureService is needed, got .*'other'",
    ),
    "no service": ("recommendation = FeatureService(", "recommendation = dict(", r"exactly one .* got none"),
    "a name twice": (
        'name="hour"',
        'name="age"',
        r"signal 'age' is declared 2 times, in the views requests, user_profile",
    ),
    "a name in another case": (
        'name="country"',
        'name="Age"',
        r"signal 'age' = 'Age' is declared 2 times, in the views user_profile; .* upper and lower case being the same",
    ),
    "a derived name": (
        'name="hour"',
        'name="gap_hours"',
        r"'gap_hours' of view 'requests': .* computed from the events",
    ),
    "no tags": ('dtype=Float32, tags=dense("candidate", "pair")', "dtype=Float32", r"'affinity'.* has no tag 'kind'"),
    "an unknown kind": (
        'tags=dense("candidate", "pair")',
        'tags={"kind": "odd", "maker": "query", "entity": "pair"}',
        "odd",
    ),
    "an unknown maker": ('dense("candidate", "pair")', 'dense("guess", "pair")', r"makers \('guess',\) are not among"),
    "an unknown role": ('{"role": "requests"}', '{"role": "visits"}', r"role 'visits' of a view is not one of"),
    "a role twice": ('{"role": "requests"}', '{"role": "events"}', r"2 views have the role 'events'"),
    "the wrong maker": (
        'dense("query", "request"',
        'dense("history", "request"',
        r"'hour'.*read by the query maker alone",
    ),
    "known too late": (
        'dense("candidate", "pair")',
        'dense("history", "pair", known="after")',
        r"'affinity'.*only the events table says when",
    ),
    "no item": ('dense("candidate", "pair")', 'dense("history", "pair")', r"keyed by user_id, item_id; drop 'history'"),
    "other times": ('created_timestamp_column="created_time"', 'created_timestamp_column="age"', r"and 'age'; use"),
    "a typing error": ("dense(", "dens(", r"views\.py, line \d+: its definitions do not load \(NameError: name 'dens'"),
    "no Python": ("recommendation = FeatureService(", "recommendation = = (", r"do not load \(SyntaxError"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_repo_that_breaks_a_rule_is_refused(data, rule):
    old, new, message = RULES[rule]
    change_views(data, old, new)
    with pytest.raises(SchemaError, match=message):
        declared(data)


def test_a_folder_that_is_no_feature_repo_is_refused(tmp_path, untouched):
    with pytest.raises(SchemaError, match=r"feature_store.yaml is missing"):
        feast_repo.declarations(tmp_path, untouched)


@pytest.mark.parametrize("name", ["item_activity", "user_item"])
def test_our_join_equals_feast_with_late_corrections_and_expiry(data, name):
    change(data, "item_activity", lambda table: with_corrections(table, "price"))
    change(data, "pairs", lambda table: with_corrections(table, "affinity"))
    view = next(view for view in declared(data).views if view.name == name)
    rows = pl.read_parquet(data / "candidates.parquet").sample(800, seed=0, with_replacement=True, shuffle=True)
    jitter = pl.Series(np.random.default_rng(0).integers(-30, 30, rows.height))
    rows = rows.with_columns(pl.col("event_time") + pl.duration(hours=jitter))
    ours = point_in_time(rows, "event_time", view, read_view(view))
    feasts = store.retrieve(data / "feature_repo", data, rows, "event_time", view)
    assert ours.equals(feasts)
    assert 0 < ours.null_count().row(0)[0] < rows.height


def with_corrections(table, signal):
    """A fifth of the values corrected: the same instant, written up to two days later."""
    later = table.sample(fraction=0.2, seed=0)
    delay = pl.Series(np.random.default_rng(0).integers(1, 48, later.height))
    rewritten = later.with_columns(pl.col("created_time") + pl.duration(hours=delay), pl.col(signal).fill_null(0) + 100)
    return pl.concat([table, rewritten])


def test_feast_on_its_own_would_serve_a_correction_before_it_was_written(data, tmp_path):
    change(data, "item_activity", lambda table: pl.concat([table.head(1), corrected(table.head(1))]))
    view = next(view for view in declared(data).views if view.name == "item_activity")
    rows = read_view(view).head(1).select("item_id", pl.col("event_time") + timedelta(hours=3))
    feature_store = store.applied(data / "feature_repo", data, tmp_path / "state")
    entities = rows.rename({"event_time": "event_timestamp"}).to_pandas()
    leaked = feature_store.get_historical_features(entity_df=entities, features=["item_activity:price"]).to_df()
    assert leaked["price"].tolist() == [999.0]
    ours = point_in_time(rows, "event_time", view, read_view(view))
    assert ours["price"].to_list() != [999.0]
    assert ours.equals(store.retrieve(data / "feature_repo", data, rows, "event_time", view))


def corrected(table):
    return table.with_columns(pl.col("created_time") + timedelta(days=1), price=pl.lit(999.0))


@pytest.fixture
def until():
    return START + timedelta(days=40)


def test_online_values_are_what_the_offline_join_gives_at_that_instant(untouched, tmp_path, until):
    repo = untouched / "feature_repo"
    counts = store.materialise_online(repo, untouched, until, state=tmp_path)
    assert counts["user_profile"] == 20
    assert counts["item_content"] == 40
    online = store.open_online(repo, untouched, state=tmp_path)
    keys = [{"user_id": user, "item_id": item} for user, item in ((1, 100), (20, 139), (3, 117), (4, 999), (999, 101))]
    found = store.read_online(online, keys, until)
    rows = pl.DataFrame(keys).with_columns(event_time=pl.lit(until).cast(INSTANT))
    expected = [point_in_time(rows, "event_time", view, read_view(view)) for view in online.views]
    assert found.equals(pl.concat(expected, how="horizontal"))
    assert found["title"].to_list() == ["item 0", "item 39", "item 17", None, "item 1"]


def test_an_expired_online_value_becomes_null(untouched, tmp_path, until):
    store.materialise_online(untouched / "feature_repo", untouched, until, state=tmp_path)
    online = store.open_online(untouched / "feature_repo", untouched, state=tmp_path)
    items = [{"item_id": item} for item in range(100, 140)]
    fresh = store.read_online(online, items, until)["price"]
    stale = store.read_online(online, items, until + timedelta(days=3))
    assert fresh.null_count() < 40
    assert stale["price"].null_count() == 40
    assert stale["title"].null_count() == 0


def test_a_value_written_after_the_instant_is_not_materialised(data, tmp_path, until):
    change(data, "users", lambda users: pl.concat([users, tomorrow(users.head(1), until)]))
    store.materialise_online(data / "feature_repo", data, until, state=tmp_path)
    online = store.open_online(data / "feature_repo", data, state=tmp_path)
    assert store.read_online(online, [{"user_id": 1}], until)["country"].to_list() != ["elsewhere"]


def tomorrow(users, until):
    return users.with_columns(created_time=pl.lit(until + timedelta(days=1)).cast(INSTANT), country=pl.lit("elsewhere"))


def test_materialising_twice_changes_nothing_and_later_brings_newer_values(untouched, tmp_path):
    repo, early = untouched / "feature_repo", START + timedelta(days=20, hours=12)
    item = pl.read_parquet(untouched / "pairs.parquet").sort("event_time").row(-1, named=True)
    keys = [{"user_id": item["user_id"], "item_id": item["item_id"]}]
    for _ in range(2):
        store.materialise_online(repo, untouched, early, state=tmp_path)
    online = store.open_online(repo, untouched, state=tmp_path)
    store.materialise_online(repo, untouched, item["event_time"], state=tmp_path)
    assert store.read_online(online, keys, item["event_time"])["affinity"].to_list() == [
        pytest.approx(item["affinity"])
    ]


def test_booleans_and_numbers_of_any_declared_type_are_served_as_the_examples_hold_them(data, tmp_path, until):
    given = {"country": [True, False, None], "age": [False, True, None]}
    change(data, "users", lambda users: users.head(3).with_columns(pl.Series(name, given[name]) for name in given))
    lists = {"title": [2**53 + 1, None, -1], "tags": [[3, 1], [], None], "vector": [[1, 2, 3, 4], None, [0, 0, 0, 0]]}
    change(data, "items", lambda items: items.head(3).with_columns(pl.Series(name, lists[name]) for name in lists))
    change_views(data, "import Array, Float32, String", "import Array, Bool, Float32, Float64, Int64, String")
    for name, dtype in (("age", "Bool"), ("country", "Bool"), ("title", "Int64"), ("price", "Float64")):
        old = "String" if name in ("country", "title") else "Float32"
        change_views(data, f'name="{name}", dtype={old}', f'name="{name}", dtype={dtype}')
    change_views(data, 'name="tags", dtype=Array(String)', 'name="tags", dtype=Array(Int64)')
    change_views(data, 'name="vector", dtype=Array(Float32)', 'name="vector", dtype=Array(Int64)')
    repo = data / "feature_repo"
    store.materialise_online(repo, data, until, state=tmp_path)
    online = store.open_online(repo, data, state=tmp_path)
    keys = [{"user_id": user, "item_id": item} for user, item in ((1, 100), (2, 101), (3, 102))]
    found = store.read_online(online, keys, until)
    rows = pl.DataFrame(keys).with_columns(event_time=pl.lit(until).cast(INSTANT))
    expected = pl.concat(
        [point_in_time(rows, "event_time", view, read_view(view)) for view in online.views], how="horizontal"
    )
    assert found.equals(expected)
    assert found["country"].to_list() == ["true", "false", None]
    assert found["age"].to_list() == [0.0, 1.0, None]
    assert found["tags"].to_list() == [["3", "1"], [], None]
    assert found["title"].to_list() == ["9007199254740993", None, "-1"]
    kept = [value for view in online.views for one in store.read_kept(online, view, keys[:1]) for value in one.values]
    assert {type(value) for value in kept} <= {str, float, list, type(None)}  # serving takes them as they are
    theirs = [store.retrieve(repo, data, rows, "event_time", view) for view in online.views]
    assert expected.equals(pl.concat(theirs, how="horizontal"))


def test_keys_that_no_view_has_are_refused(untouched, tmp_path):
    online = store.open_online(untouched / "feature_repo", untouched, state=tmp_path)
    with pytest.raises(ServingError, match=r"no view can be read by the keys \['shop_id'\].*user_profile by user_id"):
        store.read_online(online, [{"shop_id": 1}], datetime(2024, 1, 1, tzinfo=UTC))
