"""Under which conditions this server is how many times as good as a plain one around the same model.

Each line is one condition: whether the histories were decoded before, whether the release has an index, how many ask
at once, and whether the plain server keeps what it read of a user. The two servers of a line are up at once and are
asked in turn, round after round.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import keep_table, markdown
from benchmarks.serving_load import Load, closed
from benchmarks.serving_servers import CACHED, OURS, PLAIN, Server, request_of, served
from benchmarks.serving_world import made_release
from lrm.serving.releases.builder import EXACT_UP_TO

N_COLD = 20_000
"""Users of the cold conditions, each of whom asks at most once."""
ROUNDS = 5


class Condition(NamedTuple):
    """What is asked, of which servers."""

    name: str
    has_index: bool
    is_cold: bool
    n_clients: int
    peer: str


CONDITIONS = (
    Condition("warm histories, index", True, False, 32, PLAIN),
    Condition("warm histories, index; the peer keeps what it read of a user", True, False, 32, CACHED),
    Condition("warm histories, no index", False, False, 32, PLAIN),
    Condition("cold histories, index", True, True, 32, PLAIN),
    Condition("a lone caller, cold histories, index", True, True, 1, PLAIN),
    Condition("a lone caller, warm histories, index", True, False, 1, PLAIN),
)


def conditions(_release: Path, options: argparse.Namespace) -> None:
    """Print the table: of each condition ours, the peer, and the ratio, median [least, most] of the rounds."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="conditions-") as place:
        releases = {
            has_index: made_release(
                Path(place) / f"{has_index}",
                n_items=options.items,
                n_users=N_COLD,
                preset=options.preset,
                exact_up_to=EXACT_UP_TO if has_index else None,
            )
            for has_index in (True, False)
        }
        for one in CONDITIONS:
            rows.append((one.name, *_compared(one, releases[one.has_index], options)))
    header = (
        "condition",
        "ours, answers a second",
        "plain",
        "ours is x times, in CPU",
        "in p50",
        "ours, p50 ms",
        "plain",
    )
    print(markdown(header, rows))
    keep_table("serving_conditions", {row[0]: list(row[1:]) for row in rows})
    print(f"\nMedian [least, most] of {ROUNDS} rounds. A plain server is FastAPI around the same model.")


def _compared(one: Condition, release: Path, options: argparse.Namespace) -> tuple[str, ...]:
    """The cells of a condition."""
    n_users = N_COLD if one.is_cold else options.users
    asked = dict.fromkeys((OURS, one.peer), 0)
    rates, cpus, p50s = (np.empty((ROUNDS, 2)) for _ in range(3))
    with ExitStack() as stack:
        servers = {what: stack.enter_context(served(what, release)) for what in asked}
        for round_ in range(-1, ROUNDS):  # the first warms up
            for at, (what, server) in enumerate(servers.items()):
                load, cpu = _prepare(server, request_of(what, n_users=n_users), one, options, asked[what])
                asked[what] += sum(load.statuses.values())
                if round_ >= 0:
                    rates[round_, at], cpus[round_, at], p50s[round_, at] = load.goodput, cpu, load.ms(50)
    if one.is_cold and max(asked.values()) > N_COLD:
        raise SystemExit(f"{max(asked.values()):,} cold requests of {N_COLD:,} users: ask for fewer --seconds")
    ratios = (cpus[:, 1] / cpus[:, 0], p50s[:, 1] / p50s[:, 0])
    return (*_medians(rates.T, 0), *_medians(ratios, 1), *_medians(p50s.T, 1))


def _prepare(
    server: Server, request: tuple[str, Callable[[int], Any]], one: Condition, options: argparse.Namespace, first: int
) -> tuple[Load, float]:
    """A closed loop that begins at the first request that was not asked yet, and its CPU seconds for each answer."""
    path, body = request
    before = server.cpu_seconds()
    seconds = options.seconds / 2
    load = closed(server.port, path, lambda n: body(first + n), clients=one.n_clients, seconds=seconds)
    return load, (server.cpu_seconds() - before) / max(1, len(load.latencies))


def _medians(rows: Sequence[np.ndarray], digits: int) -> list[str]:
    return [f"{np.median(r):,.{digits}f} [{r.min():,.{digits}f}, {r.max():,.{digits}f}]" for r in rows]
