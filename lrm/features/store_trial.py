"""What could only fail once a model is trained, tried before: a few rows of each view go through the online store.

They go to a scratch project in a store of the same kind, and come back as they were.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from lrm.errors import LrmError, SchemaError
from lrm.features import store
from lrm.features.declarations import View
from lrm.features.feast_repo import Online, answering, declarations, definitions, quiet
from lrm.features.online_rows import POSTGRES, note_written, write_rows
from lrm.features.open_store import closing_store, feature_store
from lrm.features.scratch_project import scratch_project
from lrm.features.sources import column_types, read_view

N_ROWS = 5
"""Rows of each view that are tried."""
MAX_TABLE = 63
"""Bytes of a table's name in PostgreSQL, which shortens longer ones without a word."""


def require_servable(feature_repo: Path, data: Path) -> None:
    """Refuse declarations whose values could not be kept online and read again; all faults are named at once.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.

    Raises:
        SchemaError: a view is not served online, its values come back as others, or `feature_store.yaml` is at fault.
        StoreError: the registry or the online store does not answer.
    """
    faults = [
        f"view {view.name!r} says online=False, and the server reads it: take that out of views.py"
        for view in definitions(feature_repo, data).service._features
        if not view.online and not view.tags.get("role")
    ]
    try:
        with tempfile.TemporaryDirectory() as folder:
            faults += _names(feature_repo, data, Path(folder, "state"))
            faults += _tried(feature_repo, data, Path(folder))
    except LrmError as error:
        if not faults:
            raise
        faults.append(str(error))
    if faults:
        raise SchemaError(f"{feature_repo}: what is trained on it could not be served: {'; '.join(faults)}")


def _names(feature_repo: Path, data: Path, state: Path) -> list[str]:
    """Whether the store's own registry can be reached, and the names of tables fit."""
    opened = feature_store(feature_repo, state)
    with answering(), quiet():
        assert opened.registry
    tables = [f"{opened.project}_{view.name}_ek" for view in declarations(feature_repo, data).joined]
    too_long = [table for table in tables if len(table.encode()) > MAX_TABLE]
    if opened.config.online_store.type != POSTGRES or not too_long:
        return []
    return [f"PostgreSQL keeps {MAX_TABLE} bytes of {', '.join(too_long)}: shorten the project's or the view's name"]


def _tried(feature_repo: Path, data: Path, folder: Path) -> list[str]:
    """What came back as something else."""
    faults = []
    with scratch_project(feature_repo, data, folder) as scratch:
        kept = store.applied(scratch.repo, data, scratch.online)
        online = store.open_online(scratch.repo, data, state=scratch.online)
        with closing_store(kept), closing_store(online.store):
            for view in online.views:
                rows = read_view(view, n_rows=N_ROWS).drop_nulls(view.keys)
                rows = rows.unique(view.keys, keep="last", maintain_order=True)
                note_written(scratch.written, view, rows)
                with answering():
                    write_rows(kept, view, rows)
                faults += _differing(online, view, rows)
    return faults


def _differing(online: Online, view: View, rows: pl.DataFrame) -> list[str]:
    asked = rows.select(view.keys).to_dicts()
    if not asked:
        return []
    values = [one.values for one in store.read_kept(online, view, asked)]
    read = pl.DataFrame(values, schema=column_types(view.signals), strict=False, orient="row")
    return [
        f"{name!r} of view {view.name!r}: {rows[name].to_list()[:2]} was written and {read[name].to_list()[:2]} read"
        for name in read.columns
        if not read[name].equals(rows[name], null_equal=True)
    ]
