"""What serving costs: this server against others around the same model, and how it behaves under load.

    python -m benchmarks.serving [--items 100000 --seconds 20 --parts compare rates overload candidates soak]

A made-up shop is released with a model of random weights (`benchmarks.serving_world`). Every server runs as a process
of its own on loopback and answers `--clients` clients who ask for the 20 best of all items for `--users` users. Parts:
`compare` (throughput, CPU time, start and memory of each server), `rates` (latency at fixed rates against the bare
forward pass), `overload` (3 times what saturates), `candidates` (1 against 200 over a kept history), `soak` (memory
over `--soak` requests). CPU time is that of the server's processes. LitServe and MLflow are left out, with a word,
where they are not installed. Figures of one run go together; machines differ.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.command import positive, run
from benchmarks.common import PROJECT, keep_table, machine, markdown
from benchmarks.serving_load import Load, at_rate, closed
from benchmarks.serving_world import made_release
from lrm.errors import ServingError
from lrm.serving.process import free_port

PATH = "/v1/recommend"
OURS, PLAIN, LITSERVE, MLFLOW = "this server", "plain FastAPI", "LitServe", "MLflow's server"
PARTS = ("compare", "rates", "overload", "candidates", "soak")
OVERLOADS = 5
"""Rounds of peak and overload in turn: a single ratio of two short loads moves by several percent."""
CANDIDATES, CANDIDATE_ROUNDS = (1, 50, 200, 1000), 15
LOCAL = ("--env-manager", "local", "--workers", "1")
TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A running server."""

    port: int
    pid: int
    start_seconds: float

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children."""
        return sum(_stat(pid) for pid in self.pids())

    def memory_mb(self) -> float:
        """Resident memory of the process and its children."""
        lines = [line for pid in self.pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def pids(self) -> list[int]:
        """The process and all below it."""
        found, place = [self.pid], 0
        while place < len(found):
            for children in Path(f"/proc/{found[place]}/task").glob("*/children"):
                found += [int(pid) for pid in children.read_text().split()]
            place += 1
        return found


@contextmanager
def served(what: str, release: Path, *arguments: str) -> Iterator[Server]:
    """Run a server until done with."""
    port = free_port()
    commands = {
        OURS: ["lrm.serving", "--bundle", str(release), "--port", str(port), *arguments],
        PLAIN: ["benchmarks.serving_peers", str(release), str(port)],
        LITSERVE: ["benchmarks.serving_litserve", str(release), str(port)],
        MLFLOW: ["mlflow", "models", "serve", "-m", str(release.parent / "pyfunc"), "-p", str(port), *LOCAL],
    }
    with_tools = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # MLflow starts uvicorn
    start, quiet = time.perf_counter(), subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", *commands[what]], cwd=PROJECT, env=with_tools, stdout=quiet, stderr=quiet
    )
    try:
        until_it_answers(what, port, process)
        yield Server(port, process.pid, time.perf_counter() - start)
    finally:
        pids = Server(port, process.pid, 0.0).pids() if process.poll() is None else []
        process.terminate()
        process.wait(30)
        for pid in pids[1:]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, 15)


def until_it_answers(what: str, port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for the first good answer."""
    path, body = request_of(what)
    for _ in range(3000):
        if process.poll() is not None:
            raise ServingError(f"{what} ended with status {process.returncode} before it answered; run it by hand")
        try:
            if closed(port, path, body, clients=1, seconds=1e-3).statuses.get(200):
                return
        except (OSError, EOFError):  # not listening yet
            pass
        time.sleep(0.1)
    raise ServingError(f"{what} did not answer within five minutes; run it by hand")


def request_of(what: str, *, n_users: int = 1) -> tuple[str, Any]:
    """The path, and the body of the n-th request."""
    if what == MLFLOW:
        event = {"event_time": "2024-01-20T00:00:00+00:00", "item_id": 1, "spent": 1.0, "price": 1.0, "kind": "k1"}
        record = {"event_time": "2024-01-31T00:00:00+00:00", "history": [event] * 50, "candidates": []}
        return "/invocations", lambda n: {"dataframe_records": [record | {"age": 30.0 + n % n_users}]}
    rng = np.random.default_rng(0).permutation(n_users)
    return PATH, lambda n: {"user_id": int(rng[n % n_users]), "k": 20}


def peers(release: Path) -> list[str]:
    """The servers that are installed, ours first."""
    found = [OURS, PLAIN]
    for what, module in ((LITSERVE, "litserve"), (MLFLOW, "mlflow")):
        if importlib.util.find_spec(module) is None:
            print(f"{what} is not installed and left out: pip install {module}", file=sys.stderr)
        else:
            found.append(what)
    if MLFLOW in found:
        import mlflow.pyfunc

        place = release.parent / "pyfunc"
        if not place.exists():
            bundle = str(release / "bundle")
            mlflow.pyfunc.save_model(
                str(place), loader_module="lrm.serving.pyfunc", data_path=bundle, pip_requirements=[]
            )
    return found


def measured(what: str, server: Server, options: argparse.Namespace) -> tuple[Load, float]:
    """A closed loop of clients once the server is warm, and the server's CPU seconds for each answer."""
    path, body = request_of(what, n_users=options.users)
    closed(server.port, path, body, clients=options.clients, seconds=options.seconds / 2)
    before = server.cpu_seconds()
    load = closed(server.port, path, body, clients=options.clients, seconds=options.seconds)
    return load, (server.cpu_seconds() - before) / max(1, len(load.latencies))


def compare(release: Path, options: argparse.Namespace) -> None:
    """Every server under the same clients."""
    rows, ours = [], 0.0
    for what in peers(release):
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
    """One user's kept history, one candidate or many, in turn: a machine's speed drifts from second to second."""
    rng = np.random.default_rng(0)
    sizes = [n for n in CANDIDATES if n <= options.items]
    bodies = [{"user_id": 0, "candidates": rng.choice(options.items, n, replace=False).tolist()} for n in sizes]
    p50, cpu = np.empty((CANDIDATE_ROUNDS + 1, len(sizes))), np.empty((CANDIDATE_ROUNDS + 1, len(sizes)))
    with served(OURS, release) as server:
        for turn in np.ndindex(p50.shape):
            before = server.cpu_seconds()
            load = closed(server.port, "/v1/score", lambda _, at=turn[1]: bodies[at], clients=1, seconds=1)
            p50[turn], cpu[turn] = load.ms(50), 1000 * (server.cpu_seconds() - before) / max(1, len(load.latencies))
    columns = [_medians(one[1:]) for one in (p50, p50 / p50[:, :1], cpu, cpu / cpu[:, :1])]  # the first round warms up
    print(markdown(("candidates", "p50 ms", "to one", "CPU ms", "to one"), zip(sizes, *columns, strict=True)))
    print(f"\nMedian [least, most] of {CANDIDATE_ROUNDS} rounds.")


def _medians(rounds: np.ndarray) -> list[str]:
    """The median [least, most] of each column."""
    return [f"{np.median(one):.2f} [{one.min():.2f}, {one.max():.2f}]" for one in rounds.T]


def soak(release: Path, options: argparse.Namespace) -> None:
    """Memory over many requests, in tenths."""
    with served(OURS, release) as server:
        path, body = request_of(OURS, n_users=options.users)
        asked, rows = 0, []
        measured(OURS, server, options)
        while asked < options.soak:
            load = closed(server.port, path, body, clients=options.clients, seconds=options.seconds / 2)
            asked += sum(load.statuses.values())
            rows.append(
                (
                    f"{asked:,}",
                    f"{server.memory_mb():,.0f}",
                    f"{load.ms(99):.0f}",
                    sum(load.statuses.values()) - len(load.latencies),
                )
            )
    print(markdown(("requests so far", "MB", "p99 ms", "not answered"), rows))


def main() -> None:
    """Make a release and run the parts asked for."""
    options, began = parsed(), time.monotonic()
    alone = {"compare": compare, "rates": rates, "overload": overload, "candidates": candidates, "soak": soak}
    with tempfile.TemporaryDirectory(prefix="serving-") as place:
        folder = Path(place)
        release = made_release(folder / "shop", n_items=options.items, n_users=options.users, preset=options.preset)
        for part in options.parts:
            print(f"\n{part}\n")
            alone[part](release, options)
    told = (
        f"{options.items:,} items, {options.users} users of 50 events, {options.clients} clients, {options.seconds} s"
    )
    print(f"\n{told}, preset {options.preset}; {machine()}; {time.monotonic() - began:.0f} s")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=positive, default=100_000)
    parser.add_argument("--users", type=positive, default=1000)
    parser.add_argument("--clients", type=positive, default=32)
    parser.add_argument("--seconds", type=positive, default=20, help="of each measurement")
    parser.add_argument("--soak", type=positive, default=100_000, help="requests")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    return parser.parse_args()


def _stat(pid: int) -> float:
    """CPU seconds of a process; none if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    run(main)
