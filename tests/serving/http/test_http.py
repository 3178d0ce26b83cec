"""HTTP/1.1 as callers write it, byte by byte, to a real server: each request is answered once, and whole."""

import http.client
import json
import os
import socket
import time
from contextlib import ExitStack

import pytest

from lrm.serving.http import connections
from lrm.serving.http.connections import OTHER_FILES
from lrm.serving.http.listening import UNREAD_S, bound_sockets
from lrm.serving.http.middleware import Limits
from lrm.serving.staging.process import free_port, running
from tests.serving.conftest import ask, serving
from tests.serving.http.test_connections import all_of, connected

QUESTION = b'{"user_id": 1, "k": 3}'
LARGE = b'{"user_id": 1, "k": 3' + b" " * 100_000 + b"}"
PROBE = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"


def post(body=QUESTION, *lines, path=b"/v1/recommend", method=b"POST"):
    head = [method + b" " + path + b" HTTP/1.1", b"host: a", b"content-type: application/json", *lines]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


def chunked(*parts):
    lines = (b"host: a", b"content-type: application/json", b"transfer-encoding: chunked")
    return b"\r\n".join(
        [b"POST /v1/recommend HTTP/1.1", *lines, b"", *(b"%x\r\n%s" % (len(p), p) for p in parts), b"0", b"", b""]
    )


def answers(caller, n):
    """Status and body of the next answers."""
    read, found = caller.makefile("rb", buffering=0), []  # what comes next is left to the next call
    for _ in range(n):
        status = int(read.readline().split()[1])
        while status == 100:
            assert read.readline() == b"\r\n"
            status = int(read.readline().split()[1])
        headers = http.client.parse_headers(read)
        body = b""
        while len(body) < int(headers["content-length"]):
            body += read.read(int(headers["content-length"]) - len(body))
        found.append((status, body))
    return found


def n_items(body):
    return len(json.loads(body)["items"])


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
@pytest.mark.parametrize(
    "came",
    [
        post(),
        post(LARGE),
        post(QUESTION, b"Expect: 100-continue"),
        post(
            QUESTION,
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        ),
        post(LARGE, b"Connection: upgrade", b"Upgrade: h2c"),
        post(QUESTION, b"Connection: Upgrade", b"Upgrade: TLS/1.0, websocket"),
        post(QUESTION, b"Upgrade: h2c"),
        post(QUESTION, b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        chunked(QUESTION),
        chunked(QUESTION[:5], QUESTION[5:]),
        chunked(LARGE),
        b"\r\n" + post(),
    ],
    ids=[
        "plain",
        "large",
        "expect",
        "h2c",
        "large-h2c",
        "tls",
        "upgrade-alone",
        "websocket",
        "chunked",
        "chunks",
        "large-chunk",
        "line-before",
    ],
)
def test_a_question_is_answered_whatever_its_form_and_however_it_is_cut(address, came, size):
    if size < 100 and len(came) > 10_000:
        size *= 100
    with connected(address) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(came), size):
            caller.sendall(came[first : first + size])
        caller.sendall(PROBE)
        (status, body), (probed, alive) = answers(caller, 2)
    assert (status, n_items(body)) == (200, 3)
    assert (probed, json.loads(alive)) == (200, {"status": "alive"})


@pytest.mark.parametrize("body", [QUESTION, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("n_next", [1, 10, len(PROBE)])
@pytest.mark.parametrize("lines", [(), (b"Connection: upgrade", b"Upgrade: h2c")], ids=["plain", "h2c"])
def test_a_request_is_answered_though_the_next_has_begun_in_its_packet(address, body, n_next, lines):
    with connected(address) as caller:
        for _ in range(20):
            caller.sendall(post(body, *lines) + PROBE[:n_next])
            ((status, answer),) = answers(caller, 1)
            assert (status, n_items(answer)) == (200, 3)
            caller.sendall(PROBE[n_next:])
            assert answers(caller, 1)[0][0] == 200


def test_many_requests_in_one_packet_are_answered_in_their_order(address):
    asked = [b'{"user_id": %d, "k": %d}' % (k, k) for k in range(1, 9)]
    for lines in ((), (b"Connection: upgrade", b"Upgrade: h2c")):
        with connected(address) as caller:
            caller.sendall(b"".join(post(one, *lines) for one in asked))
            assert [n_items(body) for _, body in answers(caller, 8)] == list(range(1, 9))


@pytest.mark.parametrize("rest", [b"}", b"\r\n}", b"\x00", b"GARBAGE\r\n\r\n", b"\xff" * 1000])
def test_what_follows_a_request_and_is_none_costs_the_connection_and_not_the_answer(address, rest):
    with connected(address) as caller:
        caller.sendall(post() + rest)
        told = all_of(caller)
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    assert told.count(b'"items"') == 1


@pytest.mark.parametrize(
    "came",
    [
        b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        post(QUESTION, b"Content-Length: 3"),
        post(QUESTION, b"Transfer-Encoding: chunked"),
        b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
        chunked(QUESTION).replace(b"\r\n0\r\n", b"\r\nz\r\n"),
    ],
    ids=["connect", "h2", "tls", "length", "two-lengths", "length-and-chunks", "address", "chunk"],
)
def test_what_is_no_request_is_told_so_and_closed(address, came):
    with connected(address) as caller:
        caller.sendall(came)
        told = all_of(caller)
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1") == 1
    assert "detail" in json.loads(told.partition(b"\r\n\r\n")[2])
    assert ask(address, "/healthz")[0] == 200


def test_a_body_that_was_cut_off_is_not_taken(world, tmp_path):
    from tests.serving.conftest import copied

    event = b'{"events": [{"user_id": 1, "item_id": 107}]}'
    with serving(copied(world, tmp_path / "release")) as address:
        with connected(address) as caller:
            caller.sendall(chunked(event).replace(b"/v1/recommend", b"/v1/events").removesuffix(b"0\r\n\r\n"))
        time.sleep(0.5)
        taken = ask(address, "/v1/events", events=[{"user_id": 1, "item_id": 107}])
    assert taken == (200, {"accepted": 1, "new": 1, "unknown_items": []})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/model", "/openapi.json", "/docs"])
def test_head_tells_what_get_would_without_the_body(address, path):
    with connected(address) as caller:
        caller.sendall(b"HEAD %s HTTP/1.1\r\nhost: a\r\n\r\n" % path.encode() + PROBE)
        read = caller.makefile("rb")
        assert read.readline() == b"HTTP/1.1 200 OK\r\n"
        headers = http.client.parse_headers(read)
        assert read.readline() == b"HTTP/1.1 200 OK\r\n"  # of the probe: nothing lies between
    assert int(headers["content-length"]) > 0


def test_head_of_a_question_is_not_allowed(address):
    with connected(address) as caller:
        caller.sendall(b"HEAD /v1/recommend HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert all_of(caller).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("path", [b"/v1/recommend", b"/v1/events", b"/v1/model"])
def test_a_handshake_of_another_protocol_passes_the_guard_no_more_than_any_request(world, path):
    offers = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    with serving(world.release, limits=Limits(api_key=b"open sesame 12345")) as address, connected(address) as caller:
        caller.sendall(post(b"", *offers, b"x-request-id: mine", b"connection: close", path=path, method=b"GET"))
        told = all_of(caller)
    assert told.startswith(b"HTTP/1.1 401 ")
    assert b"x-request-id: mine" in told


@pytest.fixture(scope="module")
def hasty(world):
    """A server that waits for nobody for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_WITHIN_S", 0.5)
        patch.setattr("lrm.serving.http.middleware.BODY_WITHIN_S", 0.5)
        patch.setattr("lrm.serving.http.web_server.KEEP_ALIVE_S", 1)
        with serving(world.release) as address:
            yield address


@pytest.mark.parametrize("rest", [b"\r\n", b"\n", b"G", b"{", b""])
@pytest.mark.parametrize(
    "came",
    [
        PROBE,
        post(),
        post(QUESTION, b"Connection: upgrade", b"Upgrade: h2c"),
        PROBE.replace(b"\r\n\r\n", b"\r\ncontent-length: 1000\r\n\r\n{"),
        post(QUESTION + b" " * 10, path=b"/nowhere")[:-9],
    ],
    ids=["get", "post", "h2c", "body-of-get", "half-a-body"],
)
def test_a_timer_ends_every_connection_whatever_was_sent_last(hasty, came, rest):
    with connected(hasty) as caller:
        caller.sendall(came)
        assert caller.recv(1) == b"H"
        time.sleep(0.1)
        caller.sendall(rest)
        assert not all_of(caller).startswith(b"HTTP/1.1 200")  # it ends: all else would be the socket's own time, 10 s


def test_idle_connections_make_room_for_others_and_the_longest_idle_goes_first(world, tmp_path, monkeypatch):
    """A server that may open few files holds few connections: 20."""
    at_most = f"import resource\n\nresource.setrlimit(resource.RLIMIT_NOFILE, {(OTHER_FILES + 20,) * 2})\n"
    (tmp_path / "sitecustomize.py").write_text(at_most)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with running(world.release.folder, log=tmp_path / "log") as address, ExitStack() as opened:
        kept = []
        for _ in range(19):
            kept.append(opened.enter_context(connected(address)))
            kept[-1].sendall(PROBE)
            assert answers(kept[-1], 1)[0][0] == 200
        kept[0].sendall(PROBE)  # it is not the longest idle any more
        assert answers(kept[0], 1)[0][0] == 200
        half = opened.enter_context(connected(address))
        half.sendall(post()[:-1])
        for _ in range(5):
            with connected(address) as caller:
                caller.sendall(PROBE.replace(b"host", b"connection: close\r\nhost"))
                assert all_of(caller).startswith(b"HTTP/1.1 200 OK")
        assert all_of(kept[1]) == b""
        kept[0].sendall(PROBE)
        half.sendall(post()[-1:])
        assert answers(kept[0], 1)[0][0] == answers(half, 1)[0][0] == 200


def test_as_many_connections_are_held_as_files_may_be_opened(monkeypatch):
    limits = {"soft": 1024, "hard": 4096}

    class Resource:
        RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

        def getrlimit(self, _kind):
            return limits["soft"], limits["hard"]

        def setrlimit(self, _kind, wanted):
            limits["soft"], limits["hard"] = wanted

    monkeypatch.setattr(connections, "resource", Resource())
    assert (connections.max_connections(), limits["soft"]) == (2048, 2304)
    limits |= {"soft": 256, "hard": 1000}
    assert (connections.max_connections(), limits["soft"]) == (744, 1000)
    limits |= {"soft": -1, "hard": -1}
    assert connections.max_connections() == 2048


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
def test_the_system_ends_a_connection_whose_caller_does_not_read():
    port = free_port()
    with bound_sockets("127.0.0.1", port) as (listening, *_), socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * UNREAD_S
