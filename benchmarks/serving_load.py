"""A load generator: HTTP/1.1 over kept connections, in a closed loop of clients or at a fixed rate."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


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
        end, place, found = time.perf_counter() + seconds, iter(range(10**9)), _Found()

        async def client() -> None:
            connection = await asyncio.open_connection("127.0.0.1", port)
            while (start := time.perf_counter()) < end:
                found.add(await _ask(connection, path, body(next(place))), time.perf_counter() - start)
            connection[1].close()

        start = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return found.load(time.perf_counter() - start)

    return asyncio.run(everything())


def at_rate(port: int, path: str, body: Callable[[int], Any], *, rate: float, seconds: float, most: int = 512) -> Load:
    """Requests fall due at a fixed rate whatever the server does; latency counts from when a request was due."""

    async def everything() -> Load:
        found, start = _Found(), time.perf_counter()
        due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

        async def client() -> None:
            connection = await asyncio.open_connection("127.0.0.1", port)
            while (one := await due.get()) is not None:
                status = await _ask(connection, path, body(one[0]))
                found.add(status, time.perf_counter() - one[1])
            connection[1].close()

        clients = [asyncio.create_task(client()) for _ in range(most)]
        for place in range(int(rate * seconds)):
            at = start + place / rate
            if (wait := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            due.put_nowait((place, at))
        for _ in clients:
            due.put_nowait(None)
        await asyncio.gather(*clients)
        return found.load(time.perf_counter() - start)

    return asyncio.run(everything())


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
