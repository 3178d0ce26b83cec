"""The registry's doors: which version is in service, a new version, and the champion's move."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrm.errors import RegistryError
from lrm.record import recorded
from lrm.registry import bundle as bundles
from lrm.registry.promotion import Alias
from lrm.registry.signature import input_example, item_type_of, model_signature
from lrm.schema import read_signals

if TYPE_CHECKING:
    from lrm.registry.backend import Registry, Version

PROMOTE = "promote"
"""The verdict without which no version becomes champion."""
CONTENT, PARENT, VERDICT = "content_sha256", "parent_version", "verdict"
LEDGER = "promotions.jsonl"
TAGGED = ("data", "data_sha256", "snapshot_id", "feature_service", "feature_service_version", "code_version", "run_id")


@recorded("find_champion", output="found", keep=("champion.json",))
def find_champion(registry: str, name: str, found: Path) -> dict[str, Any]:
    """Resolve the alias `champion`, once, to an immutable version.

    Args:
        registry: the store, `sqlite:///PATH`.
        name: the registered model.
        found: output folder; gets `champion.json`.

    Returns:
        `version` and `bundle` (its folder), both "" where nothing was promoted yet.

    Raises:
        RegistryError: the champion's bundle is gone or was tampered with.
    """
    champion = resolve(registry, name)
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
    promotion.settle(store.home / LEDGER, _alias(store), name=name)
    number = version or backend.alias(store, backend.CHAMPION)
    if not number:
        return {"version": "", "bundle": "", CONTENT: ""}
    folder = backend.bundle_of(backend.version(store, number))
    return {"version": number, "bundle": str(folder), CONTENT: bundles.verify(folder)[CONTENT]}


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
) -> dict[str, Any]:
    """Keep a judged model as a new version, under the alias `challenger`.

    The same content is registered once: a second call returns the version that holds it.

    Args:
        model: folder that train_lrm wrote.
        evaluation: folder that evaluate_model wrote.
        registered: output folder; gets `bundle/` and `bundle.json`.
        registry: the store, `sqlite:///PATH`.
        name: the registered model.
        code_version: what identifies the code that made the model.
        run_id: the run that made it.
        validation: folder that validate_data wrote; its statistics go into the bundle, for the next run's drift.
        champion: folder of the bundle that the evaluation compared with, "" for none; left out, today's champion.

    Returns:
        `version`, `verdict`, `parent_version`, `content_sha256` and `is_new`.

    Raises:
        RegistryError: the model folder is not complete, or the bundle compared with is not in the registry.
    """
    from lrm.registry import backend, ledger

    store = backend.connect(registry, name)
    with ledger.locked(store.home / LEDGER):
        parent = _parent(store, champion)
        lineage = bundles.lineage_of(model, code_version=code_version, run_id=run_id, parent=parent)
        manifest = bundles.build(model, evaluation, validation, registered / "bundle", lineage=lineage)
        _write(registered / bundles.BUNDLE, manifest)
        judged = json.loads((evaluation / bundles.EVALUATION).read_text())
        same = [one for one in backend.versions(store) if one.tags.get(CONTENT) == manifest[CONTENT]]
        version = same[-1] if same else _log(store, registered / "bundle", manifest, judged)
        backend.move_alias(store, backend.CHALLENGER, version.version)
    return {
        "version": version.version,
        "verdict": version.tags[VERDICT],
        "parent_version": version.tags[PARENT],
        CONTENT: manifest[CONTENT],
        "is_new": not same,
    }


@recorded("promote_model", output="promoted", keep=("promotion.json",))
def promote_model(promoted: Path, *, registry: str, name: str, version: str, run_id: str) -> dict[str, Any]:
    """Make a version the champion, if the champion is still the one that the version was compared with.

    Args:
        promoted: output folder; gets `promotion.json`.
        registry: the store, `sqlite:///PATH`.
        name: the registered model.
        version: the version to promote.
        run_id: the run that promotes. A run promotes a version once: again, it does nothing, also after a
            rollback.

    Returns:
        `version` (that asked for), `champion` (the one in service now), `previous` and `is_moved`.

    Raises:
        RegistryError: the verdict is not `promote`, the bundle was tampered with, or another promoter came first.
    """
    from lrm.registry import backend, promotion

    store = backend.connect(registry, name)
    one = backend.version(store, version)
    if (verdict := one.tags.get(VERDICT)) != PROMOTE:
        raise RegistryError(f"{name} version {version} has the verdict {verdict!r}; only {PROMOTE!r} makes a champion")
    folder = backend.bundle_of(one)
    bundles.verify(folder)
    reasons = json.loads((folder / bundles.EVALUATION).read_text()).get("reasons", [])
    move = promotion.promote(
        store.home / LEDGER,
        _alias(store),
        name=name,
        version=version,
        expected=one.tags[PARENT],
        run_id=run_id,
        reason="; ".join(reasons),
    )
    metrics = {
        "version": version,
        "champion": backend.alias(store, backend.CHAMPION),
        "previous": move.previous if move else "",
        "is_moved": move is not None,
    }
    _write(promoted / "promotion.json", metrics)
    return metrics


def rollback(registry: str, name: str, *, reason: str = "") -> dict[str, Any]:
    """Make the champion before this one the champion again.

    Returns:
        `version` (in service now) and `previous` (rolled back from).

    Raises:
        RegistryError: there is no earlier champion, or its bundle is gone or was tampered with.
    """
    from lrm.registry import backend, promotion

    store = backend.connect(registry, name)
    move = promotion.rollback(store.home / LEDGER, _alias(store), name=name, reason=reason)
    return {"version": move.version, "previous": move.previous}


def show(registry: str, name: str = "") -> dict[str, Any]:
    """What a registry holds of one model: `versions`, `champion`, `challenger` and `moves` of the champion.

    Args:
        registry: the store, `sqlite:///PATH`.
        name: the registered model; may be left out where there is only one.

    Raises:
        RegistryError: the store does not exist, or does not tell which model is meant.
    """
    from lrm.registry import backend, ledger

    path = backend.path_of(registry)
    if not path.is_file():
        raise RegistryError(f"there is no registry at {path}; the pipeline makes one when it first registers a model")
    store = backend.connect(registry, name)
    known = backend.names(store)
    meant = [name] if name else known
    if len(meant) != 1 or meant[0] not in known:
        raise RegistryError(f"name a registered model with --name: {', '.join(known) or 'there are none yet'}")
    store = store._replace(name=meant[0])
    return {
        "name": store.name,
        "champion": backend.alias(store, backend.CHAMPION),
        "challenger": backend.alias(store, backend.CHALLENGER),
        "versions": [{"version": one.version} | dict(one.tags) for one in backend.versions(store)],
        "moves": [asdict(move) for move in ledger.history(store.home / LEDGER, store.name)],
    }


def _alias(store: Registry) -> Alias:
    """The champion's alias of one model."""
    from lrm.registry import backend

    def check(number: str) -> None:
        bundles.verify(backend.bundle_of(backend.version(store, number)))

    return Alias(
        read=lambda: backend.alias(store, backend.CHAMPION),
        move=lambda number: backend.move_alias(store, backend.CHAMPION, number),
        check=check,
    )


def _parent(store: Registry, champion: str | None) -> str:
    """The version that the evaluation compared with."""
    from lrm.registry import backend

    if champion is None:
        return backend.alias(store, backend.CHAMPION)
    if not champion:
        return ""
    content = bundles.verify(Path(champion))[CONTENT]
    for one in backend.versions(store):
        if one.tags.get(CONTENT) == content:
            return one.version
    raise RegistryError(f"{champion} was compared with, but is no version of {store.name}; name a registered bundle")


def _log(store: Registry, bundle: Path, manifest: dict[str, Any], judged: dict[str, Any]) -> Version:
    from lrm.registry import backend

    lineage = manifest["lineage"]
    signals = read_signals(bundle / "signals.json")
    item_ids = json.loads((bundle / "vocabulary.json").read_text())["item_ids"]
    tags = {key: str(lineage[key]) for key in TAGGED} | {
        CONTENT: manifest[CONTENT],
        PARENT: lineage["parent_version"],
        VERDICT: str(judged["verdict"]),
    }
    return backend.register(
        store,
        bundle,
        signature=model_signature(signals, item_type=item_type_of(item_ids)),
        example=input_example(signals, item_ids=item_ids),
        requirements=[f"{package}=={version}" for package, version in bundles.packages().items()],
        metrics=challenger_metrics(judged),
        params=dict(_flat(lineage["config"])) | {"seed": lineage["seed"]},
        tags=tags,
    )


def challenger_metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    """The challenger's finite metrics as {"task.metric": value}."""
    tasks = evaluation.get("models", {}).get("challenger", {})
    values = {f"{task}.{metric}": cell["value"] for task, cells in tasks.items() for metric, cell in cells.items()}
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
