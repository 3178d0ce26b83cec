"""A TCP proxy in front of a service that breaks connections when told to: a network that fails."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Proxy:
    """Forwards bytes both ways until `breaks` of them went towards the service, then cuts, as often as `times`.

    Whoever connects while `is_down` is cut off at once.
    """

    def __init__(self, target: str) -> None:
        self.host, self.port = urlsplit(target).hostname or "", urlsplit(target).port or 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.is_down = False
        self.breaks: int | None = None
        self.times = 0
        self.cuts = 0
        self.sent = 0
        """Bytes that went towards the service in all."""

    def cut_after(self, n_bytes: int, *, times: int) -> None:
        """Cut each of the next `times` connections once this many bytes went through it."""
        self.breaks, self.times = n_bytes, times

    def serve(self) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.is_down:
                self.cuts += 1
                return
            with socket.create_connection((self.host, self.port)) as service:
                back = threading.Thread(target=_pump, args=(service, client), daemon=True)
                back.start()
                passed = 0
                while data := client.recv(16_384):
                    passed, self.sent = passed + len(data), self.sent + len(data)
                    if self.breaks is not None and self.times > 0 and passed > self.breaks:
                        self.times, self.cuts = self.times - 1, self.cuts + 1
                        return
                    service.sendall(data)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(16_384):
            target.sendall(data)


@contextlib.contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy in front of `http://HOST:PORT`."""
    made = Proxy(target)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.listener.shutdown(socket.SHUT_RDWR)
        made.listener.close()
        thread.join()
