"""What a connection may cost before a request is there, and how a server takes its leave."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from lrm.serving.http import connections
from lrm.serving.http.connections import MAX_HEAD_BYTES
from lrm.serving.http.middleware import Limits
from lrm.serving.staging.process import free_port, is_ready
from tests.serving.conftest import ask, serving
from tests.serving.test_live import until

START = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"


def connected(address):
    place = urlsplit(address)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def all_of(caller):
    return b"".join(iter(lambda: caller.recv(65536), b""))


def started(world, folder, *, shutdown_delay_s):
    """A server process that is ready, and its port."""
    port = free_port()
    command = [sys.executable, "-m", "lrm.serving", "--release", str(world.release.folder), "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--shutdown-delay-s", str(shutdown_delay_s)], stdout=log)
    until(lambda: is_ready(f"http://127.0.0.1:{port}"))
    return process, port


@pytest.mark.parametrize(
    "head",
    [b"GET /" + b"a" * 10 * MAX_HEAD_BYTES, START + b"x: " + b"a" * 10 * MAX_HEAD_BYTES, START + b"x: a\r\n" * 100_000],
    ids=["address", "value", "lines"],
)
def test_a_head_that_is_too_long_is_cut_off(address, head):
    with connected(address) as caller:
        try:
            caller.sendall(head)
            told = all_of(caller)
        except ConnectionError:  # it was closed while the rest was on its way
            told = b"HTTP/1.1 431 "
    assert told.startswith(b"HTTP/1.1 431 ")
    assert ask(address, "/healthz")[0] == 200


def test_a_head_of_usual_length_is_read(address):
    with connected(address) as caller:
        caller.sendall(START + b"cookie: " + b"a" * 16_000 + b"\r\nconnection: close\r\n\r\n")
        assert all_of(caller).startswith(b"HTTP/1.1 200 OK")


def test_a_caller_who_sends_no_head_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_WITHIN_S", 0.5)
    with serving(world.release) as address:
        with connected(address) as silent, connected(address) as slow, connected(address) as later:
            slow.sendall(START)
            later.sendall(START + b"\r\n")
            assert later.recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert all_of(silent) == b""
            assert all_of(slow).startswith(b"HTTP/1.1 408 ")
            time.sleep(0.5)  # between two requests there is no hurry
            later.sendall(START + b"\r\n")
            assert later.recv(65536).startswith(b"HTTP/1.1 200 OK")
            later.sendall(START)
            assert all_of(later).startswith(b"HTTP/1.1 408 ")
        assert ask(address, "/v1/recommend", user_id=1)[0] == 200


def test_a_server_takes_its_leave_of_kept_connections(world, tmp_path):
    process, port = started(world, tmp_path, shutdown_delay_s=3)

    def asked(caller, path, body=None):
        caller.request("POST" if body else "GET", path, body, {"content-type": "application/json"})
        response = caller.getresponse()
        return response.status, response.getheader("connection"), json.load(response)

    kept, other = (http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(2))
    request = json.dumps({"user_id": 1}).encode()
    assert asked(kept, "/v1/recommend", request)[:2] == (200, None)
    assert asked(other, "/readyz")[:2] == (200, None)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    status, connection, answer = asked(kept, "/v1/recommend", request)
    assert (status, connection, len(answer["items"])) == (200, "close", 10)
    assert asked(other, "/readyz")[:2] == (503, "close")
    assert process.poll() is None  # it still listens: a load balancer may not know yet
    assert process.wait(20) == 0


def test_an_interrupt_ends_the_leave(world, tmp_path):
    process, _ = started(world, tmp_path, shutdown_delay_s=60)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_the_document_says_that_a_key_is_asked_for_where_it_is(address, world):
    _, without = ask(address, "/openapi.json")
    assert "securitySchemes" not in without["components"]
    with serving(world.release, limits=Limits(api_key=b"open")) as locked:
        _, document = ask(locked, "/openapi.json")
    assert document["components"]["securitySchemes"] == {"key": {"type": "apiKey", "in": "header", "name": "x-api-key"}}
    asking = {path: [one.get("security") for one in item.values()] for path, item in document["paths"].items()}
    assert {path for path, said in asking.items() if said == [[{"key": []}]]} == {
        "/v1/recommend",
        "/v1/score",
        "/v1/events",
        "/v1/model",
    }


def test_a_path_with_a_slash_too_many_is_not_there(address):
    assert ask(address, "/v1/recommend/", user_id=1)[0] == 404


def test_a_message_repeats_only_the_beginning_of_a_long_name(address):
    status, answer = ask(address, "/v1/recommend", user_id=1, **{"a" * 100_000: 1})
    assert status == 422
    assert len(answer["detail"]) < 1000
