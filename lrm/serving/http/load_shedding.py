"""Reject requests before they are parsed while the queue is full: a rejection must cost far less than an answer.

Through the routes a refusal is parsed, routed and written like an answer. Here it is one look at the head of a request
that arrived whole, and one write. Every other request takes the usual way, and `lrm.serving.http.middleware` rejects it
with the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import ClassVar

from lrm.serving.http.connections import MAX_CONNECTIONS, Bounded
from lrm.serving.http.metrics import Metrics
from lrm.serving.http.middleware import (
    REQUEST_ID,
    RETRY_AFTER_S,
    TOO_MANY,
    Limits,
    RejectionLog,
    key_check,
    request_ids,
)

HEAD_ENDS = b"\r\n\r\n"
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""Headers with which a request's end cannot be told from its length alone."""


def early_rejection(
    metrics: Metrics, limits: Limits, rejections: RejectionLog, *, paths: Collection[str], is_full: Callable[[], bool]
) -> Callable[[bytes], bytes | None]:
    """What turns requests away while there is no room.

    Args:
        meters: where they are counted.
        limits: whose key a caller must have to be told anything.
        shed: what tells the log of them.
        paths: of the routes whose requests wait for an answer.
        is_full: whether the queue is full.

    Returns:
        A function of what came over a connection between two requests: the answer to write, or None for the usual way.
    """
    starts = {f"POST {path} HTTP/1.1".encode(): metrics.requests.labels(path, str(TOO_MANY.status)) for path in paths}
    has_key, rejected = key_check(limits), metrics.rejected.labels(TOO_MANY.reason)
    body = json.dumps({"detail": TOO_MANY.detail}).encode()
    answer = (
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: %d\r\n"
        b"x-request-id: %%s\r\n\r\n" % (len(body), RETRY_AFTER_S)
    )
    new_id = request_ids()

    def reject(came: bytes) -> bytes | None:
        if not is_full():
            return None
        head, _, content = came.partition(HEAD_ENDS)
        start, *lines = head.split(b"\r\n")
        if start not in starts:
            return None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        is_whole = len(headers) == len(lines) and headers.get(b"content-length") == b"%d" % len(content)
        stays_open = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        if not is_whole or not stays_open or UNUSUAL & headers.keys():
            return None
        if not has_key(headers):
            return None
        starts[start].inc()
        rejected.inc()
        rejections.add()
        return answer % new_id(headers.get(REQUEST_ID, b"")) + body

    return reject


def load_shedding_protocol(reject: Callable[[bytes], bytes | None], *, places: int = MAX_CONNECTIONS) -> type[Bounded]:
    """The web server's own protocol, which asks `turn_away` first, between two requests only.

    Args:
        turn_away: from `shedder`.
        places: connections that may be open.
    """

    class Shedding(Bounded):
        waited_for: ClassVar[dict[Bounded, None]] = {}

        def data_received(self, data: bytes) -> None:
            if self.is_between and not self.is_answering and not self.is_over:
                answer = reject(data)
                if answer is not None:
                    self.head_came()
                    self.stop_keep_alive()
                    self.transport.write(answer)
                    self.wait_for()
                    self.keep()
                    return
            super().data_received(data)

    Shedding.places = places
    return Shedding
