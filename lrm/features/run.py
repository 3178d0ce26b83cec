"""The door: from a data folder and a feature repo to point-in-time training examples (docs/artifacts.md, section 2)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from lrm.errors import DataError, SchemaError
from lrm.features import store
from lrm.features.assemble import Join, assemble
from lrm.features.audit import audit
from lrm.features.declarations import View
from lrm.features.events import TEMPORAL, read_base, read_dataset
from lrm.features.feast_repo import declarations
from lrm.features.files import files_of
from lrm.features.join import point_in_time
from lrm.features.request_limits import require_few_fields
from lrm.features.split import cutoffs, first_held_out, parse_instant, require_windows, with_split
from lrm.features.store_trial import require_servable
from lrm.features.tables import MANIFEST, SIGNALS, Tables
from lrm.record import Metrics, recorded
from lrm.schema import USER_ID, Signal, write_signals
from lrm.storage import sha256_of, write_json

DUCKDB, FEAST = "duckdb", "feast"


@recorded("retrieve_features", output="examples", keep=(MANIFEST, SIGNALS))
def retrieve_features(
    data: Path, feature_repo: Path, examples: Path, *, as_of: str = "", seed: int = 0, engine: str = DUCKDB
) -> Metrics:
    """Write the examples folder: every signal of every row as it was known at the row's instant.

    Args:
        data: a data folder.
        feature_repo: the declarations over it.
        examples: the folder to write.
        as_of: ISO instant at which the world ends for this run; empty: where the data ends.
        seed: of the values that are looked up a second time (see `audit`); the tables do not depend on it.
        engine: `duckdb`, this project's as-of join, or `feast`, the feature store's own (slower, the same answer).

    Raises:
        DataError: the data folder is missing, damaged, or has no events or an empty window.
        SchemaError: the declarations break a rule, do not fit the data, or could not be served.
        StoreError: the online store, in which a few rows are tried, does not answer.
    """
    (examples / MANIFEST).unlink(missing_ok=True)  # a folder that has one is whole
    if engine not in (DUCKDB, FEAST):
        raise SchemaError(f"engine must be {DUCKDB!r} or {FEAST!r}, got {engine!r}")
    dataset = read_dataset(data)
    ends = parse_instant(dataset["as_of"], "as_of in dataset.json")
    until = parse_instant(as_of, "as_of") if as_of else ends
    if until > ends:
        raise DataError(
            f"as_of {until.isoformat()} lies after the end of the data, {ends.isoformat()}; take an earlier one"
        )
    declared = declarations(feature_repo, data)
    require_few_fields(declared)
    require_servable(feature_repo, data)
    cuts = None
    if dataset["protocol"] == TEMPORAL:
        cuts = cutoffs(until, validation_days=dataset["validation_days"], test_days=dataset["test_days"])
    base = read_base(data, declared, as_of=until, cuts=cuts, dataset=dataset)
    if cuts:
        base = base._replace(events=with_split(base.events, cuts), requests=with_split(base.requests, cuts))
    require_windows(base.requests)
    content_at = cuts.validation_from if cuts else first_held_out(base.events, until)
    late: list[dict[str, Any]] = []
    tables = assemble(
        base,
        declared,
        join=_audited(point_in_time if engine == DUCKDB else _feast_join(feature_repo, data), late, seed=seed),
        until=until,
        known_at=content_at,
        horizon_seconds=dataset["horizon_seconds"],
    )
    rows = {name: table.height for name, table in tables._asdict().items()}
    manifest = {
        "data": dataset | {"sha256": _folder_sha256(data)},
        "service": declared.service,
        "service_version": declared.service_version,
        "as_of": until.isoformat(),
        "validation_from": cuts.validation_from.isoformat() if cuts else None,
        "test_from": cuts.test_from.isoformat() if cuts else None,
        "content_at": content_at.isoformat(),
        "rows": rows,
        "cut": base.cut,
        "late": late,
        "engine": engine,
        "seed": seed,
    }
    _write(examples, tables, declared.signals, manifest)
    metrics: Metrics = {"views_left_out": ", ".join(declared.left_out)} if declared.left_out else {}
    metrics |= {f"n_{name}": count for name, count in rows.items()}
    return metrics | {"n_users": tables.events[USER_ID].n_unique(), "n_signals": len(declared.signals)}


def _audited(join: Join, found: list[dict[str, Any]], *, seed: int) -> Join:
    """The same join, with what a second look says of its answers added to `found`."""

    def run(rows: pl.DataFrame, instant: str, view: View, source: pl.DataFrame) -> pl.DataFrame:
        joined = join(rows, instant, view, source)
        found.extend(audit(rows, instant, view, source, joined, seed=seed))
        return joined

    return run


def _feast_join(feature_repo: Path, data: Path) -> Join:
    def join(rows: pl.DataFrame, instant: str, view: View, _source: pl.DataFrame) -> pl.DataFrame:
        return store.retrieve(feature_repo, data, rows, instant, view)

    return join


def _write(examples: Path, tables: Tables, signals: tuple[Signal, ...], manifest: dict[str, Any]) -> None:
    """Write the folder, its manifest last."""
    write_signals(signals, examples / SIGNALS)
    snapshot = hashlib.sha256((examples / SIGNALS).read_bytes())
    for name, table in tables._asdict().items():
        path = examples / f"{name}.parquet"
        table.write_parquet(path, statistics=False)
        snapshot.update(sha256_of(path).encode())
    write_json(examples / MANIFEST, {"snapshot_id": snapshot.hexdigest()} | manifest)


def _folder_sha256(data: Path) -> str:
    lines = [f"{path.name} {sha256_of(path)}\n" for path in files_of(data)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
