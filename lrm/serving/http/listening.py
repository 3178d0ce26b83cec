"""The address that a server listens on, held before anything is loaded."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lrm.errors import ServingError

UNREAD_S = 30
"""Seconds for which a caller may leave what was sent unread; the system then ends the connection, and no timer of ours
needs to know."""
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A name may stand for addresses that a machine does not have, as `localhost` does without IPv6."""


@contextmanager
def bound_sockets(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets that listen on the addresses of a host; callers wait until a server takes them over.

    Raises:
        ServingError: the port is taken, or may not be listened on, or the host is not this machine's.
    """
    with ExitStack() as held:
        try:
            sockets = [held.enter_context(one) for one in _bound_to(host, port)]
        except OSError as error:
            raise ServingError(_why(error, host, port)) from error
        yield sockets


def _bound_to(host: str, port: int) -> Iterator[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    lacking, n_bound = None, 0
    for family, address in dict.fromkeys((family, address) for family, *_, address in found):
        try:
            yield _bound(family, address)
            n_bound += 1
        except OSError as error:
            if error.errno not in NOT_HERE:
                raise
            lacking = error
    if lacking is not None and not n_bound:
        raise lacking


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit it
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen()  # two may be bound to one port, and only one may listen
    except OSError:
        opened.close()
        raise
    return opened


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken by another program; take another with --port, or stop that one"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} may not be listened on by this user; take one above 1023 with --port"
    return f"{host} cannot be listened on ({error.strerror}); name an address of this machine with --host"
