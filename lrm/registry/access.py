"""How the doors reach one registered model: its alias, its ledger, and what the gate said of its versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lrm.errors import RegistryError
from lrm.registry import bundle as bundles
from lrm.registry import judgement as judgements
from lrm.registry.judgement import Judgement
from lrm.registry.ledger import Ledger, ledger_at
from lrm.registry.promotion import Alias

if TYPE_CHECKING:
    from lrm.registry.backend import Registry

ARTIFACTS, PROMOTIONS = "artifacts", "promotions"


def alias_of(store: Registry) -> Alias:
    """The champion's alias of one model."""
    from lrm.registry import backend

    def check(number: str) -> dict[str, str]:
        one = backend.version(store, number)
        return judgements.judgement(store.name, number, backend.bundle_of(one), one.tags).facts

    def weights(number: str) -> str:
        one = backend.version(store, number)
        try:
            return judgements.weights_of(bundles.verify(backend.bundle_of(one)))
        except RegistryError:  # a version may be left because its files are damaged
            return one.tags.get("weights_sha256", "")

    return Alias(
        read=lambda: backend.alias(store, backend.CHAMPION),
        move=lambda number: backend.move_alias(store, backend.CHAMPION, number),
        check=check,
        weights=weights,
    )


def judgement_of(store: Registry, number: str) -> Judgement:
    """What the gate said of a version, by its files and its tags alike."""
    from lrm.registry import backend

    one = backend.version(store, number)
    found = judgements.judgement(store.name, number, backend.bundle_of(one), one.tags)
    judgements.check_tags(store.name, number, found, one.tags)
    return found


def ledger_of(store: Registry) -> Ledger | None:
    """Where the moves of a model are written down; None where a server's model has no ledger yet."""
    from lrm.registry import backend

    place = backend.tag(store, backend.LEDGER)
    if store.home is None:
        return ledger_at(store.name, mirror=place, beside=None) if place else None
    return ledger_at(
        store.name, mirror=place or f"{store.home / ARTIFACTS / PROMOTIONS}", beside=store.home / PROMOTIONS
    )


def known_ledger(store: Registry) -> Ledger:
    """Where the moves of a model are written down.

    Raises:
        RegistryError: it has no ledger yet.
    """
    ledger = ledger_of(store)
    if ledger is None:
        raise RegistryError(
            f"{store.name} has no ledger: nothing was registered there by this workflow; run it first, or set the tag "
            "`ledger` of the registered model to a folder or a gs:// address"
        )
    return ledger


def choose_ledger(store: Registry, home: Path, asked: str) -> Ledger:
    """The ledger that the registry remembers; where it knew none, it remembers the one asked for from now on.

    The place asked for holds all earlier moves before the registry names it: whoever reads it there knows them too.

    Args:
        store: the registry.
        home: folder of what is kept beside it.
        asked: folder or `gs://BUCKET/PATH`; "" for what it remembers.

    Raises:
        RegistryError: the registry keeps its ledger elsewhere, or the place cannot be used.
    """
    from lrm.registry import backend, ledger

    known = backend.tag(store, backend.LEDGER)
    if asked and known and asked != known:
        raise RegistryError(
            f"{store.name} keeps its ledger in {known}, not in {asked}; name that one or none, or move the ledger: "
            f"copy its file there, then set the tag `{backend.LEDGER}` of the registered model to {asked}"
        )
    if not known and (asked or store.home is None):
        place = asked or str((home / ARTIFACTS / PROMOTIONS).absolute())
        chosen = ledger_at(store.name, mirror=place, beside=store.home / PROMOTIONS if store.home else None)
        with ledger.held(chosen):
            ledger.load(chosen)
        backend.set_tag(store, backend.LEDGER, place)
    return known_ledger(store)
