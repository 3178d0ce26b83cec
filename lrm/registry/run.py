"""The registry's doors: which version is in service, a new version, and the champion's move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrm.content_digest import BUNDLE
from lrm.errors import RegistryError
from lrm.record import recorded
from lrm.registry import bundle as bundles
from lrm.registry import judgement as judgements
from lrm.registry.access import ARTIFACTS, alias_of, choose_ledger, judgement_of, known_ledger, ledger_of
from lrm.registry.address import path_of
from lrm.registry.judgement import CONTENT, PARENT, REJECT
from lrm.registry.ledger import APPROVE, PROMOTE, ROLLBACK, Move, actor, history, peek, rolled_back, told
from lrm.registry.promotion import Asked
from lrm.registry.registration import JUDGED, check_scored, log, parent_of
from lrm.storage import write_json

LOOKS = "looks.json"
LOOKED_AT = ("version", "weights_sha256", "data", *JUDGED, PARENT)
"""What is told of each model that was judged before; "" where its version was registered without."""
MOVES, N_MOVES = "moves.json", 50
"""The champion's latest moves, for the report: those that can have been since the run before, and more."""


@recorded("find_champion", output="found", keep=("champion.json", LOOKS, MOVES))
def find_champion(registry: str, name: str, found: Path) -> dict[str, Any]:
    """Resolve the alias `champion`, once, to an immutable version.

    Args:
        registry: the store, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        name: the registered model.
        found: output folder; gets `champion.json`, and `looks.json`: of every version, which model was judged on which
            test data, for the evaluation to know how often it looked at them, and `moves.json`: the champion's latest
            moves, for the report.

    Returns:
        `version` and `bundle` (its folder), both "" where nothing was promoted yet; `rolled_back`: the weights that a
        person took out of service and nobody approved since, as {sha256: who, when and why}.

    Raises:
        RegistryError: the champion's bundle is gone or was tampered with.
    """
    from lrm.registry import backend

    champion = resolve(registry, name)
    moves = _moves(registry, name)
    _write(found / MOVES, [_facts(move) for move in moves[-N_MOVES:]])
    champion |= {"rolled_back": {weights: told(move) for weights, move in rolled_back(moves).items()}}
    known = [{"version": one.version} | dict(one.tags) for one in backend.versions(backend.connect(registry, name))]
    _write(found / LOOKS, [{key: tags.get(key, "") for key in LOOKED_AT} for tags in known])
    _write(found / "champion.json", champion)
    return champion


def resolve(registry: str, name: str, *, version: str = "") -> dict[str, Any]:
    """`version`, `bundle` (its folder, files verified) and `content_sha256` of the champion, or of the named version.

    All three are "" where there is no champion.

    Raises:
        RegistryError: there is no such version, or its bundle is gone or was tampered with.
    """
    from lrm.registry import backend, promotion

    store = backend.connect(registry, name)
    ledger = ledger_of(store)
    if ledger is not None:
        promotion.settle(ledger, alias_of(store))
    number = version or backend.alias(store, backend.CHAMPION)
    if not number:
        return {"version": "", "bundle": "", CONTENT: ""}
    folder = backend.bundle_of(backend.version(store, number))
    return {"version": number, "bundle": str(folder), CONTENT: bundles.verify(folder)[CONTENT]}


def _moves(registry: str, name: str) -> list[Move]:
    """The champion's moves, oldest first; none where the model has no ledger yet."""
    from lrm.registry import backend

    book = ledger_of(backend.connect(registry, name))
    return history(peek(book)) if book else []


def _facts(move: Move) -> dict[str, str]:
    """What a report says of a move."""
    shown = ("time", "action", "version", "previous", "actor", "reason", "run_id")
    return {fact: getattr(move, fact) for fact in shown}


@contextmanager
def champion_held(registry: str, name: str) -> Iterator[str]:
    """The champion's version, which nobody moves on this machine until the block ends; "" for none.

    Whoever lets servers follow the champion does it in here, so that they never end at a version that was left.
    """
    from lrm.registry import backend, ledger, promotion

    store = backend.connect(registry, name)
    book = ledger_of(store)
    if book is None:
        yield backend.alias(store, backend.CHAMPION)
        return
    promotion.settle(book, alias_of(store))
    with ledger.held(book):
        yield backend.alias(store, backend.CHAMPION)


@recorded("register_model", output="registered", keep=("bundle.json",))
def register_model(
    model: Path,
    evaluation: Path,
    registered: Path,
    *,
    registry: str,
    name: str,
    code_version: str,
    run_id: str,
    validation: Path,
    champion: str | None = None,
    state: Path | None = None,
    ledger: str = "",
) -> dict[str, Any]:
    """Keep a judged model as a new version, under the alias `challenger`.

    The same content is registered once: a second call returns the version that holds it.

    Args:
        model: folder that train_lrm wrote.
        evaluation: folder that evaluate_model wrote.
        registered: output folder; gets `bundle/` and `bundle.json`.
        registry: the store, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        name: the registered model.
        code_version: what identifies the code that made the model.
        run_id: the run that made it.
        validation: folder that validate_data wrote; its statistics go into the bundle, for the next run's drift.
        champion: folder of the bundle that the evaluation compared with, "" for none; left out, today's champion.
        state: folder of the artifacts, where the registry is a server; beside a SQLite file they lie beside it.
        ledger: folder or `gs://BUCKET/PATH` of the promotion ledger, which the registry remembers from then on; ""
            stands for what it remembers, at first a folder beside the artifacts.

    Returns:
        `version`, `verdict`, `parent_version`, `content_sha256`, `is_new`, and `next`: what a person can do about a
        version that is not promoted, in words.

    Raises:
        RegistryError: the model folder is not complete or is not what was evaluated, the bundle compared with is not
            in the registry, or the registry keeps its ledger elsewhere.
    """
    from lrm.registry import backend
    from lrm.registry.ledger import held

    store = backend.connect(registry, name)
    home = store.home or state
    if home is None:
        raise RegistryError(f"registry {registry} is a server: give the folder `state` for the artifacts of its models")
    with held(choose_ledger(store, home, ledger)):
        parent = parent_of(store, champion)
        lineage = bundles.lineage_of(model, code_version=code_version, run_id=run_id, parent=parent)
        manifest = bundles.build(model, evaluation, validation, registered / "bundle", lineage=lineage)
        _write(registered / BUNDLE, manifest)
        judged = json.loads((evaluation / bundles.EVALUATION).read_text())
        check_scored(model, judged)
        same = [one for one in backend.versions(store) if one.tags.get(CONTENT) == manifest[CONTENT]]
        version = same[-1] if same else log(store, registered / "bundle", manifest, judged, artifacts=home / ARTIFACTS)
        backend.move_alias(store, backend.CHALLENGER, version.version)
    return {
        "version": version.version,
        "verdict": str(judged["verdict"]),
        "parent_version": version.tags[PARENT],
        CONTENT: manifest[CONTENT],
        "is_new": not same,
        "next": judgements.next_step(name, version.version, str(judged["verdict"])),
    }


@recorded("promote_model", output="promoted", keep=("promotion.json",))
def promote_model(
    promoted: Path, *, registry: str, name: str, version: str, run_id: str, note: str = ""
) -> dict[str, Any]:
    """Make a version the champion, if the champion is still the one that the version was compared with.

    Args:
        promoted: output folder; gets `promotion.json`.
        registry: the store, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        name: the registered model.
        version: the version to promote.
        run_id: the run that promotes. A run promotes a version once: again, it does nothing, also after a
            rollback.
        note: a person's words that the ledger shall keep beside the verdict's reasons.

    Returns:
        `version` (that asked for), `champion` (the one in service now), `previous` and `is_moved`.

    Raises:
        RegistryError: the verdict is not `promote`, the bundle or a tag was tampered with, another promoter came
            first, or a person rolled these weights back.
    """
    from lrm.registry import backend, promotion

    store = backend.connect(registry, name)
    found = judgement_of(store, version)
    if found.verdict != PROMOTE:
        raise RegistryError(
            f"{name} version {version} has the verdict {found.verdict!r}; only {PROMOTE!r} makes a champion. "
            + judgements.next_step(name, version, found.verdict)
        )
    parent, alias = backend.version(store, version).tags.get(PARENT, ""), alias_of(store)
    if found.compared_with and found.compared_with != (alias.weights(parent) if parent else ""):
        raise RegistryError(
            f"{name} version {version} was compared with weights of sha256 {found.compared_with}, which are not those "
            f"of {promotion.called(parent)}, its `{PARENT}`: somebody edited that tag; run the workflow again"
        )
    asked = Asked(PROMOTE, "; ".join([*([note] if note else []), *found.reasons]), actor(), run_id)
    move = promotion.move_to(known_ledger(store), alias, asked, version=version, expected=parent)
    metrics = {
        "version": version,
        "champion": backend.alias(store, backend.CHAMPION),
        "previous": move.previous if move else "",
        "is_moved": move is not None,
    }
    _write(promoted / "promotion.json", metrics | {"move": _facts(move) if move else None})
    return metrics


def rollback(
    registry: str, name: str, *, reason: str = "", served: str | None = None, leave: str = ""
) -> dict[str, Any]:
    """Make the champion before this one the champion again.

    Args:
        registry: the store.
        name: the registered model.
        reason: why.
        served: the version that servers are told to serve, "" for none: where the last rollback has not reached them,
            it alone is finished. None: nobody knows.
        leave: the version to leave; "" for the champion. Asked for twice, it is left once.

    Returns:
        `version` (in service now), `previous` (rolled back from), `id`, `time` and `is_new` (False where this call only
        finished what another one had begun).

    Raises:
        RegistryError: there is no earlier champion, its bundle is gone or was tampered with, or somebody else moved the
            champion at the same moment.
    """
    from lrm.registry import backend, promotion

    store = backend.connect(registry, name)
    asked = Asked(ROLLBACK, reason, actor())
    champion = backend.alias(store, backend.CHAMPION)
    move, is_new = promotion.rollback(
        known_ledger(store), alias_of(store), asked, expected=champion, served=served, leave=leave
    )
    return {"version": move.version, "previous": move.previous, "id": move.id, "time": move.time, "is_new": is_new}


def approve(registry: str, name: str, version: str, *, reason: str) -> dict[str, Any]:
    """Make a version the champion by a person's decision, whatever the gate found, unless it was rejected.

    Returns:
        `version` (in service now), `previous` and `is_moved` (False where it was champion already).

    Raises:
        RegistryError: no reason is given, there is no such version, it was rejected, its bundle was tampered with, or
            somebody else moved the champion at the same moment.
    """
    from lrm.registry import backend, promotion

    if not reason.strip():
        raise RegistryError(f"approving version {version} needs a reason, for those who will read the history")
    store = backend.connect(registry, name)
    if judgement_of(store, version).verdict == REJECT:
        raise RegistryError(
            f"{name} version {version} was rejected: it is unfit to serve, and its evaluation says why; no approval "
            "changes that, so mend what is wrong and run the workflow again"
        )
    champion = backend.alias(store, backend.CHAMPION)
    asked = Asked(APPROVE, reason, actor())
    move = promotion.move_to(known_ledger(store), alias_of(store), asked, version=version, expected=champion)
    return {"version": version, "previous": move.previous if move else champion, "is_moved": move is not None}


def check_version(registry: str, name: str, version: str) -> str:
    """The content digest of a version that is what was registered, in files and tags.

    Raises:
        RegistryError: it is not, or there is no such version.
    """
    from lrm.registry import backend

    store = backend.connect(registry, name)
    judgement_of(store, version)
    return backend.version(store, version).tags[CONTENT]


def show(registry: str, name: str = "") -> dict[str, Any]:
    """What a registry holds of one model.

    Args:
        registry: the store, `sqlite:///PATH` or an MLflow server's `http://HOST:PORT`.
        name: the registered model; may be left out where there is only one.

    Returns:
        `name`, `versions`, `champion`, `challenger`, `moves` of the champion, `champions` (what rollbacks go back
        through, oldest first), `named` (the versions that any line of the ledger names), and the move that was
        `interrupted` (None for none), which the next command or run finishes.

    Raises:
        RegistryError: the store does not exist, or does not tell which model is meant.
    """
    from lrm.registry import backend, ledger

    path = path_of(registry)
    if path is not None and not path.is_file():
        raise RegistryError(f"there is no registry at {path}; the pipeline makes one when it first registers a model")
    store = backend.connect(registry, name)
    known = backend.names(store)
    meant = [name] if name else known
    if len(meant) != 1 or meant[0] not in known:
        wrong = f"{name!r} is not registered; " if name else ""
        raise RegistryError(f"{wrong}name a registered model with --name: {', '.join(known) or 'there are none yet'}")
    store = store._replace(name=meant[0])
    book = ledger_of(store)
    written = ledger.peek(book) if book else None
    lines = written.lines if written else []
    interrupted = ledger.unfinished(written) if written else None
    moves = ledger.history(written) if written else []
    return {
        "name": store.name,
        "champion": backend.alias(store, backend.CHAMPION),
        "challenger": backend.alias(store, backend.CHALLENGER),
        "versions": [{"version": one.version} | dict(one.tags) for one in backend.versions(store)],
        "moves": [asdict(move) for move in moves],
        "champions": ledger.champions(moves),
        "named": sorted({one for _, move in lines for one in (move.version, move.previous)} - {""}),
        "interrupted": asdict(interrupted) if interrupted else None,
    }


def _write(path: Path, content: dict[str, Any] | list[dict[str, str]]) -> None:
    write_json(path, content)
