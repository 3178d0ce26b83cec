"""Hand a run's summary to whoever wants to know: a command reads it, or an address is sent it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lrm.errors import LrmError
from lrm.process_environment import LOOPBACK
from lrm.record import RUN_DIR

SUMMARY = "summary.json"
TIMEOUT_SECONDS = 30.0
WEB = ("http://", "https://")


def check(target: str) -> None:
    """Refuse what can be neither a command nor an address.

    Raises:
        LrmError: it is neither.
    """
    if target.startswith(WEB):
        if not urlsplit(target).hostname:
            raise LrmError(f"--notify {target!r} names no host; give https://HOST/PATH, or a command")
        return
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise LrmError(f"--notify {target!r} is no command ({error}); quote it as for a shell") from None
    if not words:
        raise LrmError("--notify is empty; give a command that reads summary.json, or an address that takes it")


def notify(
    run_dir: Path, targets: Iterable[str], *, say: Callable[[str], None], timeout_s: float = TIMEOUT_SECONDS
) -> None:
    """Hand a run's `summary.json` to each target; one that fails is said, and changes nothing else.

    Args:
        run_dir: the run's folder.
        targets: commands, started without a shell in that folder, which read it from their standard input; or
            addresses, to which it is posted as JSON.
        say: takes a line for the terminal. Addresses hold secrets, so no more than their host is said.
        timeout_s: how long a target may take, in seconds.
    """
    summary = (run_dir / SUMMARY).read_bytes()
    for target in targets:
        try:
            if target.startswith(WEB):
                _post(target, summary, timeout_s)
            else:
                _call(target, summary, run_dir, timeout_s)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            say(f"Warning: {shown(target)} was not notified: {_reason(error)}")


def shown(target: str) -> str:
    """A target as far as it may be shown: of an address the host alone, of a command the program."""
    if target.startswith(WEB):
        return f"{urlsplit(target).scheme}://{urlsplit(target).hostname}"
    return shlex.split(target)[0]


def shown_words(words: Sequence[str]) -> list[str]:
    """The words of a command line as far as they may be kept: what follows --notify as `shown`."""
    kept = []
    for before, word in zip(("", *words), words, strict=False):
        option, equals, value = word.partition("=")
        if equals and _is_notify(option):
            word = f"{option}={shown(value)}"
        kept.append(shown(word) if _is_notify(before) else word)
    return kept


def _is_notify(word: str) -> bool:
    """Whether a word is the option, or begins as it does, which argument parsers take too."""
    return len(word) > len("--n") and "--notify".startswith(word)


def _post(address: str, summary: bytes, timeout_s: float) -> None:
    asked = urllib.request.Request(address, data=summary, headers={"content-type": "application/json"}, method="POST")
    is_here = urlsplit(address).hostname in LOOPBACK
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_here else []))
    with opener.open(asked, timeout=timeout_s):
        pass


def _call(command: str, summary: bytes, run_dir: Path, timeout_s: float) -> None:
    """Run a command; one that takes too long is killed with all that it started."""
    process = subprocess.Popen(
        shlex.split(command),
        stdin=subprocess.PIPE,
        cwd=run_dir,
        env={**os.environ, RUN_DIR: str(run_dir)},
        start_new_session=True,
    )
    try:
        process.communicate(summary, timeout=timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "")


def _reason(error: Exception) -> str:
    """What went wrong, without the words of a library that repeats the whole target."""
    if isinstance(error, subprocess.TimeoutExpired | TimeoutError):
        return "it took too long"
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with status {error.returncode}"
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        return f"it cannot be reached ({error.reason})"
    return type(error).__name__ if isinstance(error, ValueError) else os.strerror(getattr(error, "errno", 0) or 0)
