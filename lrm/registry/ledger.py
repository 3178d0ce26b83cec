"""The promotion ledger: every move of the alias `champion`, line after line, never rewritten.

MLflow's aliases have neither history nor compare-and-swap, so both are kept here. A move is two lines: an *intent*,
written before the alias moves, and a *done*, written after. A move that was killed in between leaves an intent without
its done, and the next call finishes it.

The lines are kept twice: beside the registry, and in a *mirror* in the artifact store, a folder or a bucket. The mirror
is written first and decides who came first; whichever of the two lacks lines of the other is given them.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from lrm.errors import RegistryError
from lrm.registry import append_log
from lrm.registry.address import BUCKET, check_ledger
from lrm.registry.append_log import Text

PROMOTE, ROLLBACK, APPROVE = "promote", "rollback", "approve"
INTENT, DONE, ABANDONED = "intent", "done", "abandoned"
ACTOR = "LRM_ACTOR"
"""Environment variable that names who acts, where the user and the machine say too little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One move of the alias: from version `previous` ("" where there was none) to `version`."""

    id: str
    """The same for the same promotion tried again."""
    name: str
    """The registered model."""
    action: str
    """`promote`, `rollback` or `approve`."""
    version: str
    previous: str
    verdict: str
    """The gate's, on `version`."""
    reason: str
    run_id: str
    """The run that promotes; "" where a person moved the alias."""
    actor: str
    time: str
    """UTC instant of the intent, ISO."""
    evaluation_sha256: str
    policy_sha256: str
    data_sha256: str
    code_version: str
    weights_sha256: str = ""
    """Of the model that the move is about: the one that a rollback takes out of service, else the one put there."""


class Ledger(NamedTuple):
    """Where the lines of one registered model are kept."""

    name: str
    mirror: str
    """A file's path or `gs://BUCKET/PATH`."""
    beside: Path | None
    """The copy beside the registry; None where the registry is a server."""


class Log(NamedTuple):
    """What a ledger held when it was read."""

    ledger: Ledger
    seen: Text
    lines: list[tuple[str, Move]]
    """State and move of each line, oldest first."""


def ledger_at(name: str, *, mirror: str, beside: Path | None) -> Ledger:
    """The ledger of one model in a folder or bucket, with its copy in the folder `beside`.

    Raises:
        RegistryError: no ledger can be there.
    """
    check_ledger(mirror)
    file = f"{name}.jsonl"
    return Ledger(name, f"{mirror.rstrip('/')}/{file}", beside / file if beside else None)


def actor() -> str:
    """Who acts: `$LRM_ACTOR`, or user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"user {os.getuid()}"
    return os.environ.get(ACTOR) or f"{user}@{socket.gethostname()}"


def move_id(*parts: object) -> str:
    """The id of a move, from what makes it the same move."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def now() -> str:
    """The present UTC instant, ISO."""
    return datetime.now(UTC).isoformat()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, `PATH` with the suffix `.lock`: one process or thread of this machine at a time.

    Raises:
        RegistryError: the lock cannot be made there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".lock").touch()
    except OSError as error:
        raise append_log.fault(path, error) from error
    with open(path.with_suffix(".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def held(ledger: Ledger) -> Iterator[None]:
    """Hold a ledger's lock; a bucket without a copy needs none, because its generation decides.

    Raises:
        RegistryError: the lock cannot be made.
    """
    file = ledger.beside or (None if ledger.mirror.startswith(BUCKET) else Path(ledger.mirror))
    if file is None:
        yield
        return
    with locked(file):
        yield


def load(ledger: Ledger) -> Log:
    """Read a ledger whose lock is held, and give each of its two places the lines that only the other has.

    Raises:
        RegistryError: a place cannot be used, a line is no entry, or the two places contradict each other.
    """
    seen = append_log.read(ledger.mirror)
    if ledger.beside is not None:
        own = append_log.read(str(ledger.beside))
        _check_agreement(ledger, seen, own)
        if missing := seen.content[len(own.content) :]:
            append_log.extend(str(ledger.beside), own, missing)
        elif missing := own.content[len(seen.content) :]:
            extended = append_log.extend(ledger.mirror, seen, missing)
            if extended is None:
                return load(ledger)  # another writer came first: what it wrote must agree too
            seen = extended
    return Log(ledger, seen, _lines(ledger.mirror, seen.content))


def peek(ledger: Ledger) -> Log:
    """Read a ledger without a lock, and change nothing.

    Raises:
        RegistryError: a place cannot be read, a line is no entry, or the two places contradict each other.
    """
    seen = append_log.read(ledger.mirror)
    own = append_log.read(str(ledger.beside)) if ledger.beside else seen
    _check_agreement(ledger, seen, own)
    return Log(ledger, seen, _lines(ledger.mirror, max(seen.content, own.content, key=len)))


def append(log: Log, move: Move, state: str) -> Log | None:
    """Add a line to a log that is still all there is.

    Returns:
        The log with it; None where another writer came first.

    Raises:
        RegistryError: a place cannot be written.
    """
    line = json.dumps({"state": state} | asdict(move)).encode() + b"\n"
    seen = append_log.extend(log.ledger.mirror, log.seen, line)
    if seen is None:
        return None
    if log.ledger.beside is not None:
        append_log.extend(str(log.ledger.beside), append_log.read(str(log.ledger.beside)), line)
    return Log(log.ledger, seen, [*log.lines, (state, move)])


def history(log: Log) -> list[Move]:
    """The moves that were made, oldest first."""
    return [move for state, move in log.lines if state == DONE]


def unfinished(log: Log) -> Move | None:
    """The move that was intended and neither made nor abandoned."""
    return log.lines[-1][1] if log.lines and log.lines[-1][0] == INTENT else None


def champions(moves: list[Move]) -> list[str]:
    """The versions that were champion and were not rolled back, oldest first; the last one is the champion."""
    stack: list[str] = []
    for move in moves:
        if move.action == ROLLBACK:
            stack.pop()
            continue
        if move.previous and stack[-1:] != [move.previous]:
            stack.append(move.previous)  # the alias had been moved without the ledger
        stack.append(move.version)
    return stack


def rolled_back(moves: list[Move]) -> dict[str, Move]:
    """The weights that no run promotes: those that a person took out of service and nobody has approved since.

    Returns:
        {sha256 of the weights: the rollback}.
    """
    banned: dict[str, Move] = {}
    for move in moves:
        if move.action == ROLLBACK and move.weights_sha256:
            banned[move.weights_sha256] = move
        elif move.action == APPROVE:
            banned.pop(move.weights_sha256, None)
    return banned


def told(rollback: Move) -> str:
    """A rollback in a sentence."""
    why = f": {rollback.reason}" if rollback.reason else ""
    return f"{rollback.actor} rolled version {rollback.previous} back at {rollback.time[:16]}{why}"


def _check_agreement(ledger: Ledger, mirror: Text, own: Text) -> None:
    if not (mirror.content.startswith(own.content) or own.content.startswith(mirror.content)):
        raise RegistryError(
            f"the ledger of {ledger.name} contradicts itself: {ledger.beside} and {ledger.mirror} differ in lines that "
            "both have; restore the one that was changed by hand from the other"
        )


def _lines(place: str, content: bytes) -> list[tuple[str, Move]]:
    lines = []
    for number, line in enumerate(content.decode(errors="replace").split("\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            lines.append((entry.pop("state"), Move(**entry)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RegistryError(
                f"{place}, line {number} is no ledger entry: {line[:80]!r}; restore the file, it is written by "
                "promotions, approvals and rollbacks alone"
            ) from error
    return lines
