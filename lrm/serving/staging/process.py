"""A server process of one release, from its start until it is no longer needed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrm.errors import ServingError

READY_WITHIN_S = 120.0
STOPS_WITHIN_S = 30.0


@contextmanager
def running(folder: Path, *arguments: str, log: Path) -> Iterator[str]:
    """Serve a release on a free port of this machine; gives the address once the server is ready.

    Args:
        folder: the release.
        arguments: further ones of the server's command line.
        log: where the server's output goes.

    Raises:
        ServingError: the server ended, or was not ready in time; the message ends with its last lines.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    place = ("--release", str(folder), "--host", "127.0.0.1", "--port", str(port))
    command = [sys.executable, "-m", "lrm.serving", *place, *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_ready(address: str) -> bool:
    """Whether the server there has loaded its model and is warm."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:
            return bool(json.load(response)["status"] == "ready")
    except OSError:  # not listening yet, or still loading (503)
        return False


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingError(f"the server ended with status {process.returncode} before it was ready: {_tail(log)}")
        if is_ready(address):
            return
        time.sleep(0.1)
    raise ServingError(f"the server was not ready within {READY_WITHIN_S:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-5:]
    return " | ".join(lines) or "it said nothing"
