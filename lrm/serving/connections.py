"""What one connection may cost before a request is there: a bounded head, in bounded time.

The web server bounds neither, and no key is checked before a head is whole.
"""

from __future__ import annotations

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
"""Of the lines before a body; what comes in one piece with the last of them is not counted."""
HEAD_WITHIN_S = 10.0
"""Seconds in which a head must have come, from its first byte on; for the first one, from when the caller connected."""
KEEP_ALIVE_S = 620
"""Seconds for which a connection may be silent between two requests. Load balancers keep theirs for up to 600, and must
be the first to close: a request that crosses a close is lost."""
MAX_CONNECTIONS = 2048


class Bounded(HttpToolsProtocol):
    """The web server's own protocol, which ends a connection whose head is too long, or too slow to come."""

    head_timer: asyncio.TimerHandle | None = None
    head_bytes = 0
    is_in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self.head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes of a head."""
        super().data_received(data)
        if self.is_in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self._end(b"431 Request Header Fields Too Large", f"the head is larger than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The first byte of a request: a head begins."""
        self.await_head()
        self.is_in_head, self.head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.head_came()
        super().on_headers_complete()

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

    def _too_slow(self) -> None:
        self._end(b"408 Request Timeout", f"the head did not come within {HEAD_WITHIN_S:.0f} s")

    def _end(self, status: bytes, detail: str) -> None:
        """Close, and say why if an answer is waited for."""
        is_waited_for = self.is_in_head and (self.cycle is None or self.cycle.response_complete)
        self.head_came()
        if self.transport.is_closing():
            return
        if is_waited_for:
            body = json.dumps({"detail": detail}).encode()
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
