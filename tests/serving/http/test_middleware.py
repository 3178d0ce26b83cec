"""What stands before the routes, around an application that says what reached it."""

import asyncio
import json
import logging

import pytest

from lrm.serving.http import middleware as guards
from lrm.serving.http.metrics import new_metrics
from lrm.serving.http.middleware import Limits, RejectionLog, request_middleware
from lrm.serving.logs import JsonLines

NO_LIMITS = Limits()
SECRET = "a secret of the inside"


async def echo(scope, receive, send):
    """Answer with the body."""
    body = (await receive())["body"] if scope["method"] == "POST" else b""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def broken(scope, receive, send):
    raise ValueError(SECRET)


def ask(app=echo, *, headers=(), parts=(b"hello",), limits=NO_LIMITS, is_full=lambda path: False, method="POST"):
    """Status, headers and body of one request to a guarded application."""
    return send_to(
        request_middleware(app, new_metrics({}), limits, RejectionLog(), is_full=is_full),
        headers=headers,
        parts=parts,
        method=method,
    )


def send_to(middleware, *, headers=(), parts=(b"hello",), method="POST"):
    sent = []
    coming = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    coming[-1]["more_body"] = False

    async def receive():
        return coming.pop(0) if coming else await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/v1/recommend", "headers": list(headers)}
    asyncio.run(middleware(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_a_request_gets_its_own_id_back_or_a_new_one():
    assert ask(headers=[(b"x-request-id", b"abc-1")])[1][b"x-request-id"] == b"abc-1"
    made = ask(headers=[(b"x-request-id", b"no spaces\n")])[1][b"x-request-id"]
    assert len(made) == 32


def test_the_body_arrives_whole():
    assert ask(parts=(b"hel", b"lo"))[2] == b"hello"


def test_a_larger_body_is_refused_whether_announced_or_not():
    small = Limits(max_body_bytes=4)
    for headers in ([(b"content-length", b"5")], []):
        status, _, body = ask(headers=headers, parts=(b"hel", b"lo"), limits=small)
        assert (status, "larger than 4 bytes" in json.loads(body)["detail"]) == (413, True)
    assert ask(parts=(b"hell",), limits=small)[0] == 200


def test_a_body_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(guards, "BODY_WITHIN_S", 0.01)
    sent = []

    async def never():
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": []}
    app = request_middleware(echo, new_metrics({}), Limits(), RejectionLog(), is_full=lambda path: False)
    asyncio.run(app(scope, never, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(("given", "status"), [(b"key", 200), (b"kez", 401), (b"", 401), (b"key ", 401)])
def test_only_the_key_opens(given, status):
    headers = [(b"x-api-key", given)] if given else []
    assert ask(headers=headers, limits=Limits(api_key=b"key"))[0] == status


def test_an_overload_is_answered_at_once_and_says_when_to_come_again():
    status, headers, body = ask(is_full=lambda path: path == "/v1/recommend")
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert "too many requests wait" in json.loads(body)["detail"]


def test_an_overload_is_logged_once_a_second_however_many_are_turned_away(caplog):
    middleware = request_middleware(echo, new_metrics({}), NO_LIMITS, RejectionLog(), is_full=lambda path: True)
    with caplog.at_level(logging.INFO, logger="lrm.serving"):
        for _ in range(100):
            assert send_to(middleware)[0] == 429
    told = [record for record in caplog.records if record.name == "lrm.serving"]
    assert 1 <= len(told) < 100
    assert {record.getMessage() for record in told} == {"requests rejected: too many wait"}


def test_an_error_inside_stays_inside(caplog):
    status, headers, body = ask(broken, headers=[(b"x-request-id", b"abc")])
    assert status == 500
    assert headers[b"x-request-id"] == b"abc"
    assert json.loads(body)["detail"] == "internal error; the server's log has it under request id abc"
    (told,) = [record for record in caplog.records if record.message == "internal error"]
    assert told.facts["stack"].endswith("ValueError")
    assert ", in broken" in told.facts["stack"]
    assert SECRET not in JsonLines().format(told)
