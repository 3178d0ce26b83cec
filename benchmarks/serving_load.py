"""A load generator: HTTP/1.1 over kept connections, in a closed loop of clients or at a fixed rate."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

LOST = 0
"""In the place of a status: the connection ended before the answer."""


class Load(NamedTuple):
    """What came of a load."""

    statuses: dict[int, int]
    latencies: np.ndarray
    """(N,) seconds of each answer with status 200; at a fixed rate, from when it was due."""
    seconds: float

    @property
    def goodput(self) -> float:
        """Answers with status 200 a second."""
        return len(self.latencies) / self.seconds

    def ms(self, percentile: float) -> float:
        """A percentile of the latencies."""
        return float(1000 * np.percentile(self.latencies, percentile)) if len(self.latencies) else float("nan")


def closed(port: int, path: str, body: Callable[[int], Any], *, clients: int, seconds: float) -> Load:
    """Every client asks, waits for the answer, and asks again."""

    async def everything() -> Load:
        start, place, found, kept = time.perf_counter(), iter(range(10**9)), _Found(), _Connections(port, clients)

        async def client() -> None:
            while (at := time.perf_counter()) < start + seconds:
                found.add(await kept.ask(path, body(next(place))), time.perf_counter() - at)

        await asyncio.gather(*(client() for _ in range(clients)))
        kept.close()
        return found.load(time.perf_counter() - start)

    return asyncio.run(everything())


def at_rate(port: int, path: str, body: Callable[[int], Any], *, rate: float, seconds: float, most: int = 512) -> Load:
    """Requests fall due at a fixed rate whatever the server does; latency counts from when a request was due."""

    async def everything() -> Load:
        start, found, kept = time.perf_counter(), _Found(), _Connections(port, most)

        async def one(place: int, due: float) -> None:
            found.add(await kept.ask(path, body(place)), time.perf_counter() - due)

        asked = []
        for place in range(int(rate * seconds)):
            due = start + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(one(place, due)))
        await asyncio.gather(*asked)
        kept.close()
        return found.load(time.perf_counter() - start)

    return asyncio.run(everything())


class _Connections:
    """Kept connections, `most` at once. The one used last is used next: a server ends those that idle for seconds."""

    def __init__(self, port: int, most: int) -> None:
        self.port, self.room = port, asyncio.Semaphore(most)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, path: str, body: Any) -> int:
        """The status of the answer; `LOST` where the connection ended before it."""
        async with self.room:
            while self.idle and self.idle[-1][0].at_eof():
                self.idle.pop()[1].close()
            connection = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
            try:
                status = await _ask(connection, path, body)
            except (OSError, EOFError):
                connection[1].close()
                return LOST
            self.idle.append(connection)
            return status

    def close(self) -> None:
        """End all of them."""
        for _, writer in self.idle:
            writer.close()


class _Found:
    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.latencies: list[float] = []

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 200:
            self.latencies.append(seconds)

    def load(self, seconds: float) -> Load:
        return Load(self.statuses, np.array(self.latencies), seconds)


async def _ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: Any) -> int:
    """Send one request and read its answer; returns the status."""
    reader, writer = connection
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return int(answer.split(b" ", 2)[1])
