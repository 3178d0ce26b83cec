"""Moving the alias `champion`: compare and swap, once, and back.

The functions here decide; `Alias` reads and moves. All of it happens under the ledger's lock; between machines, the
generation of the ledger's object in a bucket decides who came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lrm.errors import RegistryError
from lrm.registry import ledger as ledgers
from lrm.registry.ledger import ABANDONED, DONE, INTENT, PROMOTE, ROLLBACK, Ledger, Log, Move

FACTS = ("verdict", "evaluation_sha256", "policy_sha256", "data_sha256", "code_version")
"""What the ledger keeps of a version."""


class Alias(NamedTuple):
    """The alias `champion` of one registered model."""

    read: Callable[[], str]
    """The version it names, "" when it names none."""
    move: Callable[[str], None]
    """Make it name a version."""
    check: Callable[[str], Mapping[str, str]]
    """What the registry says of a version (its tags); raise unless it can be served."""


class Asked(NamedTuple):
    """What somebody asks for, besides the version."""

    action: str
    """`promote`, `rollback` or `approve`."""
    reason: str
    actor: str
    run_id: str = ""
    """The run that promotes. It promotes a version once, also when its step is tried again later."""


def move_to(ledger: Ledger, alias: Alias, asked: Asked, *, version: str, expected: str) -> Move | None:
    """Make `version` the champion, if the champion is still the expected one.

    Args:
        ledger: where moves are written down.
        alias: the alias to move.
        asked: a promotion or an approval.
        version: the version to put in service.
        expected: the champion that the decision rests on, "" when there was none.

    Returns:
        The move, or None where there was nothing to do.

    Raises:
        RegistryError: another promoter came first.
    """
    with ledgers.held(ledger):
        log, _ = _settle(ledger, alias)
        made, champion = ledgers.history(log), alias.read()
        if asked.action == PROMOTE and _id(asked, ledger.name, version, log) in {move.id for move in made}:
            return None
        if champion == version:
            return None
        if champion != expected:
            raise RegistryError(
                f"{ledger.name} version {version} was compared with {called(expected)}, but the champion is now "
                f"{called(champion)}: another promoter came first; run the workflow again, to compare with it"
            )
        return _make(log, alias, asked, version=version, previous=champion)


def rollback(ledger: Ledger, alias: Alias, asked: Asked, *, expected: str, served: str = "") -> Move:
    """Make the version before the champion the champion again.

    A rollback that was killed is finished, and no other is made.

    Args:
        ledger: where moves are written down.
        alias: the alias to move.
        asked: the rollback.
        expected: the champion to leave.
        served: the version that servers are told to serve, where they could be told better.

    Raises:
        RegistryError: the ledger knows no earlier champion, the alias was moved without it, or another mover came
            first.
    """
    with ledgers.held(ledger):
        log, finished = _settle(ledger, alias)
        moves, champion = ledgers.history(log), alias.read()
        is_half_done = moves and moves[-1].version == champion and moves[-1].previous == served
        if moves and moves[-1].action == ROLLBACK and (moves[-1] == finished or is_half_done):
            return moves[-1]
        stack = ledgers.champions(moves)
        if champion != expected:
            raise RegistryError(
                f"{ledger.name}: the champion was {called(expected)} when you asked and is now {called(champion)}: "
                "somebody moved it at the same moment; look at its history, and ask again if you still want to"
            )
        if stack and stack[-1] != champion:
            raise RegistryError(
                f"{ledger.name}: the ledger's last champion is version {stack[-1]}, but the alias names "
                f"{called(champion)}: it was moved by other means; move it back by the same means, or promote a "
                "version first"
            )
        if len(stack) < 2:
            raise RegistryError(f"{ledger.name}: there is no earlier champion to roll back to; see its history")
        return _make(log, alias, asked, version=stack[-2], previous=champion)


def settle(ledger: Ledger, alias: Alias) -> None:
    """Finish a move whose process was killed before the alias had moved or the ledger had said so."""
    if ledgers.unfinished(ledgers.peek(ledger)):
        with ledgers.held(ledger):
            _settle(ledger, alias)


def called(version: str) -> str:
    """A version in a sentence."""
    return f"version {version}" if version else "no champion"


def _settle(ledger: Ledger, alias: Alias) -> tuple[Log, Move | None]:
    """The ledger without anything unfinished, and the move that had to be finished for that."""
    log = ledgers.load(ledger)
    move = ledgers.unfinished(log)
    if move is None:
        return log, None
    log, is_made = _carry_out(log, alias, move)
    return log, move if is_made else None


def _make(log: Log, alias: Alias, asked: Asked, *, version: str, previous: str) -> Move:
    tags, name = alias.check(version), log.ledger.name
    move = Move(
        id=_id(asked, name, version, log),
        name=name,
        action=asked.action,
        version=version,
        previous=previous,
        reason=asked.reason,
        run_id=asked.run_id,
        actor=asked.actor,
        time=ledgers.now(),
        **{fact: tags.get(fact, "") for fact in FACTS},
    )
    intended = ledgers.append(log, move, INTENT)
    is_made = intended is not None and _carry_out(intended, alias, move)[1]
    if not is_made:
        raise RegistryError(
            f"{name}: another promoter came first and moved the champion while version {version} was about to replace "
            f"{called(previous)}; look at its history, then run the same again if it is still wanted"
        )
    return move


def _id(asked: Asked, name: str, version: str, log: Log) -> str:
    """A run promotes a version once; what a person asks for is new after each move."""
    one = asked.run_id if asked.action == PROMOTE else len(ledgers.history(log))
    return ledgers.move_id(name, asked.action, version, one)


def _carry_out(log: Log, alias: Alias, move: Move) -> tuple[Log, bool]:
    """Move the alias as intended, unless somebody moved it elsewhere since: theirs stands.

    Returns:
        The log with how it ended, and whether the move was made.
    """
    champion = alias.read()
    if champion not in (move.previous, move.version):
        return _close(log, alias, move, ABANDONED)
    if champion != move.version:
        alias.move(move.version)
    return _close(log, alias, move, DONE)


def _close(log: Log, alias: Alias, move: Move, state: str) -> tuple[Log, bool]:
    """Write down how a move ended, unless another machine has finished it in the meantime."""
    closed = ledgers.append(log, move, state)
    if closed is not None:
        return closed, state == DONE
    log = ledgers.load(log.ledger)
    if ledgers.unfinished(log) == move:
        return _close(log, alias, move, state)
    stack = ledgers.champions(ledgers.history(log))
    if stack and alias.read() == move.version != stack[-1]:
        alias.move(stack[-1])  # others have moved on, and the alias was set back by this late move
    return log, move in ledgers.history(log)
