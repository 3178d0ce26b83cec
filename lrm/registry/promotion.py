"""Moving the alias `champion`: compare and swap, once, and back.

The functions here decide; `Alias` reads and moves. All of it happens under the ledger's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lrm.errors import RegistryError
from lrm.registry import ledger as ledgers
from lrm.registry.ledger import ABANDONED, PROMOTE, ROLLBACK, Move


class Alias(NamedTuple):
    """The alias `champion` of one registered model."""

    read: Callable[[], str]
    """The version it names, "" when it names none."""
    move: Callable[[str], None]
    """Make it name a version."""
    check: Callable[[str], None]
    """Raise unless a version can be served."""


def promote(
    ledger: Path, alias: Alias, *, name: str, version: str, expected: str, run_id: str, reason: str = ""
) -> Move | None:
    """Make `version` the champion, if the champion is still the one it was compared with.

    Args:
        ledger: the ledger's file.
        alias: the alias to move.
        name: the registered model.
        version: the version to promote.
        expected: the champion it was compared with, "" when there was none.
        run_id: the run that promotes; a run promotes a version once, also when its step is tried again later.
        reason: the verdict's reasons, for whoever reads the history.

    Returns:
        The move, or None where there was nothing to do.

    Raises:
        RegistryError: another promoter came first.
    """
    with ledgers.locked(ledger):
        _settle(ledger, alias, name)
        made = ledgers.history(ledger, name)
        if any((move.action, move.run_id, move.version) == (PROMOTE, run_id, version) for move in made):
            return None
        champion = alias.read()
        if champion == version:
            return None
        if champion != expected:
            raise RegistryError(
                f"{name} version {version} was compared with {_called(expected)}, but the champion is now "
                f"{_called(champion)}: another promoter came first; run the workflow again, to compare with it"
            )
        return _move(
            ledger, alias, name, action=PROMOTE, version=version, previous=champion, run_id=run_id, reason=reason
        )


def rollback(ledger: Path, alias: Alias, *, name: str, reason: str = "") -> Move:
    """Make the version before the champion the champion again.

    Raises:
        RegistryError: the ledger knows no earlier champion, or the alias was moved without it.
    """
    with ledgers.locked(ledger):
        _settle(ledger, alias, name)
        stack, champion = ledgers.champions(ledgers.history(ledger, name)), alias.read()
        if stack and stack[-1] != champion:
            raise RegistryError(
                f"{name}: the ledger's last champion is version {stack[-1]}, but the alias names {_called(champion)}: "
                "it was moved by other means; move it back by the same means, or promote a version first"
            )
        if len(stack) < 2:
            raise RegistryError(f"{name}: there is no earlier champion to roll back to; see its history")
        return _move(
            ledger, alias, name, action=ROLLBACK, version=stack[-2], previous=champion, run_id="", reason=reason
        )


def settle(ledger: Path, alias: Alias, *, name: str) -> None:
    """Finish a move whose process was killed before the alias had moved or the ledger had said so."""
    if ledger.is_file():
        with ledgers.locked(ledger):
            _settle(ledger, alias, name)


def _settle(ledger: Path, alias: Alias, name: str) -> None:
    move = ledgers.unfinished(ledger, name)
    if move is None:
        return
    champion = alias.read()
    if champion not in (move.previous, move.version):
        ledgers.close(ledger, move, state=ABANDONED)  # someone else decided since; theirs stands
        return
    alias.move(move.version)
    ledgers.close(ledger, move)


def _move(
    ledger: Path, alias: Alias, name: str, *, action: str, version: str, previous: str, run_id: str, reason: str
) -> Move:
    alias.check(version)
    move = ledgers.intend(
        ledger, name=name, action=action, version=version, previous=previous, run_id=run_id, reason=reason
    )
    alias.move(version)
    ledgers.close(ledger, move)
    return move


def _called(version: str) -> str:
    return f"version {version}" if version else "no champion"
