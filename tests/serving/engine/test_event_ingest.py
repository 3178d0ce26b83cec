"""New events while questions are asked."""

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
from datetime import timedelta

import pytest

from lrm.errors import StoreError
from lrm.features.feast_repo import LOCKED_MS
from lrm.features.run import retrieve_features
from lrm.serving.engine.event_ingest import take_events
from lrm.serving.engine.histories import history_of, recent_events
from lrm.serving.engine.predict import predict
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, Event, PredictRequest, problem
from lrm.serving.engine.session import open_session
from lrm.serving.http.app import make_app
from lrm.serving.http.server import Server
from lrm.serving.release import read_release
from lrm.serving.releases.builder import build_release
from lrm.serving.staging.staging_check import sealed
from lrm.training.run import pretrain_token_factory, train_lrm
from tests.serving.conftest import NAME, copied
from tests.serving.shop import AS_OF, FEATURE_REPO
from tests.serving.test_live import until


@pytest.fixture
def session(world, tmp_path):
    """Of a copy of the release, since events will be pushed."""
    return open_session(copied(world, tmp_path / "release"))


def test_pushes_that_are_taken_together_count_as_if_they_came_in_turn(session):
    timed = Event(1, 101, AS_OF + timedelta(hours=1))
    untimed = Event(1, 102)
    assert take_events(session, [[timed, untimed, timed], [Event(2, 101)], [timed], [untimed, untimed]]) == [2, 1, 0, 1]
    assert take_events(session, [[timed]]) == [0]


def test_an_event_without_a_time_that_is_sent_again_counts_once(session):
    bought, other = Event(1, 102, None, {"spent": 3.1}), Event(1, 103)
    assert take_events(session, [[bought, other]]) == [2]
    assert take_events(session, [[bought, other]]) == [0]  # a retry
    assert take_events(session, [[other], [bought], [Event(2, 103)]]) == [0, 0, 1]  # in another order
    assert take_events(session, [[bought._replace(signals={"spent": 4.0})]]) == [1]  # it says something else
    assert take_events(session, [[bought._replace(time=AS_OF + timedelta(seconds=5))]]) == [1]  # it says when
    assert take_events(session, [[bought]]) == [0]


def test_an_event_without_a_time_counts_again_a_minute_later(session):
    assert take_events(session, [[Event(1, 102)]]) == [1]  # of a replayed world, whose clock events move
    assert take_events(session, [[Event(1, 103, AS_OF + timedelta(seconds=59))]]) == [1]
    assert take_events(session, [[Event(1, 102)]]) == [0]
    assert take_events(session, [[Event(1, 103, AS_OF + timedelta(seconds=61))]]) == [1]
    assert take_events(session, [[Event(1, 102)]]) == [1]


def test_a_retry_is_known_by_a_server_that_was_started_since(world, tmp_path):
    release = copied(world, tmp_path / "release")
    assert take_events(open_session(release), [[Event(1, 102, None, {"spent": 3.1})]]) == [1]
    assert take_events(open_session(release), [[Event(1, 102, None, {"spent": 3.1})]]) == [0]


def test_questions_go_on_while_another_process_holds_the_local_store(world, tmp_path):
    release = copied(world, tmp_path / "release")
    session = open_session(release)
    take_events(session, [[Event(1, 102)]])
    mine = scores(session, 1)
    session.user_states.clear()
    with contextlib.closing(sqlite3.connect(tmp_path / "events" / "online.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        waits = [of.execute("PRAGMA busy_timeout").fetchone()[0] for of in connections(session)]
        assert waits == [LOCKED_MS, LOCKED_MS]
        (answered,) = predict(session, [PredictRequest(RECOMMEND, 2)])
        assert (len(answered["items"]), answered["flags"]["store_down"]) == (10, True)
        with pytest.raises(StoreError):
            take_events(session, [[Event(2, 102)]])
        other.execute("ROLLBACK")
    until(lambda: not session.features.circuit_breaker.is_open)
    session.user_states.clear()
    assert scores(session, 1) == pytest.approx(mine, abs=1e-5)
    assert take_events(session, [[Event(2, 102)]]) == [1]


def connections(session):
    """Of the values and of the new events."""
    online = session.features.online
    return [store._get_provider().online_store._conn for store in (online.store, online.events)]


@pytest.mark.parametrize("how", ["file", "folder", "replaced"])
def test_a_local_store_that_was_removed_is_made_anew_without_a_restart(world, tmp_path, how):
    session = open_session(copied(world, tmp_path / "release"))
    before = scores(session, 1)
    take_events(session, [[Event(1, 102)]])
    assert scores(session, 1) != pytest.approx(before, abs=1e-5)
    path = tmp_path / "events" / "online.db"
    if how == "folder":
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    if how == "replaced":
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="was removed or replaced, and is opened again"):
        take_events(session, [[Event(1, 103)]])
    assert predict(session, [PredictRequest(RECOMMEND, 2)])[0]["flags"]["store_down"]
    until(lambda: not session.features.circuit_breaker.is_open)
    session.user_states.clear()
    assert scores(session, 1) == pytest.approx(before, abs=1e-5)  # what it held is gone
    assert take_events(session, [[Event(1, 102)]]) == [1]
    assert take_events(session, [[Event(1, 102)]]) == [0]
    assert path.stat().st_size > 0
    assert take_events(open_session(read_release(session.release.folder)), [[Event(1, 102)]]) == [0]  # it lasts


def scores(session, user, **asked):
    (answered,) = predict(session, [PredictRequest(RECOMMEND, user, k=None, **asked)])
    return {item["item_id"]: item["score"] for item in answered["items"]}


def purchases(user, n, *, since, item=None):
    """One purchase a minute, of one item or of all in turn."""
    return [Event(user, item or 100 + i % 12, since + timedelta(minutes=i)) for i in range(n)]


def test_later_events_do_not_change_the_answer_at_an_instant_before_them(session):
    take_events(session, [purchases(1, 20, since=AS_OF)])  # with the release's, more than the model reads
    at = AS_OF + timedelta(minutes=30)
    before = scores(session, 1, time=at)
    take_events(session, [purchases(1, 13, since=at + timedelta(minutes=1))])
    assert scores(session, 1, time=at) == pytest.approx(before, abs=1e-5)


def test_the_answer_when_the_release_ends_stays_however_many_events_follow(session):
    before = scores(session, 1)
    take_events(session, [purchases(1, 2 * session.histories.n_kept, since=AS_OF + timedelta(minutes=1))])
    assert scores(session, 1, time=AS_OF) == pytest.approx(before, abs=1e-5)


def test_an_item_that_the_release_knows_to_be_seen_stays_seen(session):
    assert scores(session, 1, exclude_seen=True) == {}
    take_events(session, [purchases(1, session.histories.n_kept, since=AS_OF, item=100)])
    assert scores(session, 1, exclude_seen=True) == {}


def test_an_event_counts_once_even_where_it_is_older_than_all_that_are_kept(session):
    n = 2 * session.histories.n_kept
    sent = purchases(1, n, since=AS_OF)
    assert [take_events(session, [sent]) for _ in range(2)] == [[n], [0]]
    before = scores(session, 1)
    assert take_events(session, [[Event(1, 111, AS_OF)]]) == [0]
    assert scores(session, 1) == before


async def post(app, path, body):
    """Status and body of one answer, without a network between."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message):
        sent.append(message)

    head = {"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    headers = [(b"content-type", b"application/json")]
    await app({"type": "http", "http_version": "1.1", "scheme": "http", **head, "headers": headers}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def push(app, user_ids):
    return asyncio.create_task(
        post(app, "/v1/events", {"events": [{"user_id": user_id, "item_id": 101} for user_id in user_ids]})
    )


def while_serving(release, do):
    """What `do` finds of a loaded application."""

    async def everything():
        server = Server(release)
        app = make_app(server)
        async with app.router.lifespan_context(app):
            while server.releases.session is None:
                await asyncio.sleep(0.05)
            return await do(app)

    return asyncio.run(everything())


@pytest.mark.parametrize(("n_pushes", "n_users"), [(1, 100), (30, 1)], ids=["one of many users", "many of one user"])
def test_a_question_that_comes_after_pushes_is_answered_before_all_of_them_are_taken(
    world, tmp_path, n_pushes, n_users
):
    async def push_and_ask(app):
        pushes = [push(app, range(1000 + n * n_users, 1000 + (n + 1) * n_users)) for n in range(n_pushes)]
        await asyncio.sleep(0)
        asked = await post(app, "/v1/recommend", {"user_id": 1})
        were_taken = all(one.done() for one in pushes)
        return asked, were_taken, [await one for one in pushes]

    (status, _), were_taken, pushes = while_serving(copied(world, tmp_path / "release"), push_and_ask)
    assert (status, were_taken) == (200, False)
    assert pushes == [(200, {"accepted": n_users, "new": n_users, "unknown_items": []})] * n_pushes


def test_events_that_would_wait_for_long_are_turned_away_whole(world, tmp_path):
    async def push_much(app):
        pushes = [push(app, range(1000 + 100 * n, 1100 + 100 * n)) for n in range(8)]
        return await asyncio.gather(*pushes)

    taken = while_serving(copied(world, tmp_path / "release"), push_much)
    assert {status for status, _ in taken} == {200, 429}
    assert {answer["new"] for status, answer in taken if status == 200} == {100}


@pytest.fixture
def leaner(world, tmp_path):
    """A release whose model reads less: `spent`, the prices of a shop and the titles are retired."""
    repo = shutil.copytree(world.feature_repo, tmp_path / "feature_repo")
    retiring = FEATURE_REPO.replace("import bag,", "import retired, bag,")
    for name, tags in (
        ("spent", 'dense("history", "pair", known="after", minimum=0)'),
        ("price", 'dense("candidate", "item")'),
        ("title", 'sparse("history,candidate", "item")'),
    ):
        retiring = re.sub(rf'(name="{name}", .*?tags=){re.escape(tags)}', rf"\1retired({tags})", retiring)
    (repo / "definitions.py").write_text(retiring)
    retrieve_features(world.data, repo, tmp_path / "examples")
    pretrain_token_factory(tmp_path / "examples", tmp_path / "factory", preset="tiny")
    train_lrm(tmp_path / "examples", tmp_path / "factory", tmp_path / "model")
    bundle = sealed(tmp_path / "model", tmp_path / "bundle")
    told = {"state": tmp_path, "name": NAME, "version": "2"}
    return build_release(bundle, tmp_path / "examples", world.data, repo, **told)


def test_events_keep_what_the_model_does_not_read_for_the_one_that_comes_back(world, leaner, tmp_path):
    def spent(price, minutes):
        return Event(1, 101, AS_OF + timedelta(minutes=minutes), {"spent": price})

    before = open_session(world.release, events=tmp_path / "events")
    take_events(before, [[spent(12.0, 1)]])
    meanwhile = open_session(leaner, events=tmp_path / "events")
    assert "spent" not in {signal.name for signal in meanwhile.recommender.signals}
    take_events(meanwhile, [[spent(20.0, 2)]])
    again = open_session(world.release, events=tmp_path / "events")
    (fresh,) = recent_events(again.histories, [1])
    assert history_of(again.histories, 1, fresh).events["spent"].tail(2).to_list() == [12.0, 20.0]


def test_a_key_that_only_a_retired_signal_needs_is_taken_from_those_who_still_send_it(leaner):
    session = open_session(leaner)
    assert not {"price", "title"} & {signal.name for signal in session.recommender.signals}
    asked = PredictRequest(SCORE, 1, context={"store_id": 1}, candidates=({"item_id": 100},))
    assert problem(asked, session.fields, now=AS_OF) == ""
    (item,) = predict(session, [asked])[0]["items"]
    assert item["title"]  # likewise what an item is called
