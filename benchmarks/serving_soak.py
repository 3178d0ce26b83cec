"""Memory over many requests, where nothing stays as it is.

The server's two memories, of decoded histories and of values read from the online store, are too small for those who
ask. Beside the clients who ask for recommendations, users send events and have candidates scored, and in the middle
another release is put in service: a copy, under the next version.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import keep_table, markdown
from benchmarks.serving_load import Load, at_rate, closed
from benchmarks.serving_servers import PATH, SMALL, Server, served
from lrm.errors import ServingError
from lrm.serving.engine.features import CACHE_ENTRY_BYTES
from lrm.serving.engine.session import USER_STATE_BYTES
from lrm.serving.release import CURRENT, Release, new_folder, put_in_service, read_release, write_release

MEMORY_MB = 4
"""Of each of the two memories."""
STRANGERS = 4
"""One in so many recommendations is for a user never seen before or after."""
BESIDE = 5
"""Events a second, and as many requests a second to have candidates scored."""
SCORED = 100
"""Candidates of such a request."""
PARTS = 10
WARM, SWAP = "warm-up", "swap"
SWAPPED_WITHIN_S = 120
HELD, MISSES, EVENTS = (
    "lrm_kv_cache_bytes",
    'lrm_kv_cache_lookups_total{result="miss"}',
    'lrm_events_ingested_total{status="new"}',
)


class Traffic:
    """The bodies of the requests; each user is as likely as any other."""

    def __init__(self, *, n_users: int, n_items: int) -> None:
        self.n_users, self.n_items = n_users, n_items
        self.rng, self.n_strangers = np.random.default_rng(0), 0

    def stranger(self) -> int:
        """Someone new."""
        self.n_strangers += 1
        return self.n_users + self.n_strangers

    def user(self) -> int:
        """Someone who has a history."""
        return int(self.rng.integers(self.n_users))

    def recommend(self, n: int) -> dict[str, Any]:
        """The 20 best items."""
        return {"user_id": self.user() if n % STRANGERS else self.stranger(), "k": 20}

    def score(self, _: int) -> dict[str, Any]:
        """Some candidates."""
        items = self.rng.choice(self.n_items, min(SCORED, self.n_items), replace=False)
        return {"user_id": self.user(), "candidates": items.tolist()}

    def event(self, _: int) -> dict[str, Any]:
        """A purchase, now."""
        event = {"user_id": self.user(), "item_id": int(self.rng.integers(self.n_items)), "signals": {"spent": 1.0}}
        return {"events": [event]}


class Line(NamedTuple):
    """What was seen at the end of some requests; `requests`, `evicted` and `events` are of the whole soak."""

    when: str
    requests: int
    mb: float
    held_mb: float
    p99_ms: float
    """Of the recommendations."""
    evicted: int
    events: int
    failed: int
    """Requests of any kind without an answer of status 200."""

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        counts = (f"{self.evicted:,}", f"{self.events:,}", f"{self.failed:,}")
        return (
            self.when,
            f"{self.requests:,}",
            f"{self.mb:,.0f}",
            f"{self.held_mb:.1f}",
            f"{self.p99_ms:.0f}",
            *counts,
        )


class Soak:
    """A server, those who ask it, and what was seen so far."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server, self.options = server, options
        self.traffic = Traffic(n_users=options.users, n_items=options.items)
        self.first = self.since = server.metrics()
        self.evicted_before, self.lines = 0, list[Line]()

    @property
    def n_asked(self) -> int:
        """Requests so far."""
        return self.lines[-1].requests if self.lines else 0

    def ask(self, when: str, is_over: Callable[[int], bool]) -> None:
        """Ask until it is over by the number of requests so far, at least once, and note a line."""
        loads, asked, failed = list[Load](), self.n_asked, 0
        while not loads or not is_over(asked):
            for load in (found := self.at_once()):
                asked += (n := sum(load.statuses.values()))
                failed += n - load.statuses.get(200, 0)
            loads.append(found[0])
        p99 = Load({}, np.concatenate([load.latencies for load in loads]), 0.0).ms(99)
        now = self.server.metrics()
        counts = (self.evicted_before + evicted(self.since, now), int(now.get(EVENTS, 0)), failed)
        self.lines.append(Line(when, asked, self.server.memory_mb(), now[HELD] / 2**20, p99, *counts))

    def at_once(self) -> list[Load]:
        """Recommendations, scores and events for a while."""
        port, seconds = self.server.port, self.options.seconds / 2
        beside = (("/v1/score", self.traffic.score), ("/v1/events", self.traffic.event))
        with ThreadPoolExecutor(len(beside)) as pool:
            others = [pool.submit(at_rate, port, *one, rate=BESIDE, seconds=seconds) for one in beside]
            load = closed(port, PATH, self.traffic.recommend, clients=self.options.clients, seconds=seconds)
            return [load, *(other.result() for other in others)]

    def reload(self, follower: Release) -> float:
        """Put another release in service while users ask; returns seconds until it answers."""
        before = self.server.metrics()
        with ThreadPoolExecutor(1) as pool:
            swapped = pool.submit(swapped_in, self.server, follower)
            self.ask(SWAP, lambda _: swapped.done())
            seconds = swapped.result()
        # The release that took over counts from its own probe on, which cost as much as that of the first.
        self.evicted_before += evicted(self.since, before)
        self.since = before | {MISSES: self.first[MISSES]}
        self.lines[-1] = self.lines[-1]._replace(evicted=self.evicted_before)
        return seconds


def soak(release: Path, options: argparse.Namespace) -> None:
    """Print memory and what became of the requests, tenth by tenth."""
    root = release.parent.parent / "soak"
    put_in_service(copied(release, root, "1"))
    follower, link = copied(release, root, "2"), root / CURRENT
    with served(SMALL, link, str(MEMORY_MB), "--follow", str(link)) as server:
        run, tenth = Soak(server, options), options.soak / PARTS
        run.ask(WARM, lambda n: n >= tenth)
        warm = run.n_asked
        for part in range(1, PARTS + 1):
            run.ask(f"{part / PARTS:.0%}", lambda n, part=part: n >= warm + part * tenth)
            if part == PARTS // 2:
                middle, seconds = run.lines[-1], run.reload(follower)
    header = ("after", "requests so far", "MB", "histories MB", "p99 ms", "evicted, at least", "events", "not answered")
    print(markdown(header, [line.cells() for line in run.lines]))
    memory = " / ".join(f"{line.mb:,.0f}" for line in (run.lines[0], middle, run.lines[-1]))
    print(
        f"\nMB after the warm-up / in the middle / at the end: {memory}. The release was swapped in {seconds:.1f} s. "
        f"Each of the two memories has {MEMORY_MB} MB; that of values holds "
        f"{MEMORY_MB * 2**20 // CACHE_ENTRY_BYTES:,} at most, and got one for "
        f"each of {run.traffic.n_strangers:,} new users, besides those of others and of items."
    )
    keep_table("serving_soak", {"swap_seconds": seconds, "lines": [line._asdict() for line in run.lines]})


def evicted(since: Mapping[str, float], now: Mapping[str, float]) -> int:
    """Histories that were dropped for want of room since then, at least.

    Of those decoded, an event dropped one at most, and no more are held than fit if nothing were known of any.
    """
    decoded, events = (now.get(name, 0.0) - since.get(name, 0.0) for name in (MISSES, EVENTS))
    return max(0, int(decoded - events - now[HELD] / USER_STATE_BYTES))


def copied(release: Path, root: Path, version: str) -> Release:
    """A copy of a release under a hidden name, as another version."""
    folder = new_folder(root, version)
    shutil.copytree(release, folder, symlinks=True, dirs_exist_ok=True)
    copy = read_release(folder)._replace(version=version)
    write_release(copy)
    return copy


def swapped_in(server: Server, follower: Release) -> float:
    """Let the link name another release, and wait until the server that follows it answers by that one."""
    start = time.perf_counter()
    put_in_service(follower)
    while time.perf_counter() - start < SWAPPED_WITHIN_S:
        now = server.metrics()
        if now['lrm_reloads_total{result="refused"}']:
            raise ServingError("the server refused the release that was to follow; roll one out by hand to see why")
        if now['lrm_reloads_total{result="loaded"}']:
            return time.perf_counter() - start
        time.sleep(0.1)
    raise ServingError(f"the release was not swapped within {SWAPPED_WITHIN_S} s; serve it by hand")
