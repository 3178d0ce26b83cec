"""What is turned away before it is parsed, and what is left to the routes."""

import asyncio
import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn

from lrm.serving.http.load_shedding import early_rejection, load_shedding_protocol
from lrm.serving.http.metrics import new_metrics
from lrm.serving.http.middleware import Limits, RejectionLog
from lrm.serving.staging.process import free_port

PATH = "/v1/recommend"
PLAIN = b"POST /v1/recommend HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\n{}"


def rejected(came, *, limits=Limits(), is_full=True, metrics=None):  # noqa: B008 - immutable
    return early_rejection(metrics or new_metrics({}), limits, RejectionLog(), paths=(PATH,), is_full=lambda: is_full)(
        came
    )


def test_a_plain_request_is_told_to_come_again():
    metrics = new_metrics({})
    head, _, body = rejected(PLAIN, metrics=metrics).partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert start == "HTTP/1.1 429 Too Many Requests"
    assert headers["retry-after"] == "1"
    assert int(headers["content-length"]) == len(body)
    assert len(headers["x-request-id"]) == 32
    assert "too many requests wait" in json.loads(body)["detail"]
    assert metrics.registry.get_sample_value("lrm_http_requests_total", {"route": PATH, "status": "429"}) == 1
    assert metrics.registry.get_sample_value("lrm_requests_rejected_total", {"reason": "overload"}) == 1


def test_a_request_keeps_its_own_id():
    assert b"x-request-id: a-1\r\n" in rejected(PLAIN.replace(b"Host: a", b"X-Request-Id: a-1"))


@pytest.mark.parametrize(
    "came",
    [
        PLAIN[:-1],  # not whole
        PLAIN + b"GET",  # and another one
        PLAIN.replace(b"recommend", b"events"),
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"Keep-Alive", b"close"),
        PLAIN.replace(b"Host: a", b"Content-Length: 2"),  # twice
        PLAIN.replace(b"Host: a", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Host: a", b"Expect: 100-continue"),
        PLAIN.replace(b"Content-Length: 2", b"Content-Length: +2"),
        b"",
    ],
)
def test_whatever_is_not_plain_goes_the_usual_way(came):
    assert rejected(came) is None


def test_while_there_is_room_nothing_is_turned_away():
    assert rejected(PLAIN, is_full=False) is None


@pytest.mark.parametrize(("key", "is_told"), [(b"open", True), (b"opem", False), (b"", False)])
def test_only_a_caller_with_the_key_is_told(key, is_told):
    came = PLAIN.replace(b"Host: a", b"X-Api-Key: " + key)
    assert (rejected(came, limits=Limits(api_key=b"open")) is not None) == is_told


async def patient(scope, receive, send):
    """Read the whole body, and answer with its length."""
    if scope["type"] == "lifespan":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    content = str(len(body)).encode()
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
def connection():
    """A connection to a web server that has no room, whatever comes."""
    port = free_port()
    reject = early_rejection(new_metrics({}), Limits(), RejectionLog(), paths=(PATH,), is_full=lambda: True)
    config = uvicorn.Config(
        patient, port=port, http=load_shedding_protocol(reject), lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection
    server.should_exit = True
    thread.join(10)


def answered(connection):
    """Status and body of the next answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def test_one_connection_is_turned_away_answered_and_turned_away_again(connection):
    for came, answer in ((PLAIN, 429), (PLAIN, 429), (PLAIN.replace(b"recommend", b"other"), 200), (PLAIN, 429)):
        connection.sendall(came)
        assert answered(connection)[0] == answer


def test_what_looks_like_a_request_inside_a_body_is_not_one(connection):
    head = b"POST /v1/other HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(PLAIN)
    connection.sendall(head)
    time.sleep(0.2)  # so that the body comes on its own
    connection.sendall(PLAIN)
    assert answered(connection) == (200, b"%d" % len(PLAIN))
