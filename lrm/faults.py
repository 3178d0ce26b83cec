"""Faults of the world around a step: what a person can do about each, and which of them pass by themselves.

A step is tried again only for a fault that passes: a service that does not answer, a database that another process
holds. Everything else, a verdict above all, stands as it is.
"""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from lrm.errors import LrmError

T = TypeVar("T")
WAITS_SECONDS = (1.0, 4.0, 16.0)
"""Between one try and the next: a step is tried four times."""
FULL_BELOW_BYTES = 1 << 20
"""Free space below which a write that failed is taken to fail for want of space: libraries say so in many words."""
AGAIN = "then start the same command again: steps that completed are reused"

FULL, READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (errno.EROFS, errno.EACCES, errno.EPERM)
LOCKED = "database is locked"
DAMAGED = ("file is not a database", "database disk image is malformed", "disk I/O error")
NOT_WRITABLE = ("attempt to write a readonly database", "unable to open database file")


def advice(error: BaseException, folder: Path) -> str:
    """What to do about a fault that interrupted the writing of `folder`; "" where the error is no such fault."""
    if not isinstance(error, Exception) or (isinstance(error, LrmError) and not passes(error)):
        return ""  # an interrupt, or an error that says what to do itself
    text, numbers = " ".join(_words(error)), {one.errno for one in _chain(error) if isinstance(one, OSError)}
    if numbers & set(FULL) or "No space left" in text or _is_full(folder):
        return f"the disk of {folder} is full: free some space (`python pipeline.py prune` lists what can go), {AGAIN}"
    if LOCKED in text:
        return f"another process holds the database: wait for it or end it, {AGAIN}"
    if any(words in text for words in DAMAGED):
        return f"the database is damaged: restore it from a copy, or move it away to begin with an empty one, {AGAIN}"
    if numbers & set(READ_ONLY) or any(words in text for words in NOT_WRITABLE):
        return f"a file or folder cannot be written by this user: give write access or name another folder, {AGAIN}"
    if passes(error):
        return f"a service did not answer: see that it runs, {AGAIN}"
    return ""


def passes(error: BaseException) -> bool:
    """Whether the same call may succeed a little later though nobody does anything."""
    is_away = any(isinstance(one, ConnectionError | TimeoutError) for one in _chain(error))
    return is_away or any(LOCKED in words for words in _words(error))


def patiently(call: Callable[[], T], *, waits: tuple[float, ...] = WAITS_SECONDS) -> T:
    """Call until it succeeds, fails with a fault that does not pass, or has failed once more than there are waits.

    Args:
        call: what to do; it must be able to begin again after a fault at any point.
        waits: seconds between one try and the next.

    Raises:
        BaseException: what the last try raised.
    """

    def say(state: RetryCallState) -> None:
        error, wait = state.outcome and state.outcome.exception(), state.upcoming_sleep
        print(f"{type(error).__name__}: {error}; trying again in {wait:g} s", file=sys.stderr, flush=True)

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and passes(error)),
        stop=stop_after_attempt(len(waits) + 1),
        wait=wait_chain(*map(wait_fixed, (*waits, 0.0))),  # it asks for a wait after the last try, too
        before_sleep=say,
        reraise=True,
    )
    return retrying(call)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes; for an error raised on purpose, only the causes that it names."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if isinstance(error, LrmError) else error.__context__)


def _words(error: BaseException) -> list[str]:
    return [str(one) for one in _chain(error)]


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < FULL_BELOW_BYTES
    except OSError:
        return False
