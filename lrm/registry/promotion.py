"""Moving the alias `champion`: compare and swap, once, and back.

The functions here decide; `Alias` reads and moves. All of it happens under the ledger's lock; between machines, the
generation of the ledger's object in a bucket decides who came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lrm.errors import RegistryError
from lrm.registry import ledger as ledgers
from lrm.registry.ledger import ABANDONED, APPROVE, DONE, INTENT, PROMOTE, ROLLBACK, Ledger, Log, Move

FACTS = ("verdict", "evaluation_sha256", "policy_sha256", "data_sha256", "code_version", "weights_sha256")
"""What the ledger keeps of a version."""


class Alias(NamedTuple):
    """The alias `champion` of one registered model."""

    read: Callable[[], str]
    """The version it names, "" when it names none."""
    move: Callable[[str], None]
    """Make it name a version."""
    check: Callable[[str], Mapping[str, str]]
    """What the ledger keeps of a version, by name of the field; raise unless it can be served."""
    weights: Callable[[str], str]
    """The sha256 of a version's weights, "" where nobody knows."""


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
        RegistryError: another mover came first, or a run promotes weights that a person rolled back.
    """
    with ledgers.held(ledger):
        log, _ = _settle(ledger, alias)
        made, champion = ledgers.history(log), alias.read()
        if asked.action == PROMOTE and _id(asked, ledger.name, version, log) in {move.id for move in made}:
            return None
        if champion == version:
            return None
        if asked.action == PROMOTE:
            _refuse_rolled_back(ledger.name, version, alias, made)
        if champion != expected and asked.action == APPROVE:
            raise RegistryError(_moved_meanwhile(ledger.name, expected, champion))
        if champion != expected:
            raise RegistryError(
                f"{ledger.name} version {version} was compared with {called(expected)}, but the champion is now "
                f"{called(champion)}: another promoter came first; run the workflow again, to compare with it"
            )
        return _make(log, alias, asked, version=version, previous=champion)


def rollback(
    ledger: Ledger, alias: Alias, asked: Asked, *, expected: str, served: str | None = None, leave: str = ""
) -> tuple[Move, bool]:
    """Make the version before the champion the champion again.

    A rollback that did not reach its end is finished, and no other is made.

    Args:
        ledger: where moves are written down.
        alias: the alias to move.
        asked: the rollback.
        expected: the champion to leave.
        served: the version that servers are told to serve, "" for none: where the last rollback has not reached them,
            that one is finished. None: nobody knows.
        leave: the version to leave, where somebody says so: asked for twice, it is left once.

    Returns:
        The move, and whether this call has made it.

    Raises:
        RegistryError: the ledger knows no earlier champion, the alias was moved without it, another mover came first,
            or the version to leave is not in service.
    """
    with ledgers.held(ledger):
        log, finished = _settle(ledger, alias)
        moves, champion = ledgers.history(log), alias.read()
        last = moves[-1] if moves and moves[-1].action == ROLLBACK and moves[-1].version == champion else None
        if last and leave not in ("", champion) and leave == last.previous:
            return last, False
        if last and not leave and (last == finished or served not in (None, champion)):
            return last, False
        if leave not in ("", champion):
            raise RegistryError(
                f"{ledger.name}: the champion is {called(champion)}, and the last rollback did not leave version "
                f"{leave}; look at its history, and name the version to leave"
            )
        stack = ledgers.champions(moves)
        if champion != (leave or expected):
            raise RegistryError(_moved_meanwhile(ledger.name, expected, champion))
        if stack and stack[-1] != champion:
            raise RegistryError(
                f"{ledger.name}: the ledger's last champion is version {stack[-1]}, but the alias names "
                f"{called(champion)}: it was moved by other means; move it back by the same means, or promote a "
                "version first"
            )
        if len(stack) < 2:
            raise RegistryError(f"{ledger.name}: there is no earlier champion to roll back to; see its history")
        return _make(log, alias, asked, version=stack[-2], previous=champion), True


def settle(ledger: Ledger, alias: Alias) -> None:
    """Finish a move whose process was killed before the alias had moved or the ledger had said so."""
    if ledgers.unfinished(ledgers.peek(ledger)):
        with ledgers.held(ledger):
            _settle(ledger, alias)


def called(version: str) -> str:
    """A version in a sentence."""
    return f"version {version}" if version else "no champion"


def _refuse_rolled_back(name: str, version: str, alias: Alias, made: list[Move]) -> None:
    rollback = ledgers.rolled_back(made).get(alias.weights(version))
    if rollback:
        raise RegistryError(
            f"{name} version {version} has the weights of version {rollback.previous}, and {ledgers.told(rollback)}; "
            f"no run promotes them again, but a person may: `python pipeline.py approve {version}`"
        )


def _moved_meanwhile(name: str, expected: str, champion: str) -> str:
    return (
        f"{name}: the champion was {called(expected)} when you asked and is now {called(champion)}: somebody moved it "
        "at the same moment; look at its history, and ask again if you still want to"
    )


def _settle(ledger: Ledger, alias: Alias) -> tuple[Log, Move | None]:
    """The ledger without anything unfinished, and the move that had to be finished for that."""
    log = ledgers.load(ledger)
    move = ledgers.unfinished(log)
    if move is None:
        return log, None
    log, is_made = _carry_out(log, alias, move)
    return log, move if is_made else None


def _make(log: Log, alias: Alias, asked: Asked, *, version: str, previous: str) -> Move:
    facts, name = dict(alias.check(version)), log.ledger.name
    if asked.action == ROLLBACK:
        facts["weights_sha256"] = alias.weights(previous)
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
        **{fact: facts.get(fact, "") for fact in FACTS},
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
