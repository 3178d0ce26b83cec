"""What is known of a request online."""

from collections.abc import Iterator
from datetime import timedelta

import polars as pl
import pytest

from lrm.features.tables import read
from lrm.serving.features import Features, close_features, gather, history_of, open_features, write_histories
from tests.serving.shop import AS_OF


@pytest.fixture(scope="module")
def features(world) -> Iterator[Features]:
    from lrm.schema import read_signals

    features = open_features(world.release, read_signals(world.release.folder / "bundle" / "signals.json"))
    yield features
    close_features(features)


def known(features, item, *, days=0.0, user=1, context=None):
    time = AS_OF + timedelta(days=days)
    return gather(features, user_id=user, time=time, context=context or {}, candidates=[{"item_id": item}])


def test_an_expired_online_value_becomes_null(features):
    assert known(features, 102).candidates["popularity"].item() is not None
    assert known(features, 102, days=3).candidates["popularity"].item() is None
    assert known(features, 102, days=3).candidates["title"].item() == "item 102"


def test_a_value_written_after_the_release_is_not_known(features):
    assert known(features, 101).candidates["popularity"].item() < 1000


def test_a_value_by_a_key_that_the_request_brings_needs_that_key(features):
    assert known(features, 102).candidates["price"].item() is None
    assert known(features, 102, context={"store_id": 1}).candidates["price"].item() is not None
    assert known(features, 102, context={"store_id": 99}).candidates["price"].item() is None


def test_an_unknown_user_has_neither_history_nor_signals(features):
    ask = known(features, 102, user=999)
    assert ask.history.is_empty()
    assert (ask.signals["age"], ask.signals["country"]) == (None, None)
    assert ask.candidates["bought"].item() is None


def test_the_history_is_that_of_the_examples_and_stops_before_the_request(features, world):
    events = read(world.examples).events.filter(pl.col("user_id") == 3)
    stored = history_of(features, 3, before=AS_OF)
    assert stored.equals(events.select(stored.columns))
    last = events["event_time"][-1]
    assert history_of(features, 3, before=last).height == events.height - 1


def test_one_more_event_than_the_model_reads_is_kept(world, tmp_path):
    import sqlite3

    from lrm.schema import read_signals

    signals = read_signals(world.examples / "signals.json")
    users = write_histories(tmp_path / "history.sqlite", read(world.examples).events, signals, max_history=4)
    assert users == 20
    connection = sqlite3.connect(tmp_path / "history.sqlite")
    stored = pl.read_ipc_stream(connection.execute("SELECT events FROM history WHERE user_id = 3").fetchone()[0])
    connection.close()
    assert stored.height == 5
    assert stored["event_time"].is_sorted()
