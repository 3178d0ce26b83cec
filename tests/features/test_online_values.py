"""What the data say is what each kind of online store gives back, real SQLite, Redis and PostgreSQL."""

import shutil
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lrm.features import store
from lrm.features.feast_repo import NOT_KEPT
from lrm.features.join import point_in_time
from lrm.features.open_store import closing_store
from lrm.features.sources import read_view
from tests.data_worlds import INSTANT, START
from tests.features.conftest import change, change_views
from tests.online_stores import KINDS, place

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

UNTIL = START + timedelta(days=40)


@pytest.fixture(scope="module", params=KINDS)
def place_of_values(request):
    with place(request.param) as found:
        yield found


@pytest.fixture
def world(place_of_values, data, tmp_path):
    """A data folder whose values are kept in that store, in a project of its own."""
    place_of_values.give(data / "feature_repo")
    return data


def materialise(data, tmp_path):
    told = {"state": tmp_path / "online", "written": tmp_path / "written"}
    store.materialise_online(data / "feature_repo", data, UNTIL, **told)


def both(data, tmp_path, keys):
    """The values of keys, online and offline."""
    materialise(data, tmp_path)
    online = store.open_online(data / "feature_repo", data, state=tmp_path / "online")
    rows = pl.DataFrame(keys).with_columns(event_time=pl.lit(UNTIL).cast(INSTANT))
    views = [view for view in online.views if set(view.keys) <= set(keys[0])]
    offline = [point_in_time(rows, "event_time", view, read_view(view)) for view in views]
    with closing_store(online.store):
        return store.read_online(online, keys, UNTIL), pl.concat(offline, how="horizontal")


def users(**columns):
    """The table of users 1, 2 and so on, static since long ago."""
    n = len(next(iter(columns.values())))
    given = {"user_id": range(1, n + 1), "age": [None] * n, "country": [None] * n} | columns
    long_ago = pl.lit(START - timedelta(days=1)).cast(INSTANT)
    types = {"user_id": pl.Int64, "age": pl.Float64, "country": pl.String}
    frame = pl.DataFrame(given, schema_overrides={name: types[name] for name in types if name not in columns})
    return frame.with_columns(event_time=long_ago, created_time=long_ago).with_columns(
        *(pl.col(name) for name in ("event_time", "created_time") if name not in columns)
    )


def test_a_correction_of_the_same_event_time_arrives_and_so_does_one_to_null(world, tmp_path):
    ids = [{"user_id": user} for user in (1, 2, 3)]
    change(world, "users", lambda _: users(age=[121.0, 30.0, 40.0], country=["nl", "be", "de"]))
    assert both(world, tmp_path, ids)[0]["age"].to_list() == [121.0, 30.0, 40.0]
    corrected = users(age=[21.0, None, 41.0], country=["nl", None, None])
    change(world, "users", lambda _: corrected)
    online, offline = both(world, tmp_path, ids)
    assert online.equals(offline)
    assert online.to_dict(as_series=False) == {"age": [21.0, None, 41.0], "country": ["nl", None, None]}


def test_a_correction_of_all_values_to_null_arrives(world, tmp_path):
    ids = [{"user_id": user} for user in (1, 2)]
    change(world, "users", lambda _: users(age=[1.0, 2.0]))
    both(world, tmp_path, ids)
    change(world, "users", lambda _: users(age=[None, None]).cast({"age": pl.Float64}))
    assert both(world, tmp_path, ids)[0]["age"].to_list() == [None, None]


def test_a_signal_declared_later_on_a_static_view_arrives(world, tmp_path):
    line = '        Field(name="height", dtype=Float32, tags=dense("query", "user")),\n'
    tall = users(age=[30.0, 40.0]).with_columns(height=pl.Series([1.7, 1.8]))
    change(world, "users", lambda _: tall)
    both(world, tmp_path, [{"user_id": 1}])
    change_views(world, '        Field(name="country"', f'{line}        Field(name="country"')
    online, offline = both(world, tmp_path, [{"user_id": 1}, {"user_id": 2}])
    assert online.equals(offline)
    assert online["height"].to_list() == pytest.approx([1.7, 1.8])


def test_what_left_the_data_leaves_the_store(world, tmp_path):
    ids = [{"user_id": user} for user in (1, 2)]
    change(world, "users", lambda _: users(age=[30.0, 40.0]))
    both(world, tmp_path, ids)
    change(world, "users", lambda table: table.head(1))
    shutil.rmtree(tmp_path / "online")  # each release has a local store of its own
    online, offline = both(world, tmp_path, ids)
    assert online.equals(offline)
    assert online["age"].to_list() == [30.0, None]


LISTS = {
    "strings": ([["a", None, "b"], [None], [], None, ["", "a"]], [["a", "b"], [], [], None, ["", "a"]]),
    "whole numbers": ([[3, None, 2**62 + 1], [None]], [["3", str(2**62 + 1)], []]),
    "booleans": ([[True, None], [False]], [["true"], ["false"]]),
    "other scripts": ([["ünï", "漢字", "👩‍👩‍👧", "e\u0301"], ["\u200f\u202e", " "]], None),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_null_member_of_a_bag_is_no_member_online_and_offline(world, tmp_path, kind):
    given, expected = LISTS[kind]
    change(world, "items", lambda items: items.head(len(given)).with_columns(tags=pl.Series(given, strict=False)))
    online, offline = both(world, tmp_path, [{"item_id": 100 + at} for at in range(len(given))])
    assert online.equals(offline)
    assert online["tags"].to_list() == (expected or given)


def test_a_number_of_a_vector_that_is_no_number_is_the_same_online_and_offline(world, tmp_path):
    odd = [[1.0, None, 2.0, 3.0], [float("nan")] * 4, [float("inf"), -0.0, 1e-45, 3.4028235e38], [], [1.0], None]
    change(world, "items", lambda items: items.head(6).with_columns(vector=pl.Series(odd, dtype=pl.List(pl.Float64))))
    online, offline = both(world, tmp_path, [{"item_id": 100 + at} for at in range(6)])
    assert online.equals(offline)
    assert online["vector"].list.len().to_list() == [4, 4, 4, 0, 1, None]
    assert online["vector"][0].is_nan().to_list() == [False, True, False, False]
    assert online["vector"][2].to_list()[0] == float("inf")


def test_odd_numbers_and_texts_are_the_same_online_and_offline(world, tmp_path):
    ages = [float("nan"), float("inf"), -float("inf"), -0.0, 3.4028235e38, 1e-45, 2.0**24 + 1, None]
    texts = ["", " ", "ünï漢字👩‍👩‍👧", "a\nb\t\"'\\;--", "null", "x" * 5000, "\u200f\ufeff", None]
    change(world, "users", lambda _: users(age=ages, country=texts))
    online, offline = both(world, tmp_path, [{"user_id": user} for user in range(1, 9)])
    assert online.equals(offline)
    assert online["country"].to_list() == texts
    assert [str(age) for age in online["age"].to_list()[:4]] == ["nan", "inf", "-inf", "-0.0"]


def test_whole_numbers_of_64_bits_are_keys_of_their_own(world, tmp_path):
    ids = [2**63 - 1, 2**63 - 2, -(2**63), 2**53, 2**53 + 1, 0, -1]
    change(world, "users", lambda _: users(age=[float(at) for at in range(7)]).with_columns(user_id=pl.Series(ids)))
    online, offline = both(world, tmp_path, [{"user_id": user} for user in ids])
    assert online.equals(offline)
    assert online["age"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_texts_are_keys_without_a_declared_type(world, tmp_path):
    """Polars writes texts as Arrow's `large_string`."""
    for table in ("events", "requests", "users", "pairs", "candidates"):
        change(world, table, lambda frame: frame.with_columns(pl.col("user_id").cast(pl.String)))
    change_views(world, 'join_keys=["user_id"], value_type=ValueType.INT64', 'join_keys=["user_id"]')
    ids = ["1", "01", "", "ünï漢字👩", "x" * 1000, "true", "{}", "a b"]
    change(world, "users", lambda _: users(age=[float(at) for at in range(8)]).with_columns(user_id=pl.Series(ids)))
    online, offline = both(world, tmp_path, [{"user_id": user} for user in ids])
    assert online.equals(offline)
    assert online["age"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


LONG_AGO = {
    "year 1": datetime(1, 1, 1, tzinfo=UTC),
    "year 1, later": datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    "before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "1970": datetime(1970, 1, 1, tzinfo=UTC),
    "after 1970": datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
}


@pytest.mark.parametrize("instant", LONG_AGO)
def test_a_value_of_long_ago_is_a_value(world, tmp_path, instant):
    old = pl.lit(LONG_AGO[instant]).cast(INSTANT)
    dated = users(age=[30.0, None], country=["nl", None]).with_columns(event_time=old, created_time=old)
    change(world, "users", lambda _: dated)
    ids = [{"user_id": user} for user in (1, 2, 999)]
    online, offline = both(world, tmp_path, ids)
    assert online.equals(offline)
    assert online["age"].to_list() == [30.0, None, None]
    opened = store.open_online(world / "feature_repo", world, state=tmp_path / "online")
    view = next(view for view in opened.views if view.name == "user_profile")
    with closing_store(opened.store):
        kept = store.read_kept(opened, view, ids)
    assert kept[0].seconds == LONG_AGO[instant].timestamp() // 1
    assert kept[2].seconds == NOT_KEPT


def test_a_value_of_the_year_9999_is_not_known_yet(world, tmp_path):
    change(world, "users", lambda _: pl.concat([users(age=[30.0]), users(age=[99.0]).with_columns(far("event_time"))]))
    online, offline = both(world, tmp_path, [{"user_id": 1}])
    assert online.equals(offline)
    assert online["age"].to_list() == [30.0]


def far(column):
    return pl.lit(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)).cast(INSTANT).alias(column)


@pytest.fixture
def zone(monkeypatch):
    """Let this process live in a time zone."""

    def live(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield live
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("written_in", ["Asia/Tokyo", "America/New_York"])
def test_a_value_written_in_one_time_zone_is_read_in_another(world, tmp_path, zone, written_in):
    spring = datetime(2023, 3, 12, 2, 30, tzinfo=UTC)  # a time of day that New York had not
    dated = pl.lit(spring).cast(INSTANT)
    change(world, "users", lambda _: users(age=[30.0]).with_columns(event_time=dated, created_time=dated))
    zone(written_in)
    materialise(world, tmp_path)
    zone("UTC")
    opened = store.open_online(world / "feature_repo", world, state=tmp_path / "online")
    view = next(view for view in opened.views if view.name == "user_profile")
    with closing_store(opened.store):
        assert store.read_kept(opened, view, [{"user_id": 1}])[0].seconds == spring.timestamp()
