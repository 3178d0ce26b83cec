"""What a process is started among, and what of it must not decide how its work ends.

A proxy is not asked for this machine's own servers; a library's warning stays a warning, whatever Python was told to
make of it; and where nobody reads any more what is printed, as after `| head`, the work goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WARNINGS = "PYTHONWARNINGS"
GONE = (errno.EPIPE, errno.EIO)
"""What a write says where the reader, or the terminal, is gone."""


def settle() -> None:
    """Settle this process and those that it starts: what a command line does first."""
    spare_loopback()
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.simplefilter("default")
    if WARNINGS in os.environ:
        os.environ[WARNINGS] = lenient(os.environ[WARNINGS])
    _open_all()
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def spare_loopback() -> None:
    """Have this process, and those that it starts, ask this machine's own servers without a proxy."""
    os.environ.update(without_proxy(os.environ))


def without_proxy(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep an environment's proxies off the loopback; none where there is no proxy."""
    if not any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in given):
        return {}
    said = given.get("no_proxy") or given.get("NO_PROXY") or ""
    hosts = [host for host in (one.strip() for one in said.split(",")) if host]
    if "*" in hosts:
        return {}
    listed = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    return {"no_proxy": listed, "NO_PROXY": listed}


def lenient(filters: str) -> str:
    """Python's warning filters, with warnings shown that they would make errors of."""
    return ",".join(_shown(one) for one in filters.split(","))


def _shown(one: str) -> str:
    action, colon, rest = one.partition(":")
    is_error = action.strip() and "error".startswith(action.strip())  # Python takes an action's first letters too
    return f"default{colon}{rest}" if is_error else one


class Lasting(io.TextIOWrapper):
    """A stream that goes nowhere once nobody is there to read it."""

    def write(self, text: str, /) -> int:
        """Write, or go nowhere."""
        try:
            return super().write(text)
        except OSError as error:
            self._end(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or go nowhere."""
        try:
            super().flush()
        except OSError as error:
            self._end(error)
            super().flush()

    def _end(self, error: OSError) -> None:
        """Let what is still in the buffers go nowhere too: a later flush would fail anew."""
        if error.errno not in GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def _lasting(stream: Any) -> Any:
    if stream is None:
        return open(os.devnull, "w")
    return Lasting(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_all() -> None:
    """Open what was closed of the three standard streams, so that no file of ours is taken for one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
