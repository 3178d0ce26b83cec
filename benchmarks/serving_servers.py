"""The servers that are compared, each a process of its own on loopback around the same release."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import PROJECT
from benchmarks.serving_load import Load, closed
from lrm.errors import ServingError
from lrm.serving.staging.process import free_port

PATH = "/v1/recommend"
OURS, PLAIN, LITSERVE, MLFLOW = "this server", "plain FastAPI", "LitServe", "MLflow's server"
SMALL, CACHED = "this server with small memories", "plain FastAPI that keeps what it read of a user"
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

    def metrics(self) -> dict[str, float]:
        """What our own server counts, by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


@contextmanager
def served(what: str, release: Path, *arguments: str) -> Iterator[Server]:
    """Run a server until done with; `arguments` are further ones of our own."""
    port = free_port()
    ours = ("--release", str(release), "--port", str(port))
    commands = {
        OURS: ["lrm.serving", *arguments, *ours],
        SMALL: ["benchmarks.serving_small", *arguments, *ours],
        PLAIN: ["benchmarks.serving_peers", str(release), str(port)],
        CACHED: ["benchmarks.serving_peers", str(release), str(port), "--keep"],
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
        except OSError:  # not listening yet
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


def _stat(pid: int) -> float:
    """CPU seconds of a process; none if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS
