"""No line that a server, its probe or a staging check writes names a user or repeats what was sent."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lrm.errors import ServingError
from lrm.serving.engine.session import open_session, scoring_request_of
from lrm.serving.logs import stack_of
from lrm.serving.releases.probe import prove
from lrm.serving.staging.process import free_port, is_ready
from lrm.serving.staging.skew import Outcome, Skew, require_none
from tests.serving.conftest import copied
from tests.serving.shop import AS_OF
from tests.serving.test_live import until

USER, TEXT = 987_654_321, "a-text-of-a-caller"


def test_a_servers_log_names_no_user_and_repeats_no_body(world, tmp_path):
    port = free_port()
    release = copied(world, tmp_path / "release")
    command = [sys.executable, "-m", "lrm.serving", "--release", str(release.folder), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: is_ready(f"http://127.0.0.1:{port}"))
        mine = {"user_id": USER}
        statuses = [
            send(port, "recommend", mine),
            send(port, "recommend", mine | {"context": {"device": TEXT}}),
            send(port, "recommend", mine | {TEXT: TEXT}),
            send(port, "score", mine | {"candidates": [100, USER]}),
            send(port, "score", mine | {"candidates": [TEXT]}),
            send(port, "events", {"events": [mine | {"item_id": 100}]}),
            send(port, "events", {"events": [mine | {"item_id": TEXT}]}),
            send(port, "recommend", f'{{"user_id": {USER}, {TEXT}'),
        ]
        (release.folder.parent / "events" / "online.db").write_bytes(b"damaged" * 10_000)  # now the store fails too
        statuses += [
            send(port, "events", {"events": [mine | {"item_id": 101}]}),
            send(port, "recommend", {"user_id": USER + 1}),
        ]
    finally:
        process.terminate()
        process.wait(30)
    assert statuses[:8] == [200, 422, 422, 200, 422, 200, 422, 422]
    text = (tmp_path / "log").read_text()
    assert len([line for line in text.splitlines() if json.loads(line)["message"] == "request"]) == 10
    assert (str(USER) in text, str(USER + 1) in text, TEXT in text) == (False, False, False)


def send(port, route, body):
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/{route}", content, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_failed_probe_names_no_user(world, tmp_path, monkeypatch):
    session = open_session(copied(world, tmp_path / "release"))
    monkeypatch.setattr("lrm.serving.releases.probe.TOLERANCE", -1.0)  # nothing is near enough
    with pytest.raises(ServingError, match="does not score as offline: a user got"):
        prove(session)
    with pytest.raises(ServingError) as told:
        scoring_request_of(session, USER, AS_OF, {})
    assert str(USER) not in str(told.value)


def test_a_failed_staging_check_names_no_user():
    worst = Skew(USER, 100, "score", 1.0, 2.0, ["age"])
    with pytest.raises(ServingError, match="a user, item 100: score 1") as told:
        require_none(Outcome(1.0, 0.0, 1, [worst], {}, 1))
    assert str(USER) not in str(told.value)


def test_the_place_and_the_kinds_of_an_error_are_told_and_not_its_words():
    try:
        try:
            int(TEXT)
        except ValueError as error:
            raise KeyError(USER) from error
    except KeyError as error:
        told = stack_of(error)
    assert told.endswith("KeyError because of ValueError")
    assert "test_logs.py" in told
    assert (TEXT in told, str(USER) in told.replace("raise KeyError(USER)", "")) == (False, False)
