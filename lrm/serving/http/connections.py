"""What one connection may cost: a bounded head, in bounded time; a timer whenever the server waits for the caller; and
a place that it loses to a newcomer while the server waits for it.

The web server's own protocol does none of it, and no key is checked before a head is whole. Its other one, h11, is pure
Python and several times as slow.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import time
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lrm.serving.logs import log

MAX_HEAD_BYTES = 64 * 2**10
"""Of the lines before a body; what comes in one piece with the first or the last of them is not counted."""
HEAD_WITHIN_S = 10.0
"""Seconds in which a head must have come, from its first byte on; for the first one, from when the caller connected. So
long, too, what is left of a body that was answered before it was whole may take."""
KEEP_ALIVE_S = 620
"""Seconds for which a connection may be silent between two requests. Load balancers keep theirs for up to 600, and must
be the first to close: a request that crosses a close is lost."""
MAX_CONNECTIONS = 2048
OTHER_FILES = 256
"""Open files that a server needs beside its connections."""
TELL_EVERY_S = 1.0


def max_connections() -> int:
    """How many connections may be open: MAX_CONNECTIONS, or as many as files may be, whose limit is raised first.

    Where files run out, no connection is taken in any more, and a probe hears nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - OTHER_FILES))


class Bounded(HttpToolsProtocol):
    """The web server's own protocol, within bounds. Each server has a subclass of its own, with its own places."""

    places: ClassVar[int] = MAX_CONNECTIONS
    waited_for: ClassVar[dict[Bounded, None]] = {}
    """Connections whose callers are to do something next, the one that was waited for longest first."""
    told: ClassVar[float] = 0.0

    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0
    piece_bytes = 0
    is_in_head = False
    is_between = True
    """Whether no request has begun whose end has not come."""
    is_upgrade = False
    """Whether the parser has stopped after a head that offers another protocol."""
    is_over = False
    """Whether what comes is no HTTP any more; what came before is still answered."""

    @property
    def is_answering(self) -> bool:
        """Whether a request is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room, and wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > self.places:
            self._make_room()
        self.wait_for()
        self.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self.head_came()
        self.waited_for.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came, count what it adds to a head, and have a timer run."""
        if self.is_over:
            return
        self.stop_keep_alive()
        self.piece_bytes = len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._read_no_further()
            return
        if self.is_in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self._end(b"431 Request Header Fields Too Large", f"the head is larger than {MAX_HEAD_BYTES} bytes")
        if not self.is_answering and not self.transport.is_closing():
            self._time()

    def on_message_begin(self) -> None:
        """The first byte of a request: a head begins."""
        self.await_head()
        self.is_in_head, self.is_between, self.head_bytes = True, False, -self.piece_bytes
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole. One that offers another protocol is read again without the offer."""
        self.is_upgrade = self.parser.should_upgrade()
        if self.is_upgrade:
            return
        self.head_came()
        if not self.is_answering:
            self.wait_for()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self.is_upgrade:
            self.is_between = True
            self.waited_for.pop(self, None)
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for what is left of this one."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self.wait_for()
            if not self.is_between:
                self.await_head()

    def pause_writing(self) -> None:
        """The caller does not read: it is waited for."""
        self.wait_for()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The caller reads."""
        if self.is_answering and self.is_between:
            self.waited_for.pop(self, None)
        super().resume_writing()

    def await_head(self) -> None:
        """From now on the time runs."""
        if self.head_timer is None:
            self.head_timer = self.loop.call_later(HEAD_WITHIN_S, self._too_slow)

    def head_came(self) -> None:
        """The time is no matter any more."""
        self.is_in_head = False
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def wait_for(self) -> None:
        """It is the caller's turn; others have waited longer."""
        self.waited_for.pop(self, None)
        self.waited_for[self] = None

    def keep(self) -> None:
        """Keep a connection on which nothing is under way, for a while."""
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def stop_keep_alive(self) -> None:
        """Stop the timer that closes an idle connection."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _feed(self, data: bytes) -> None:
        """Have the parser read all of it.

        The parser takes what follows an offer (`Upgrade`, RFC 9110 7.8) for the other protocol's, and would not read
        the body. Some clients offer h2c with every request. Nothing else is spoken here, so the offer is left out.
        """
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stopped:
                rest, method = rest[stopped.args[0] :], self.parser.get_method()
                if method == b"CONNECT":  # it asks for nothing else than another protocol
                    raise httptools.HttpParserError("CONNECT") from stopped
                self.parser = httptools.HttpRequestParser(self)  # the old one may hold that the connection ends here
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the web server's own
                lines = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
                self.parser.feed_data(b"%s %s HTTP/1.1\r\n%s\r\n" % (method, self.url, b"".join(lines)))
            else:
                return

    def _time(self) -> None:
        """Nothing is being answered: a request that has begun must come, or the connection is kept for a while."""
        if self.is_between:
            self.head_came()
            self.keep()
        else:
            self.await_head()

    def _read_no_further(self) -> None:
        """What came is no HTTP: requests that came whole before are answered, then the connection is closed."""
        self.is_over = True
        self.head_came()
        if self.is_answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
        else:
            is_heard = not self.is_answering or not self.cycle.response_started
            self._end(b"400 Bad Request", "this is no HTTP request that can be read", is_heard=is_heard)

    def _make_room(self) -> None:
        """Take the place of the caller who has been waited for longest.

        All others are being answered, and those are few: more than may wait are turned away.
        """
        oldest = next(iter(self.waited_for), None)
        if oldest is not None:
            del self.waited_for[oldest]
            oldest.transport.abort()
            if (now := time.monotonic()) - type(self).told >= TELL_EVERY_S:
                type(self).told = now
                log("all connections are taken: the longest idle ones are closed", level=logging.WARNING)

    def _too_slow(self) -> None:
        self.head_timer = None
        if self.is_answering:  # nothing more is read meanwhile
            self.await_head()
        else:
            self._end(b"408 Request Timeout", f"the head did not come within {HEAD_WITHIN_S:.0f} s")

    def _end(self, status: bytes, detail: str, *, is_heard: bool | None = None) -> None:
        """Close, and say why if an answer is waited for."""
        if is_heard is None:
            is_heard = self.is_in_head and not self.is_answering
        self.head_came()
        if self.transport.is_closing():
            return
        if is_heard:
            body = json.dumps({"detail": detail}).encode()
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
