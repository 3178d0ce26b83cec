"""Latency of every server at the same fixed rates, and the highest rate that each answers within a bound.

Requests fall due at a fixed rate, whatever the server does (`serving_load.at_rate`). All servers are up at once and are
asked in turn, one at a time: a machine's speed drifts, and so moves all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import keep_table, markdown
from benchmarks.serving_load import Load, at_rate
from benchmarks.serving_servers import OURS, Server, measured, peers, request_of, served
from lrm.errors import ServingError

HELD = 0.99
"""Share of all requests that must be answered within the bound."""
SHARES = (0.5, 0.8)
"""Fixed rates, of what the slowest and the fastest of the other servers answer in a closed loop."""
ABOVE, STEPS, TRIES = 1.5, 6, 2
"""The search begins at so many times what a server answers in a closed loop, halves what is left so many times, and
asks a second time for a rate that was not held: the first may have met a pause of the machine."""


class Arm(NamedTuple):
    """A running server, and the answers a second that it gave in a closed loop."""

    what: str
    server: Server
    peak: float

    def load(self, rate: float, options: argparse.Namespace) -> Load:
        """Ask it at a fixed rate."""
        path, body = request_of(self.what, n_users=options.users)
        return at_rate(self.server.port, path, body, rate=rate, seconds=options.seconds)

    def most(self, options: argparse.Namespace) -> float:
        """The highest rate that it holds."""

        def is_held(rate: float) -> bool:
            return holds(self.load(rate, options), options.bound_ms)

        return highest(is_held, ABOVE * self.peak, steps=STEPS, tries=TRIES)


def bound(release: Path, options: argparse.Namespace) -> None:
    """Print the table of all servers."""
    with ExitStack() as stack:
        arms = started(release, options, stack)
        rates = fixed_rates([arm.peak for arm in arms])
        loads = [[arm.load(rate, options) for arm in arms] for rate in rates]
        most = [arm.most(options) for arm in arms]
    rows = []
    for at, arm in enumerate(arms):
        cells = [shown(of_rate[at], of_rate[0]) for of_rate in loads]
        ratio = f"{most[0] / most[at]:.1f}" if most[at] else ""
        rows.append((arm.what, *cells, f"{most[at]:,.0f}" if most[at] else "none", ratio))
    limit = f"p99 within {options.bound_ms:g} ms, a second"
    print(markdown(("server", *(f"{rate:,} a second" for rate in rates), limit, "ours is x times"), rows))
    near, times_peak = f"{ABOVE / 2**STEPS:.0%}", f"{ABOVE} times"
    print(
        f"\nAt a fixed rate: p50 / p99 ms (p99 to ours). At the highest rate {HELD:.0%} of all requests had an answer "
        f"within the bound; it is found to {near} of what a closed loop gave, and not sought above {times_peak} that. "
        "--seconds has to be many times the bound: a short load ends before its queue is long."
    )
    keep_table("serving_bound", {row[0]: list(row[1:]) for row in rows} | {"rates": rates})


def started(release: Path, options: argparse.Namespace, stack: ExitStack) -> list[Arm]:
    """Every server that starts, warm."""
    arms = []
    for what in options.peers or peers(release):
        try:
            server = stack.enter_context(served(what, release))
            arms.append(Arm(what, server, measured(what, server, options)[0].goodput))
        except ServingError as error:
            if what == OURS:  # all others are set against it
                raise
            print(f"left out: {error}", file=sys.stderr)
    return arms


def fixed_rates(peaks: Sequence[float]) -> list[int]:
    """Rates a second that at least the fastest of the other servers can hold; `peaks` begins with ours."""
    others = peaks[1:] or peaks
    return sorted({max(1, round(share * peak)) for share in SHARES for peak in (min(others), max(others))})


def holds(load: Load, bound_ms: float) -> bool:
    """Whether nearly all requests, not only those answered, had their answer within the bound."""
    n = sum(load.statuses.values())
    return n > 0 and int((1000 * load.latencies <= bound_ms).sum()) >= HELD * n


def highest(is_held: Callable[[float], bool], above: float, *, steps: int, tries: int) -> float:
    """The highest rate below `above` that was held, by halving; 0 where none was."""
    low, high = 0.0, above
    for _ in range(steps):
        rate = (low + high) / 2
        if any(is_held(rate) for _ in range(tries)):
            low = rate
        else:
            high = rate
    return low


def shown(load: Load, ours: Load) -> str:
    """A cell of the table; latencies only where nearly all were answered."""
    n = sum(load.statuses.values())
    if len(load.latencies) < HELD * n or not n:
        return f"{len(load.latencies)} of {n} answered"
    return f"{load.ms(50):.1f} / {load.ms(99):.1f} ({load.ms(99) / ours.ms(99):.1f})"
