"""An overload is met before a request is parsed: to turn one away must cost far less than to answer it.

Through the routes a refusal is parsed, routed and written like an answer. Here it is a look at the head of a request
that came whole, and one write. Whatever is not as plain as that goes the usual way, where `lrm.serving.http.middleware`
refuses it with the same words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import ClassVar

from lrm.serving.http.connections import MAX_CONNECTIONS, Bounded
from lrm.serving.http.metrics import Meters
from lrm.serving.http.middleware import REQUEST_ID, RETRY_AFTER_S, TOO_MANY, Limits, Shed, key_check, request_ids

HEAD_ENDS = b"\r\n\r\n"
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""Headers with which a request's end cannot be told from its length alone."""


def shedder(
    meters: Meters, limits: Limits, shed: Shed, *, paths: Collection[str], is_full: Callable[[], bool]
) -> Callable[[bytes], bytes | None]:
    """What turns requests away while there is no room.

    Args:
        meters: where they are counted.
        limits: whose key a caller must have to be told anything.
        shed: what tells the log of them.
        paths: of the routes whose requests wait for an answer.
        is_full: whether another one would be turned away.

    Returns:
        A function of what came over a connection between two requests: the answer to write, or None for the usual way.
    """
    starts = {f"POST {path} HTTP/1.1".encode(): meters.requests.labels(path, str(TOO_MANY.status)) for path in paths}
    has_key, turned_away = key_check(limits), meters.turned_away.labels(TOO_MANY.reason)
    body = json.dumps({"detail": TOO_MANY.detail}).encode()
    answer = (
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: %d\r\n"
        b"x-request-id: %%s\r\n\r\n" % (len(body), RETRY_AFTER_S)
    )
    new_id = request_ids()

    def turn_away(came: bytes) -> bytes | None:
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
        turned_away.inc()
        shed.add()
        return answer % new_id(headers.get(REQUEST_ID, b"")) + body

    return turn_away


def shedding(turn_away: Callable[[bytes], bytes | None], *, places: int = MAX_CONNECTIONS) -> type[Bounded]:
    """The web server's own protocol, which asks `turn_away` first, between two requests only.

    Args:
        turn_away: from `shedder`.
        places: connections that may be open.
    """

    class Shedding(Bounded):
        waited_for: ClassVar[dict[Bounded, None]] = {}

        def data_received(self, data: bytes) -> None:
            if self.is_between and not self.is_answering and not self.is_over:
                answer = turn_away(data)
                if answer is not None:
                    self.head_came()
                    self._unset_keepalive_if_required()
                    self.transport.write(answer)
                    self.wait_for()
                    self.keep()
                    return
            super().data_received(data)

    Shedding.places = places
    return Shedding
