"""An online store on the network, a real Redis: what it keeps is served, and it may hang or be gone."""

import os
import shutil
import signal
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

from lrm.features.open_store import IMPATIENT, feature_store
from lrm.serving.engine.circuit_breaker import OPEN_S
from lrm.serving.engine.event_ingest import take_events
from lrm.serving.engine.histories import history_of, recent_events
from lrm.serving.engine.request_checks import Event
from lrm.serving.engine.session import FRESH_FOR_S, open_session
from lrm.serving.releases.builder import build_release
from tests import services
from tests.serving.conftest import NAME, ask, serving
from tests.serving.engine.test_damaged_values import answers, damaged, entity_key
from tests.serving.shop import AS_OF, FEATURE_STORE


@pytest.fixture(scope="module")
def redis():
    """A Redis of these tests alone, as they stop it."""
    started = services.start_or_skip("redis")
    yield started
    services.stop(started)


@pytest.fixture(scope="module")
def release(world, redis, tmp_path_factory):
    root = tmp_path_factory.mktemp("network")
    place = redis.address.removeprefix("redis://")
    repo = shutil.copytree(world.feature_repo, root / "feature_repo")
    local = "{type: sqlite, path: online.db}"
    on_redis = f'{{type: redis, connection_string: "{place}"}}'
    (repo / "feature_store.yaml").write_text(FEATURE_STORE.replace(local, on_redis))
    told = {"state": root, "name": NAME, "version": "1"}
    return build_release(world.release.folder / "bundle", world.examples, world.data, repo, **told)


@contextmanager
def hung(redis):
    """Redis takes what is sent to it, and does not answer."""
    os.killpg(redis.process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(redis.process, signal.SIGCONT)


def told(address, user):
    """Scores and flags of a user."""
    status, answer = ask(address, "/v1/recommend", user_id=user, k=1000)
    assert status == 200
    return {one["item_id"]: one["score"] for one in answer["items"]}, answer["flags"]


def test_what_redis_keeps_is_served_as_from_a_local_store(address, release):
    with serving(release) as on_redis:
        for user in (1, 2, 20, 999):
            mine, flags = told(on_redis, user)
            expected, their_flags = told(address, user)
            assert mine == pytest.approx(expected, abs=1e-5)
            assert flags == their_flags


def test_an_event_pushed_to_one_server_is_known_by_all(release):
    with serving(release) as one, serving(release) as other:
        before = told(other, 3)[0]
        event = {"user_id": 3, "item_id": 107, "signals": {"spent": 3.0}}
        assert ask(one, "/v1/events", events=[event])[1]["new"] == 1
        mine = told(one, 3)[0]
        assert mine != pytest.approx(before, abs=1e-5)
        time.sleep(FRESH_FOR_S)
        assert told(other, 3)[0] == pytest.approx(mine, abs=1e-5)


def test_a_value_in_redis_that_was_damaged_is_that_users_alone_and_the_next_push_overwrites_it(release, redis):
    import redis as client

    session, users = open_session(release), (11, 12, 13)
    take_events(session, [[Event(user, 101, AS_OF + timedelta(hours=1))] for user in users])
    sound, key = answers(session, users=users), entity_key(user_id=11) + b"shop"
    with client.Redis.from_url(redis.address) as store:
        for field, value in store.hgetall(key).items():
            for other in damaged(value, every=max(1, len(value) // 15)):
                store.hset(key, field, other)
                assert answers(session, users=users)[1:] == sound[1:]
        assert answers(session, users=users)[0]["flags"]["damaged"]
    assert not session.features.circuit_breaker.n_failed
    pushed = [[Event(user, 102, AS_OF + timedelta(hours=2))] for user in users]
    assert take_events(session, pushed) == [1, 1, 1]
    (fresh,) = recent_events(session.histories, [11])
    assert history_of(session.histories, 11, fresh).events["item_id"].tail(1).to_list() == [102]
    assert not history_of(session.histories, 11, fresh).is_damaged


def test_a_store_that_hangs_is_done_without_and_the_answer_says_so(release, redis):
    with serving(release) as address:
        before, flags = told(address, 5)
        assert not flags["store_down"]
        with hung(redis):
            _, flags = told(address, 6)
            assert flags["store_down"]
            assert not flags["empty_history"]  # it lies in the release
            assert {"age", "country"} <= set(flags["missing"])
            time.sleep(FRESH_FOR_S)  # from here on the store is asked for new events of this user, too
            again, flags = told(address, 5)
            assert again == pytest.approx(before, abs=1e-5)
            assert flags["store_down"]
            status, refused = ask(address, "/v1/events", events=[{"user_id": 5, "item_id": 107}])
            assert status == 503
            assert "send them again" in refused["detail"]
        time.sleep(OPEN_S)
        _, flags = told(address, 6)
        assert not flags["store_down"]
        assert "age" not in flags["missing"]
        assert ask(address, "/v1/events", events=[{"user_id": 5, "item_id": 107}])[0] == 200


def test_a_store_that_is_gone_is_done_without(world, release, redis):
    with serving(release) as address:
        told(address, 7)
        services.stop(redis)
        for user in (7, 8):
            _, flags = told(address, user)
        assert flags["store_down"]
        assert ask(address, "/v1/events", events=[{"user_id": 7, "item_id": 107}])[0] == 503
        assert ask(address, "/readyz")[0] == 200


def test_what_a_connection_string_says_of_waiting_counts(world, tmp_path):
    repo = shutil.copytree(world.feature_repo, tmp_path / "repo")
    on_redis = '{type: redis, connection_string: "host:6379,socket_timeout=3,password=a=b"}'
    (repo / "feature_store.yaml").write_text(FEATURE_STORE.replace("{type: sqlite, path: online.db}", on_redis))
    said = {
        is_impatient: feature_store(repo, tmp_path, is_impatient=is_impatient).config.online_store.connection_string
        for is_impatient in (False, True)
    }
    assert said[False] == "host:6379,socket_timeout=3,password=a=b"
    rest = ",".join(f"{name}={value}" for name, value in IMPATIENT.items() if name != "socket_timeout")
    assert said[True] == f"host:6379,socket_timeout=3,password=a=b,{rest}"
