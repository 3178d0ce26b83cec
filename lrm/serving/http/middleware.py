"""ASGI middleware before every route: request id, API key, body size, full queue; and the metrics and log of requests.

It is plain ASGI, so that a rejection costs little and an overload does not become a collapse.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any, NamedTuple

from lrm.limits import MAX_BODY_BYTES
from lrm.serving.http.metrics import Metrics
from lrm.serving.logs import log, stack_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

REQUEST_ID = b"x-request-id"
API_KEY = b"x-api-key"
RETRY_AFTER_S = 1
BODY_WITHIN_S = 10.0
"""Seconds in which a body must have come."""
PATIENCE = 8
"""A body may be so many times too large and still be refused politely."""
TELL_EVERY_S = 1.0
UNWRITTEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked every few seconds; the log would hold little else."""
_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Limits(NamedTuple):
    """What a request may be."""

    max_body_bytes: int = MAX_BODY_BYTES
    api_key: bytes = b""
    """The key that routes under /v1/ ask for; none if empty."""


class Refusal(NamedTuple):
    """An answer that no route gives."""

    status: int
    reason: str
    detail: str


class RejectionLog:
    """Log requests rejected for overload: one line a second at most, because a line for each would add to the load."""

    def __init__(self) -> None:
        """None yet."""
        self.n, self.told = 0, 0.0

    def add(self) -> None:
        """Count one, and log the count if the last line is old enough."""
        self.n += 1
        if (now := time.monotonic()) - self.told >= TELL_EVERY_S:
            log("requests rejected: too many wait", level=logging.WARNING, n=self.n)
            self.n, self.told = 0, now


TOO_MANY = Refusal(429, "overload", "too many requests wait; send it again in a moment")


def key_check(limits: Limits) -> Callable[[Mapping[bytes, bytes]], bool]:
    """Whether the headers of a request hold the API key, compared in constant time; always true where none is asked."""
    wanted = sha256(limits.api_key).digest()

    def has_key(headers: Mapping[bytes, bytes]) -> bool:
        return not limits.api_key or hmac.compare_digest(sha256(headers.get(API_KEY, b"")).digest(), wanted)

    return has_key


def request_ids() -> Callable[[bytes], bytes]:
    """Gives a request its id: the one that its caller gave it, if it is one, or a new one."""
    # Drawing each id anew would be a system call, for which this thread lets go of the interpreter in every request.
    process, numbers = secrets.token_hex(12).encode(), itertools.count()
    return lambda given: given if _GIVEN_ID.fullmatch(given) else b"%s%08x" % (process, next(numbers))


def request_middleware(
    app: App,
    metrics: Metrics,
    limits: Limits,
    rejections: RejectionLog,
    *,
    is_full: Callable[[str], bool],
    is_stopping: Callable[[], bool] = lambda: False,
) -> App:
    """Wrap an application with limits, metrics and a log line for each request.

    Args:
        app: the routes.
        meters: where requests are counted.
        limits: what a request may be.
        rejections: logs requests rejected for overload.
        is_full: whether the queue behind this path is full.
        is_stopping: whether the server is about to stop; every answer then closes its connection.
    """
    has_key, id_of = key_check(limits), request_ids()

    async def middleware(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route speaks anything else, and nothing below would look at it
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        request_id = id_of(headers.get(REQUEST_ID, b""))
        start, status = time.perf_counter(), 500
        refusal: Refusal | None = None
        inner = scope

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
                if is_stopping():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        metrics.in_flight.inc()
        try:
            refusal, replay = await _admitted(scope, headers, receive, limits, has_key, is_full)
            if refusal is None:
                if scope["method"] == "HEAD":
                    inner = {**scope, "method": "GET"}  # the server leaves the body out
                await app(inner, replay, send_marked)
            else:
                metrics.rejected.labels(refusal.reason).inc()
                await _refuse(send_marked, refusal)
        except Exception as error:  # the last resort: said in the log, not to the caller
            log("internal error", level=logging.ERROR, request_id=request_id.decode(), stack=stack_of(error))
            if status == 500:
                text = f"internal error; the server's log has it under request id {request_id.decode()}"
                await _refuse(send_marked, Refusal(500, "error", text))
        finally:
            seconds = time.perf_counter() - start
            found = inner.get("route")
            route = found.path if found is not None else scope["path"] if refusal is TOO_MANY else "unknown"
            metrics.in_flight.dec()
            metrics.requests.labels(route, str(status)).inc()
            if status != TOO_MANY.status:  # a refusal is quick, and would make the others look so
                metrics.seconds.labels(route).observe(seconds)
            if refusal is TOO_MANY:
                rejections.add()
            elif scope["path"] not in UNWRITTEN:
                facts = {"method": scope["method"], "path": scope["path"][:200], "status": status}
                log("request", request_id=request_id.decode(), ms=round(1000 * seconds, 3), **facts)

    return middleware


async def _admitted(
    scope: Message,
    headers: dict[bytes, bytes],
    receive: Receive,
    limits: Limits,
    has_key: Callable[[Mapping[bytes, bytes]], bool],
    is_full: Callable[[str], bool],
) -> tuple[Refusal | None, Receive]:
    """Why a request goes no further, or None and its whole body."""
    if scope["path"].startswith("/v1/") and not has_key(headers):
        return Refusal(401, "key", "send the API key in the header x-api-key"), receive
    if is_full(scope["path"]):
        return TOO_MANY, receive
    if scope["method"] in ("GET", "HEAD"):
        return None, receive
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            body = await _body(receive, limits.max_body_bytes)
    except TimeoutError:
        return Refusal(408, "slow", f"the body did not come within {BODY_WITHIN_S:.0f} s"), receive
    except ConnectionError:
        return Refusal(400, "cut", "the connection was closed before the body had come"), receive
    if body is None:
        detail = f"the body is larger than {limits.max_body_bytes} bytes; send less at a time"
        return Refusal(413, "size", detail), receive
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return None, replay


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole body; None if it is larger than may be.

    What is too large is read a while longer and dropped: a caller who still sends would not hear the refusal.

    Raises:
        ConnectionError: the caller left before it was whole.
    """
    parts, size = [], 0
    while size <= PATIENCE * most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            parts.append(part)
        if not message.get("more_body", False):
            break
    return b"".join(parts) if size <= most else None


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"detail": refusal.detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status in (429, 503):
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
