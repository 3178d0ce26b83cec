"""A server while its world changes: new events, new releases, a stop, a flood."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from safetensors.torch import load_file, save_file

from lrm.errors import ServingError
from lrm.serving.engine.session import open_session
from lrm.serving.http.middleware import Limits
from lrm.serving.http.web_server import serve
from lrm.serving.logs import LOGGER
from lrm.serving.release import read_release
from lrm.serving.releases.probe import prove
from lrm.serving.staging.process import free_port, is_ready
from tests.serving.conftest import ask, copied, serving
from tests.serving.shop import AS_OF


def scores(address, user):
    """Score of each item for a user."""
    _, answer = ask(address, "/v1/recommend", user_id=user, k=1000)
    return {item["item_id"]: item["score"] for item in answer["items"]}


def test_a_new_event_changes_the_next_answer_and_no_other_users(world, tmp_path):
    with serving(copied(world, tmp_path / "release")) as address:
        before, other = scores(address, 1), scores(address, 2)
        event = {"user_id": 1, "item_id": 107, "signals": {"spent": 3.0}}
        assert ask(address, "/v1/events", events=[event]) == (200, {"accepted": 1, "new": 1, "unknown_items": []})
        assert scores(address, 1) != before
        assert scores(address, 2) == other
        timed = event | {"time": (AS_OF + timedelta(hours=1)).isoformat()}
        _, taken = ask(address, "/v1/events", events=[timed, timed])
        assert (taken["accepted"], taken["new"]) == (2, 1)
        assert ask(address, "/v1/events", events=[timed])[1]["new"] == 0  # sent again
        assert ask(address, "/v1/recommend", user_id=1)[1]["time"] > timed["time"].removesuffix("+00:00")
        _, newcomer = ask(address, "/v1/recommend", user_id=999)
        assert newcomer["flags"]["unknown_user"]
        ask(address, "/v1/events", events=[event | {"user_id": 999}])
        _, known = ask(address, "/v1/recommend", user_id=999)
        assert (known["flags"]["unknown_user"], known["flags"]["empty_history"]) == (False, False)
        asked_before = {"user_id": 1, "time": AS_OF.isoformat(), "k": 1000}
        _, then = ask(address, "/v1/recommend", **asked_before)  # before the new events: they are not seen
        assert {item["item_id"]: item["score"] for item in then["items"]} == pytest.approx(before, abs=1e-5)


def test_an_event_of_an_item_that_the_catalogue_does_not_know_is_taken_and_the_item_named(world, tmp_path):
    with serving(copied(world, tmp_path / "release")) as address:
        events = [{"user_id": user, "item_id": item} for user, item in ((1, 7), (1, 100), (2, 7), (2, 2**62))]
        taken = {"accepted": 4, "new": 4, "unknown_items": [7, 2**62]}
        assert ask(address, "/v1/events", events=events) == (200, taken)
        assert ask(address, "/v1/recommend", user_id=1, candidates=[7, 100])[1]["unknown_items"] == [7]
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
            text = response.read().decode()
        assert 'lrm_unknown_items_total{source="events"} 2.0' in text
        assert 'lrm_unknown_items_total{source="candidates"} 1.0' in text


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"user_id": 1}, "events.0.item_id: Field required"),
        ({"user_id": "a", "item_id": 100}, "events[0].user_id: must be a whole number"),
        ({"user_id": 1, "item_id": 100, "time": "2020-01-01T00:00:00Z"}, "events[0].time: 2020"),
        ({"user_id": 1, "item_id": 100, "time": "9999-01-01T00:00:00Z"}, "lies too far ahead"),
        ({"user_id": 1, "item_id": 100, "signals": {"title": "x"}}, "events[0].signals: 'title' is not known"),
        ({"user_id": 1, "item_id": 100, "signals": {"spent": "x"}}, "events[0].signals.spent: must be a finite"),
        ({"user_id": 1, "item_id": 100, "signals": {"spent": -3}}, "-3 is out of its declared range, at least 0"),
    ],
)
def test_a_bad_event_is_named_and_none_is_taken(address, event, message):
    status, answer = ask(address, "/v1/events", events=[event])
    assert (status, message in answer["detail"]) == (422, True), answer


@pytest.mark.parametrize("weight", ["outcome.weight", "factory.candidate.network.0.weight", "decoder.norm.weight"])
def test_a_release_whose_answers_are_no_numbers_is_not_put_in_service(world, tmp_path, weight):
    release = copied(world, tmp_path / "release")
    path = release.folder / "bundle" / "weights.safetensors"
    weights = load_file(path)
    weights[weight].fill_(float("nan"))
    save_file(weights, path)
    session = open_session(release)
    with pytest.raises(ServingError, match=r"does not score as offline|gets no probability"):
        prove(session)


def test_a_control_that_reads_the_signals_of_others_is_not_served(world, tmp_path):
    release = copied(world, tmp_path / "release")
    path = release.folder / "bundle" / "config.json"
    config = json.loads(path.read_text())
    config["tokens"]["variant"] = "shuffled"
    path.write_text(json.dumps(config))
    with pytest.raises(ServingError, match="is a control, compared offline and not served"):
        open_session(release)


def test_a_release_takes_over_without_a_failed_request_and_a_bad_one_is_refused(world, tmp_path):
    root = tmp_path / "releases"
    copied(world, root / "one")
    copied(world, root / "two", version="2")
    copied(world, root / "bad", version="3")
    with (root / "bad" / "bundle" / "vocabulary.json").open("a") as file:
        file.write(" ")
    point(root, "one")
    failed, versions, stop = [], {1: [], 2: [], 3: []}, threading.Event()

    def keep_asking(user):
        while not stop.is_set():
            status, answer = ask(address, "/v1/recommend", user_id=user)
            (versions[user] if status == 200 else failed).append(answer.get("model", answer))

    with serving(read_release(root / "one"), follow=root / "current") as address, ThreadPoolExecutor(3) as pool:
        ask(address, "/v1/events", events=[{"user_id": 1, "item_id": 107}])
        mine = scores(address, 1)
        asking = [pool.submit(keep_asking, user) for user in versions]
        point(root, "bad")
        refused = until(lambda: ask(address, "/v1/model")[1]["refused"])
        assert (refused["release"], "vocabulary.json was changed" in refused["reason"]) == ("bad", True)
        assert ask(address, "/v1/model")[1]["version"] == "1"
        point(root, "two")
        until(lambda: ask(address, "/v1/model")[1]["version"] == "2")
        stop.set()
        for one in asking:
            one.result()
        assert failed == []
        assert scores(address, 1) == pytest.approx(mine, abs=1e-5)  # the new event came along
        for answers in versions.values():  # of one caller: two of them may write theirs down in either order
            assert [one["version"] for one in answers] == sorted(one["version"] for one in answers)


def test_what_the_link_came_to_name_while_the_server_started_is_served(world, tmp_path):
    one = copied(world, tmp_path / "one")
    copied(world, tmp_path / "two", version="2")
    point(tmp_path, "two")
    with serving(one, follow=tmp_path / "current") as address:
        until(lambda: ask(address, "/v1/model")[1]["version"] == "2")


def test_a_live_server_that_goes_back_to_an_old_release_stays_in_the_present(world, tmp_path):
    now = datetime.now(UTC)
    live = world.release._replace(as_of=now - timedelta(hours=1))
    copied(world, tmp_path / "old", version="2")
    point(tmp_path, "old")
    with serving(live, follow=tmp_path / "current") as address:
        until(lambda: ask(address, "/v1/model")[1]["version"] == "2")
        _, answer = ask(address, "/v1/recommend", user_id=1)
        assert datetime.fromisoformat(answer["time"]) >= now


def test_a_server_told_to_stop_before_it_listens_does_not_start(world, capsys):
    def stop_on_loading(record):
        if record.getMessage().startswith("loading"):
            signal.raise_signal(signal.SIGTERM)
        return True

    LOGGER.addFilter(stop_on_loading)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        serve(world.release, host="127.0.0.1", port=free_port())
    finally:
        LOGGER.removeFilter(stop_on_loading)
        for one, handler in before.items():
            signal.signal(one, handler)
    messages = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert (messages[0].startswith("loading"), messages[1:]) == (True, ["stopped"])


def test_an_event_outlives_a_restart_and_a_release_that_came_meanwhile(world, tmp_path):
    with serving(copied(world, tmp_path / "one")) as address:
        before = scores(address, 1)
        ask(address, "/v1/events", events=[{"user_id": 1, "item_id": 107}])
        mine = scores(address, 1)
    with serving(copied(world, tmp_path / "two")) as address:
        assert scores(address, 1) == pytest.approx(mine, abs=1e-5)
        assert scores(address, 1) != pytest.approx(before, abs=1e-5)


def test_a_stop_waits_for_the_request_under_way(world, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "lrm.serving", "--release", str(world.release.folder), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log)
    until(lambda: is_ready(f"http://127.0.0.1:{port}"))
    body = b'{"user_id": 1}'
    head = f"POST /v1/recommend HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(f"{head}\r\nx-request-id: last\r\n\r\n".encode() + body[:5])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        caller.sendall(body[5:])
        answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert process.wait(20) == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (asked,) = [line for line in lines if line["message"] == "request"]
    assert (asked["request_id"], asked["path"], asked["status"]) == ("last", "/v1/recommend", 200)
    assert [line["message"] for line in lines][-1] == "stopped"


def test_a_flood_is_turned_away_and_what_is_let_in_is_answered(world):
    with serving(world.release, max_batch=1, max_queue=1) as address, ThreadPoolExecutor(16) as pool:
        asked = list(pool.map(lambda user: ask(address, "/v1/recommend", user_id=user % 20)[0], range(200)))
        assert set(asked) == {200, 429}
        assert ask(address, "/v1/recommend", user_id=1)[0] == 200


def test_nobody_waits_past_the_deadline(world):
    with serving(world.release, deadline_s=0.0) as address:
        status, answer = ask(address, "/v1/recommend", user_id=1)
        assert (status, answer["detail"]) == (504, "there was no answer in time; send it again in a moment")


def test_a_key_opens_the_questions_and_nothing_else_asks_for_it(world):
    with serving(world.release, limits=Limits(api_key=b"open")) as address:
        assert ask(address, "/v1/recommend", user_id=1)[0] == 401
        assert ask(address, "/v1/model")[0] == 401
        assert ask(address, "/v1/recommend", headers={"x-api-key": "open"}, user_id=1)[0] == 200
        assert ask(address, "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"x", "it has 1 characters, at least 16"),
        (b"x" * 15 + b"\n", "it has 15 characters"),
        (b"x" * 32 + b"\n" + b"y" * 32 + b"\n", "it has 2 lines"),
        (b"x" * 32 + b"\r\n\r\n", "it has 2 lines"),
        (b"\n" + b"x" * 32, "it has 2 lines"),
        (b"two words and more of it\n", "it has a space"),
        (b" " + b"x" * 32, "it has a space"),
        ("schl\u00fcssel".encode() * 4, "it has a space, or a character that no header"),
        (b"\xef\xbb\xbf" + b"x" * 32, "it has a space, or a character"),
    ],
)
def test_a_key_file_must_hold_one_key_that_cannot_be_guessed(tmp_path, world, capsys, held, why):
    from lrm.serving.__main__ import main

    path = tmp_path / "key"
    path.write_bytes(held)
    assert main(["--release", str(world.release.folder), "--api-key-file", str(path)]) == 1
    told = capsys.readouterr().err
    assert (f"holds no API key: {why}" in told, "xxxx" in told) == (True, False)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_file_may_end_its_line(tmp_path, end):
    from lrm.serving.__main__ import read_key

    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef" + end)
    assert read_key(path) == b"0123456789abcdef"
    with pytest.raises(ServingError, match="is no file"):
        read_key(tmp_path / "none")


@pytest.mark.parametrize("wrong", ["--port=65536", "--max-batch-size=0", "--deadline-ms=-5", "--kv-cache-mb=some"])
def test_an_option_out_of_range_is_refused_before_anything_is_loaded(world, capsys, wrong):
    from lrm.serving.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["--release", str(world.release.folder), wrong])
    assert "must be a whole number from" in capsys.readouterr().err


def test_a_release_of_before_events_is_said_to_be_old(world, tmp_path):
    from lrm.features import feast_repo, open_store

    release = copied(world, tmp_path / "release")
    shutil.rmtree(release.folder / "online")
    old = open_store.feature_store(release.folder / "feature_repo", release.folder / "online")
    session, entities, _ = feast_repo.definitions(release.folder / "feature_repo", world.data)
    old.apply([*entities, *session._features, session])
    with pytest.raises(ServingError, match="before events could be pushed"):
        prove(open_session(release))


def point(root, name):
    """Let `current` name a release, in one step."""
    link = root / ".partial"
    link.symlink_to(name)
    link.replace(root / "current")


def until(true, *, seconds=60):
    """The first true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def test_a_loaded_model_is_not_looked_at_in_every_garbage_collection(world, tmp_path):
    import gc

    gc.unfreeze()
    with serving(copied(world, tmp_path / "release")):
        assert gc.get_freeze_count() > 100_000
        assert len(gc.get_objects()) < gc.get_freeze_count() / 10
    gc.unfreeze()


def test_a_server_is_ready_only_once_its_model_is_settled(world):
    import asyncio
    import gc

    from lrm.serving.releases import hot_reload

    held, in_service = hot_reload.HotReload(world.release), []

    def watch(phase, facts):
        if (phase, facts["generation"]) == ("stop", 2):
            in_service.append(held.session)

    gc.callbacks.append(watch)
    try:
        asyncio.run(held.start())
    finally:
        gc.callbacks.remove(watch)
    assert held.failure is None
    assert in_service  # a full collection passed over the model
    assert (set(in_service), held.session is None) == ({None}, False)  # before it was put in service
    assert gc.get_freeze_count() > 100_000
    held.close()
