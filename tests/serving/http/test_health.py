"""The probes say whether the server does its work."""

import time
import urllib.request

import pytest

from lrm.serving.http import health
from lrm.serving.http.health import ANSWERS, EVENTS, RELEASES
from lrm.serving.http.server import Options, Server
from tests.serving.conftest import ask, running_server
from tests.serving.test_live import until

WELL = (200, {"status": "alive", "detail": None})


def health_of(address):
    status, told = ask(address, "/healthz")
    return status, {"detail": None} | told


@pytest.mark.parametrize("name", [RELEASES, ANSWERS, EVENTS])
def test_a_loop_that_ended_fails_both_probes_and_is_named(world, name, caplog):
    server = Server(world.release, Options(follow=world.releases / "current"))
    with running_server(server) as address:
        assert health_of(address) == WELL
        loop = server.health._loops[name]
        loop.get_loop().call_soon_threadsafe(loop.cancel)
        until(loop.done)
        for path in ("/healthz", "/readyz"):
            status, told = ask(address, path)
            assert (status, told["status"]) == (503, "failed")
            assert f"the loop of {name} has ended" in told["detail"]
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as response:
            assert "lrm_ready 0.0" in response.read().decode()
    told = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert [(record.message, record.facts) for record in told] == [
        ("a loop has ended, the server must be started again", {"loop": name})
    ]


def test_a_batch_that_never_ends_fails_both_probes(world, monkeypatch):
    server = Server(world.release)
    with running_server(server) as address:
        monkeypatch.setattr(health, "STUCK_S", -1.0)
        assert health_of(address) == WELL  # nothing is worked on
        server.predictions.began = time.monotonic()
        for path in ("/healthz", "/readyz"):
            status, told = ask(address, path)
            assert (status, "a batch of answers has not ended" in told["detail"]) == (503, True)


def test_a_server_that_follows_nothing_is_well(world):
    server = Server(world.release)
    with running_server(server) as address:
        assert server.health._loops[RELEASES].done()
        assert health_of(address) == WELL
