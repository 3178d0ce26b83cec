"""What is known of a request online."""

import shutil
import sqlite3
from datetime import timedelta

import polars as pl
import pytest

from lrm.errors import ServingError
from lrm.features.feast_repo import Kept
from lrm.features.tables import read
from lrm.schema import CANDIDATE, EVENT_TIME, HISTORY, QUERY, for_maker, read_signals
from lrm.serving.engine.damaged_values import unpacked
from lrm.serving.engine.features import EntityRow, Features, get_features, is_known_user, open_features
from lrm.serving.engine.histories import (
    RecentEvents,
    add_events,
    history_of,
    open_histories,
    recent_events,
    write_histories,
)
from lrm.serving.releases.store import digests
from tests.serving.shop import AS_OF


@pytest.fixture(scope="module")
def signals(world):
    return read_signals(world.release.folder / "bundle" / "signals.json")


@pytest.fixture(scope="module")
def features(world, signals) -> Features:
    return open_features(world.release, signals)


@pytest.fixture
def histories(world, signals, features, tmp_path):
    """Of a copy of the release, since events will be pushed."""
    release = world.release._replace(folder=shutil.copytree(world.release.folder, tmp_path / "release"))
    online = open_features(release, signals).online
    return open_histories(release, online, signals, item_type=features.item_type, max_events=20)


def known(features, item, *, days=0.0, user=1, context=None):
    keys = {"user_id": user, "item_id": item} | (context or {})
    return get_features(features, CANDIDATE, [EntityRow(keys, {}, AS_OF + timedelta(days=days))])


def test_an_expired_online_value_becomes_null_and_is_named(features):
    assert known(features, 102).columns["popularity"] != [None]
    assert known(features, 102).expired == [()]
    later = known(features, 102, days=3)
    assert (later.columns["popularity"], later.expired) == ([None], [("popularity",)])
    assert later.columns["title"] == ["item 102"]


def test_a_release_that_was_removed_is_answered_from_as_long_as_it_is_open(world, signals, tmp_path):
    release = world.release._replace(folder=shutil.copytree(world.release.folder, tmp_path / "release"))
    open_release = open_features(release, signals)
    before = known(open_release, 102).columns
    shutil.rmtree(release.folder)
    open_release.online.store.registry.cached_registry_proto_created -= timedelta(days=1)
    assert known(open_release, 102).columns == before


def test_a_value_written_after_the_release_is_not_known(features):
    assert known(features, 101).columns["popularity"][0] < 1000


def test_a_value_by_a_key_that_the_request_brings_needs_that_key(features):
    assert known(features, 102).columns["price"] == [None]
    assert known(features, 102, context={"store_id": 1}).columns["price"] != [None]
    assert known(features, 102, context={"store_id": 99}).columns["price"] == [None]


def test_rows_described_together_are_described_as_alone(features):
    rows = [EntityRow({"user_id": user, "item_id": item}, {"shelf": 2.0}, AS_OF) for user, item in ((1, 102), (2, 103))]
    together = get_features(features, CANDIDATE, rows).columns
    alone = [get_features(features, CANDIDATE, [row]).columns for row in rows]
    assert together == {name: [one[name][0] for one in alone] for name in together}
    assert together["shelf"] == [2.0, 2.0]


def test_an_unknown_user_has_neither_history_nor_signals(features, histories):
    signals = get_features(features, QUERY, [EntityRow({"user_id": 999}, {}, AS_OF)]).columns
    assert (signals["age"], signals["country"]) == ([None], [None])
    assert not is_known_user(features, 999)
    get_features(features, QUERY, [EntityRow({"user_id": 1}, {}, AS_OF)])
    assert is_known_user(features, 1)
    unknown_user_id = history_of(histories, 999, RecentEvents(None, 0.0))
    assert (unknown_user_id.events.height, unknown_user_id.is_user) == (0, False)


def test_the_history_is_that_of_the_examples(histories, world):
    events = read(world.examples).events.filter(pl.col("user_id") == 3)
    stored = history_of(histories, 3, RecentEvents(None, 0.0)).events
    assert stored.equals(events.select(stored.columns))


def latest(histories, user):
    (fresh,) = recent_events(histories, [user])
    return history_of(histories, user, fresh)


def add(histories, user, events):
    """Push events of one user, and count those that were new."""
    (fresh,) = recent_events(histories, [user])
    sent = events.with_columns(user_id=pl.lit(user, pl.Int64))
    return sum(add_events(histories, {user: history_of(histories, user, fresh)}, sent))


def test_new_events_follow_the_packed_ones(histories):
    before = latest(histories, 3).events
    new = pl.concat([one_purchase(histories, 100), one_purchase(histories, 101, minute=1)])
    new = new.with_columns(spent=pl.Series([2.0, 3.0], dtype=pl.Float32))
    assert add(histories, 3, new) == 2
    assert add(histories, 3, new.tail(1)) == 0  # sent twice
    known = latest(histories, 3)
    assert known.events["item_id"].to_list() == [*before["item_id"], 100, 101]
    assert known.events["spent"].to_list()[-2:] == [2.0, 3.0]


def test_a_user_without_packed_events_is_known_by_new_ones(histories):
    add(histories, 999, one_purchase(histories, 104))
    assert latest(histories, 999).is_user
    assert latest(histories, 999).events["item_id"].to_list() == [104]


def test_only_as_many_new_events_are_kept_as_a_score_can_read(histories):
    for minute in range(3):
        add(histories._replace(max_events=1), 999, one_purchase(histories, 104, minute=minute))
    assert latest(histories, 999).events.height == 2


def opened(release, signals, features, tmp_path):
    online = open_features(release, signals, events=tmp_path / "events").online
    return open_histories(release, online, signals, item_type=features.item_type, max_events=20)


def test_new_events_outlive_the_release_and_leave_it_as_it_was(world, signals, features, tmp_path):
    release = world.release._replace(folder=shutil.copytree(world.release.folder, tmp_path / "one"))
    before = digests(release.folder)
    taking = opened(release, signals, features, tmp_path)
    add(taking, 3, one_purchase(taking, 104))
    assert digests(release.folder) == before
    following = release._replace(folder=shutil.copytree(release.folder, tmp_path / "next"))
    again = opened(following, signals, features, tmp_path)
    assert latest(again, 3).events.equals(latest(taking, 3).events)
    assert latest(again, 3).events["item_id"].to_list()[-1] == 104
    assert latest(again, 4).events.height == 16


def test_a_signal_that_was_declared_after_an_event_is_null_in_it(world, signals, features, tmp_path):
    later = next(signal for signal in for_maker(signals, HISTORY) if signal.name == "spent")
    fewer = tuple(signal for signal in signals if signal != later)
    taking = opened(world.release, fewer, features, tmp_path)
    add(taking, 999, one_purchase(taking, 104))
    known = latest(opened(world.release, signals, features, tmp_path), 999).events
    assert (known["item_id"].to_list(), known["spent"].to_list()) == ([104], [None])
    assert known["spent"].dtype == pl.Float32
    assert latest(taking, 999).events.columns == [name for name in known.columns if name != "spent"]


@pytest.mark.parametrize("left_there", [[], ["lost+found"], ["registry.db"]])
def test_new_events_are_kept_in_a_folder_that_was_there_before(world, signals, features, tmp_path, left_there):
    (tmp_path / "events").mkdir()
    for name in left_there:
        (tmp_path / "events" / name).touch()
    taking = opened(world.release, signals, features, tmp_path)
    add(taking, 999, one_purchase(taking, 104))
    assert latest(opened(world.release, signals, features, tmp_path), 999).events["item_id"].to_list() == [104]


def test_a_store_of_new_events_that_is_completed_once_more_keeps_them(world, signals, features, tmp_path):
    taking = opened(world.release, signals, features, tmp_path)
    add(taking, 999, one_purchase(taking, 104))
    (tmp_path / "events" / "registry.db").unlink()  # as another server sees it that opens it for the first time too
    assert latest(opened(world.release, signals, features, tmp_path), 999).events["item_id"].to_list() == [104]
    add(taking, 999, one_purchase(taking, 105, minute=1))
    assert latest(taking, 999).events.height == 2


def test_events_that_cannot_be_kept_are_an_error_that_says_where(world, signals, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ServingError, match=r"new events are kept in .*/file/events, which cannot be written .*--events"
    ):
        open_features(world.release, signals, events=tmp_path / "file" / "events")


def one_purchase(histories, item, *, minute=0):
    """A purchase after the data ends, of which nothing else is known."""
    row = {"item_id": [item], EVENT_TIME: [AS_OF + timedelta(minutes=minute)]}
    nothing = {name: [None] for name in histories.nothing.columns if name not in row}
    return pl.DataFrame(row | nothing, schema=histories.nothing.schema)


def test_one_more_event_than_the_model_reads_is_kept(world, tmp_path):
    signals = read_signals(world.examples / "signals.json")
    users = write_histories(tmp_path / "history.sqlite", read(world.examples).events, signals, max_history=4)
    assert users == 20
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    stored = unpacked(connection.execute("SELECT events FROM history WHERE user_id = 3").fetchone()[0])
    connection.close()
    assert stored.height == 5
    assert stored["event_time"].is_sorted()


@pytest.mark.parametrize("seconds", [-62135596800.0, -1.0, 0.0])
def test_a_user_whose_signals_date_from_1970_or_before_is_known(world, signals, seconds):
    features = open_features(world.release, signals)
    features.held.put(("users", 999), (Kept((30.0, None), seconds), 0.0))
    assert is_known_user(features, 999)
    features.held.put(("users", 999), (Kept((None, None), seconds), 0.0))
    assert not is_known_user(features, 999)
