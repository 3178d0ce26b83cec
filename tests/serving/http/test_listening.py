"""The address that a server listens on."""

import socket

import pytest

from lrm.errors import ServingError
from lrm.serving.http.listening import bound_sockets
from lrm.serving.staging.process import free_port


def test_callers_of_a_held_port_wait_and_it_is_free_again_afterwards():
    port = free_port()
    for _ in range(2):
        with bound_sockets("127.0.0.1", port), socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_a_taken_port_is_told_with_what_to_do():
    port = free_port()
    told = pytest.raises(ServingError, match=f"port {port} of 127.0.0.1 is taken .* with --port")
    with bound_sockets("127.0.0.1", port), told, bound_sockets("127.0.0.1", port):
        pass


def test_a_host_that_is_not_this_machine_is_told():
    with (
        pytest.raises(ServingError, match=r"192\.0\.2\.1 cannot be listened on .* with --host"),
        bound_sockets("192.0.2.1", 0),
    ):
        pass


def test_a_taken_port_is_told_before_the_model_is_loaded(world, capsys):
    from lrm.serving.__main__ import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--release", str(world.release.folder), "--port", str(port)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: port {port} of 127.0.0.1 is taken")
    assert "loading" not in printed.out
