"""Let one process in at a time: a lock file that names its holder, and that no dead process can hold.

`filelock` does not fit: it gives no descriptor, and a child process that inherits one holds this lock as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lrm.errors import LrmError


class BusyError(LrmError):
    """Another process holds the lock."""


class Held(NamedTuple):
    """A lock that is held; it is let go once no process has its file open any more, however they end."""

    file: int
    """Descriptor; a child process that inherits it holds the lock too."""
    left_by: str
    """The process that ended without letting go, "" if none did."""


@contextmanager
def only_one(path: Path) -> Iterator[Held]:
    """Hold the lock at `path`.

    Raises:
        BusyError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as lock:
        lock.seek(0)
        holder = lock.read().strip()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"process {holder} holds {path}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield Held(lock.fileno(), holder)
        finally:
            lock.truncate(0)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`."""
    if not path.is_file():
        return False
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
