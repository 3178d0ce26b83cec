"""What serving costs: this server against others around the same model, and how it behaves under load.

    python -m benchmarks.serving [--items 100000 --seconds 20 --parts compare conditions bound ...]

A made-up shop is released with a model of random weights (`benchmarks.serving_world`). Every server runs as a process
of its own on loopback and answers `--clients` clients who ask for the 20 best of all items for `--users` users. Parts:

    compare     every server: throughput, CPU time, start and memory under clients who ask again once answered
    conditions  this server against FastAPI: histories warm or cold, with and without an index, one caller or many
    bound       every server: p50 and p99 at the same fixed rates, and the highest rate with a p99 within `--bound-ms`
    rates       this server's latency at fixed rates, against the bare forward pass
    overload    3 times what saturates it
    candidates  1 against 50 to 1,000 candidates over a kept history, and 1 where the history is decoded first
    soak        memory over `--soak` requests, with memories too small for the users, users never seen before, new
                events, and another release put in service in the middle

CPU time is that of the server's processes. LitServe and MLflow are left out, with a word, where they are not installed.
Figures of one run go together; machines differ.

examples:
  python -m benchmarks.serving --users 200 --seconds 6 --parts compare rates
  python -m benchmarks.serving --seconds 10 --parts bound --bound-ms 100
  python -m benchmarks.serving --users 2000 --seconds 6 --parts soak --soak 60000
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import positive, rate, run
from benchmarks.common import keep_table, machine, markdown
from benchmarks.serving_bound import bound
from benchmarks.serving_conditions import conditions
from benchmarks.serving_load import at_rate, closed
from benchmarks.serving_servers import OURS, measured, peers, request_of, served
from benchmarks.serving_soak import MISSES, soak
from benchmarks.serving_world import made_release
from lrm.errors import ServingError

OVERLOADS = 5
"""Rounds of peak and overload in turn: a single ratio of two short loads moves by several percent."""
CANDIDATES, CANDIDATE_ROUNDS = (1, 50, 200, 1000), 15
ALL_DECODED = 0.95
"""Share of answers that decoded a history, from which on all are said to."""


def compare(release: Path, options: argparse.Namespace) -> None:
    """Every server under the same clients."""
    rows, ours = [], 0.0
    for what in options.peers or peers(release):
        try:
            with served(what, release) as server:
                load, cpu = measured(what, server, options)
                ours = ours or 1 / cpu
                start, memory = f"{server.start_seconds:.1f}", f"{server.memory_mb():,.0f}"
        except ServingError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        speed = (f"{load.goodput:,.0f}", f"{1000 * cpu:.2f}", f"{1 / cpu:,.0f}", f"{ours * cpu:.1f}")
        rows.append((what, *speed, f"{load.ms(50):.0f}", f"{load.ms(99):.0f}", start, memory))
    header = (
        "server",
        "answers a second",
        "CPU ms each",
        "answers a core-second",
        "ours is x times",
        "p50 ms",
        "p99 ms",
    )
    print(markdown((*header, "start s", "MB"), rows))
    keep_table("serving", {row[0]: list(row[1:]) for row in rows})


def rates(release: Path, options: argparse.Namespace) -> None:
    """Latency at shares of the saturated rate, against the model alone."""
    alone = bare_ms(release)
    with served(OURS, release) as server:
        path, body = request_of(OURS, n_users=options.users)
        peak = measured(OURS, server, options)[0].goodput
        rows = []
        for share in (0.25, 0.5, 0.75):
            load = at_rate(server.port, path, body, rate=share * peak, seconds=options.seconds)
            p50, p99 = load.ms(50), load.ms(99)
            rows.append((f"{share:.0%}", f"{share * peak:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{p99 / alone:.1f}"))
    print(markdown(("of the saturated rate", "a second", "p50 ms", "p99 ms", "p99 / bare"), rows))
    print(f"\nBare forward pass and top 20 of one user: {alone:.1f} ms (median).")


def bare_ms(release: Path) -> float:
    """Milliseconds of one answer by the plain path, without a server."""
    from benchmarks.serving_peers import answering

    answer, taken = answering(release), []
    for user in range(40):
        start = time.perf_counter()
        answer({"user_id": user})
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


def overload(release: Path, options: argparse.Namespace) -> None:
    """Three times more than can be answered, in turn with what can."""
    rows, statuses = [], Counter[int]()
    with served(OURS, release) as server:
        path, body = request_of(OURS, n_users=options.users)
        for _ in range(OVERLOADS):
            peak = measured(OURS, server, options)[0].goodput
            load = at_rate(server.port, path, body, rate=3 * peak, seconds=options.seconds)
            rows.append((peak, 3 * peak, load.goodput, 100 * load.goodput / peak, load.ms(99)))
            statuses.update(load.statuses)
    shown = (f"{np.median(one):,.0f} [{min(one):,.0f}, {max(one):,.0f}]" for one in zip(*rows, strict=True))
    print(markdown(("peak a second", "offered", "goodput", "% of the peak", "p99 ms"), [tuple(shown)]))
    print(f"\nMedian [least, most] of {OVERLOADS} rounds. Answers: {dict(sorted(statuses.items()))}.")


def candidates(release: Path, options: argparse.Namespace) -> None:
    """A kept history, one candidate or many, in turn: a machine's speed drifts from second to second.

    Last in each turn, the users one after another, who are more than the server's smallest memory holds: each history
    was dropped again before its user returns.
    """
    rng, users = np.random.default_rng(0), itertools.count()
    sizes = [n for n in CANDIDATES if n <= options.items]
    chosen = [rng.choice(options.items, n, replace=False).tolist() for n in sizes]
    asks: list[Callable[[], Any]] = [lambda one=one: {"user_id": 0, "candidates": one} for one in chosen]
    asks.append(lambda: {"user_id": next(users) % options.users, "candidates": chosen[0]})
    p50, cpu, missed = (np.empty((CANDIDATE_ROUNDS + 1, len(asks))) for _ in range(3))
    with served(OURS, release, "--kv-cache-mb", "1") as server:
        for turn in np.ndindex(p50.shape):
            ask = asks[turn[1]]
            closed(server.port, "/v1/score", lambda _, ask=ask: ask(), clients=1, seconds=1e-3)
            before, misses = server.cpu_seconds(), server.metrics()[MISSES]
            load = closed(server.port, "/v1/score", lambda _, ask=ask: ask(), clients=1, seconds=1)
            p50[turn], cpu[turn] = load.ms(50), 1000 * (server.cpu_seconds() - before) / max(1, len(load.latencies))
            missed[turn] = (server.metrics()[MISSES] - misses) / max(1, len(load.latencies))
    columns = [_medians(one[1:]) for one in (p50, p50 / p50[:, :1], cpu, cpu / cpu[:, :1])]  # the first round warms up
    names = [f"{n:,}" for n in sizes] + ["1, history decoded first"]
    print(markdown(("candidates", "p50 ms", "to one", "CPU ms", "to one"), list(zip(names, *columns, strict=True))))
    print(f"\nMedian [least, most] of {CANDIDATE_ROUNDS} rounds.")
    decoded = missed[1:, -1].min()
    if decoded < ALL_DECODED:
        print(f"In the last line only {decoded:.0%} of the histories were decoded in some round: name more --users.")


def _medians(rounds: np.ndarray) -> list[str]:
    """The median [least, most] of each column."""
    return [f"{np.median(one):.2f} [{one.min():.2f}, {one.max():.2f}]" for one in rounds.T]


PARTS = {
    "compare": compare,
    "conditions": conditions,
    "bound": bound,
    "rates": rates,
    "overload": overload,
    "candidates": candidates,
    "soak": soak,
}


def main() -> None:
    """Make a release and run the parts asked for."""
    options, began = parsed(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serving-") as place:
        folder = Path(place)
        release = made_release(folder / "shop", n_items=options.items, n_users=options.users, preset=options.preset)
        for part in options.parts:
            print(f"\n{part}\n")
            PARTS[part](release, options)
    told = (
        f"{options.items:,} items, {options.users} users of 50 events, {options.clients} clients, {options.seconds} s"
    )
    print(f"\n{told}, preset {options.preset}; {machine()}; {time.monotonic() - began:.0f} s")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = " (default: %(default)s)"
    parser.add_argument("--items", type=positive, default=100_000, metavar="N", help="in the shop" + shown)
    parser.add_argument("--users", type=positive, default=1000, metavar="N", help="of 50 events each" + shown)
    parser.add_argument("--clients", type=positive, default=32, metavar="N", help="who ask at once" + shown)
    parser.add_argument("--seconds", type=positive, default=20, metavar="N", help="of each measurement" + shown)
    parser.add_argument("--bound-ms", type=rate, default=200.0, metavar="MS", help="p99 of the part bound" + shown)
    parser.add_argument("--soak", type=positive, default=100_000, metavar="N", help="requests of the soak" + shown)
    parser.add_argument("--preset", default="default", help="of the model" + shown)
    parser.add_argument("--peers", nargs="+", metavar="SERVER", help="ours first; default: all that are installed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all, in this order")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
