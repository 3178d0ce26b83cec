"""A project of its own in the store of a feature repo, for as long as a block lasts.

Its rows are apart from all others, and gone afterwards. What a killed process left is removed by others: Redis lets it
expire, and the next scratch project in a PostgreSQL database drops the tables of those before it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from lrm.errors import SchemaError, StoreError
from lrm.features.feast_repo import answering, declarations, quiet
from lrm.features.online_rows import POSTGRES, REDIS, SQLITE, remove_rows
from lrm.features.open_store import SCRATCH, SCRATCH_SECONDS, closing_store, feature_store

_PREFIX = "lrm_scratch_"


class Scratch(NamedTuple):
    """Where a scratch project lies."""

    repo: Path
    """The declarations, as those of the project."""
    online: Path
    """Of its local registry, and of its online store where that is local."""
    written: Path
    """Of `materialise_online`: the lists of what was written."""


@contextlib.contextmanager
def scratch_project(feature_repo: Path, data: Path, folder: Path) -> Iterator[Scratch]:
    """Copy the declarations as a project of its own, and remove afterwards what was written of it.

    Args:
        feature_repo: the folder of definitions.
        data: the data folder that they are read over.
        folder: an empty one, for as long as the project lives.
    """
    folder.mkdir(exist_ok=True)
    scratch = Scratch(folder / "feature_repo", folder / "online", folder / "written")
    shutil.copytree(feature_repo, scratch.repo, ignore=shutil.ignore_patterns("__pycache__", "data"))
    (scratch.repo / SCRATCH).write_text(f"{_PREFIX}{int(time.time()):08x}_{secrets.token_hex(2)}")
    try:
        yield scratch
    finally:
        with contextlib.suppress(StoreError, SchemaError):  # the block itself has met them
            _remove(scratch, data)


def _remove(scratch: Scratch, data: Path) -> None:
    store = feature_store(scratch.repo, scratch.online)
    kind = store.config.online_store.type
    if kind == SQLITE:  # the file goes with its folder
        return
    with answering(), closing_store(store), quiet():
        if kind == REDIS:
            for view in declarations(scratch.repo, data).joined:
                path = scratch.written / f"{view.name}.parquet"
                if path.is_file():
                    remove_rows(store, view, pl.read_parquet(path, glob=False))
        elif kind == POSTGRES:
            _drop_tables(store)
        else:
            store.provider.teardown_infra(store.project, store.list_feature_views(), store.list_entities())


def _drop_tables(store: Any) -> None:
    """Drop the tables of this project, and those of others of its kind that must have ended long ago."""
    from psycopg import sql

    schema, too_old = store.config.online_store.db_schema, time.time() - SCRATCH_SECONDS
    with store.provider.online_store._get_conn(store.config) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))
        for (table,) in cursor.fetchall():
            begun = re.match(rf"{_PREFIX}([0-9a-f]{{8}})_", table)
            if begun and (table.startswith(f"{store.project}_") or int(begun[1], 16) < too_old):
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(schema, table)))
        connection.commit()
