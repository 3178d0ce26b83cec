"""The promotion ledger: every move of the alias `champion`, appended to one file under one lock.

MLflow's aliases have neither history nor compare-and-swap, so both are kept here, in `promotions.jsonl` beside the
registry. A move is two lines: an *intent*, written before the alias moves, and a *done*, written after. A move that was
killed in between leaves an intent without its done, and the next call finishes it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lrm.errors import RegistryError

PROMOTE, ROLLBACK = "promote", "rollback"
INTENT, DONE, ABANDONED = "intent", "done", "abandoned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One move of the alias: from version `previous` ("" where there was none) to `version`."""

    name: str
    """The registered model."""
    action: str
    """`promote` or `rollback`."""
    version: str
    previous: str
    run_id: str
    reason: str
    time: str
    """UTC instant of the intent, ISO."""


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Hold the ledger's lock: one process or thread of this machine at a time."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with open(ledger.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def intend(ledger: Path, *, name: str, action: str, version: str, previous: str, run_id: str, reason: str) -> Move:
    """Write down a move before making it."""
    now = datetime.now(UTC).isoformat()
    move = Move(name=name, action=action, version=version, previous=previous, run_id=run_id, reason=reason, time=now)
    _append(ledger, move, INTENT)
    return move


def close(ledger: Path, move: Move, *, state: str = DONE) -> None:
    """Write down that a move was made, or abandoned."""
    _append(ledger, move, state)


def history(ledger: Path, name: str) -> list[Move]:
    """The moves of one model that were made, oldest first."""
    return [move for state, move in _lines(ledger) if state == DONE and move.name == name]


def unfinished(ledger: Path, name: str) -> Move | None:
    """The move that was intended and neither made nor abandoned: its process was killed."""
    lines = [(state, move) for state, move in _lines(ledger) if move.name == name]
    return lines[-1][1] if lines and lines[-1][0] == INTENT else None


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


def _append(ledger: Path, move: Move, state: str) -> None:
    """Add one line and flush it to disk; a line torn by a kill is cut off first."""
    with open(ledger, "a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write(json.dumps({"state": state} | asdict(move)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(ledger: Path) -> list[tuple[str, Move]]:
    """Every whole line.

    Raises:
        RegistryError: a line is no entry of this ledger.
    """
    if not ledger.is_file():
        return []
    lines = []
    for number, line in enumerate(ledger.read_text().split("\n")[:-1], start=1):
        try:
            entry = json.loads(line)
            lines.append((entry.pop("state"), Move(**entry)))
        except (ValueError, TypeError, KeyError) as error:
            raise RegistryError(
                f"{ledger}, line {number} is no ledger entry: {line[:80]!r}; restore the file, it is written by "
                "promotions and rollbacks alone"
            ) from error
    return lines
